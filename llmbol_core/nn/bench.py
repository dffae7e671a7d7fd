"""How fast a model answers: latencies, throughput, memory, and the same with float weights."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.native.threads import thread_count
from llmbol_core.nn.checkpoint import InferenceModel, expanded, load_for_inference
from llmbol_core.nn.module import Array

Progress = Callable[[int, int, str], None]

_FEWEST = 5
"""Runs that are timed even if they take longer than they should."""
_MOST = 100_000


@dataclass(frozen=True)
class BatchSpeed:
    """Times of whole batches of one size, in milliseconds."""

    batch: int
    runs: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_s: float
    """From the median."""
    gflop_per_s: float
    vs_float: float | None
    """How many times as fast as with float32 weights; None if those are float32 already."""
    workspace_bytes: int


@dataclass(frozen=True)
class BenchReport:
    """What a model costs to run on this machine."""

    model: str
    weights_bytes: int
    float_bytes: int
    """What the weights would take as float32."""
    peak_bytes: int | None
    """The most memory that this process has had; None where the system does not tell."""
    threads: int
    batches: list[BatchSpeed]


def bench_file(
    path: str,
    batches: Sequence[int] = (1, 16, 256),
    seconds: float = 0.5,
    progress: Progress = lambda done, total, note: None,
) -> BenchReport:
    """Time a checkpoint on batches of random inputs, each size for some seconds, without start-up.

    A model with quantized weights is timed beside itself with float32 weights, in turns.
    """
    if not batches or min(batches) < 1:
        raise UsageError(f"batches have at least one sample: {list(batches)}")
    model = load_for_inference(path)
    stored = sum(tensor.nbytes for tensor in model.weights.values())
    quantized = any(tensor.dtype.is_blocked for tensor in model.weights.values())
    beside = expanded(model) if quantized else None
    rows = []
    for done, batch in enumerate(batches):
        progress(done, len(batches), f"batches of {batch}")
        rows.append(_speed(model, beside, batch, seconds))
    whole = sum(4 * tensor.size for tensor in model.weights.values())
    return BenchReport(model.name, stored, whole, peak_memory(), thread_count(), rows)


def _speed(
    model: InferenceModel, beside: InferenceModel | None, batch: int, seconds: float
) -> BatchSpeed:
    x = np.random.default_rng(0).random((batch, *model.input_shape), np.float32)
    models = [model] if beside is None else [model, beside]
    times = _times(models, x, seconds)
    flops = sum(flops for _, flops, _ in model.graph.costs(batch))
    p50, p90, p99 = (float(q) for q in np.quantile(times[0], (0.5, 0.9, 0.99)))
    ratio = float(np.median(times[1])) / p50 if beside is not None else None
    room = model.engine.workspace_bytes(batch)
    numbers = (1000 * p50, 1000 * p90, 1000 * p99, batch / p50, flops / p50 / 1e9)
    return BatchSpeed(batch, len(times[0]), *numbers, ratio, room)


def _times(models: list[InferenceModel], x: Array, seconds: float) -> list[list[float]]:
    """Return the times of the runs of each model; the models take turns."""
    times: list[list[float]] = [[] for _ in models]
    for model in models:
        model.run(x)
    end = time.perf_counter() + seconds
    while len(times[0]) < _FEWEST or (time.perf_counter() < end and len(times[0]) < _MOST):
        for model, taken in zip(models, times, strict=True):
            start = time.perf_counter()
            model.run(x)
            taken.append(time.perf_counter() - start)
    return times


def peak_memory() -> int | None:
    """Return the most bytes of memory that this process has had, where the system tells."""
    if sys.platform == "win32":
        return None
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
