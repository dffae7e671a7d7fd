"""float16 from and to float32 by integer arithmetic, bit for bit as hardware does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.kinds import f32, u16, u32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Value

_SIGN, _INFINITY = 0x8000, 0x7F800000


def from_half(k: Builder, half: Value) -> Value:
    """Return float32 for the bits of float16."""
    bits = half.to(u32)
    shifted = (bits & 0x7FFF) << 13
    # As float32 the exponent is 112 too small; multiplying mends subnormal numbers as well.
    normal = (shifted.bits(f32) * float(2**112)).bits(u32)
    magnitude = k.select(shifted < (0x7C00 << 13), normal, shifted | _INFINITY)
    return (magnitude | ((bits & _SIGN) << 16)).bits(f32)


def widened(x: Value) -> Value:
    """Return float32 for float32, float16, or the bits of bfloat16."""
    if x.kind is u16:
        return (x.to(u32) << 16).bits(f32)
    return x if x.kind is f32 else x.to(f32)


def to_half(k: Builder, x: Value) -> Value:
    """Return the bits of float16 for float32, rounded to nearest, halves to even."""
    bits = x.bits(u32)
    magnitude = bits & 0x7FFFFFFF
    # Adding 0.5 lines a subnormal result up with the lowest bits, rounded by the addition.
    tiny = (magnitude.bits(f32) + 0.5).bits(u32) - 0x3F000000
    rounded = magnitude + (0xFFF - (112 << 23)) + ((magnitude >> 13) & 1)
    result = k.select(magnitude < (113 << 23), tiny, rounded >> 13)
    result = k.select(magnitude >= (143 << 23), k.value(0x7C00, u32, x.lanes), result)
    result = k.select(magnitude > _INFINITY, k.value(0x7E00, u32, x.lanes), result)
    return (result | ((bits >> 16) & _SIGN)).to(u16)
