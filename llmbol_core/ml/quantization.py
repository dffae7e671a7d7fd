"""Weights to fewer bits and back, as GGML does it, in bounded memory; and the error of that."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import DtypeError, nearest
from llmbol_core.ml.codecs import DECODABLE, ENCODERS, decode
from llmbol_core.ml.conversion import compare_blocks, decode_blocks, encode_blocks
from llmbol_core.ml.dtypes import F32, StorageType, storage_type
from llmbol_core.ml.mapped import release
from llmbol_core.ml.tensor import Shape, Tensor

_CHUNK = 1 << 16
"""How many weights are converted at a time: their temporaries stay in the processor's cache."""
_SLAB = 1 << 22
"""How many weights of a tensor are in memory at a time when it is converted in parts."""


def quantize(array: ArrayLike | Tensor, dtype: str | StorageType) -> Tensor:
    """Convert numbers to a storage type, rows along the last axis.

    A row that does not divide into blocks is a ShapeError, a value that the type cannot hold or a
    type that cannot be written a DtypeError. A tensor that has the type already is returned as it
    is.
    """
    kind = storage_type(dtype)
    if isinstance(array, Tensor) and array.dtype is kind:
        return array
    if kind.is_whole:
        return Tensor(_whole(array, kind), kind)
    x = dequantize(array) if isinstance(array, Tensor) else _floats(array)
    return _encoded(x, encodable_type(kind), x.shape, 0)


def _whole(array: ArrayLike | Tensor, kind: StorageType) -> NDArray[Any]:
    """Return whole numbers as integers of a type; raise DtypeError if one cannot be one."""
    tensor = array if isinstance(array, Tensor) else Tensor.of(_listed(array))
    is_exact = tensor.dtype.is_whole or tensor.dtype.name == "F64"
    x = tensor.data if is_exact else dequantize(tensor)
    info = np.iinfo(kind.layout)
    # Beyond 2**53 all float64 are whole; one above the greatest number is exact.
    good = (x == np.floor(x)) & (x >= info.min) & (x < float(info.max) + 1) & (x <= info.max)
    if not good.all():
        place = np.unravel_index(int((~good).argmax()), x.shape)
        where = ", ".join(str(int(i)) for i in place)
        why = f"cannot hold {x[place]} (at [{where}]): whole numbers from {info.min} to {info.max}"
        raise DtypeError(kind.name, why)
    return np.asarray(x).astype(kind.layout)


def _listed(array: ArrayLike) -> ArrayLike:
    """Return a list of whole numbers as integers, which float32 might not hold."""
    if isinstance(array, list | tuple | int):
        with suppress(ValueError, OverflowError):
            numbers = np.asarray(array)
            return numbers if numbers.dtype == np.int64 else array
    return array


def convert(
    tensor: Tensor, shape: Shape, kind: StorageType
) -> Iterator[tuple[Tensor, QuantizationError | None]]:
    """Yield a tensor in another type and shape, some rows at a time, each with its error.

    The rows of both shapes are whole blocks. F32 has no error to tell. The pages of a mapped file
    are given back as soon as they were read.
    """
    width = tensor.shape[-1] if tensor.dtype.is_blocked else shape[-1] if shape else 1
    data = np.ascontiguousarray(tensor.data).reshape(-1)
    rows, blocks = tensor.size // max(1, width), width // tensor.dtype.elements
    step = max(1, _SLAB // max(1, width))
    for row in range(0, rows, step):
        part = data[row * blocks : (row + step) * blocks]
        x = dequantize(Tensor(part, tensor.dtype)).reshape(-1, width)
        made = _encoded(x, kind, shape, row * width) if kind is not F32 else Tensor(x)
        yield made, quantization_error(x, made) if kind is not F32 else None
        release(part)


def _encoded(x: NDArray[np.float32], kind: StorageType, shape: Shape, start: int) -> Tensor:
    """Return numbers in blocks; they are those from ``start`` on of a tensor of this shape."""
    blocks = np.empty(kind.block_shape(x.shape), kind.layout)
    bad = encode_blocks(kind.name, x, blocks)
    if bad is None:
        bad = not _encode(kind, x, blocks)
    if bad:
        raise DtypeError(kind.name, _first_bad(x, shape, start))
    return Tensor(blocks, kind)


def _encode(kind: StorageType, x: NDArray[np.float32], blocks: NDArray[Any]) -> bool:
    """Fill blocks by definition; return False if there are numbers that they cannot hold."""
    rows, flat = x.reshape(-1, kind.elements), blocks.reshape(-1)
    encode = ENCODERS[kind.name]
    for part in _parts(len(flat), kind):
        if kind.is_blocked and not np.isfinite(rows[part]).all():
            return False
        flat[part] = encode(kind.name, rows[part]).reshape(-1)
    return True


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
        raise DtypeError(kind.name, "the blocks of this type cannot be read")
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


def _first_bad(x: NDArray[np.float32], shape: Shape, start: int) -> str:
    """Return, in words, where in a tensor of this shape the first value is that is not finite."""
    number = int((~np.isfinite(x)).argmax())
    place = ", ".join(str(int(i)) for i in np.unravel_index(start + number, shape))
    return f"cannot hold {x.reshape(-1)[number]} (at [{place}]): a block needs finite numbers"
