"""Reading GGUF: every count and length is checked before it is believed."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import GgufFormatError, ShapeError
from llmbol_core.ml.dtypes import BY_NUMBER, StorageType
from llmbol_core.ml.gguf.format import (
    ALIGNMENT,
    ARRAY,
    HEADER,
    LAYOUTS,
    MAGIC,
    MAX_AXES,
    MAX_NAME,
    NAMES,
    STRING,
    U32,
    U64,
    GgufFile,
    StringArray,
    Value,
    padded,
)
from llmbol_core.ml.gguf.shards import is_shard, join
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.files import map_file


def read(path: str | os.PathLike[str]) -> GgufFile:
    """Map a GGUF file: nothing of a tensor is read before it is used.

    If it is one of several shards, the others are mapped as well and the model is returned whole.
    """
    file = _read_one(os.fspath(path))
    return join(file, _read_one) if is_shard(file) else file


def _read_one(path: str) -> GgufFile:
    return read_buffer(map_file(path), path)


def read_buffer(buffer: memoryview | bytes | bytearray, path: str = "<bytes>") -> GgufFile:
    """Read a GGUF file that lies in memory; raise GgufFormatError if it is damaged."""
    cursor = _Cursor(memoryview(buffer).toreadonly().cast("B"), path)
    version, tensor_count, key_count = _read_header(cursor)
    metadata, types = _read_metadata(cursor, key_count)
    alignment = _alignment(cursor, metadata, types)
    infos = [_read_tensor_info(cursor) for _ in range(tensor_count)]
    tensors, extent = _view_tensors(cursor, infos, alignment)
    return GgufFile(path, version, alignment, metadata, types, tensors, extent)


class _Cursor:
    """A place in the bytes of a file that cannot be moved past their end."""

    def __init__(self, buffer: memoryview, path: str) -> None:
        self.buffer, self.path, self.at = buffer, path, 0

    def error(self, why: str, at: int | None = None) -> GgufFormatError:
        return GgufFormatError(self.path, self.at if at is None else at, why)

    def expect(self, count: int, size: int, what: str) -> None:
        """Raise unless that many things of that size can follow."""
        left = len(self.buffer) - self.at
        if count * size > left:
            raise self.error(f"{count} {what} cannot fit into the {left} bytes that are left")

    def number(self, layout: Struct) -> int:
        self.expect(layout.size, 1, "bytes of a number")
        (value,) = layout.unpack_from(self.buffer, self.at)
        self.at += layout.size
        return int(value)

    def string(self) -> str:
        start = self.at
        length = self.number(U64)
        self.expect(length, 1, "bytes of a string")
        self.at += length
        try:
            return str(self.buffer[self.at - length : self.at], "utf-8")
        except UnicodeDecodeError as error:
            raise self.error("the string is not UTF-8", start) from error

    def numbers(self, layout: np.dtype[Any], count: int) -> NDArray[Any]:
        """View numbers in place; truth values become a new array of 0 and 1."""
        self.expect(count, layout.itemsize, "numbers")
        boolean = layout.kind == "b"
        found = np.frombuffer(
            self.buffer[self.at : self.at + count * layout.itemsize] or b"",
            np.uint8 if boolean else layout,
        )
        self.at += count * layout.itemsize
        return found != 0 if boolean else found

    def strings(self, count: int) -> StringArray:
        """Step over strings, remembering where they are."""
        self.expect(count, U64.size, "strings")
        buffer, at, end, length_at = self.buffer, self.at, len(self.buffer), U64.unpack_from
        starts = array("Q")  # a list would take five times as much
        for _ in range(count):
            if at + 8 > end:
                raise self.error("the array of strings ends early", at)
            (length,) = length_at(buffer, at)
            at += 8
            if length > end - at:
                raise self.error(f"a string of {length} bytes runs past the end", at - 8)
            starts.append(at)
            at += length
        self.at = at
        return StringArray(buffer, starts, at)


def _read_header(cursor: _Cursor) -> tuple[int, int, int]:
    """Read magic, version and the counts of tensors and keys."""
    if bytes(cursor.buffer[:4]) != MAGIC:
        raise cursor.error("not a GGUF file: it does not start with 'GGUF'")
    cursor.expect(HEADER.size, 1, "bytes of a header")
    _, version, tensors, keys = HEADER.unpack_from(cursor.buffer)
    if version not in (2, 3):
        swapped = int.from_bytes(U32.pack(version), "big")
        why = "a big-endian file" if swapped in (1, 2, 3) else f"version {version}"
        raise cursor.error(f"{why} cannot be read, only little-endian versions 2 and 3", 4)
    cursor.at = HEADER.size
    # The least that a key takes: a length, one letter, a type, one byte; a tensor: 4 numbers.
    cursor.expect(keys, 14, "keys")
    cursor.expect(tensors, 24, "tensors")
    return version, tensors, keys


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, Value], dict[str, str]]:
    """Read all keys, with their values and the names of their types."""
    metadata: dict[str, Value] = {}
    types: dict[str, str] = {}
    for _ in range(count):
        start = cursor.at
        key = cursor.string()
        if not key or key in metadata:
            raise cursor.error(f"the key {key!r} occurs twice" if key else "an empty key", start)
        metadata[key], types[key] = _read_value(cursor)
    return metadata, types


def _read_value(cursor: _Cursor) -> tuple[Value, str]:
    """Read a value type and a value."""
    start, number = cursor.at, cursor.number(U32)
    if number == STRING:
        return cursor.string(), "string"
    if number in LAYOUTS:
        return cursor.numbers(LAYOUTS[number], 1)[0].item(), NAMES[number]
    if number != ARRAY:
        raise cursor.error(f"value type {number} does not exist", start)
    start, element, count = cursor.at, cursor.number(U32), cursor.number(U64)
    if element == STRING:
        return cursor.strings(count), "array of string"
    if element in LAYOUTS:
        return cursor.numbers(LAYOUTS[element], count), f"array of {NAMES[element]}"
    raise cursor.error(f"an array cannot have elements of type {element}", start)


def _alignment(cursor: _Cursor, metadata: dict[str, Value], types: dict[str, str]) -> int:
    """Return the alignment of the data, a power of two."""
    value = metadata.get("general.alignment", ALIGNMENT)
    kind = types.get("general.alignment", "uint32")
    if kind != "uint32" or not isinstance(value, int) or value.bit_count() != 1:
        raise cursor.error("general.alignment must be a uint32 and a power of two")
    return value


@dataclass(frozen=True)
class _TensorInfo:
    """One entry of the list of tensors; ``at`` is where it stands."""

    name: str
    dtype: StorageType
    shape: Shape
    offset: int
    size: int
    at: int


def _read_tensor_info(cursor: _Cursor) -> _TensorInfo:
    """Read one entry of the list of tensors and check all that does not depend on the others."""
    start = cursor.at
    name = cursor.string()
    if len(name.encode()) > MAX_NAME:
        raise cursor.error(f"a tensor name has at most {MAX_NAME} bytes", start)
    axes = cursor.number(U32)
    if axes > MAX_AXES:
        raise cursor.error(f"tensor {name!r} has {axes} axes, GGUF allows {MAX_AXES}", start)
    shape = tuple(cursor.number(U64) for _ in range(axes))[::-1]
    number, offset = cursor.number(U32), cursor.number(U64)
    if (kind := BY_NUMBER.get(number)) is None:
        raise cursor.error(f"tensor {name!r} has the unknown type {number}", start)
    bound = kind.block_bytes
    for length in shape:
        bound *= max(length, 1)
    if bound >= 1 << 63:
        raise cursor.error(f"tensor {name!r} cannot have the shape {shape}", start)
    try:
        blocks = kind.block_shape(shape)
    except ShapeError as error:
        raise cursor.error(f"tensor {name!r}: {error}", start) from error
    size = kind.block_bytes
    for length in blocks:
        size *= length
    return _TensorInfo(name, kind, shape, offset, size, start)


def _view_tensors(
    cursor: _Cursor, infos: list[_TensorInfo], alignment: int
) -> tuple[dict[str, Tensor], int]:
    """Lay tensors over the data, and return them with the end of the last one."""
    base = padded(cursor.at, alignment)
    tensors: dict[str, Tensor] = {}
    expected, end = 0, cursor.at
    for info in infos:
        if info.name in tensors:
            raise cursor.error(f"the tensor {info.name!r} occurs twice", info.at)
        if info.offset != expected:
            why = f"tensor {info.name!r} lies at offset {info.offset}, it should be {expected}"
            raise cursor.error(why, info.at)
        start, end = base + expected, base + expected + info.size
        if end > len(cursor.buffer):
            missing = end - len(cursor.buffer)
            why = f"the data of tensor {info.name!r} lack {missing} of {info.size} bytes"
            raise cursor.error(why, info.at)
        tensors[info.name] = Tensor.from_buffer(cursor.buffer, info.dtype, info.shape, start)
        expected = padded(expected + info.size, alignment)
    return tensors, end
