"""Products of float32 matrices as they lie: x [M, K] times the transpose of w [N, K].

Rows of both are multiplied along the depth. A result depends on its row and column alone, not on
how many others there are: there is one chain of sums for each lane within a block of the depth;
those are added halves upon halves, and then to the blocks before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import greater_number, lesser_number, most_rows, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("row dots")

LONG = 1024
"""How much of the depth ``dots`` does at a time."""
BAND = 144
"""How many rows ``dots`` works on while they stay in the cache."""
COLUMNS = 8
"""How many columns are an item of ``dots``."""
MANY = 1 << 15
"""How many numbers x must have for blocks of columns to stay in the second cache."""
TALL, WIDE = 8, 3
"""Rows and columns of a tile then: all rows of a part of the depth fit into the nearest cache."""
BLOCK = 96
"""How many columns such a block has."""
APART = LONG + 32
"""How far copies of rows are apart: not whole pages."""


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
        with k.either(self.rows.equals(1)) as (single, several):
            with single:
                self._single()
            with several:
                self._several()

    def _several(self) -> None:
        """Write the code for all items and more than one row."""
        k = self.k
        if k.lanes < 16:
            self._bands()
            return
        with k.either(self.rows * self.depth >= MANY) as (yes, no):
            with yes:
                self._blocks()
            with no:
                self._bands()

    def _single(self) -> None:
        """Write the code for one row and all items: no vector of w crosses a line of the cache.

        Lanes change places by where the matrix lies, but not who is added to whom: halves upon
        halves are the same sums, however far all lanes are moved around.
        """
        k, lanes = self.k, self.k.lanes
        address, zero = self.w.address(), k.value(0, i64)
        is_even = (self.w_pitch % lanes).equals(0) & (address % 4).equals(0)
        shift = k.select(is_even, address // 4 % lanes, zero)
        for item in k.items():
            column = item * COLUMNS
            there = self.columns - column
            near = [lesser_number(k, k.value(c, i64), there - 1) for c in range(COLUMNS)]
            lines = [self.w.at((column + c) * self.w_pitch) for c in near]
            totals = [k.variable(k.zeros(f32, 4)) for _ in range(0, COLUMNS, 4)]
            for start in k.range(0, self.depth, LONG):
                size = lesser_number(k, self.depth - start, k.value(LONG, i64))
                parts = [line.at(start) for line in lines]
                sums = self._shifted(self.x.at(start), parts, shift, size)
                for i, total in enumerate(totals):
                    total.value = total.value + together(k, sums[4 * i : 4 * i + 4])
            for i, total in enumerate(totals):
                self.out.store_some(total.value, there - 4 * i, column + 4 * i)

    def _shifted(self, x: Pointer, lines: list[Pointer], shift: Value, size: Value) -> list[Value]:
        """Return sums of products in vectors that begin ``shift`` numbers before the first one."""
        k, lanes = self.k, self.k.lanes
        sums = [k.variable(k.zeros(f32, lanes)) for _ in lines]

        def add(read_at: Callable[[Pointer], Value]) -> None:
            value = read_at(x)
            for total, line in zip(sums, lines, strict=True):
                total.value = k.fma(value, read_at(line), total.value)

        first = k.select(shift.equals(0), k.value(0, i64), lanes - shift)
        with k.when(first > 0):
            add(lambda p: p.load_between(shift, shift + size, lanes, -shift))
        whole = first + greater_number(k, size - first, k.value(0, i64)) // lanes * lanes
        for i in k.range(first, whole, lanes):
            add(lambda p, i=i: p.load(i, lanes))  # type: ignore[misc]
        with k.when(whole < size):
            add(lambda p: p.load_some(size - whole, lanes, whole))
        return [total.value for total in sums]

    def _blocks(self) -> None:
        """Write the code for many rows: copies of few of them, whole vectors, are near at hand."""
        k = self.k
        room = k.room(f32, TALL * APART)
        copies = [room.at(r * APART) for r in range(TALL)]
        end = lesser_number(k, k.end * COLUMNS, self.columns)
        for start in k.range(0, self.depth, LONG):
            size = lesser_number(k, self.depth - start, k.value(LONG, i64))
            for first in k.range(k.begin * COLUMNS, end, BLOCK):
                last = lesser_number(k, first + BLOCK, end)

                def tile(row: Value, count: int) -> None:
                    lines = self._lines(row, count, start)
                    for i in k.range(0, size, k.lanes):
                        for line, copy in zip(lines, copies, strict=False):
                            copy.store(line.load_some(size - i, k.lanes, i), i)
                    near = copies[:count]
                    whole = first + (last - first) // WIDE * WIDE
                    for column in k.range(first, whole, WIDE):
                        self._tile(row, near, column, WIDE, start, size)
                    for wide in range(1, WIDE):
                        with k.when((last - whole).equals(wide)):
                            self._tile(row, near, whole, wide, start, size)

                rows_in_turn(k, k.value(0, i64), self.rows, TALL, tile)

    def _bands(self) -> None:
        """Write the code for few rows."""
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
                    k,
                    first,
                    last,
                    2,
                    lambda row, n: self._tile(
                        row, self._lines(row, n, start), column, 8, start, size
                    ),
                )
            with no:
                for part in k.range(0, left, 4):
                    some = lesser_number(k, left - part, k.value(4, i64))
                    for wide in range(1, 5):

                        def tile(row: Value, n: int, column: Value = column + part,
                                 wide: int = wide) -> None:  # fmt: skip
                            self._tile(row, self._lines(row, n, start), column, wide, start, size)

                        with k.when(some.equals(wide)):
                            rows_in_turn(k, first, last, most, tile)

    def _lines(self, row: Value, count: int, start: Value) -> list[Pointer]:
        """Return where some rows have a part of the depth."""
        return [self.x.at((row + r) * self.x_pitch + start) for r in range(count)]

    def _tile(
        self, row: Value, lines: list[Pointer], column: Value, wide: int, start: Value, size: Value
    ) -> None:
        """Write the code for some rows and columns and a part of the depth."""
        k, lanes, count = self.k, self.k.lanes, len(lines)
        weights = [self.w.at((column + c) * self.w_pitch + start) for c in range(wide)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(wide)] for _ in range(count)]

        def step(i: Value, left: Value | None) -> None:
            given = [read(k, line, i, left) for line in weights]
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
    """Return the sums of the lanes of up to four vectors as one vector of four.

    Halves are added upon halves, of two vectors at once as long as there are two.
    """
    full, size = values + [values[0]] * (4 - len(values)), values[0].lanes
    while size > 1:
        lanes, half = full[0].lanes, size // 2
        starts = range(0, lanes if len(full) == 1 else 2 * lanes, size)
        low, high = ([i + j for i in starts for j in range(f, f + half)] for f in (0, half))
        pairs = zip(full[::2], full[1::2], strict=True) if len(full) > 1 else [(full[0], None)]
        full = [a.shuffle(low, b) + a.shuffle(high, b) for a, b in pairs]
        size = half
    return full[0]
