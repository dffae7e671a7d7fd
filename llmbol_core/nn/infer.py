"""Inference on files: inputs in, outputs as text, top labels or an array."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbol_core.errors import DataFormatError, FileError, UsageError
from llmbol_core.ml.mapped import release
from llmbol_core.native.files import atomic_write, half_of_memory, read_bytes
from llmbol_core.nn.checkpoint import InferenceModel
from llmbol_core.nn.data import (
    check_form,
    map_npy,
    pick_named,
    read_arrays,
    read_samples,
    samples_at_a_time,
)
from llmbol_core.nn.module import Array
from llmbol_core.nn.streams import SampleStream


@dataclass(frozen=True)
class Candidate:
    """One of the best outputs for a sample."""

    sample: int
    rank: int
    label: str
    value: float


_USED = 32 << 20
"""Bytes of a mapped file that have been used from which on their pages are given back."""


def read_inputs(
    model: InferenceModel, path: str, data: bytes | None = None, name: str | None = None
) -> Array:
    """Return the samples of a file, or of bytes that were read from elsewhere, as a batch.

    A ``.npy`` file is mapped, so that it may be larger than memory. Of several arrays, the one
    called ``name`` holds the samples, or that of the spec's training section. A table's column that
    holds the training's targets is left out.
    """
    mapped = map_npy(path) if data is None else None
    arrays = read_arrays(path, data) if mapped is None else {"": mapped}
    training = model.model.train
    inputs, targets = (training.inputs, training.targets) if training else ("inputs", "targets")
    if name is not None:
        samples = pick_named(arrays, name, path)
    else:
        samples = read_samples(arrays, inputs, targets, model.input_shape, path)
    check_form(samples.dtype, samples.shape, model.input_shape, path)
    return samples[None] if samples.shape == model.input_shape else samples


def infer(
    model: InferenceModel, path: str, data: bytes | None = None, name: str | None = None
) -> Array:
    """Return the outputs for the samples of a file; see ``read_inputs`` and ``infer_parts``."""
    return np.concatenate(list(infer_parts(model, read_inputs(model, path, data, name))))


def infer_parts(model: InferenceModel, samples: Array) -> Iterator[Array]:
    """Yield the outputs for a batch of any size, some samples at a time; at least one part.

    The pages of samples from a mapped file are given back when they have been used.
    """
    size = samples.dtype.itemsize * math.prod(samples.shape[1:])
    step, used = samples_at_a_time(size), 0
    for start in range(0, max(len(samples), 1), step):
        yield model.run(samples[start : start + step])
        if (start + step - used) * size >= _USED:
            release(samples[used : start + step])
            used = start + step


def infer_stream(
    model: InferenceModel, read: Callable[[int], bytes], path: str, name: str | None = None
) -> Iterator[Array]:
    """Yield the outputs for samples that come bit by bit.

    Rows of a table are answered one by one: their writer may wait for the answer.
    """
    training = model.model.train
    inputs, targets = (training.inputs, training.targets) if training else ("inputs", "targets")
    room = half_of_memory()
    try:
        stream = SampleStream(read, path, name or inputs, targets, model.input_shape, room)
    except MemoryError as error:
        raise FileError(path, "it does not fit into memory") from error
    size = 1
    if stream.count is not None:
        size = samples_at_a_time(stream.item_bytes * math.prod(model.input_shape))
    while (samples := stream.take(size)) is not None:
        yield model.run(samples)
    if not stream.taken:
        yield model.run(np.empty((0, *model.input_shape), np.float32))


def use_labels(model: InferenceModel, path: str) -> None:
    """Let the labels of a model be the lines of a file. Raises UsageError if they do not fit."""
    try:
        lines = tuple(read_bytes(path).decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise DataFormatError(path, error.start, "not UTF-8 text") from error
    if len(lines) != (count := math.prod(model.output_shape)):
        raise UsageError(f"{path}: {len(lines)} labels for an output of {count} values")
    model.model.labels = lines


@dataclass(frozen=True)
class RunStats:
    """What a run over a file took, without reading or writing it; times are of single parts."""

    samples: int
    parts: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    samples_per_s: float
    peak_bytes: int | None
    """The most memory that this process has had; None where the system does not tell."""

    def __str__(self) -> str:
        peak = "" if self.peak_bytes is None else f", peak {self.peak_bytes / 1e6:.0f} MB"
        times = f"p50 {self.p50_ms:.2f}, p90 {self.p90_ms:.2f}, p99 {self.p99_ms:.2f} ms a part"
        rate = f"{self.samples_per_s:.4g} samples/s"
        parts = f"{self.parts} part{'s' * (self.parts != 1)}"
        return f"{self.samples} samples in {parts}: {times}, {rate}{peak}"


class Stopwatch:
    """Times the parts of a run while they are made."""

    def __init__(self) -> None:
        self.samples, self.times = 0, list[float]()

    def watch(self, parts: Iterator[Array]) -> Iterator[Array]:
        """Yield the same parts."""
        start = time.perf_counter()
        for part in parts:
            self.times.append(time.perf_counter() - start)
            self.samples += len(part)
            yield part
            start = time.perf_counter()

    def stats(self) -> RunStats:
        """Return what the parts so far took."""
        from llmbol_core.nn.bench import peak_memory

        p50, p90, p99 = (1000 * float(q) for q in np.quantile(self.times, (0.5, 0.9, 0.99)))
        rate = self.samples / max(sum(self.times), 1e-9)
        return RunStats(self.samples, len(self.times), p50, p90, p99, rate, peak_memory())


def top_candidates(
    model: InferenceModel, outputs: Array, count: int, start: int = 0
) -> list[Candidate]:
    """Return each sample's highest outputs, best first; of equal ones, the first wins.

    Samples are counted from ``start``.
    """
    if count < 1:
        raise UsageError(f"--top-k: expected at least 1, got {count}")
    rows = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
    best = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [
        Candidate(
            start + sample,
            rank + 1,
            model.labels[number] if model.labels else str(number),
            float(rows[sample, number]),
        )
        for sample, numbers in enumerate(best)
        for rank, number in enumerate(numbers)
    ]


def save_outputs(outputs: Iterable[Array], path: str) -> None:
    """Write parts of outputs as one ``.npy`` file, as they come."""
    with atomic_write(path) as file:
        count = 0
        header: dict[str, Any] = {}
        for part in outputs:
            if not header:
                header = {"descr": part.dtype.str, "fortran_order": False}
                header["shape"] = (0, *part.shape[1:])
                # NumPy leaves room in the header for any length.
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(part).data)
            count += len(part)
        file.seek(0)
        header["shape"] = (count, *header["shape"][1:])
        np.lib.format.write_array_header_1_0(file, header)
