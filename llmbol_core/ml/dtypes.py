"""THE table of storage types: what one block of weights is in bytes, as GGML lays it out.

A row of weights is a run of blocks; a plain type has blocks of one element. All is little-endian
and without padding, so that a structured NumPy array can lie directly over a mapped file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbol_core.errors import DtypeError, ShapeError, nearest


@dataclass(frozen=True, eq=False)
class StorageType:
    """One row of the table: a name, GGML's number for it, and the layout of one block."""

    name: str
    number: int | None
    """GGML's id, as GGUF files carry it; None for a type that exists in memory only."""
    elements: int
    """How many weights one block holds."""
    layout: np.dtype[Any]
    """One block: a scalar type, or named fields."""

    @property
    def block_bytes(self) -> int:
        """How many bytes one block takes."""
        return self.layout.itemsize

    @property
    def is_blocked(self) -> bool:
        """Whether several weights share a block."""
        return self.elements > 1

    @property
    def is_whole(self) -> bool:
        """Whether elements are whole numbers."""
        return not self.is_blocked and self.layout.kind in "iu" and self.name != "BF16"

    def block_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape in blocks of a tensor with this logical shape, rows along the last axis.

        A row that does not divide into blocks is a ShapeError, as in GGML.
        """
        if not self.is_blocked:
            return shape
        row = shape[-1] if shape else 1
        if not shape or row % self.elements:
            why = f"a row of {row} is no multiple of the block of {self.elements}"
            raise ShapeError(self.name, why)
        return (*shape[:-1], shape[-1] // self.elements)

    def __repr__(self) -> str:
        return self.name


def _block(fields: str) -> np.dtype[Any]:
    """Return the layout written as ``name:type`` fields; ``16u1`` is 16 unsigned bytes."""
    pairs = [field.split(":") for field in fields.split()]
    return np.dtype([(name, np.dtype(kind).newbyteorder("<")) for name, kind in pairs])


def _opaque(size: int) -> np.dtype[Any]:
    """Return the layout of a block whose inside we do not read."""
    return _block(f"bytes:{size}u1")


# fmt: off
_ROWS = (
    # name  GGML id  elements  layout of one block
    ("F32",       0,   1, np.dtype("<f4")),
    ("F16",       1,   1, np.dtype("<f2")),
    ("Q4_0",      2,  32, _block("d:f2 qs:16u1")),
    ("Q4_1",      3,  32, _block("d:f2 m:f2 qs:16u1")),
    ("Q5_0",      6,  32, _block("d:f2 qh:u4 qs:16u1")),
    ("Q5_1",      7,  32, _block("d:f2 m:f2 qh:u4 qs:16u1")),
    ("Q8_0",      8,  32, _block("d:f2 qs:32i1")),
    # Q8_1: ggml's block has 36 bytes; the gguf package still lists the 40 of an older layout.
    ("Q8_1",      9,  32, _block("d:f2 s:f2 qs:32i1")),
    ("Q2_K",     10, 256, _block("scales:16u1 qs:64u1 d:f2 dmin:f2")),
    ("Q3_K",     11, 256, _block("hmask:32u1 qs:64u1 scales:12u1 d:f2")),
    ("Q4_K",     12, 256, _block("d:f2 dmin:f2 scales:12u1 qs:128u1")),
    ("Q5_K",     13, 256, _block("d:f2 dmin:f2 scales:12u1 qh:32u1 qs:128u1")),
    ("Q6_K",     14, 256, _block("ql:128u1 qh:64u1 scales:16i1 d:f2")),
    ("Q8_K",     15, 256, _block("d:f4 qs:256i1 bsums:16i2")),
    ("IQ2_XXS",  16, 256, _opaque(66)),
    ("IQ2_XS",   17, 256, _opaque(74)),
    ("IQ3_XXS",  18, 256, _opaque(98)),
    ("IQ1_S",    19, 256, _opaque(50)),
    ("IQ4_NL",   20,  32, _block("d:f2 qs:16u1")),
    ("IQ3_S",    21, 256, _opaque(110)),
    ("IQ2_S",    22, 256, _opaque(82)),
    ("IQ4_XS",   23, 256, _opaque(136)),
    ("I8",       24,   1, np.dtype("i1")),
    ("I16",      25,   1, np.dtype("<i2")),
    ("I32",      26,   1, np.dtype("<i4")),
    ("I64",      27,   1, np.dtype("<i8")),
    ("F64",      28,   1, np.dtype("<f8")),
    ("IQ1_M",    29, 256, _opaque(56)),
    # NumPy has no bfloat16: the upper 16 bits of a float32, held as an integer.
    ("BF16",     30,   1, np.dtype("<u2")),
    ("TQ1_0",    34, 256, _opaque(54)),
    ("TQ2_0",    35, 256, _opaque(66)),
    ("MXFP4",    39,  32, _opaque(17)),
    ("NVFP4",    40,  64, _opaque(36)),
    ("Q1_0",     41, 128, _opaque(18)),
    # U8: bytes of an image or a text; GGML has no such type, so no file can hold it.
    ("U8",     None,   1, np.dtype("u1")),
)
# fmt: on

TYPES: dict[str, StorageType] = {row[0]: StorageType(*row) for row in _ROWS}
"""Every storage type by name, in the order of GGML's numbers."""

BY_NUMBER: dict[int, StorageType] = {t.number: t for t in TYPES.values() if t.number is not None}
"""Every storage type that a file can hold, by GGML's number."""

_BY_LAYOUT = {t.layout: t for t in TYPES.values() if not t.is_blocked and t.name != "BF16"}

IQ4_NL_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
"""What the numbers of IQ4_NL mean: denser around zero."""

F32, F16, BF16, I32 = TYPES["F32"], TYPES["F16"], TYPES["BF16"], TYPES["I32"]
Q8_0, Q8_1, Q4_0 = TYPES["Q8_0"], TYPES["Q8_1"], TYPES["Q4_0"]


def storage_type(name: str | StorageType) -> StorageType:
    """Return the type of this name, in upper or lower case, or raise DtypeError.

    >>> storage_type("q8_0").block_bytes
    34
    """
    if isinstance(name, StorageType):
        return name
    if not isinstance(name, str):
        raise DtypeError("type", f"a storage type has a name such as 'Q8_0', not {name!r}")
    if (found := TYPES.get(name) or TYPES.get(name.upper())) is None:
        hint = nearest(name, TYPES) or ": expected one such as F32, F16, Q8_0 or Q4_0"
        raise DtypeError("type", f"no storage type is named {name!r}{hint}")
    return found


def storage_type_of(dtype: np.dtype[Any]) -> StorageType:
    """Return the storage type of a NumPy array's elements, or raise DtypeError.

    >>> storage_type_of(np.dtype("float32"))
    F32
    """
    if (found := _BY_LAYOUT.get(dtype.newbyteorder("<"))) is None:
        raise DtypeError("type", f"no storage type holds NumPy's {dtype}")
    return found
