"""What a GGUF file holds, ours or any other: metadata, tensors, and how their weights lie."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml import gguf
from llmbol_core.ml.codecs import DECODABLE
from llmbol_core.ml.dtypes import StorageType
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn.container import read_container

BINS = 16
"""Bars of a histogram, from the least to the greatest weight."""
_SHOWN = 60
"""How many letters of a value are shown in a listing."""
_PART = 1 << 20
"""How many weights are expanded at a time."""


@dataclass(frozen=True)
class Key:
    """One key of the metadata."""

    key: str
    type: str
    value: Any
    """A scalar, or of an array the first elements as text."""


@dataclass(frozen=True)
class TensorLine:
    """One tensor."""

    tensor: str
    type: str
    shape: list[int]
    bytes: int


@dataclass(frozen=True)
class Spread:
    """How the finite weights of one tensor lie; there are no numbers if it cannot be read."""

    tensor: str
    type: str
    least: float | None
    greatest: float | None
    mean: float | None
    deviation: float | None
    zeros: int | None
    not_finite: int | None
    """How many weights are infinite or not numbers: left out of all else."""


@dataclass(frozen=True)
class Histogram(Spread):
    """And how often they have which values."""

    counts: list[int]
    """Weights in each of 16 equal parts of the range from the least to the greatest."""


@dataclass(frozen=True)
class Contents:
    """All that a file holds."""

    path: str
    version: int
    alignment: int
    bytes: int
    parameters: int
    bits_per_weight: float
    metadata: list[Key]
    tensors: list[TensorLine]


def inspect_file(path: str) -> Contents:
    """Return what a GGUF file holds, without reading any weight."""
    file = read_container(path)
    tensors = file.tensors.values()
    parameters = sum(tensor.size for tensor in tensors)
    stored = sum(tensor.nbytes for tensor in tensors)
    return Contents(
        file.path,
        file.version,
        file.alignment,
        file.extent,
        parameters,
        8 * stored / parameters if parameters else 0.0,
        [Key(key, file.types[key], _shown(value)) for key, value in file.metadata.items()],
        [
            TensorLine(name, tensor.dtype.name, list(tensor.shape), tensor.nbytes)
            for name, tensor in file.tensors.items()
        ],
    )


def histograms(path: str) -> list[Histogram]:
    """Return how the weights of each tensor of a GGUF file lie."""
    return [_histogram(name, tensor) for name, tensor in read_container(path).tensors.items()]


@dataclass(frozen=True)
class Bars(Spread):
    """A histogram as a line of a listing."""

    bars: str
    """A digit for each part of the range: its share of the fullest one, in ninths."""


def bars(found: list[Histogram]) -> list[Bars]:
    """Return histograms in a form for people."""
    lines = []
    for row in found:
        most = max(row.counts, default=1)
        text = "".join(str(math.ceil(9 * count / most)) for count in row.counts)
        numbers = {field.name: getattr(row, field.name) for field in fields(Spread)}
        lines.append(Bars(**numbers, bars=text))
    return lines


def _shown(value: gguf.Value) -> Any:
    """Return a scalar as it is, and of a long text or an array the beginning."""
    if isinstance(value, str):
        return value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} characters)"
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    first = ", ".join(repr(_shown(item)) for item in value[:4])
    return f"[{first}{', ...' if len(value) > 4 else ''}] ({len(value)})"


def _histogram(name: str, tensor: Tensor) -> Histogram:
    """Go over a tensor twice, part by part: for the range and sums, then for the counts."""
    kind = tensor.dtype
    if kind.name not in DECODABLE or not tensor.size:
        return Histogram(name, kind.name, None, None, None, None, None, None, [])
    blocks, step = tensor.data.reshape(-1), max(1, _PART // kind.elements)
    parts = [blocks[start : start + step] for start in range(0, len(blocks), step)]
    least, greatest, total, squares, zeros, count = math.inf, -math.inf, 0.0, 0.0, 0, 0
    for part in parts:
        x = _finite(part, kind)
        least = min(least, float(x.min(initial=math.inf)))
        greatest = max(greatest, float(x.max(initial=-math.inf)))
        total, squares = total + float(x.sum()), squares + float(np.square(x).sum())
        zeros, count = zeros + int((x == 0).sum()), count + x.size
    if not count:
        return Histogram(name, kind.name, None, None, None, None, None, tensor.size, [])
    counts = np.zeros(BINS, np.int64)
    for part in parts:
        counts += np.histogram(_finite(part, kind), BINS, (least, greatest))[0]
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean * mean, 0.0))
    return Histogram(
        name, kind.name, least, greatest, mean, deviation, zeros, tensor.size - count,
        [int(n) for n in counts],
    )  # fmt: skip


def _finite(blocks: NDArray[Any], kind: StorageType) -> NDArray[np.float64]:
    """Return those weights of blocks that are finite numbers."""
    with np.errstate(invalid="ignore"):  # signaling NaN
        x = dequantize(Tensor(blocks, kind)).astype(np.float64).reshape(-1)
    return x[np.isfinite(x)]
