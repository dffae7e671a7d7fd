"""Weights to fewer bits and back, as GGML does it, in bounded memory; and what that costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import DtypeError, nearest
from llmbol_core.ml.codecs import DECODABLE, ENCODERS, decode
from llmbol_core.ml.conversion import compare_blocks, decode_blocks, encode_blocks
from llmbol_core.ml.dtypes import F32, StorageType, storage_type
from llmbol_core.ml.tensor import Tensor

_CHUNK = 1 << 16
"""How many weights are converted at a time: their temporaries stay in the processor's cache."""


def quantize(array: ArrayLike | Tensor, dtype: str | StorageType) -> Tensor:
    """Convert numbers to a storage type, rows along the last axis.

    A row that does not divide into blocks is a ShapeError, a value that is not finite or a type
    that cannot be written a DtypeError. A tensor that has the type already is returned as it is.
    """
    kind = storage_type(dtype)
    if isinstance(array, Tensor):
        if array.dtype is kind:
            return array
        x = dequantize(array)
    else:
        x = _floats(array)
    encodable_type(kind)
    blocks = np.empty(kind.block_shape(x.shape), kind.layout)
    if bad := encode_blocks(kind.name, x, blocks):
        raise DtypeError(kind.name, _first_bad(x))
    if bad is None:
        _encode(kind, x, blocks)
    return Tensor(blocks, kind)


def _encode(kind: StorageType, x: NDArray[np.float32], blocks: NDArray[Any]) -> None:
    """Fill blocks by definition."""
    rows, flat = x.reshape(-1, kind.elements), blocks.reshape(-1)
    encode = ENCODERS[kind.name]
    for part in _parts(len(flat), kind):
        if kind.is_blocked and not np.isfinite(rows[part]).all():
            raise DtypeError(kind.name, _first_bad(x))
        flat[part] = encode(kind.name, rows[part]).reshape(-1)


def encodable_type(dtype: str | StorageType) -> StorageType:
    """Return the type of this name if weights can be converted to it, or raise DtypeError."""
    kind = storage_type(dtype)
    if kind.name not in ENCODERS:
        known = ", ".join(ENCODERS)
        why = f"weights cannot be converted to this type, only to {known}"
        raise DtypeError(kind.name, why + nearest(kind.name, ENCODERS))
    return kind


def dequantize(tensor: Tensor) -> NDArray[np.float32]:
    """Return a tensor's weights as a float32 array; an F32 tensor's own array, not a copy."""
    kind = tensor.dtype
    if kind is F32:
        return tensor.data
    if kind.name not in DECODABLE:
        raise DtypeError(kind.name, "the blocks of this type cannot be read yet")
    x = np.empty(tensor.shape, np.float32)
    rows, flat = x.reshape(-1, kind.elements), tensor.data.reshape(-1)
    if not decode_blocks(kind.name, flat, x):
        for part in _parts(len(flat), kind):
            rows[part] = decode(kind.name, flat[part])
    return x


@dataclass(frozen=True)
class QuantizationError:
    """How far a quantized tensor lies from the original."""

    root_mean_square: float
    """Of the differences."""
    maximum: float
    """The largest difference."""
    signal_to_noise: float
    """In decibels: ten times the logarithm of the ratio of squares; infinite if nothing differs."""


def quantization_error(original: ArrayLike | Tensor, stored: Tensor) -> QuantizationError:
    """Measure the difference between weights and their stored form."""
    x = dequantize(original) if isinstance(original, Tensor) else _floats(original)
    noise = signal = greatest = 0.0
    kind = stored.dtype
    before, blocks = x.reshape(-1, kind.elements), stored.data.reshape(-1)
    measured = compare_blocks(kind.name, x, blocks)
    if measured is not None:
        return _error(*measured, x.size)
    for part in _parts(len(blocks), kind):
        after = dequantize(Tensor(blocks[part], kind)).reshape(-1)
        exact = before[part].reshape(-1).astype(np.float64)
        difference = exact - after
        noise += float(np.square(difference).sum())
        signal += float(np.square(exact).sum())
        greatest = max(greatest, float(np.abs(difference).max(initial=0)))
    return _error(noise, signal, greatest, x.size)


def _error(noise: float, signal: float, greatest: float, count: int) -> QuantizationError:
    ratio = 10 * math.log10(signal / noise) if noise and signal else math.inf
    return QuantizationError(math.sqrt(noise / max(count, 1)), greatest, ratio)


def _floats(array: ArrayLike) -> NDArray[np.float32]:
    """Return anything like an array as contiguous float32."""
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(Tensor.of(array).numpy(), np.float32, order="C")


def _parts(blocks: int, kind: StorageType) -> Iterator[slice]:
    step = _CHUNK // kind.elements
    for start in range(0, blocks, step):
        yield slice(start, start + step)


def _first_bad(x: NDArray[np.float32]) -> str:
    """Say where the first value lies that is not finite."""
    index = np.unravel_index(int((~np.isfinite(x)).argmax()), x.shape)
    place = ", ".join(str(int(i)) for i in index)
    return f"cannot hold {x[index]} (at [{place}]): a block needs finite numbers"
