"""Products of float32 matrices as they lie, for operations that run once.

    multiply   x [M, K] times y [K, N]: blocks of y are packed into panels that stay in the cache
    dots       x [M, K] times the transpose of w [N, K]: rows of both are multiplied along the depth

A result depends on its row and column alone, not on how many others there are: each is summed over
blocks of the depth in turn. Within a block ``multiply`` has one chain of sums; ``dots`` has one
for each lane, and adds those halves upon halves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import AHEAD, accumulate, lesser_number, most_rows, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("matmul")

DEPTH = 1536
"""How much of the depth ``multiply`` does at a time."""
PANELS = 4
"""How many panels it packs at a time."""
LONG = 1024
"""How much of the depth ``dots`` does at a time."""
SOON = 6
"""How many rows ahead y is asked for."""
BROAD = 1024
"""Columns from which on a single row goes along them rather than along the depth."""
FEW = 8
"""Rows for which packing is not worth it."""


def scratch_size(lanes: int) -> int:
    """Return how many numbers a thread of ``multiply`` needs room for."""
    return PANELS * 2 * lanes * DEPTH + AHEAD


class _Multiply:
    """The code of ``multiply``; items are panels of two vectors of columns."""

    def __init__(
        self, k: Builder, x: Pointer, y: Pointer, out: Pointer, scratch: Pointer, rows: Value,
        depth: Value, columns: Value, x_pitch: Value, y_pitch: Value, out_pitch: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.y, self.out = k, x, y, out
        self.rows, self.depth, self.columns = rows, depth, columns
        self.x_pitch, self.y_pitch, self.out_pitch = x_pitch, y_pitch, out_pitch
        self.width = 2 * k.lanes
        self.scratch = scratch.at(k.thread * scratch_size(k.lanes))

    def write(self, begin: Value, end: Value) -> None:
        """Write the code for some panels."""
        k = self.k
        self.begin, self.end = begin, end
        with k.either(self.rows <= FEW) as (yes, no):
            with yes:
                self._few()
            with no:
                for first in k.range(begin, end, PANELS):
                    last = lesser_number(k, first + PANELS, end)
                    for start in k.range(0, self.depth, DEPTH):
                        length = lesser_number(k, self.depth - start, k.value(DEPTH, i64))
                        self._block(first, last, start, length)

    def _block(self, first: Value, last: Value, start: Value, length: Value) -> None:
        """Write the code for some panels and a part of the depth."""
        k, lanes = self.k, self.k.lanes
        for i in k.range(length):
            given = self.y.at((start + i) * self.y_pitch)
            later = self.y.at((start + i + SOON) * self.y_pitch)
            for panel in k.range(first, last):
                column = panel * self.width
                to = self.scratch.at((panel - first) * (self.width * DEPTH) + i * self.width)
                for j in range(2):
                    left = self.columns - column - lanes * j
                    later.prefetch(column + lanes * j)
                    to.store(given.load_some(left, lanes, column + lanes * j), lanes * j)

        def tile(row: Value, count: int) -> None:
            for panel in k.range(first, last):
                packed = self.scratch.at((panel - first) * (self.width * DEPTH))
                self._tile(row, count, panel * self.width, start, length, packed)

        rows_in_turn(k, k.value(0, i64), self.rows, most_rows(k), tile)

    def _tile(
        self, row: Value, count: int, column: Value, start: Value, length: Value, panel: Pointer
    ) -> None:
        """Write the code for some rows and one panel."""
        k, lanes = self.k, self.k.lanes
        rows = [self.x.at((row + r) * self.x_pitch + start) for r in range(count)]
        places = [self.out.at((row + r) * self.out_pitch + column) for r in range(count)]
        left = [self.columns - column - lanes * j for j in range(2)]
        fresh = start.equals(0)
        none = k.value(0, i64)
        initial = [
            [place.load_some(k.select(fresh, none, left[j]), lanes, lanes * j) for j in range(2)]
            for place in places
        ]
        for place in places:
            for j in range(2):
                place.prefetch(self.width + lanes * j)  # the next tile begins with these
        sums = accumulate(k, rows, [panel], 2, initial, length)
        for place, line in zip(places, sums, strict=True):
            for j, value in enumerate(line):
                place.store_some(value, left[j], lanes * j)

    def _few(self) -> None:
        """Write the code for few rows: y is read as it lies, as many columns as there can be."""
        k = self.k
        broad = self.rows.equals(1) & (self.columns >= BROAD)
        with k.when(broad):
            self._stream()
        few = k.select(broad, self.rows * 0, self.rows)
        for size in range(1, FEW + 1):
            with k.when(few.equals(size)):
                count = 8 if size < 3 else 4 if size < 6 else 3
                lanes = k.lanes if k.lanes > 8 or size < 3 else 1
                vectors = max(1, count if lanes > 1 else count // 2)
                span = vectors * k.lanes
                end = lesser_number(k, self.end * self.width, self.columns)
                for column in k.range(self.begin * self.width, end, span):
                    self._strip(size, column, vectors, end)

    def _stream(self) -> None:
        """Write the code for one row: y goes by once, and the sums stay in the nearest cache."""
        k, lanes, end = self.k, self.k.lanes, self.columns
        first = self.begin * self.width
        last = lesser_number(k, self.end * self.width, end)

        def add(start: Value, count: int) -> None:
            factors = [self.x.splat(start + i, lanes) for i in range(count)]
            fresh = start.equals(0)
            lines = [self.y.at((start + i) * self.y_pitch) for i in range(count)]
            for column in k.range(first, last, lanes):
                left = last - column
                total = self.out.load_some(k.select(fresh, left * 0, left), lanes, column)
                for factor, line in zip(factors, lines, strict=True):
                    line.prefetch(column + 512)
                    total = k.fma(factor, line.load_some(left, lanes, column), total)
                self.out.store_some(total, left, column)

        whole = self.depth // 4 * 4
        for i in k.range(0, whole, 4):
            add(i, 4)
        for i in k.range(whole, self.depth):
            add(i, 1)

    def _strip(self, count: int, column: Value, vectors: int, end: Value) -> None:
        """Write the code for all rows and some vectors of columns."""
        k, lanes = self.k, self.k.lanes
        rows = [self.x.at(self.x_pitch * r) for r in range(count)]
        left = [end - column - lanes * j for j in range(vectors)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(vectors)] for _ in range(count)]
        for i in k.range(self.depth):
            given = self.y.at(i * self.y_pitch + column)
            later = self.y.at((i + SOON) * self.y_pitch + column)
            for j in range(vectors):
                later.prefetch(lanes * j)
            line = [given.load_some(left[j], lanes, lanes * j) for j in range(vectors)]
            for row, totals in zip(rows, sums, strict=True):
                x = row.splat(i, lanes)
                for total, y in zip(totals, line, strict=True):
                    total.value = k.fma(x, y, total.value)
        for r, totals in enumerate(sums):
            place = self.out.at(self.out_pitch * r + column)
            for j, total in enumerate(totals):
                place.store_some(total.value, left[j], lanes * j)


@group.kernel(
    "x:f32* y:f32* out:f32* scratch:f32* rows:i64 depth:i64 columns:i64 x_pitch:i64 y_pitch:i64"
    " out_pitch:i64"
)
def multiply(k: Builder, *given: Any) -> None:
    """Write x times y; items are panels of columns."""
    _Multiply(k, *given).write(k.begin, k.end)


@group.kernel(
    "x:f32* y:f32* out:f32* scratch:f32* rows:i64 depth:i64 columns:i64 x_sample:i64 y_sample:i64"
    " count:i64 x_starts:i64* y_starts:i64*"
)
def multiply_each(
    k: Builder, x: Pointer, y: Pointer, out: Pointer, scratch: Pointer, rows: Value, depth: Value,
    columns: Value, x_sample: Value, y_sample: Value, count: Value, x_starts: Pointer,
    y_starts: Pointer,
) -> None:  # fmt: skip
    """Write products of ``count`` pairs of matrices in each sample; items are pairs."""
    panels = (columns + (2 * k.lanes - 1)) // (2 * k.lanes)
    for item in k.items():
        sample, i = item // count, item % count
        _Multiply(
            k, x.at(sample * x_sample + x_starts.load(i)),
            y.at(sample * y_sample + y_starts.load(i)), out.at(item * rows * columns), scratch,
            rows, depth, columns, depth, columns, columns,
        ).write(k.value(0, i64), panels)  # fmt: skip


NEAR = 256
"""How many numbers ahead rows of w are asked for that are needed once."""
BAND = 144
"""How many rows ``dots`` works on while they stay in the cache."""
COLUMNS = 8
"""How many columns are an item of ``dots``."""


class _Dots:
    """The code of ``dots``; items are groups of columns."""

    def __init__(
        self, k: Builder, x: Pointer, w: Pointer, out: Pointer, rows: Value, depth: Value,
        columns: Value, x_pitch: Value, w_pitch: Value, out_pitch: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.w, self.out = k, x, w, out
        self.rows, self.depth, self.columns = rows, depth, columns
        self.x_pitch, self.w_pitch, self.out_pitch = x_pitch, w_pitch, out_pitch

    def write(self) -> None:
        """Write the code for all items."""
        k = self.k
        for first in k.range(0, self.rows, BAND):
            last = lesser_number(k, first + BAND, self.rows)
            for start in k.range(0, self.depth, LONG):
                size = lesser_number(k, self.depth - start, k.value(LONG, i64))
                for item in k.items():
                    self._item(item * COLUMNS, first, last, start, size)

    def _item(self, column: Value, first: Value, last: Value, start: Value, size: Value) -> None:
        """Write the code for a band of rows and an item: all columns at once if rows are few."""
        k = self.k
        most = 6 if most_rows(k) > 6 else 2
        left = lesser_number(k, self.columns - column, k.value(COLUMNS, i64))
        with k.either((self.rows < 3) & left.equals(COLUMNS)) as (yes, no):
            with yes:
                rows_in_turn(
                    k, first, last, 2, lambda row, n: self._tile(row, n, column, 8, start, size)
                )
            with no:
                for part in k.range(0, left, 4):
                    some = lesser_number(k, left - part, k.value(4, i64))
                    for wide in range(1, 5):
                        with k.when(some.equals(wide)):
                            rows_in_turn(
                                k, first, last, most,
                                lambda row, n: self._tile(row, n, column + part, wide, start, size),
                            )  # fmt: skip

    def _tile(
        self, row: Value, count: int, column: Value, wide: int, start: Value, size: Value
    ) -> None:
        """Write the code for some rows and columns and a part of the depth."""
        k, lanes = self.k, self.k.lanes
        lines = [self.x.at((row + r) * self.x_pitch + start) for r in range(count)]
        weights = [self.w.at((column + c) * self.w_pitch + start) for c in range(wide)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(wide)] for _ in range(count)]

        def step(i: Value, left: Value | None) -> None:
            given = [read(k, line, i, left) for line in weights]
            for line in weights if wide == COLUMNS else ():
                line.prefetch(i + NEAR)
            for line, totals in zip(lines, sums, strict=True):
                value = read(k, line, i, left)
                for total, weight in zip(totals, given, strict=True):
                    total.value = k.fma(value, weight, total.value)

        spread(k, size, step)
        fresh = start.equals(0)
        for r, totals in enumerate(sums):
            place = self.out.at((row + r) * self.out_pitch + column)
            for c in range(0, wide, 4):
                made = together(k, [total.value for total in totals[c : c + 4]])
                some = k.value(min(wide - c, 4), i64)
                before = place.load_some(k.select(fresh, k.value(0, i64), some), 4, c)
                place.store_some(before + made, some, c)


@group.kernel(
    "x:f32* w:f32* out:f32* rows:i64 depth:i64 columns:i64 x_pitch:i64 w_pitch:i64 out_pitch:i64"
)
def dots(k: Builder, *given: Any) -> None:
    """Write x times the transpose of w; items are groups of columns."""
    _Dots(k, *given).write()


def together(k: Builder, values: list[Value]) -> Value:
    """Return the sums of the lanes of up to four vectors as one vector of four."""
    full = values + [values[0]] * (4 - len(values))
    while full[0].lanes > 4:
        full = [a + b for a, b in (value.halves() for value in full)]
    pairs = [
        full[i].shuffle((0, 1, 4, 5), full[i + 1]) + full[i].shuffle((2, 3, 6, 7), full[i + 1])
        for i in (0, 2)
    ]
    first, second = pairs
    return first.shuffle((0, 2, 4, 6), second) + first.shuffle((1, 3, 5, 7), second)
