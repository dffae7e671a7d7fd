"""What the GGUF reader and writer share: numbers of the format, and what a file holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.tensor import Tensor

MAGIC = b"GGUF"
VERSION = 3
ALIGNMENT = 32
MAX_AXES = 4
MAX_NAME = 63
"""Bytes of a tensor's name: ggml keeps 64 with a terminating zero."""

# fmt: off
SCALARS = (
    # number  name     NumPy type
    (0,  "uint8",   np.dtype("u1")),
    (1,  "int8",    np.dtype("i1")),
    (2,  "uint16",  np.dtype("<u2")),
    (3,  "int16",   np.dtype("<i2")),
    (4,  "uint32",  np.dtype("<u4")),
    (5,  "int32",   np.dtype("<i4")),
    (6,  "float32", np.dtype("<f4")),
    (7,  "bool",    np.dtype("?")),
    (10, "uint64",  np.dtype("<u8")),
    (11, "int64",   np.dtype("<i8")),
    (12, "float64", np.dtype("<f8")),
)
# fmt: on
STRING, ARRAY = 8, 9
NAMES = {number: name for number, name, _ in SCALARS} | {STRING: "string"}
NUMBERS = {name: number for number, name in NAMES.items()}
LAYOUTS = {number: layout for number, _, layout in SCALARS}
U32, U64, HEADER = Struct("<I"), Struct("<Q"), Struct("<4sIQQ")

Value = bool | int | float | str | np.generic | NDArray[Any] | Sequence[Any]
"""What a key can hold: a scalar, an array of numbers, a sequence of strings.

Read from a file it is a Python scalar, a NumPy array or a ``StringArray``.
"""


class StringArray(Sequence[str]):
    """The strings of a metadata array, decoded when they are asked for.

    A vocabulary has tens of thousands of them, and most programs look at none. Bytes that are no
    UTF-8 show as replacement characters; ``raw`` has them as they are.
    """

    def __init__(self, buffer: memoryview, starts: Sequence[int], end: int) -> None:
        """Keep where each string starts, after its length; the last one ends at ``end``."""
        self._buffer, self._starts, self._end = buffer, starts, end

    def raw(self, index: int) -> bytes:
        """Return one string's bytes."""
        start = self._starts[index]
        (length,) = U64.unpack_from(self._buffer, start - 8)
        return bytes(self._buffer[start : start + length])

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.raw(index).decode("utf-8", "replace")

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # compares by content, as lists do

    def __repr__(self) -> str:
        return f"<{len(self)} strings>"

    def encoded(self) -> memoryview:
        """Return all strings as a file holds them: lengths and bytes."""
        return self._buffer[self._starts[0] - 8 : self._end] if self._starts else memoryview(b"")


@dataclass(frozen=True)
class GgufFile:
    """What a GGUF file holds; tensors and arrays are views of its bytes."""

    path: str
    version: int
    alignment: int
    metadata: dict[str, Value]
    types: dict[str, str]
    """Each key's type in the file, such as ``uint32`` or ``array of string``."""
    tensors: dict[str, Tensor]
    extent: int = field(compare=False)
    """How many bytes the file takes, up to the end of the last tensor."""


def padded(size: int, alignment: int) -> int:
    """Round a size up to a multiple of the alignment."""
    return -(-size // alignment) * alignment
