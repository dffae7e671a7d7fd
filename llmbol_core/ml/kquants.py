"""Encoders and decoders of GGML's K types: super-blocks of 256 weights in parts of 16 or 32.

A weight is ``d * scale * q - dmin * low`` with a small integer q and, for each part, small integers
scale and low. The encoders search d and m of a part among some candidates by least squares, as
ggml's reference code does: sums run over the weights in order, rounded one by one, so that the
same candidate wins and the bytes are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.dtypes import TYPES

Floats = NDArray[np.float32]
Blocks = NDArray[Any]
Integers = NDArray[Any]

BLOCK = 256
_ZERO = np.float32(0)
_TINY = np.float32(1e-15)
"""Parts that reach no further are zero (ggml's GROUP_MAX_EPS)."""


class Search(NamedTuple):
    """Which levels a part may have, and which reaches are tried for them: top + start + 0.1 i."""

    top: int
    """The greatest level."""
    start: float
    steps: int
    """The last i."""


SEARCHES = {"Q4_K": Search(15, -1.0, 20), "Q5_K": Search(31, -0.5, 15)}
"""How scales and minima of parts are searched, by type."""


class Parts(NamedTuple):
    """Super-blocks taken apart: weight = d * scale * q - dmin * low."""

    scale: Integers
    """[blocks, parts]."""
    q: Integers
    """[blocks, parts, weights of a part]."""
    low: Integers | None
    """[blocks, parts], for the types that have minima."""


# ---- fields ----


def _crumbs(qs: Integers) -> Integers:
    """Unpack two-bit fields: each run of 32 bytes holds four runs of 32 weights, low bits first."""
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    return (qs.reshape(len(qs), qs.shape[1] // 32, 1, 32) >> shifts) & 3


def _pack_crumbs(q: Integers) -> Integers:
    runs = q.reshape(len(q), q.shape[1] // 128, 4, 32)
    packed = runs[:, :, 0] | runs[:, :, 1] << 2 | runs[:, :, 2] << 4 | runs[:, :, 3] << 6
    return np.asarray(packed.reshape(len(q), q.shape[1] // 4))


def _paired_nibbles(qs: Integers) -> Integers:
    """Unpack 4-bit fields: each run of 32 bytes holds 32 weights below and 32 above."""
    runs = qs.reshape(len(qs), 4, 32)
    return np.stack([runs & 15, runs >> 4], axis=2).reshape(-1, 8, 32)


def _pack_paired_nibbles(q: Integers) -> Integers:
    runs = q.reshape(len(q), 4, 2, 32) & 15
    return (runs[:, :, 0] | runs[:, :, 1] << 4).reshape(len(q), 128)


def _six_bits(packed: Integers) -> tuple[Integers, Integers]:
    """Unpack the eight scales and eight minima of Q4_K and Q5_K from 12 bytes."""
    first, second, mixed = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scale = np.concatenate([first & 63, (mixed & 15) | (first >> 6 << 4)], axis=1)
    low = np.concatenate([second & 63, (mixed >> 4) | (second >> 6 << 4)], axis=1)
    return scale, low


def _pack_six_bits(scale: Integers, low: Integers) -> Integers:
    first = scale[:, :4] | scale[:, 4:] >> 4 << 6
    second = low[:, :4] | low[:, 4:] >> 4 << 6
    return np.concatenate([first, second, (scale[:, 4:] & 15) | (low[:, 4:] & 15) << 4], axis=1)


# ---- decoders ----


def _q2_k(blocks: Blocks) -> Parts:
    scales = blocks["scales"]
    return Parts(scales & 15, _crumbs(blocks["qs"]).reshape(-1, 16, 16), scales >> 4)


def _q3_k(blocks: Blocks) -> Parts:
    packed = blocks["scales"]
    low = np.concatenate([packed[:, :8] & 15, packed[:, :8] >> 4], axis=1)
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = ((packed[:, None, 8:] >> shifts) & 3).reshape(-1, 16)
    scale = (low | (high << 4)).view(np.int8) - np.int8(32)
    bit = np.arange(8, dtype=np.uint8)[:, None]
    missing = 1 - ((blocks["hmask"][:, None, :] >> bit) & 1)  # the third bit, stored inverted
    q = _crumbs(blocks["qs"]).reshape(-1, BLOCK).view(np.int8)
    q = q - (missing.reshape(-1, BLOCK) << 2).view(np.int8)
    return Parts(scale, q.reshape(-1, 16, 16), None)


def _q4_k(blocks: Blocks) -> Parts:
    scale, low = _six_bits(blocks["scales"])
    return Parts(scale, _paired_nibbles(blocks["qs"]), low)


def _q5_k(blocks: Blocks) -> Parts:
    bit = np.arange(8, dtype=np.uint8)[:, None]
    high = (blocks["qh"][:, None, :] >> bit) & 1
    scale, low = _six_bits(blocks["scales"])
    return Parts(scale, _paired_nibbles(blocks["qs"]) | (high << 4), low)


def _q6_k(blocks: Blocks) -> Parts:
    halves = blocks["ql"].reshape(-1, 2, 64)
    low = np.stack([halves & 15, halves >> 4], axis=2).reshape(-1, BLOCK)
    q = (low | (_crumbs(blocks["qh"]).reshape(-1, BLOCK) << 4)).view(np.int8) - np.int8(32)
    return Parts(blocks["scales"], q.reshape(-1, 16, 16), None)


_PARTS: dict[str, Callable[[Blocks], Parts]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}

K_TYPES = frozenset(_PARTS)
"""The types whose super-blocks ``unpack`` takes apart."""


def unpack(name: str, blocks: Blocks) -> Parts:
    """Take super-blocks, [blocks], apart into small integers."""
    return _PARTS[name](blocks)


def decode(name: str, blocks: Blocks) -> Floats:
    """Return the weights of super-blocks, [blocks] to [blocks, 256], as float32."""
    if name == "Q8_K":
        whole: Floats = blocks["d"][:, None] * blocks["qs"]
        return whole
    scale, q, low = unpack(name, blocks)
    x: Floats = (blocks["d"].astype(np.float32)[:, None] * scale)[:, :, None] * q
    if low is not None:
        x -= (blocks["dmin"].astype(np.float32)[:, None] * low)[:, :, None]
    return x.reshape(len(blocks), BLOCK)


# ---- the search for a scale ----


def _columns(x: Floats, width: int) -> Floats:
    """Return parts as columns, [width, parts], so that a sum down a column runs in order."""
    return np.ascontiguousarray(x.reshape(-1, width).T)


def _sum(products: Floats) -> Floats:
    """Add up each column from the top, rounding after each addition.

    NumPy adds row to row along an axis that is not the last; only the last is summed in pairs.
    """
    total: Floats = products.sum(axis=0)
    return total


def _usable(inverse: Floats) -> Floats:
    """Replace factors that are not finite, for which every level comes out as 0 in C."""
    return np.asarray(np.where(np.isfinite(inverse), inverse, np.float32(0)), np.float32)


class _Ranged:
    """Parts [32, parts] whose levels run from a minimum, and what stays the same while we search.

    Weights near zero count less: an error is weighted with |x| plus the part's root mean square.
    """

    def __init__(self, x: Floats, top: int) -> None:
        self.x, self.top = x, np.float32(top)
        self.importance = np.sqrt(_sum(x * x) / np.float32(len(x))) + np.abs(x)
        self.sum_w, self.sum_x = _sum(self.importance), _sum(self.importance * x)
        self.most = x.max(axis=0)
        self._work = np.empty_like(x)

    def levels(self, reach: np.float32, low: Floats) -> Floats:
        """Return the levels for a scale of range / reach."""
        found: Floats = self.x - low
        found *= _usable(reach / (self.most - low))
        np.rint(found, out=found)
        return np.clip(found, np.float32(0), self.top, out=found)

    def error(self, scale: Floats, low: Floats, q: Floats) -> Floats:
        """Return the weighted squares of what is left."""
        work = np.multiply(scale, q, out=self._work)
        np.subtract(np.add(work, low, out=work), self.x, out=work)
        return _sum(np.multiply(self.importance, np.square(work, out=work), out=work))

    def fit(self, q: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the best scale and minimum for levels, and where there are any."""
        wq = self.importance * q
        sum_q, sum_qq = _sum(wq), _sum(np.multiply(wq, q, out=self._work))
        sum_qx = _sum(np.multiply(wq, self.x, out=self._work))
        divisor = self.sum_w * sum_qq - sum_q * sum_q
        scale = np.asarray((self.sum_w * sum_qx - self.sum_x * sum_q) / divisor, np.float32)
        low = np.asarray((sum_qq * self.sum_x - sum_q * sum_qx) / divisor, np.float32)
        above = low > 0
        low[above] = 0
        scale[above] = (sum_qx / sum_qq)[above]
        return scale, low, divisor > 0


def _search_ranged(
    x: Floats, top: int, start: float, steps: int
) -> tuple[Floats, Floats, Integers]:
    """Return scale, -minimum and levels 0 ... top of parts [32, parts] (make_qkx2_quants).

    The minimum found so far is the one from which the next candidate's levels are counted.
    """
    parts = _Ranged(x, top)
    low: Floats = np.minimum(x.min(axis=0), np.float32(0))
    flat = parts.most == low
    scale = np.float32(1) / (parts.top / (parts.most - low))
    best_q = parts.levels(parts.top, low)
    best = parts.error(scale, low, best_q)
    for step in range(steps + 1):
        reach = np.float32(start) + np.float32(0.1) * np.float32(step) + parts.top
        q = parts.levels(reach, low)
        this_scale, this_low, possible = parts.fit(q)
        error = parts.error(this_scale, this_low, q)
        better = possible & (error < best)
        for kept, new in ((best, error), (scale, this_scale), (low, this_low), (best_q, q)):
            np.copyto(kept, new, where=better)
    scale[flat], best_q[:, flat] = 0, 0
    return scale, -low, best_q


def _search_signed(x: Floats, half: int) -> tuple[Floats, Integers]:
    """Return scale and levels -half ... half - 1 of parts [16, parts] (make_qx_quants).

    Errors are weighted with the square of the weight.
    """
    furthest = np.take_along_axis(x, np.abs(x).argmax(axis=0)[None], axis=0)[0]
    zero = np.abs(furthest) < _TINY
    square = x * x
    weighted = square * x

    def fit(reach: np.float32) -> tuple[Integers, Floats, Floats]:
        q = np.rint(_usable(-reach / furthest) * x)
        np.clip(q, np.float32(-half), np.float32(half - 1), out=q)
        return q, _sum(weighted * q), _sum(square * q * q)

    best_q, sum_qx, sum_qq = fit(np.float32(half))
    scale = np.where(sum_qq != 0, sum_qx / sum_qq, np.float32(0))
    best = scale * sum_qx
    for step in (*range(-9, 0), *range(1, 10)):
        q, sum_qx, sum_qq = fit(np.float32(half) + np.float32(0.1) * np.float32(step))
        better = (sum_qq > 0) & (sum_qx * sum_qx > best * sum_qq)
        scale[better] = (sum_qx / sum_qq)[better]
        best[better] = (scale * sum_qx)[better]
        best_q[:, better] = q[:, better]
    scale[zero], best_q[:, zero] = 0, -half
    return scale, best_q


# ---- encoders ----


def _half(x: Floats) -> NDArray[np.float16]:
    return x.astype(np.float16)


def _whole(x: Floats) -> Floats:
    """Round to whole numbers, halves to even; 0 for what is not a number."""
    x = np.rint(x)
    x[np.isnan(x)] = 0
    return x


def _small(values: Floats, greatest: Floats, top: int) -> Integers:
    """Return values [blocks, parts] as integers 0 ... top, the greatest of a block as top."""
    inverse = np.where(greatest > 0, np.float32(top) / greatest, np.float32(0))
    found = _whole(_usable(inverse)[:, None] * values)
    # What is negative wraps round in C, and is then too great.
    return np.minimum(found.astype(np.int32).astype(np.uint8), np.uint8(top))


def _relevel(
    x: Floats, d: Floats, m: Floats | np.float32, searched: Integers, ends: tuple[int, int]
) -> Integers:
    """Return levels for the scales as they were stored; parts whose scale became 0 keep theirs."""
    found = _whole((x + m) / d)
    found[np.isinf(found)] = ends[0]
    np.clip(found, *map(np.float32, ends), out=found)
    return np.where(d == 0, searched, found)


def _encode_ranged(name: str, x: Floats) -> Blocks:
    """Q4_K and Q5_K: eight parts of 32, each with a scale and a minimum of six bits."""
    top, start, steps = SEARCHES[name]
    columns = _columns(x, 32)
    scale, low, searched = _search_ranged(columns, top, start, steps)
    scale, low = scale.reshape(-1, 8), low.reshape(-1, 8)
    most, lowest = (np.where(v > 0, v, _ZERO).max(axis=1) for v in (scale, low))  # never -0.0
    small, small_low = _small(scale, most, 63), _small(low, lowest, 63)
    blocks = np.zeros(len(x), TYPES[name].layout)
    blocks["d"], blocks["dmin"] = _half(most / np.float32(63)), _half(lowest / np.float32(63))
    blocks["scales"] = _pack_six_bits(small, small_low)
    d = blocks["d"].astype(np.float32)[:, None] * small
    m = blocks["dmin"].astype(np.float32)[:, None] * small_low
    levels = _relevel(columns, d.reshape(-1), m.reshape(-1), searched, (0, top))
    q = np.ascontiguousarray(levels.T).astype(np.uint8).reshape(-1, 8, 32)
    blocks["qs"] = _pack_paired_nibbles(q)
    if name == "Q5_K":
        bit = np.arange(8, dtype=np.uint8)[:, None]
        blocks["qh"] = np.bitwise_or.reduce(q >> 4 << bit, axis=1)
    return blocks


def _encode_q6_k(name: str, x: Floats) -> Blocks:
    """Q6_K: sixteen parts of 16, each with a scale of eight bits."""
    columns = _columns(x, 16)
    scale, searched = _search_signed(columns, 32)
    scale = scale.reshape(-1, 16)
    at = np.abs(np.where(np.isnan(scale), 0, scale)).argmax(axis=1)
    furthest = scale[np.arange(len(x)), at]
    furthest[np.isnan(furthest)] = 0
    inverse = np.float32(-128) / furthest
    blocks = np.zeros(len(x), TYPES[name].layout)
    blocks["d"] = _half(1 / inverse)
    small = _whole(_usable(inverse)[:, None] * scale)
    blocks["scales"] = np.minimum(small, np.float32(127)).astype(np.int8)
    d = blocks["d"].astype(np.float32)[:, None] * blocks["scales"]
    levels = _relevel(columns, d.reshape(-1), np.float32(0), searched, (-32, 31))
    q = (np.ascontiguousarray(levels.T).astype(np.int8) + np.int8(32)).view(np.uint8)
    q = q.reshape(-1, 2, 2, 64)
    blocks["ql"] = ((q[:, :, 0] & 15) | (q[:, :, 1] & 15) << 4).reshape(-1, 128)
    blocks["qh"] = _pack_crumbs((q >> 4).reshape(-1, BLOCK))
    blocks[np.abs(furthest) < _TINY] = np.zeros(1, blocks.dtype)
    return blocks


def encode_activations(x: Floats) -> Blocks:
    """Quantize activations, [blocks, 256], to Q8_K: 8-bit levels and their sums, 16 at a time."""
    blocks = np.zeros(len(x), TYPES["Q8_K"].layout)
    furthest = np.take_along_axis(x, np.abs(x).argmax(axis=1)[:, None], axis=1)
    with np.errstate(all="ignore"):
        inverse = np.where(furthest == 0, np.float32(0), np.float32(-127) / furthest)
        q = np.minimum(np.rint(_usable(inverse) * x), np.float32(127)).astype(np.int8)
        blocks["d"] = np.where(inverse == 0, np.float32(0), 1 / inverse)[:, 0]
    blocks["qs"] = q
    blocks["bsums"] = q.reshape(-1, 16, 16).sum(axis=2, dtype=np.int16)
    return blocks


def _silently(encode: Callable[[str, Floats], Blocks]) -> Callable[[str, Floats], Blocks]:
    """Let huge and tiny weights overflow and vanish as they do in C."""
    return np.errstate(all="ignore")(encode)


ENCODERS: dict[str, Callable[[str, Floats], Blocks]] = {
    "Q4_K": _silently(_encode_ranged),
    "Q5_K": _silently(_encode_ranged),
    "Q6_K": _silently(_encode_q6_k),
}
"""The K types that weights can be converted to, by name."""
