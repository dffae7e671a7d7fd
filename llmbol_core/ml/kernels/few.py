"""Products of few float32 rows with a matrix that is read as it lies: a part of ``matmul``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

SOON = 48
"""How many rows ahead y is asked for."""
FEW = 8
"""Up to so many rows packing does not pay."""
NARROW = 4
"""Rows that go along many columns together where there are 16 registers."""
BROAD = 512
"""Columns from which on few rows go along them rather than along the depth."""
LARGE = 3 << 16
"""How many numbers y must have for a single row to do so."""
NEAREST = 6144
"""How many sums such rows have at a time, so that the nearest cache holds them."""

Take = Callable[["Value"], "list[Value]"]
"""Writes the code that reads the vectors of a panel at a step of the depth."""

_STRIPS = (
    ((8, 4), (4,), (3,), (3,), (2,), (2,), (1,), (1,)),
    ((16, 8, 4), (8,), (4,), (4,), (4,), (3,), (3,), (3,)),
)
"""Vectors of columns that few rows have at a time, by their number: with 16 registers and 32."""


class FewRows:
    """The code of products of few rows."""

    def __init__(
        self, k: Builder, x: Pointer, y: Pointer, out: Pointer, rows: Value, depth: Value,
        columns: Value, x_pitch: Value, y_pitch: Value, out_pitch: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.y, self.out = k, x, y, out
        self.rows, self.depth, self.columns = rows, depth, columns
        self.x_pitch, self.y_pitch, self.out_pitch = x_pitch, y_pitch, out_pitch

    def write(self, first: Value, last: Value) -> None:
        """Write the code for columns first ... last: y is read as it lies."""
        k = self.k
        self.sums = k.room(f32, NEAREST + 48 * FEW)
        # Of more rows some at a time pass by a part of y that stays in the caches.
        part = self.columns
        if k.lanes == 16:
            part = k.select(self.rows > FEW, k.value(NEAREST // FEW, i64), part)
        for start in k.range(first, last, part):
            stop = lesser_number(k, start + part, last)
            most = self._at_a_time(stop - start)
            for row in k.range(0, self.rows, most):
                count = lesser_number(k, self.rows - row, most)
                x, out = self.x.at(row * self.x_pitch), self.out.at(row * self.out_pitch)
                for size in range(1, FEW + 1):
                    with k.when(count.equals(size)):
                        self._rows(
                            [x.at(self.x_pitch * r) for r in range(size)],
                            [out.at(self.out_pitch * r) for r in range(size)],
                            start,
                            stop,
                        )

    def _at_a_time(self, columns: Value) -> Value:
        """Return how many rows go along so many columns together."""
        k = self.k
        if k.lanes == 16:
            return k.value(FEW, i64)
        parts = (self.rows + (NARROW - 1)) // NARROW
        even = (self.rows + (parts - 1)) // parts
        return k.select(columns >= BROAD, even, k.value(FEW, i64))

    def _rows(self, rows: list[Pointer], places: list[Pointer], first: Value, last: Value) -> None:
        """Write the code for some rows and columns."""
        k, count = self.k, len(rows)
        broad = last - first >= BROAD
        if count == 1:
            broad = broad & (self.depth * self.columns >= LARGE)
        with k.either(broad) as (yes, no):
            with yes:
                near = NEAREST // count // 64 * 64
                for column in k.range(first, last, near):
                    stop = lesser_number(k, column + near, last)
                    self._stream(rows, places, column, stop, near)
            with no:
                self._strips(rows, places, first, last)

    def _strips(
        self, rows: list[Pointer], places: list[Pointer], first: Value, last: Value
    ) -> None:
        """Write the code for some rows and columns, as many of them at a time as can be."""
        k = self.k
        start = k.variable(first)
        sizes = _STRIPS[k.lanes == 16][len(rows) - 1]
        for vectors in sizes:
            width = vectors * k.lanes
            stop = first + (last - first) // width * width
            for column in k.range(start.value, stop, width):
                self._strip(rows, places, column, vectors)
            start.value = stop
        with k.when(start.value < last):
            self._strip(rows, places, start.value, sizes[-1], last)

    def _stream(
        self, rows: list[Pointer], places: list[Pointer], first: Value, last: Value, most: int
    ) -> None:
        """Write the code for some rows and columns: y goes by once, some of it at a time."""
        k, lanes, count = self.k, self.k.lanes, len(rows)
        registers = 16 if lanes == 16 else 8
        step = next(n for n in (4, 2, 1) if n * count <= registers or n == 1)
        # The sums do not lie as far apart as a page is long, as they may do in the result.
        targets = [self.sums.at(r * (most + 48)) for r in range(count)]

        def add(start: Value, size: int) -> None:
            factors = [[row.splat(start + i, lanes) for i in range(size)] for row in rows]
            fresh = start.equals(0)
            lines = [self.y.at((start + i) * self.y_pitch + first) for i in range(size)]

            def column(i: Value, left: Value | None) -> None:
                for line in lines:
                    line.prefetch(self.y_pitch * size + i, level=3 if count == 1 else 2)
                given = [read(k, line, i, left) for line in lines]
                for target, numbers in zip(targets, factors, strict=True):
                    total = k.select(fresh, k.zeros(f32, lanes), target.load(i, lanes))
                    for factor, value in zip(numbers, given, strict=True):
                        total = k.fma(factor, value, total)
                    target.store(total, i)

            spread(k, last - first, column)

        whole = self.depth // step * step
        for i in k.range(0, whole, step):
            add(i, step)
        for i in k.range(whole, self.depth):
            add(i, 1)
        for place, target in zip(places, targets, strict=True):
            place = place.at(first)

            def copy(i: Value, left: Value | None) -> None:
                write(k, place, target.load(i, lanes), i, left)

            spread(k, last - first, copy)

    def _strip(
        self, rows: list[Pointer], places: list[Pointer], column: Value, vectors: int,
        end: Value | None = None,
    ) -> None:  # fmt: skip
        """Write the code for some rows and vectors of columns, which may pass the end."""
        k, lanes, count = self.k, self.k.lanes, len(rows)
        left = [None if end is None else end - column - lanes * j for j in range(vectors)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(vectors)] for _ in range(count)]

        def take(i: Value) -> list[Value]:
            given = self.y.at(i * self.y_pitch + column)
            for j in range(vectors if count > 1 else 0):
                given.prefetch(self.y_pitch * SOON + lanes * j)
            return [read(k, given, k.value(lanes * j, i64), left[j]) for j in range(vectors)]

        accumulate(k, rows, k.value(0, i64), self.depth, sums, take)
        for place, totals in zip(places, sums, strict=True):
            for j, total in enumerate(totals):
                write(k, place, total.value, column + lanes * j, left[j])


def accumulate(
    k: Builder, rows: list[Pointer], start: Value, stop: Value, sums: list[list[Variable]],
    take: Take, steps: int = 1,
) -> None:  # fmt: skip
    """Write sums of products of rows and what ``take`` finds for each step of the depth.

    A turn of the loop does so many steps, which divide their number.
    """
    for first in k.range(start, stop, steps):
        for step in range(steps):
            i = first + step if step else first
            line = take(i)
            for row, totals in zip(rows, sums, strict=True):
                x = row.splat(i, k.lanes)
                for total, value in zip(totals, line, strict=True):
                    total.value = k.fma(x, value, total.value)
