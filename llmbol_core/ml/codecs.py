"""Encoders and decoders of blocks: float32 rows to GGML's bytes and back, bit for bit.

An encoder takes an array of shape [blocks, elements] and returns as many blocks of its type; a
decoder does the reverse. Products and sums are rounded one by one, as in ggml's portable C code.
The block formats of 32 share a form: a weight is ``d * q`` or ``d * q + m``, with an integer q;
those of 256 are in ``kquants``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml import kquants
from llmbol_core.ml.dtypes import IQ4_NL_LEVELS, TYPES

Floats = NDArray[np.float32]
Blocks = NDArray[Any]
Integers = NDArray[Any]


class Unpacked(NamedTuple):
    """Blocks of 32 taken apart: weight = d * q, or d * q + m where m is present."""

    q: Integers
    """Small integers, [blocks, 32]."""
    d: Floats
    """Scales, [blocks]."""
    m: Floats | None
    """Minima, [blocks], for the types that have them."""


# ---- encoders ----


def _half(x: Floats) -> NDArray[np.float16]:
    """Round to float16, to infinity where it is too large, as C does."""
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(np.float16)


def _inverse(d: Floats) -> Floats:
    """Return 1/d, 0 where d is 0 and infinity where d is too small for a finite inverse."""
    with np.errstate(divide="ignore", over="ignore", under="ignore"):
        return np.where(d == 0, np.float32(0), np.float32(1) / d)


def _levels(x: Floats, inverse: Floats, offset: float, top: int) -> Integers:
    """Return min(top, trunc(x * inverse + offset)), and 0 in blocks that have no finite inverse.

    In those, C converts an infinity or NaN to a byte, which gives 0 on x86.
    """
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        scaled = x * inverse[:, None]
    scaled += np.float32(offset)
    finite = np.isfinite(scaled).all(axis=1)
    if not finite.all():
        scaled[~finite] = 0
    q: Integers = np.minimum(scaled, np.float32(top)).astype(np.uint8)
    return q


def _nibbles(q: Integers) -> Integers:
    """Pack the low four bits: byte j holds element j below and element j + 16 above."""
    packed: Integers = (q[:, :16] & 15) | (q[:, 16:] << 4)
    return packed


def _fifth_bits(q: Integers) -> Integers:
    """Pack bit 4 of each element: bit j of the word belongs to element j."""
    return np.packbits(q >> 4, axis=1, bitorder="little").view("<u4")[:, 0]


def _at(x: Floats, index: Integers) -> Floats:
    """Pick one element of each block."""
    picked: Floats = np.take_along_axis(x, index[:, None], axis=1)[:, 0]
    return picked


def _fill(name: str, **fields: NDArray[Any]) -> Blocks:
    blocks = np.empty(len(fields["qs"]), TYPES[name].layout)
    for field, values in fields.items():
        blocks[field] = values
    return blocks


def _encode_signed(name: str, x: Floats) -> Blocks:
    """Q4_0 and Q5_0: the element furthest from zero becomes the lowest level."""
    half, top = (8, 15) if name == "Q4_0" else (16, 31)
    with np.errstate(under="ignore"):
        # Adding 0 makes a negative zero positive, so that a block of zeros has d = -0 as in ggml.
        d = (_at(x, np.abs(x).argmax(axis=1)) + np.float32(0)) / np.float32(-half)
    q = _levels(x, _inverse(d), half + 0.5, top)
    high = {} if name == "Q4_0" else {"qh": _fifth_bits(q)}
    return _fill(name, d=_half(d), qs=_nibbles(q), **high)


def _encode_ranged(name: str, x: Floats) -> Blocks:
    """Q4_1 and Q5_1: levels from the least to the greatest element."""
    top = 15 if name == "Q4_1" else 31
    least, greatest = _at(x, x.argmin(axis=1)), _at(x, x.argmax(axis=1))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        d = (greatest - least) / np.float32(top)
        q = _levels(x - least[:, None], _inverse(d), 0.5, top)
    high = {} if name == "Q4_1" else {"qh": _fifth_bits(q)}
    return _fill(name, d=_half(d), m=_half(least), qs=_nibbles(q), **high)


def _encode_q8_0(name: str, x: Floats) -> Blocks:
    """Q8_0 as files hold it: rounded to nearest, halves away from zero."""
    with np.errstate(under="ignore"):
        d = np.abs(x).max(axis=1) / np.float32(127)
    inverse = _inverse(d)
    inverse[np.isinf(inverse)] = 0
    with np.errstate(under="ignore"):
        q = x * inverse[:, None]
    # The float below one half: adding it and truncating rounds halves away from zero, and nothing
    # that is less than a half.
    q += np.copysign(np.nextafter(np.float32(0.5), np.float32(0)), q)
    return _fill(name, d=_half(d), qs=q.astype(np.int8))


def _activation_levels(x: Floats) -> tuple[Floats, Integers]:
    """Return scales and 8-bit levels as ggml makes them at run time on x86.

    That is 127/max instead of 1/d, and halves to even; where 127/max overflows all levels are -128.
    """
    greatest = np.abs(x).max(axis=1)
    with np.errstate(divide="ignore", over="ignore", under="ignore", invalid="ignore"):
        d = greatest / np.float32(127)
        inverse = np.where(greatest == 0, np.float32(0), np.float32(127) / greatest)
        q = np.rint(x * inverse[:, None])
    q[np.isinf(inverse)] = -128
    return d, q.astype(np.int8)


def encode_activations(x: Floats, with_sums: bool = False) -> Blocks:
    """Quantize activations, [blocks, 32], to Q8_0 in the form of ggml's x86 run-time code.

    With sums the result is Q8_1, whose s is d times the sum of the block's levels; types with a
    minimum are multiplied with these.
    """
    d, q = _activation_levels(x)
    if not with_sums:
        return _fill("Q8_0", d=_half(d), qs=q)
    with np.errstate(over="ignore", under="ignore"):
        s = d * q.sum(axis=1, dtype=np.int32).astype(np.float32)
    return _fill("Q8_1", d=_half(d), s=_half(s), qs=q)


def _encode_q8_1(name: str, x: Floats) -> Blocks:
    """Q8_1: the levels of Q8_0, and their scaled sum."""
    blocks = _encode_q8_0("Q8_0", x)
    with np.errstate(over="ignore", under="ignore"):
        d = np.abs(x).max(axis=1) / np.float32(127)
        s = d * blocks["qs"].sum(axis=1, dtype=np.int32).astype(np.float32)
    return _fill(name, d=blocks["d"], s=_half(s), qs=blocks["qs"])


def _encode_bf16(name: str, x: Floats) -> Blocks:
    """BF16: the upper half of a float32, rounded to nearest, ties to even; NaN stays NaN."""
    bits = x.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 64, rounded).astype("<u2")


def _encode_plain(name: str, x: Floats) -> Blocks:
    with np.errstate(over="ignore", under="ignore"):
        return x.astype(TYPES[name].layout)


ENCODERS: dict[str, Callable[[str, Floats], Blocks]] = {
    "F32": _encode_plain,
    "F16": _encode_plain,
    "BF16": _encode_bf16,
    "F64": _encode_plain,
    "Q4_0": _encode_signed,
    "Q4_1": _encode_ranged,
    "Q5_0": _encode_signed,
    "Q5_1": _encode_ranged,
    "Q8_0": _encode_q8_0,
    "Q8_1": _encode_q8_1,
    **kquants.ENCODERS,
}
"""The types that weights can be converted to, by name."""


# ---- decoders ----

_IQ4_NL = np.array(IQ4_NL_LEVELS, np.int8)


def _low_nibbles(blocks: Blocks) -> Integers:
    return np.concatenate([blocks["qs"] & 15, blocks["qs"] >> 4], axis=1)


def _five_bits(blocks: Blocks) -> Integers:
    words = np.ascontiguousarray(blocks["qh"]).view(np.uint8).reshape(-1, 4)
    q: Integers = _low_nibbles(blocks) | np.unpackbits(words, axis=1, bitorder="little") << 4
    return q


_LEVELS: dict[str, Callable[[Blocks], NDArray[Any]]] = {
    "Q4_0": lambda b: _low_nibbles(b).view(np.int8) - np.int8(8),
    "Q4_1": _low_nibbles,
    "Q5_0": lambda b: _five_bits(b).view(np.int8) - np.int8(16),
    "Q5_1": _five_bits,
    "Q8_0": lambda b: b["qs"],
    "Q8_1": lambda b: b["qs"],
    "IQ4_NL": lambda b: _IQ4_NL[_low_nibbles(b)],
}

UNPACKABLE = frozenset(_LEVELS)
"""The types whose blocks ``unpack`` takes apart."""


def unpack(name: str, blocks: Blocks) -> Unpacked:
    """Take blocks of 32, [blocks], apart into integers and float32 scales."""
    m = blocks["m"].astype(np.float32) if "m" in (blocks.dtype.names or ()) else None
    return Unpacked(_LEVELS[name](blocks), blocks["d"].astype(np.float32), m)


def decode(name: str, blocks: Blocks) -> Floats:
    """Return the weights of blocks, [blocks] to [blocks, elements], as float32."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        if name in UNPACKABLE:
            q, d, m = unpack(name, blocks)
            x: Floats = d[:, None] * q
            return x if m is None else np.add(x, m[:, None], out=x)
        return _DECODERS[name](blocks)


def _decode_bf16(blocks: Blocks) -> Floats:
    return (blocks.astype(np.uint32) << 16).view(np.float32)[:, None]


def _decode_plain(blocks: Blocks) -> Floats:
    return blocks.astype(np.float32)[:, None]


_DECODERS: dict[str, Callable[[Blocks], Floats]] = {
    "BF16": _decode_bf16,
    **{name: partial(kquants.decode, name) for name in (*kquants.K_TYPES, "Q8_K")},
    **{t.name: _decode_plain for t in TYPES.values() if not t.is_blocked and t.name != "BF16"},
}

DECODABLE = UNPACKABLE | frozenset(_DECODERS)
"""The types whose weights can be read."""
