"""Writing GGUF: the head first, then tensor after tensor, each made when its turn comes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import ModelError
from llmbol_core.ml.dtypes import StorageType
from llmbol_core.ml.gguf.format import (
    ALIGNMENT,
    ARRAY,
    HEADER,
    LAYOUTS,
    MAGIC,
    MAX_AXES,
    MAX_NAME,
    NUMBERS,
    STRING,
    U32,
    U64,
    VERSION,
    StringArray,
    Value,
    padded,
)
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.files import atomic_write


@dataclass(frozen=True)
class Deferred:
    """A tensor to be written whose data are made only when its turn comes."""

    dtype: StorageType
    shape: Shape
    make: Callable[[], Tensor | Iterable[Tensor]]
    """Returns the tensor, or parts of it one after the other: some of its rows each."""

    @property
    def nbytes(self) -> int:
        """How many bytes the data will take."""
        blocks = self.dtype.block_shape(self.shape)
        return int(np.prod(blocks, dtype=np.int64)) * self.dtype.block_bytes


Progress = Callable[[int, int, str], None]


def write(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Value],
    tensors: Mapping[str, Tensor | Deferred],
    types: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total, note: None,
) -> None:
    """Write a GGUF file, which appears complete or not at all; same contents, same bytes.

    ``types`` names the types of keys, as in ``GgufFile.types``. Without it NumPy scalars and arrays
    keep theirs, int becomes uint32 (int32 if negative, 64 bits if it must), float becomes float64,
    a list of int becomes an array of int32 if they fit. ``progress`` is told bytes.
    """
    with atomic_write(path) as file:
        write_stream(file, metadata, tensors, types, progress)


def write_stream(
    file: BinaryIO,
    metadata: Mapping[str, Value],
    tensors: Mapping[str, Tensor | Deferred],
    types: Mapping[str, str] | None = None,
    progress: Progress = lambda done, total, note: None,
) -> int:
    """Write GGUF bytes to an open file, from where it stands, and return how many."""
    alignment = _chosen_alignment(metadata)
    head = bytearray(HEADER.pack(MAGIC, VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        if not key:
            raise ModelError("GGUF", "a key cannot be empty")
        kind = "uint32" if key == "general.alignment" else (types or {}).get(key, "")
        head += _string(key) + _encode_value(key, value, kind)
    offset = 0
    for name, tensor in tensors.items():
        head += _tensor_info(name, tensor, offset)
        offset = padded(offset + tensor.nbytes, alignment)
    head += bytes(padded(len(head), alignment) - len(head))
    file.write(head)
    done = 0
    for name, tensor in tensors.items():
        start = done
        progress(done, offset, name)
        for part in _parts(name, tensor):
            if done > start:
                progress(done, offset, name)
            file.write(part)
            done += len(part)
        if done != start + tensor.nbytes:
            raise ValueError(f"tensor {name!r} was made of {done - start} bytes, not as announced")
        padding = -tensor.nbytes % alignment
        file.write(bytes(padding))
        done += padding
    progress(offset, offset, "")
    return len(head) + offset


def _chosen_alignment(metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(value, int | np.integer) or not 0 < value < 1 << 32 or value & (value - 1):
        raise ModelError("GGUF", f"general.alignment must be a power of two, not {value!r}")
    return int(value)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return U64.pack(len(data)) + data


def _tensor_info(name: str, tensor: Tensor | Deferred, offset: int) -> bytes:
    """Return one entry of the list of tensors."""
    if len(name.encode()) > MAX_NAME:
        raise ModelError("GGUF", f"the tensor name {name!r} is longer than {MAX_NAME} bytes")
    if len(tensor.shape) > MAX_AXES:
        raise ModelError("GGUF", f"tensor {name!r} has more than {MAX_AXES} axes: {tensor.shape}")
    if tensor.dtype.number is None:
        raise ModelError("GGUF", f"tensor {name!r}: GGUF has no type {tensor.dtype.name}")
    lengths = b"".join(U64.pack(length) for length in reversed(tensor.shape))
    axes = U32.pack(len(tensor.shape))
    return _string(name) + axes + lengths + Struct("<IQ").pack(tensor.dtype.number, offset)


def _parts(name: str, tensor: Tensor | Deferred) -> Iterator[memoryview]:
    """Yield a tensor's bytes without another copy of them."""
    made = tensor.make() if isinstance(tensor, Deferred) else tensor
    if isinstance(made, Tensor) and made.shape != tensor.shape:
        raise ValueError(f"tensor {name!r} was made as {made}, not as announced")
    for part in [made] if isinstance(made, Tensor) else made:
        if part.dtype is not tensor.dtype:
            raise ValueError(f"tensor {name!r} was made as {part}, not as announced")
        data = np.ascontiguousarray(part.data).reshape(-1)
        if data.size:
            yield data.view(np.uint8).data


def _encode_value(key: str, value: Any, kind: str) -> bytes:
    """Return a value type and a value."""
    array = not isinstance(value, str | np.generic | bool | int | float)
    if isinstance(value, StringArray):
        return _array_head(STRING, len(value)) + bytes(value.encoded())
    try:
        element, data = _elements(value if array else [value], kind.split(" of ")[-1], array)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError("GGUF", f"the key {key!r} cannot hold {value!r}: {error}") from error
    if not array:
        return U32.pack(element) + data
    return _array_head(element, len(value)) + data


def _array_head(element: int, count: int) -> bytes:
    return Struct("<IIQ").pack(ARRAY, element, count)


def _elements(values: Any, kind: str, array: bool) -> tuple[int, bytes]:
    """Return the type number and the bytes of equal values, of the type named if one is."""
    if not isinstance(values, np.ndarray | Sequence):
        raise TypeError("it is neither a number, a text, nor a list of these")
    if not isinstance(values, np.ndarray):
        values = list(values)
        if kind == "string" or (values and all(isinstance(v, str) for v in values)):
            return STRING, b"".join(map(_string, values))
    if kind:
        found = np.asarray(values)
        exact = found.astype(LAYOUTS[NUMBERS[kind]])
        if found.dtype.kind in "iub" and not np.array_equal(found, exact):
            raise ValueError(f"it does not fit into {kind}")
        return NUMBERS[kind], exact.tobytes()
    found = _typed(values, array)
    if found.ndim != 1:
        raise TypeError("arrays have one axis")
    layout = found.dtype.newbyteorder("<")
    number = next((n for n, known in LAYOUTS.items() if known == layout), None)
    if number is None:
        raise TypeError(f"GGUF has no type for {found.dtype}")
    return number, found.astype(layout).tobytes()


def _typed(values: Any, array: bool) -> NDArray[Any]:
    """Return values as an array of the type they will have in the file."""
    found = np.asarray(values)
    if found.dtype.kind not in "iu" or isinstance(values, np.ndarray):
        return found
    if values and isinstance(values[0], np.generic):
        return found
    candidates = ("<i4", "<u4", "<i8", "<u8") if array else ("<u4", "<i4", "<u8", "<i8")
    for candidate in map(np.dtype, candidates):
        limits = np.iinfo(candidate)
        if all(limits.min <= v <= limits.max for v in values):
            return found.astype(candidate)
    raise OverflowError("integers have at most 64 bits")
