"""Float32 to GGML's blocks and back, bit for bit as ``codecs`` defines it; how far they differ.

An item is a block of 32 weights. Encoders count numbers that are not finite in ``bad``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import BLOCK, FORMS
from llmbol_core.ml.kernels.kinds import f16, f32, f64, i1, i8, i32, i64, u8, u16, u32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

GROUP = Group("blocks")

_HALF = 16
"""Numbers are handled in two halves of a block, as nibbles are."""
_INFINITY = float("inf")
_UNDER_HALF = 0.4999999701976776
"""The float below one half: adding it and truncating rounds halves away, and nothing less."""

SIZES = {"Q4_0": 18, "Q4_1": 20, "Q5_0": 22, "Q5_1": 24, "Q8_0": 34, "IQ4_NL": 18}
"""Bytes of a block."""


# ---- encoders ----


def _where(low: Value, high: Value) -> Value:
    """Return 32 truth values as the bits of a word."""
    return low.bits(u16).to(u32) | (high.bits(u16).to(u32) << _HALF)


def _first(k: Builder, x: Pointer, low: Value, high: Value) -> Value:
    """Return the first number for which something holds; it does for one at least."""
    return x.load(k.trailing_zeros(_where(low, high)).to(i64))


def _inverse(k: Builder, d: Value) -> Value:
    """Return 1/d, or 0 for 0."""
    return k.select(d.equals(0), k.zeros(f32), 1 / d)


def _factors(k: Builder, d: Value, offset: float) -> tuple[Value, Value]:
    """Return what to multiply numbers with and what to add: 0 if they would not stay finite."""
    inverse = _inverse(k, d)
    is_finite = (k.abs(d) < _INFINITY) & (k.abs(inverse) < _INFINITY)
    return k.select(is_finite, inverse, 0), k.select(is_finite, k.value(offset, f32), 0)


def _count_bad(k: Builder, bad: Pointer, *parts: Value) -> None:
    """Count a block that holds anything but finite numbers."""
    low, high = (k.abs(part) < _INFINITY for part in parts)
    with k.when(_where(low, high).differs(0xFFFFFFFF)):
        bad.add_atomic(1)


def _store_levels(
    k: Builder, out: Pointer, scaled: tuple[Value, Value], top: int, head: int
) -> None:
    """Store min(top, trunc(scaled))."""
    levels = [k.min(part, float(top)).to(i32) for part in scaled]
    low, high = (level.to(u8) for level in levels)
    if top > 15:
        fifth = _where(*(level >= 16 for level in levels))
        out.bytes_on(head).of(u32).store(fifth)
        head += 4
    out.bytes_on(head).store((low & 15) | (high << 4))


def _encode_signed(half: int, k: Builder, x: Pointer, out: Pointer, bad: Pointer) -> None:
    """Q4_0 and Q5_0: the element furthest from zero becomes the lowest level."""
    parts = x.load(0, _HALF), x.load(_HALF, _HALF)
    _count_bad(k, bad, *parts)
    sizes = [k.abs(part) for part in parts]
    greatest = k.max(*sizes).max()
    chosen = _first(k, x, *(size.equals(greatest) for size in sizes))
    d = (chosen + 0.0) * (-1 / half)
    factor, offset = _factors(k, d, half + 0.5)
    out.of(f16).store(d)
    low, high = (part * factor + offset for part in parts)
    _store_levels(k, out, (low, high), 2 * half - 1, 2)


def _encode_ranged(top: int, k: Builder, x: Pointer, out: Pointer, bad: Pointer) -> None:
    """Q4_1 and Q5_1: levels from the least to the greatest element."""
    parts = x.load(0, _HALF), x.load(_HALF, _HALF)
    _count_bad(k, bad, *parts)
    least, greatest = k.min(*parts).min(), k.max(*parts).max()
    least = _first(k, x, *(part.equals(least) for part in parts))
    d = (greatest - least + 0.0) / top  # of zeros of both signs it is positive
    factor, offset = _factors(k, d, 0.5)
    out.of(f16).store(d)
    out.of(f16).store(least, 1)
    # Of a range that is infinite, numbers may be no numbers: the maximum makes them 0.
    low, high = (k.max((part - least) * factor + offset, 0) for part in parts)
    _store_levels(k, out, (low, high), top, 4)


def _encode_bytes(k: Builder, x: Pointer, out: Pointer, bad: Pointer) -> None:
    """Q8_0: rounded to nearest, halves away from zero."""
    parts = x.load(0, _HALF), x.load(_HALF, _HALF)
    _count_bad(k, bad, *parts)
    d = k.max(*(k.abs(part) for part in parts)).max() / 127
    inverse = _inverse(k, d)
    inverse = k.select(k.abs(inverse).equals(_INFINITY), k.zeros(f32), inverse)
    out.of(f16).store(d)
    for number, part in enumerate(parts):
        scaled = part * inverse
        away = k.copysign(k.value(_UNDER_HALF, f32, _HALF), scaled)
        out.bytes_on(2 + number * _HALF).store((scaled + away).to(i32).to(i8).bits(u8))


_ENCODE: dict[str, Callable[..., None]] = {
    "Q4_0": partial(_encode_signed, 8),
    "Q4_1": partial(_encode_ranged, 15),
    "Q5_0": partial(_encode_signed, 16),
    "Q5_1": partial(_encode_ranged, 31),
    "Q8_0": _encode_bytes,
}


def _encoder(name: str) -> Author:
    def write(k: Builder, x: Pointer, out: Pointer, bad: Pointer) -> None:
        for block in k.items():
            _ENCODE[name](k, x.at(block * BLOCK), out.at(block * SIZES[name]), bad)

    return write


ENCODERS: dict[str, Kernel] = {
    name: GROUP.kernel("x:f32* out:u8* bad:i64*", f"encode_{name.lower()}")(_encoder(name))
    for name in _ENCODE
}
"""(x [blocks, 32], out bytes, bad) by storage type."""


# ---- decoders ----


def _decoded(k: Builder, name: str, block: Pointer) -> tuple[Value, Value]:
    """Return the weights of a block in two halves."""
    form = FORMS[name]
    d = block.of(f16).load().to(f32)
    head = 4 if form.has_minima else 2
    if form.cells == "bytes":
        bodies = [block.bytes_on(head + i).of(i8).load(0, _HALF) for i in (0, _HALF)]
        levels = [body.to(i32) for body in bodies]
    else:
        levels = _nibbles(k, name, block, head)
    weights = [(level - form.zero).to(f32) * d for level in levels]
    if form.has_minima:
        low = block.of(f16).load(1).to(f32)
        weights = [weight + low for weight in weights]
    return weights[0], weights[1]


def _nibbles(k: Builder, name: str, block: Pointer, head: int) -> list[Value]:
    """Return the levels of a block of nibbles, with their fifth bits if there are any."""
    form = FORMS[name]
    fifths = form.cells == "fifths"
    packed = block.bytes_on(head + 4 * fifths).load(0, _HALF)
    parts = [packed & 15, packed >> 4]
    if form.levels:
        table = k.vector(i8, form.levels)
        return [k.lookup(table, part).to(i32) for part in parts]
    levels = [part.to(i32) for part in parts]
    if fifths:
        words = block.bytes_on(head).of(u16)
        bits = [words.load(i).bits(i1) for i in range(2)]
        sixteen = k.value(16, i32, _HALF)
        levels = [
            level + k.select(bit, sixteen, 0) for level, bit in zip(levels, bits, strict=True)
        ]
    return levels


def _decoder(name: str) -> Author:
    def write(k: Builder, blocks: Pointer, x: Pointer) -> None:
        for block in k.items():
            low, high = _decoded(k, name, blocks.at(block * SIZES[name]))
            x.store(low, block * BLOCK)
            x.store(high, block * BLOCK + _HALF)

    return write


DECODERS: dict[str, Kernel] = {
    name: GROUP.kernel("blocks:u8* x:f32*", f"decode_{name.lower()}")(_decoder(name))
    for name in FORMS
}
"""(blocks, x [blocks, 32]) by storage type."""


# ---- errors ----

ERROR_BLOCKS = 1024
"""Blocks that one item of an error kernel covers."""


Decode = Callable[["Builder", "Pointer", "Value"], tuple["Value", "Value"]]
"""Writes the code that returns the weights of a block, by its number, in two halves."""


def _error(decode: Decode) -> Author:
    def write(k: Builder, x: Pointer, blocks: Pointer, sums: Pointer, count: Value) -> None:
        for item in k.items():
            noise, signal = (k.variable(k.zeros(f64)) for _ in range(2))
            greatest = k.variable(k.zeros(f32, _HALF))
            end = k.min((item + 1) * ERROR_BLOCKS, count)
            for block in k.range(item * ERROR_BLOCKS, end):
                decoded = decode(k, blocks, block)
                given = [x.load(block * BLOCK + i, _HALF) for i in (0, _HALF)]
                gaps = [a - b for a, b in zip(given, decoded, strict=True)]
                noise.value += (gaps[0] * gaps[0] + gaps[1] * gaps[1]).sum().to(f64)
                signal.value += (given[0] * given[0] + given[1] * given[1]).sum().to(f64)
                for gap in gaps:
                    greatest.value = k.max(k.abs(gap), greatest.value)
            found = noise.value, signal.value, greatest.value.max().to(f64)
            for number, total in enumerate(found):
                sums.store(total, item * 3 + number)

    return write


def _of_blocks(name: str) -> Decode:
    return lambda k, blocks, block: _decoded(k, name, blocks.at(block * SIZES[name]))


def _of_floats(k: Builder, floats: Pointer, block: Value) -> tuple[Value, Value]:
    return floats.load(block * BLOCK, _HALF), floats.load(block * BLOCK + _HALF, _HALF)


ERRORS: dict[str, Kernel] = {
    name: GROUP.kernel("x:f32* blocks:u8* sums:f64* count:i64", f"error_{name.lower()}")(
        _error(_of_blocks(name))
    )
    for name in FORMS
}
"""(x, blocks, sums [items, 3], blocks in all): sum of squared errors, of squares, largest error."""

FLOAT_ERRORS = GROUP.kernel("x:f32* y:f32* sums:f64* count:i64", "error_floats")(_error(_of_floats))
"""The same for weights that were decoded already, 32 in a block."""


# ---- halves of floats ----


@GROUP.kernel("half:f16* x:f32* count:i64")
def decode_f16(k: Builder, half: Pointer, x: Pointer, count: Value) -> None:
    """Widen float16; an item is 16 numbers."""
    for item in k.items():
        at = item * _HALF
        with k.either(at + _HALF <= count) as (whole, some):
            with whole:
                x.store(half.load(at, _HALF), at)
            with some:
                for i in k.range(at, count):
                    x.store(half.load(i), i)


@GROUP.kernel("half:u16* x:f32* count:i64")
def decode_bf16(k: Builder, half: Pointer, x: Pointer, count: Value) -> None:
    """Widen bfloat16; an item is 16 numbers."""
    for item in k.items():
        at = item * _HALF
        with k.either(at + _HALF <= count) as (whole, some):
            with whole:
                x.store((half.load(at, _HALF).to(u32) << 16).bits(f32), at)
            with some:
                for i in k.range(at, count):
                    x.store((half.load(i).to(u32) << 16).bits(f32), i)


WIDENERS = {"F16": decode_f16, "BF16": decode_bf16}
"""(numbers, x, count) by storage type."""
