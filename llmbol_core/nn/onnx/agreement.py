"""Whether a model and an ONNX file give the same: both run on the same random samples.

ONNX Runtime runs the file if it is installed, else ONNX's reference evaluator, which lacks some
operators and forms of others.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from llmbol_core.nn.checkpoint import InferenceModel, freeze
from llmbol_core.nn.onnx.document import Document
from llmbol_core.nn.onnx.reader import Given, import_document

Array = NDArray[Any]

TOLERANCE = 1e-4
"""The greatest difference that counts as none, as a share of the greatest value."""
_SAMPLES = 3
_UNABLE = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NameError)
"""What runtimes raise for a file that they cannot run."""


class NotRun(Exception):
    """Why the runtime that there is cannot run a document."""


@dataclass(frozen=True)
class Agreement:
    """How far a model and a file lie apart on random samples."""

    runtime: str
    samples: int
    difference: float
    """The greatest one, as a share of the greatest value."""
    tolerance: float = TOLERANCE

    @property
    def holds(self) -> bool:
        """Whether the difference counts as none."""
        return self.difference <= self.tolerance


def compare_with_document(
    model: InferenceModel,
    document: Document,
    given: Sequence[Given],
    output: str,
    batch_axis: int = 0,
) -> Agreement:
    """Run a model and a document on random samples and return how far they lie apart.

    Raises NotRun.
    """
    rng = np.random.default_rng(0)
    count = next((g.static_batch for g in given if g.static_batch), _SAMPLES)
    parts = [_samples(rng, g, count, model) for g in given]
    flat = [part.reshape(count, -1) for part in parts]
    joined = np.concatenate(flat, axis=1).reshape(count, *model.input_shape)
    feeds = {
        g.name: np.moveaxis(part, 0, g.batch_axis).astype(_type_of(document, g.name))
        for g, part in zip(given, parts, strict=True)
    }
    runtime, expected = _run(document, feeds, output)
    expected = np.moveaxis(np.asarray(expected, np.float32), batch_axis, 0)
    return _agreement(runtime, model.run(joined).reshape(expected.shape), expected)


def compare_with_reading(model: InferenceModel, document: Document) -> Agreement:
    """Import a document that was written of a model, and return how far the two lie apart."""
    again = freeze(import_document(document, model.model.name, "again").model)
    given = Given("input", tuple(model.input_shape), 0, 0, False)
    x = _samples(np.random.default_rng(0), given, _SAMPLES, model)
    return _agreement("llmbol", model.run(x), again.run(x))


def _agreement(runtime: str, got: Array, expected: Array) -> Agreement:
    """Return how far two outputs lie apart."""
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-30)
    difference = float(np.abs(got - expected).max(initial=0.0)) / scale
    return Agreement(runtime, len(got), difference if np.isfinite(difference) else float("inf"))


def _samples(rng: np.random.Generator, given: Given, count: int, model: InferenceModel) -> Array:
    """Return random numbers, or for integers those that every table and mask takes: 0 and 1."""
    shape = (count, *given.sizes)
    if given.whole or any(step.op == "to_indices" for step in model.graph.steps):
        return rng.integers(0, 2, shape).astype(np.float32)
    return rng.normal(size=shape).astype(np.float32)


def _type_of(document: Document, name: str) -> Any:
    (value,) = (v for v in document.graph.input if v.name == name)
    return onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)


def _run(document: Document, feeds: dict[str, Any], output: str) -> tuple[str, Array]:
    """Return what runs the document, and its output. Raises NotRun."""
    is_there = importlib.util.find_spec("onnxruntime") is not None
    runtime, run = _with_runtime() if is_there else _with_evaluator()
    try:
        return runtime, np.asarray(run(document, feeds, output))
    except _UNABLE as error:
        why = str(error).partition("\n")[0].strip().rstrip(".")
        raise NotRun(f"{runtime} cannot run it: {why or type(error).__name__}") from error


Runner = Callable[[Document, dict[str, Any], str], Any]


def _with_runtime() -> tuple[str, Runner]:
    import onnxruntime

    def run(document: Document, feeds: dict[str, Any], output: str) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        providers = ["CPUExecutionProvider"]
        session = onnxruntime.InferenceSession(document.SerializeToString(), options, providers)
        return session.run([output], feeds)[0]

    return f"ONNX Runtime {onnxruntime.__version__}", run


def _with_evaluator() -> tuple[str, Runner]:
    from onnx.reference import ReferenceEvaluator

    def run(document: Document, feeds: dict[str, Any], output: str) -> Any:
        with np.errstate(all="ignore"):
            (result,) = ReferenceEvaluator(document).run([output], feeds)
        return result

    return f"ONNX's reference evaluator {onnx.__version__}", run
