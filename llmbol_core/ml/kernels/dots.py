"""Dot products of bytes, four to a lane: the one thing that every instruction set does its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.kinds import i8, i16, i32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Value

_VNNI = {16: "llvm.x86.avx512.vpdpbusd.512", 8: "llvm.x86.avx512.vpdpbusd.256"}
_PAIRS = {
    16: ("llvm.x86.avx512.pmaddubs.w.512", "llvm.x86.avx512.pmaddw.d.512"),
    8: ("llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pmadd.wd"),
    4: ("llvm.x86.ssse3.pmadd.ub.sw.128", "llvm.x86.sse2.pmadd.wd"),
}
_SIGNS = {8: "llvm.x86.avx2.psign.b", 4: "llvm.x86.ssse3.psign.b.128"}
_SHUFFLES = {
    64: "llvm.x86.avx512.pshuf.b.512",
    32: "llvm.x86.avx2.pshuf.b",
    16: "llvm.x86.ssse3.pshuf.b.128",
}


def dot(k: Builder, total: Value, unsigned: Value, signed: Value, wide: bool) -> Value:
    """Return ``total`` plus products of unsigned and signed bytes."""
    if k.target.dot == "vnni":
        return _vnni(k, total, unsigned, signed)
    if k.target.dot == "maddubs":
        multiply = _words if wide else _pairs
        return multiply(k, total, unsigned, signed)
    if k.target.dot == "sdot" and not wide:
        return _sdot(k, total, unsigned, signed)
    return _generic(total, unsigned, signed)


def dot_signed(k: Builder, total: Value, a: Value, b: Value) -> Value:
    """Return ``total`` plus products of signed bytes."""
    if k.target.dot == "sdot":
        return _sdot(k, total, a, b)
    if k.target.dot == "generic":
        return _generic(total, a.bits(i8), b)
    if total.lanes in _SIGNS:
        name, lanes = _SIGNS[total.lanes], 4 * total.lanes
        magnitude = k.intrinsic(name, i8, lanes, a, a)
        moved = k.intrinsic(name, i8, lanes, b, a)
    else:
        negative = a.bits(i8) < 0
        magnitude = k.select(negative, -a.bits(i8), a.bits(i8))
        moved = k.select(negative, -b, b)
    multiply = _vnni if k.target.dot == "vnni" else _pairs
    return multiply(k, total, magnitude, moved)


def lookup(k: Builder, table: Value, index: Value) -> Value:
    """Look bytes up in a table of 16 bytes."""
    lanes = index.lanes
    if k.target.architecture.startswith("x86"):
        repeated = table.shuffle([i % 16 for i in range(lanes)])
        return k.intrinsic(_SHUFFLES[lanes], i8, lanes, repeated, index)
    return k.intrinsic("llvm.aarch64.neon.tbl1.v16i8", i8, lanes, table, index)


def _vnni(k: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
    return k.intrinsic(_VNNI[total.lanes], i32, total.lanes, total, unsigned, signed)


def _pairs(k: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
    """Add up two products in 16 bits, where they fit if the unsigned side stays below 129."""
    return add_pairs(k, total, pairs(k, unsigned, signed))


def pairs(k: Builder, unsigned: Value, signed: Value) -> Value:
    """Return sums of two products of bytes."""
    lanes = unsigned.lanes
    return k.intrinsic(_PAIRS[lanes // 4][0], i16, lanes // 2, unsigned, signed)


def add_pairs(k: Builder, total: Value, pairs: Value) -> Value:
    """Add two of 16 bits to each of 32."""
    ones = k.value(1, i16, pairs.lanes)
    return total + k.intrinsic(_PAIRS[total.lanes][1], i32, total.lanes, pairs, ones)


def _words(k: Builder, total: Value, unsigned: Value, signed: Value) -> Value:
    """Products of all bytes by way of 16 bits: the even ones and the odd ones."""
    _, multiply = _PAIRS[total.lanes]
    a, b = unsigned.bits(i16), signed.bits(i16)
    for left, right in ((a & 0xFF, (b << 8) >> 8), ((a >> 8) & 0xFF, b >> 8)):
        total = total + k.intrinsic(multiply, i32, total.lanes, left, right)
    return total


def _sdot(k: Builder, total: Value, a: Value, b: Value) -> Value:
    name = f"llvm.aarch64.neon.sdot.v{total.lanes}i32.v{4 * total.lanes}i8"
    return k.intrinsic(name, i32, total.lanes, total, a, b)


def _generic(total: Value, a: Value, b: Value) -> Value:
    product = a.to(i32) * b.to(i32)
    for start in range(4):
        total = total + product.shuffle(range(start, product.lanes, 4))
    return total


def add_products(k: Builder, total: Value, a: Value, b: Value) -> Value:
    """Add products of 16 bits, two to each lane."""
    if k.target.dot in ("vnni", "maddubs"):
        return total + k.intrinsic(_PAIRS[total.lanes][1], i32, total.lanes, a, b)
    product = a.to(i32) * b.to(i32)
    for start in range(2):
        total = total + product.shuffle(range(start, product.lanes, 2))
    return total
