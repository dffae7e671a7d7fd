"""The types of numbers that kernels compute with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Kind:
    """A type of number: its width, and how its bits are to be read."""

    name: str
    bits: int
    is_float: bool = False
    is_signed: bool = True

    @property
    def size(self) -> int:
        """How many bytes a number takes in memory."""
        return max(1, self.bits // 8)

    def __repr__(self) -> str:
        return self.name


i1, i8, i16 = Kind("i1", 1, is_signed=False), Kind("i8", 8), Kind("i16", 16)
i32, i64 = Kind("i32", 32), Kind("i64", 64)
u8, u16 = Kind("u8", 8, is_signed=False), Kind("u16", 16, is_signed=False)
u32, u64 = Kind("u32", 32, is_signed=False), Kind("u64", 64, is_signed=False)
f16, f32, f64 = (Kind(f"f{bits}", bits, is_float=True) for bits in (16, 32, 64))

KINDS = {k.name: k for k in (i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64)}
"""The types that memory holds, by name."""
