"""Float32 to GGML's K types, bit for bit as ``kquants`` defines it: Q4_K, Q5_K and Q6_K.

The search for the scales of 16 parts goes on in the lanes of vectors, a part in each; an item is
two super-blocks of eight parts, or one of sixteen. Weights for which sums or quotients might leave
the range of numbers are left to the definition: their item is marked as strange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.kinds import f16, f32, i1, i8, i32, i64, u8, u16
from llmbol_core.ml.kernels.repack import transposed_words
from llmbol_core.ml.kernels.superblocks import COLUMNS, SUPER_FORMS
from llmbol_core.ml.kquants import SEARCHES

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

GROUP = Group("encoders of super-blocks")

_LANES = 16
_LIMIT = 4e4
"""Greater weights are strange."""
_SCALES = 4e6
"""Greater scales are, which float16 could not hold."""
_TINY = 1.0000000036274937e-15
"""Parts that reach no further are zero: the float32 of 1e-15."""
BLOCKS = {"Q4_K": 2, "Q5_K": 2, "Q6_K": 1}
"""Super-blocks of an item."""


class _Parts:
    """Sixteen parts of so many weights: number i of all of them lies in a vector."""

    def __init__(self, k: Builder, starts: list[Pointer], width: int) -> None:
        self.k, self.width = k, width
        self.x, self.levels, self.best, self.weight = (
            k.room(f32, width * _LANES) for _ in range(4)
        )
        for first in range(0, width, _LANES):
            rows = [start.at(first).of(i32) for start in starts]
            for i, column in enumerate(transposed_words(rows, _LANES)):
                self.x.store(column.bits(f32), (first + i) * _LANES)

    def number(self, value: float) -> Value:
        """Return a number in all lanes."""
        return self.k.value(value, f32, _LANES)

    def total(self, value: float = 0.0) -> Variable:
        """Return a variable for each part."""
        return self.k.variable(self.number(value))

    def usable(self, factor: Value) -> Value:
        """Replace factors that are not finite by zero."""
        return self.k.select(self.k.abs(factor) < float("inf"), factor, 0.0)

    def clip(self, x: Value, low: float, high: float) -> Value:
        """Round to a whole number within limits."""
        k = self.k
        return k.min(k.max(k.rint(x), self.number(low)), self.number(high))

    def keep(self, better: Value, *pairs: tuple[Variable, Value]) -> None:
        """Keep new numbers and levels of the parts where they are better."""
        k = self.k
        with k.when(better.bits(u16).differs(0)):
            for old, new in pairs:
                old.value = k.select(better, new, old.value)
            for i in range(self.width):
                at = i * _LANES
                chosen = k.select(better, self.levels.load(at, _LANES), self.best.load(at, _LANES))
                self.best.store(chosen, at)

    def are_strange(self) -> Value:
        """Return whether any weight is too great, or not a number."""
        fits = self.k.variable(self.k.value(1, i1, _LANES))
        for i in self.k.range(self.width):
            fits.value = fits.value & (self.k.abs(self.x.load(i * _LANES, _LANES)) <= _LIMIT)
        return fits.value.bits(u16).differs(0xFFFF)


# ---- levels from a minimum on ----


class _Ranged(_Parts):
    """Parts of 32 with a scale and a minimum each (make_qkx2_quants)."""

    def __init__(self, k: Builder, starts: list[Pointer], top: int) -> None:
        super().__init__(k, starts, 32)
        self.top = top

    def search(self, start: float, steps: int) -> tuple[Value, Value]:
        """Return scales and minus minima; the levels are the best ones."""
        k, top = self.k, float(self.top)
        self._measure()
        low = k.variable(k.min(self.least, self.number(0)))
        flat = self.most.equals(low.value)
        scale = k.variable(1.0 / (top / (self.most - low.value)))
        self._fill_levels(self.number(top), low.value)
        best = k.variable(self._error(scale.value, low.value))
        self.keep(self.most.equals(self.most))
        for step in k.range(steps + 1):
            reach = step.to(i32).to(f32) * 0.1 + start + top
            sums = self._fill_levels(reach.splat(_LANES), low.value)
            new_scale, new_low, possible = self._fit(*sums)
            error = self._error(new_scale, new_low)
            better = possible & (error < best.value)
            self.keep(better, (best, error), (scale, new_scale), (low, new_low))
        for i in k.range(self.width):
            level = self.best.load(i * _LANES, _LANES)
            self.best.store(k.select(flat, self.number(0), level), i * _LANES)
        return k.select(flat, self.number(0), scale.value), -low.value

    def _measure(self) -> None:
        """Sum the weights, and what they count in errors: |x| plus the root mean square."""
        k = self.k
        first = self.x.load(0, _LANES)
        least, most = k.variable(first), k.variable(first)
        squares, sum_x, sum_w = self.total(), self.total(), self.total()
        for i in k.range(self.width):
            x = self.x.load(i * _LANES, _LANES)
            squares.value += x * x
            least.value, most.value = k.min(x, least.value), k.max(x, most.value)
        root = k.sqrt(squares.value * (1 / self.width))
        for i in k.range(self.width):
            x = self.x.load(i * _LANES, _LANES)
            weight = root + k.abs(x)
            self.weight.store(weight, i * _LANES)
            sum_w.value += weight
            sum_x.value += weight * x
        self.least, self.most = least.value, most.value
        self.sum_w, self.sum_x = sum_w.value, sum_x.value

    def _fill_levels(self, reach: Value, low: Value) -> tuple[Value, Value, Value]:
        """Make the levels for a scale of range / reach; return sums of them."""
        k = self.k
        factor = self.usable(reach / (self.most - low))
        sum_q, sum_qq, sum_qx = self.total(), self.total(), self.total()
        for i in k.range(self.width):
            x, weight = (room.load(i * _LANES, _LANES) for room in (self.x, self.weight))
            q = self.clip((x - low) * factor, 0, self.top)
            self.levels.store(q, i * _LANES)
            wq = weight * q
            sum_q.value += wq
            sum_qq.value += wq * q
            sum_qx.value += wq * x
        return sum_q.value, sum_qq.value, sum_qx.value

    def _fit(self, sum_q: Value, sum_qq: Value, sum_qx: Value) -> tuple[Value, Value, Value]:
        """Return the best scales and minima for levels, and where there are any."""
        k, sum_w, sum_x = self.k, self.sum_w, self.sum_x
        divisor = sum_w * sum_qq - sum_q * sum_q
        scale = (sum_w * sum_qx - sum_x * sum_q) / divisor
        low = (sum_qq * sum_x - sum_q * sum_qx) / divisor
        above = low > 0.0
        scale = k.select(above, sum_qx / sum_qq, scale)
        return scale, k.select(above, self.number(0), low), divisor > 0.0

    def _error(self, scale: Value, low: Value) -> Value:
        """Return the weighted squares of what levels leave."""
        k, total = self.k, self.total()
        for i in k.range(self.width):
            at = i * _LANES
            gap = scale * self.levels.load(at, _LANES) + low - self.x.load(at, _LANES)
            total.value += self.weight.load(at, _LANES) * (gap * gap)
        return total.value


def _in_both(k: Builder, first: Value, second: Value) -> Value:
    """Return one number in the lanes of the first super-block and one in those of the second."""
    is_first = k.ramp(_LANES, i32) < 8
    return k.select(is_first, first.splat(_LANES), second.splat(_LANES))


def _small(k: Builder, parts: _Parts, values: Value, greatest: list[Value]) -> tuple[Value, Value]:
    """Return values as integers 0 ... 63, and whether any is too far below zero for that."""
    inverse = _in_both(k, *(k.select(g > 0.0, 63.0 / g, k.zeros(f32)) for g in greatest))
    found = k.rint(parts.usable(inverse) * values)
    far = (found < -1e9).bits(u16).differs(0)
    # What is negative wraps round in C, and is then too great.
    return k.min(found.to(i32) & 255, 63), far


def _ranged(name: str) -> Author:
    top, start, steps = SEARCHES[name]
    size = SUPER_FORMS[name].bytes

    def write(k: Builder, x: Pointer, out: Pointer, strange: Pointer, count: Value) -> None:
        for item in k.items():
            numbers = [item * 2, k.min(item * 2 + 1, count - 1)]
            starts = [x.at(n * COLUMNS + 32 * p) for n in numbers for p in range(8)]
            targets = [out.at(n * size) for n in numbers]
            parts = _Ranged(k, starts, top)
            scale, low = parts.search(start, steps)
            most, lowest = (
                [k.max(half.max(), 0.0) for half in values.halves()] for values in (scale, low)
            )
            small, far = _small(k, parts, scale, most)
            small_low, far_low = _small(k, parts, low, lowest)
            great = k.max(k.max(*most), k.max(*lowest)) > _SCALES
            strange.store((parts.are_strange() | far | far_low | great).to(u8), item)
            ds, ms = ([(g / 63.0).to(f16) for g in group] for group in (most, lowest))
            for target, d, m in zip(targets, ds, ms, strict=True):
                target.of(f16).store(d)
                target.of(f16).store(m, 1)
            shares = small.to(u8).halves(), small_low.to(u8).halves()
            for target, first, second in zip(targets, *shares, strict=True):
                _store_six_bits(k, target.bytes_on(4), first, second)
            d = _in_both(k, *(v.to(f32) for v in ds)) * small.to(f32)
            m = _in_both(k, *(v.to(f32) for v in ms)) * small_low.to(f32)
            _store_nibbles(k, parts, targets, d, m, name == "Q5_K")

    return write


def _store_six_bits(k: Builder, target: Pointer, scale: Value, low: Value) -> None:
    """Store eight scales and eight minima of six bits in 12 bytes."""
    (s, more_s), (m, more_m) = scale.halves(), low.halves()
    target.store(s | ((more_s >> 4) << 6))
    target.store(m | ((more_m >> 4) << 6), 4)
    target.store((more_s & 15) | ((more_m & 15) << 4), 8)


def _store_nibbles(
    k: Builder, parts: _Parts, targets: list[Pointer], d: Value, m: Value, has_fifths: bool
) -> None:
    """Store the levels for the scales as they were stored, parts in pairs."""
    top = 31 if has_fifths else 15
    pairs = k.room(u8, 32 * 8)
    empty = d.equals(0.0)
    for i in k.range(32):
        exact = (parts.x.load(i * _LANES, _LANES) + m) / d
        exact = k.select(k.abs(exact).equals(float("inf")), parts.number(0), exact)
        found = k.select(empty, parts.best.load(i * _LANES, _LANES), parts.clip(exact, 0, top))
        level = found.to(i32)
        if has_fifths:
            bits = (level > 15).bits(u16)
            for number, target in enumerate(targets):
                target.store((bits >> (8 * number)).to(u8), i + 16)
        byte = (level & 15).to(u8)
        even, odd = (byte.shuffle(range(first, _LANES, 2)) for first in (0, 1))
        pairs.store(even | (odd << 4), i * 8)
    head = 48 if has_fifths else 16
    for i in k.range(32):
        for number, target in enumerate(targets):
            for pair in range(4):
                target.store(pairs.load(i * 8 + (4 * number + pair)), i + (head + 32 * pair))


# ---- levels on both sides of zero ----


class _Signed(_Parts):
    """Parts of 16 with a scale each (make_qx_quants), levels -32 ... 31."""

    def __init__(self, k: Builder, starts: list[Pointer]) -> None:
        super().__init__(k, starts, 16)

    def search(self) -> Value:
        """Return scales; the levels are the best ones."""
        k = self.k
        self.furthest = self._furthest()
        zero = k.abs(self.furthest) < _TINY
        sum_qx, sum_qq = self._fit(self.number(32))
        some = sum_qq.differs(0.0)
        scale = k.variable(k.select(some, sum_qx / sum_qq, self.number(0)))
        best = k.variable(scale.value * sum_qx)
        self.keep(zero.equals(zero))
        for step in k.range(18):
            number = step.to(i32) - 9
            number = k.select(number < 0, number, number + 1)
            reach = number.to(f32) * 0.1 + 32.0
            sum_qx, sum_qq = self._fit(reach.splat(_LANES))
            better = (sum_qq > 0.0) & (sum_qx * sum_qx > best.value * sum_qq)
            new = sum_qx / sum_qq
            self.keep(better, (scale, new), (best, new * sum_qx))
        for i in k.range(self.width):
            level = self.best.load(i * _LANES, _LANES)
            self.best.store(k.select(zero, self.number(-32), level), i * _LANES)
        return k.select(zero, self.number(0), scale.value)

    def _furthest(self) -> Value:
        """Return the weight furthest from zero of each part, the first of several."""
        k = self.k
        size, found = self.total(), k.variable(self.x.load(0, _LANES))
        for i in k.range(self.width):
            x = self.x.load(i * _LANES, _LANES)
            further = k.abs(x) > size.value
            found.value = k.select(further, x, found.value)
            size.value = k.select(further, k.abs(x), size.value)
        return found.value

    def _fit(self, reach: Value) -> tuple[Value, Value]:
        """Make the levels for a scale of furthest / -reach; return sums of them."""
        k = self.k
        factor = self.usable(-reach / self.furthest)
        sum_qx, sum_qq = self.total(), self.total()
        for i in k.range(self.width):
            x = self.x.load(i * _LANES, _LANES)
            q = self.clip(factor * x, -32, 31)
            self.levels.store(q, i * _LANES)
            square = x * x
            sum_qx.value += square * x * q
            sum_qq.value += square * q * q
        return sum_qx.value, sum_qq.value


def _q6_k(k: Builder, x: Pointer, out: Pointer, strange: Pointer, count: Value) -> None:
    """Write the code for super-blocks of Q6_K."""
    room = k.room(f32, _LANES)
    for item in k.items():
        target = out.at(item * SUPER_FORMS["Q6_K"].bytes)
        parts = _Signed(k, [x.at(item * COLUMNS + 16 * p) for p in range(16)])
        scale = parts.search()
        room.store(scale)
        sizes = k.abs(scale)
        first = k.trailing_zeros(sizes.equals(sizes.max()).bits(u16))
        furthest = room.load(first.to(i64))
        inverse = -128.0 / furthest
        small = k.min(k.rint(parts.usable(inverse.splat(_LANES)) * scale), 127.0).to(i32)
        d = (1.0 / inverse).to(f16)
        nothing = k.abs(furthest) < _TINY
        great = k.abs(furthest) > _SCALES
        strange.store((parts.are_strange() | great).to(u8), item)
        target.of(i8).store(small.to(i8), 192)
        target.bytes_on(208).of(f16).store(d)
        _store_six(k, parts, target, d.to(f32).splat(_LANES) * small.to(f32))
        with k.when(nothing):
            for i in k.range(SUPER_FORMS["Q6_K"].bytes):
                target.store(k.value(0, u8), i)


def _store_six(k: Builder, parts: _Parts, target: Pointer, d: Value) -> None:
    """Store levels of six bits for the scales as they were stored."""
    low, high = k.room(u8, 16 * 8), k.room(u8, 16 * 4)
    empty = d.equals(0.0)
    places = k.vector(u8, [2 * (lane % 8 // 2) for lane in range(_LANES)])
    for i in k.range(16):
        exact = parts.x.load(i * _LANES, _LANES) / d
        exact = k.select(k.abs(exact).equals(float("inf")), parts.number(-32), exact)
        found = k.select(empty, parts.best.load(i * _LANES, _LANES), parts.clip(exact, -32, 31))
        level = (found.to(i32) + 32).to(u8)
        nibbles, rest = level & 15, (level >> 4) << places
        first, second = (
            nibbles.shuffle([8 * half + start + p for half in range(2) for p in range(4)])
            for start in (0, 4)
        )
        low.store(first | (second << 4), i * 8)
        runs = [rest.shuffle([8 * half + 2 * run + p for half in range(2) for p in range(2)])
                for run in range(4)]  # fmt: skip
        high.store(runs[0] | runs[1] | runs[2] | runs[3], i * 4)
    for i in k.range(16):
        for half in range(2):
            for p in range(4):
                target.store(low.load(i * 8 + (4 * half + p)), i + (64 * half + 16 * p))
            for p in range(2):
                at = 128 + 32 * half + 16 * p
                target.store(high.load(i * 4 + (2 * half + p)), i + at)


_AUTHORS: dict[str, Author] = {"Q4_K": _ranged("Q4_K"), "Q5_K": _ranged("Q5_K"), "Q6_K": _q6_k}

SUPER_ENCODERS: dict[str, Kernel] = {
    name: GROUP.kernel("x:f32* out:u8* strange:u8* count:i64", f"encode_{name.lower()}")(author)
    for name, author in _AUTHORS.items()
}
"""(x [blocks, 256], out bytes, strange [items], blocks in all) by storage type."""
