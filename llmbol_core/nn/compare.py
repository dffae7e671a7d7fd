"""Two models on the same inputs: how far their outputs differ, and from which layer on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.ml.engine import Engine
from llmbol_core.ml.graph import Graph, Step
from llmbol_core.nn.checkpoint import InferenceModel, load_for_inference
from llmbol_core.nn.data import conform
from llmbol_core.nn.infer import infer_parts, read_inputs
from llmbol_core.nn.module import Array

_MOST_SAMPLES = 256
"""For how many samples the results of all layers are compared; outputs are for all."""


@dataclass(frozen=True)
class LayerError:
    """How far the results of one operation differ."""

    layer: str
    """The weights it uses, or its place."""
    operation: str
    shape: list[int]
    max_abs: float
    relative: float
    """The norm of the difference divided by that of the first model's result."""
    cosine: float


@dataclass(frozen=True)
class Comparison:
    """How far two models agree."""

    samples: int
    max_abs: float
    mean_abs: float
    relative: float
    cosine: float
    top_1_agreement: float
    """The share of samples, or of their rows, whose greatest value is at the same place."""
    layers: list[LayerError]
    """Empty if the models do not consist of the same operations."""


def compare_files(first: str, second: str, path: str, name: str | None = None) -> Comparison:
    """Run two checkpoints on the samples of a file and compare outputs and layers."""
    models = load_for_inference(first), load_for_inference(second)
    inputs = read_inputs(models[0], path, name=name)
    for shape in ("input_shape", "output_shape"):
        one, other = (getattr(model, shape) for model in models)
        if one != other:
            what = shape.removesuffix("_shape")
            raise UsageError(f"{second}: its {what} is {list(other)}, that of {first} {list(one)}")
    return compare(*models, inputs)


@np.errstate(all="ignore")
def compare(first: InferenceModel, second: InferenceModel, inputs: Array) -> Comparison:
    """Run two models on a batch of inputs and compare outputs and layers.

    The difference of results that are not finite is NaN.
    """
    x, y = (np.concatenate(list(infer_parts(m, inputs))) for m in (first, second))
    if not x.size:
        raise UsageError("there are no samples to compare the models on")
    rows = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    same = rows[0].argmax(axis=1) == rows[1].argmax(axis=1)
    gap = np.abs(x.astype(np.float64) - y)
    relative, cosine = _closeness(x, y)
    return Comparison(
        len(x),
        float(gap.max()),
        float(gap.mean()),
        relative,
        cosine,
        float(same.mean()),
        _layers(first, second, inputs[:_MOST_SAMPLES]),
    )


def _layers(first: InferenceModel, second: InferenceModel, inputs: Array) -> list[LayerError]:
    """Compare the result of each operation, before any were folded into others."""
    graphs = first.model.lower(), second.model.lower()
    if [step.op for step in graphs[0].steps] != [step.op for step in graphs[1].steps]:
        return []
    results = [
        Engine(replace(graph, outputs=[s.output for s in graph.steps]), model.weights).run_all(
            conform(inputs, model.input_shape, model.name)
        )
        for graph, model in zip(graphs, (first, second), strict=True)
    ]
    lines = []
    for number, (step, x, y) in enumerate(zip(graphs[0].steps, *results, strict=True)):
        if x.shape != y.shape:
            return []
        gap = float(np.abs(x.astype(np.float64) - y).max(initial=0))
        shape = list(step.output.shape[1:])
        where = _layer(graphs[0], step) or f"step {number}"
        lines.append(LayerError(where, step.op, shape, gap, *_closeness(x, y)))
    return lines


def _layer(graph: Graph, step: Step) -> str:
    """Return the layer whose weights a step uses: what their names have in common."""
    names = [v.name.rpartition(".")[0] for v in step.inputs if v.name in graph.weights]
    return names[0] if names else ""


def _closeness(x: Array, y: Array) -> tuple[float, float]:
    """Return the relative difference of two arrays and the cosine of the angle between them."""
    a, b = x.astype(np.float64).ravel(), y.astype(np.float64).ravel()
    size, other, gap = (math.sqrt(float(np.square(v).sum())) for v in (a, b, a - b))
    relative = gap / size if size else (0.0 if gap == 0 else math.inf)
    cosine = float((a * b).sum()) / (size * other) if size and other else float(gap == 0)
    return relative, cosine
