"""Rows of numbers to one each, running sums, softmax: rows may be any distance apart.

A row is summed in parts of ``PART`` numbers. In a part there is a chain of sums for each lane of
``CHAINS`` vectors, which is added to another one after ``SPAN`` numbers; those are added, halves
upon halves, and the parts one after the other in float64. That does not depend on who does which
row or part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.functions import exp, log
from llmbol_core.ml.kernels.kinds import f32, f64, i32, i64
from llmbol_core.ml.kernels.rows import plus, reduced, softmax_row
from llmbol_core.ml.kernels.tiles import greater

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("rowwise")

PART = 1 << 15
CHAINS = 4
SPAN = 32

Combine = Callable[["Builder", "Value", "Value"], "Value"]
Change = Callable[["Value"], "Value"]


def least(k: Builder, a: Value, b: Value) -> Value:
    """Return the lesser of two, NaN if either is."""
    return k.select(a < b, a, k.select(a.equals(a), b, a))


# fmt: off
FOLDS: dict[str, tuple[float, Combine, Change]] = {
    # operation     neutral        combined                       what counts of a number
    "sum":         (0.0,           lambda k, a, b: a + b,         lambda v: v),
    "mean":        (0.0,           lambda k, a, b: a + b,         lambda v: v),
    "sum_squares": (0.0,           lambda k, a, b: a + b,         lambda v: v * v),
    "max":         (float("-inf"), greater,                       lambda v: v),
    "min":         (float("inf"),  least,                         lambda v: v),
}
# fmt: on
_BARE: dict[Combine, Combine] = {
    greater: lambda k, a, b: k.max(a, b),
    least: lambda k, a, b: k.min(a, b),
}
"""What gives the same if there is no NaN, in less time."""
_PARAMETERS = "x:f32* out:f32* size:i64 parts:i64 divisor:f32 pitch:i64"


class _Fold:
    """The code of one operation."""

    def __init__(self, k: Builder, neutral: float, combine: Combine, change: Change) -> None:
        self.k, self.neutral, self.change = k, neutral, change
        self.bare = _BARE.get(combine)
        self.combine: Callable[[Value, Value], Value] = lambda a, b: combine(k, a, b)
        self.nothing = k.value(neutral, f32, k.lanes)

    def row(self, x: Pointer, size: Value) -> Value:
        """Return what a row, or a part of one, gives."""
        k, wide = self.k, self.k.lanes * CHAINS
        totals = [k.variable(self.nothing) for _ in range(CHAINS)]
        whole, vectors = size // wide * wide, size // k.lanes * k.lanes
        for begin in k.range(0, whole, wide * SPAN):
            rest, end = whole - begin, k.value(wide * SPAN, i64)
            made = self._span(x.at(begin), k.select(rest < end, rest, end))
            for total, chain in zip(totals, made, strict=True):
                total.value = self.combine(total.value, chain)
        for i in k.range(whole, vectors, k.lanes):
            totals[0].value = self.combine(totals[0].value, self.change(x.load(i, k.lanes)))
        with k.when(vectors < size):
            some = self.some(x.at(vectors), size - vectors)
            totals[1].value = self.combine(totals[1].value, some)
        first, second, third, fourth = (total.value for total in totals)
        return self.whole(self.combine(self.combine(first, second), self.combine(third, fourth)))

    def _span(self, x: Pointer, size: Value) -> list[Value]:
        """Return what so many numbers give, in chains."""
        k = self.k
        if self.bare is not None:
            return self._span_of_extremes(x, size, self.bare)
        chains = [k.variable(self.nothing) for _ in range(CHAINS)]
        for i in k.range(0, size, k.lanes * CHAINS):
            for j, chain in enumerate(chains):
                value = self.change(x.load(i + k.lanes * j, k.lanes))
                chain.value = self.combine(chain.value, value)
        return [chain.value for chain in chains]

    def _span_of_extremes(self, x: Pointer, size: Value, bare: Combine) -> list[Value]:
        """Return the same for an operation that NaN passes by, which is looked for apart."""
        k = self.k
        chains = [k.variable(self.nothing) for _ in range(CHAINS)]
        strange = k.variable(self.nothing.unordered(self.nothing))
        for i in k.range(0, size, k.lanes * CHAINS):
            values = [x.load(i + k.lanes * j, k.lanes) for j in range(CHAINS)]
            for value, chain in zip(values, chains, strict=True):
                chain.value = bare(k, chain.value, value)
            for first, second in zip(values[::2], values[1::2], strict=True):
                strange.value = strange.value | first.unordered(second)
        found = [chain.value for chain in chains]
        found[0] = k.select(strange.value, k.value(float("nan"), f32, k.lanes), found[0])
        return found

    def some(self, x: Pointer, count: Value) -> Value:
        """Return a vector of the first numbers, what changes nothing in the other lanes."""
        k = self.k
        there = k.ramp(k.lanes, i32) < count.to(i32).splat(k.lanes)
        return k.select(there, self.change(x.load_some(count, k.lanes)), self.nothing)

    def whole(self, value: Value) -> Value:
        """Combine the lanes of a vector."""
        while value.lanes > 1:
            value = self.combine(*value.halves())
        return value


def _rows(name: str, neutral: float, combine: Combine, change: Change) -> Kernel:
    """Make the kernel whose items are rows."""

    def author(
        k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value,
        pitch: Value,
    ) -> None:  # fmt: skip
        fold = _Fold(k, neutral, combine, change)
        with k.either(size <= k.lanes) as (short, long):
            with short:
                for i in k.items():
                    out.store(fold.whole(fold.some(x.at(i * pitch), size)) / divisor, i)
            with long:
                for i in k.items():
                    total = k.variable(k.value(neutral, f64))
                    for begin in k.range(0, size, PART):
                        rest = size - begin
                        count = k.select(rest < PART, rest, k.value(PART, i64))
                        made = fold.row(x.at(i * pitch + begin), count)
                        total.value = fold.combine(total.value, made.to(f64))
                    out.store(total.value.to(f32) / divisor, i)

    return group.kernel(_PARAMETERS, f"{name}_rows")(author)


def _parts(name: str, neutral: float, combine: Combine, change: Change) -> Kernel:
    """Make the kernel whose items are parts of rows."""

    def author(
        k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value,
        pitch: Value,
    ) -> None:  # fmt: skip
        fold = _Fold(k, neutral, combine, change)
        for i in k.items():
            begin = i % parts * PART
            rest = size - begin
            count = k.select(rest < PART, rest, k.value(PART, i64))
            out.store(fold.row(x.at(i // parts * pitch + begin), count), i)

    return group.kernel(_PARAMETERS, f"{name}_parts")(author)


def _join(name: str, neutral: float, combine: Combine, change: Change) -> Kernel:
    """Make the kernel that combines what the parts of rows gave; items are rows."""

    def author(
        k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value,
        pitch: Value,
    ) -> None:  # fmt: skip
        for i in k.items():
            total = k.variable(k.value(neutral, f64))
            for j in k.range(parts):
                total.value = combine(k, total.value, x.load(i * parts + j).to(f64))
            out.store(total.value.to(f32) / divisor, i)

    return group.kernel(_PARAMETERS, f"{name}_join")(author)


FOLD_KERNELS = {
    name: tuple(make(name, *row) for make in (_rows, _parts, _join)) for name, row in FOLDS.items()
}
"""For each operation the kernels for rows, for parts of rows, and for what those give."""


@group.kernel(_PARAMETERS)
def cumsum(
    k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value, pitch: Value
) -> None:
    """Write running sums: within vectors, and in float64 from vector to vector."""
    lanes = k.ramp(k.lanes, i32)
    for row in k.items():
        given, made = x.at(row * pitch), out.at(row * size)
        before = k.variable(k.zeros(f64))

        def step(i: Value, left: Value | None, given: Pointer, made: Pointer) -> None:
            value, distance = read(k, given, i, left), 1
            while distance < k.lanes:
                moved = value.shuffle([(j - distance) % k.lanes for j in range(k.lanes)])
                value = k.select(lanes < distance, value, value + moved)
                distance *= 2
            start = before.value.to(f32).splat(k.lanes)
            write(k, made, value + start, i, left)
            before.value = before.value + value.lane(k.lanes - 1).to(f64)

        spread(k, size, partial(step, given=given, made=made))


@group.kernel(_PARAMETERS)
def softmax(
    k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value, pitch: Value
) -> None:
    """Divide exp(x) by its sum."""
    for row in k.items():
        softmax_row(k, x.at(row * pitch), out.at(row * size), size, None)


@group.kernel(_PARAMETERS)
def log_softmax(
    k: Builder, x: Pointer, out: Pointer, size: Value, parts: Value, divisor: Value, pitch: Value
) -> None:
    """Subtract the logarithm of the sum of exp(x), some rows at a time."""
    lanes = k.lanes
    tops, totals = k.room(f32, lanes), k.room(f32, lanes)
    totals.store(k.value(1.0, f32, lanes))
    for first in k.items(lanes):
        rest = k.end - first
        count = k.select(rest < lanes, rest, k.value(lanes, i64))
        for i in k.range(count):
            row = x.at((first + i) * pitch)
            # NaN makes all of a row NaN by the sum.
            top = reduced(k, row, size, float("-inf"), k.max)
            tops.store(top, i)
            totals.store(_total(k, row, size, top.splat(lanes)), i)
        found = totals.load(0, lanes)
        totals.store(k.select(found.equals(found), log(k, found), found))
        for i in k.range(count):
            row, made = x.at((first + i) * pitch), out.at((first + i) * size)
            _subtract(k, row, made, size, tops.splat(i, lanes), totals.splat(i, lanes))


def _total(k: Builder, x: Pointer, size: Value, top: Value) -> Value:
    return reduced(k, x, size, 0.0, plus, lambda v, i, n: exp(k, v - top))


def _subtract(
    k: Builder, given: Pointer, made: Pointer, size: Value, top: Value, rest: Value
) -> None:
    def step(i: Value, left: Value | None) -> None:
        write(k, made, read(k, given, i, left) - top - rest, i, left)

    spread(k, size, step)


SCANS = {"cumsum": cumsum, "softmax": softmax, "log_softmax": log_softmax}
"""Operations whose results have the shape of x."""
