"""Inference on files: inputs in, outputs as text, top labels or an array."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.native.files import atomic_write
from llmbol_core.nn.checkpoint import InferenceModel
from llmbol_core.nn.data import pick_named, read_arrays, read_samples
from llmbol_core.nn.module import Array


@dataclass(frozen=True)
class Candidate:
    """One of the best outputs for a sample."""

    sample: int
    rank: int
    label: str
    value: float


def infer(
    model: InferenceModel, path: str, data: bytes | None = None, name: str | None = None
) -> Array:
    """Return the outputs for the samples of a file, or of bytes that were read from elsewhere.

    Of several arrays, the one called ``name`` holds the samples, or that of the spec's training
    section. A table's column that holds the training's targets is left out.
    """
    training = model.model.train
    inputs, targets = (training.inputs, training.targets) if training else ("inputs", "targets")
    arrays = read_arrays(path, data)
    if name is not None:
        return model.run(pick_named(arrays, name, path))
    return model.run(read_samples(arrays, inputs, targets, model.input_shape, path))


def top_candidates(model: InferenceModel, outputs: Array, count: int) -> list[Candidate]:
    """Return each sample's highest outputs, best first; of equal ones, the first wins."""
    if count < 1:
        raise UsageError(f"--top-k: expected at least 1, got {count}")
    rows = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
    best = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [
        Candidate(
            sample,
            rank + 1,
            model.labels[number] if model.labels else str(number),
            float(rows[sample, number]),
        )
        for sample, numbers in enumerate(best)
        for rank, number in enumerate(numbers)
    ]


def save_outputs(outputs: Array, path: str) -> None:
    """Write outputs as a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, outputs, allow_pickle=False)
    with atomic_write(path) as file:
        file.write(stream.getvalue())
