"""Products of float32 matrices as they lie, for operations that run once: x [M, K] times y [K, N].

Blocks of y are packed into panels that stay in the cache, unless there are few rows of x: then y is
read as it lies. A result depends on its row and column alone, not on how many others there are: it
is one chain of sums over the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import AHEAD, lesser_number, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

group = Group("matmul")

DEPTH = 1024
"""How much of the depth ``multiply`` does at a time."""
SOON = 48
"""How many rows ahead y is asked for."""
FEW = 8
"""Rows for which packing is not worth it."""
PERIOD = 16
"""In so many steps all rows of a tile are copied, and as many numbers of each."""
APART = 32
"""How many numbers lie between copies of rows."""
SHORT = 64
"""Up to how many rows what is packed is not used often."""
BROAD = 512
"""Columns from which on few rows go along them rather than along the depth."""
LARGE = 3 << 16
"""How many numbers y must have for a single row to do so."""
VAST = 1 << 20
"""How many numbers y must have for twice as many rows to do so."""
NEAREST = 6144
"""How many sums such rows have at a time, so that the nearest cache holds them."""


def panels_at_a_time(lanes: int) -> int:
    """Return how many panels ``multiply`` packs at a time: half of a second cache of 1 MB.

    It may be one more if that makes their number even.
    """
    return 64 // lanes


def tallest(lanes: int) -> int:
    """Return how many rows a tile has: as many as a line of the nearest cache holds, or less."""
    return 8 if lanes == 16 else 6


def scratch_size(lanes: int) -> int:
    """Return how many numbers a thread of ``multiply`` needs room for."""
    copies = tallest(lanes) * (DEPTH + APART) if lanes == 16 else 0
    return (panels_at_a_time(lanes) + 1) * 2 * lanes * DEPTH + AHEAD + copies


Take = Callable[["Value"], "list[Value]"]
"""Writes the code that reads the vectors of a panel at a step of the depth."""


_STRIPS = (
    ((8, 4), (4,), (3,), (3,), (2,), (2,), (1,), (1,)),
    ((16, 8, 4), (8,), (4,), (4,), (4,), (3,), (3,), (3,)),
)
"""Vectors of columns that few rows have at a time, by their number: with 16 registers and 32."""


class _Multiply:
    """The code of ``multiply``; items are panels of two vectors of columns."""

    def __init__(
        self, k: Builder, x: Pointer, y: Pointer, out: Pointer, scratch: Pointer, rows: Value,
        depth: Value, columns: Value, x_pitch: Value, y_pitch: Value, out_pitch: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.y, self.out = k, x, y, out
        self.rows, self.depth, self.columns = rows, depth, columns
        self.x_pitch, self.y_pitch, self.out_pitch = x_pitch, y_pitch, out_pitch
        self.width, self.tallest = 2 * k.lanes, tallest(k.lanes)
        self.panels = panels_at_a_time(k.lanes)
        self.scratch = scratch.at(k.thread * scratch_size(k.lanes))
        self.copies = k.lanes == 16
        self.room = self.scratch.at((self.panels + 1) * self.width * DEPTH + AHEAD)

    def write(self, begin: Value, end: Value) -> None:
        """Write the code for some panels."""
        k = self.k
        self.begin, self.end = begin, end
        passes = (self.rows <= 2 * FEW) & (self.depth * self.columns >= VAST)
        passes = passes & ((end - begin) * self.width >= BROAD)
        with k.either((self.rows <= FEW) | passes) as (yes, no):
            with yes:
                self._few()
            with no:
                # If there are few rows to use what is packed, more of it is asked for early.
                self.is_short = self.rows <= SHORT
                most = k.select(self.is_short, k.value(DEPTH // 4, i64), k.value(DEPTH, i64))
                parts = (self.depth + most - 1) // most
                step = ((self.depth + parts - 1) // parts + 15) // 16 * 16
                groups = (end - begin + self.panels // 2) // self.panels
                wide = k.select(groups > 1, (end - begin + groups - 1) // k.select(
                    groups > 1, groups, k.value(1, i64)), end - begin)  # fmt: skip
                for first in k.range(begin, end, wide):
                    last = lesser_number(k, first + wide, end)
                    for start in k.range(0, self.depth, step):
                        self._block(first, last, start, lesser_number(k, self.depth - start, step))

    def _block(self, first: Value, last: Value, start: Value, length: Value) -> None:
        """Write the code for some panels and a part of the depth; the first tiles pack them."""
        k, most = self.k, self.tallest
        head = k.select(self.rows > 2 * most, k.value(most, i64), (self.rows + 1) // 2)
        for panel in k.range(first, last):
            for size in range((FEW + 2) // 2, most + 1):
                rows = [self.x.at(r * self.x_pitch + start) for r in range(size)]
                is_whole = (panel + 1) * self.width <= self.columns
                with k.when(head.equals(size)), k.either(is_whole) as branches:
                    for branch, packs in zip(branches, ("whole", "some"), strict=True):
                        with branch:
                            self._tile(k.value(0, i64), rows, first, panel, start, length, packs)

        def tile(row: Value, count: int) -> None:
            rows = [self.x.at((row + r) * self.x_pitch + start) for r in range(count)]
            begin = first
            if self.copies:
                self._tile(row, rows, first, first, start, length, copies=True)
                rows, begin = [self.room.at(r * (DEPTH + APART)) for r in range(count)], first + 1
            for panel in k.range(begin, last):
                self._tile(row, rows, first, panel, start, length)

        rows_in_turn(k, head, self.rows, most, tile)

    def _tile(
        self, row: Value, rows: list[Pointer], first: Value, panel: Value, start: Value,
        length: Value, packs: str = "", copies: bool = False,
    ) -> None:  # fmt: skip
        """Write the code for some rows and a panel."""
        k, lanes, column, count = self.k, self.k.lanes, panel * self.width, len(rows)
        left = [self.columns - column - lanes * j for j in range(2)]
        targets = [self.out.at((row + r) * self.out_pitch + column) for r in range(count)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(2)] for _ in targets]
        with k.when(start.differs(0)):
            for target, totals in zip(targets, sums, strict=True):
                for j, total in enumerate(totals):
                    total.value = target.load_some(left[j], lanes, lanes * j)
        for target in targets:
            for j in range(2):  # where the rows below will go
                target.prefetch(self.out_pitch * count + lanes * j)
        take = self._packing(first, panel, start, length, packs == "whole") if packs else (
            self._packed(row + count, panel - first, start)
        )  # fmt: skip
        if copies:
            rows, take = self._copying(rows, length, take)
        _accumulate(k, rows, length, sums, take)
        with k.either(left[1] >= lanes) as (whole, some):
            with whole:
                for target, totals in zip(targets, sums, strict=True):
                    for j, total in enumerate(totals):
                        target.store(total.value, lanes * j)
            with some:
                for target, totals in zip(targets, sums, strict=True):
                    for j, total in enumerate(totals):
                        target.store_some(total.value, left[j], lanes * j)

    def _packed(self, below: Value, place: Value, start: Value) -> Take:
        """Return what reads a packed panel; the rows below are asked for, some by each panel."""
        lanes, width = self.k.lanes, self.width
        packed = self.scratch.at(place * (width * DEPTH))
        share = -(-self.tallest // self.panels)
        later = [
            self.x.at((below + place * share + r) * self.x_pitch + start) for r in range(share)
        ]

        def take(i: Value) -> list[Value]:
            for line in later:
                line.prefetch(i, level=2)
            for j in range(2):
                packed.prefetch(i * width + (lanes * j + AHEAD))
            return [packed.load(i * width + lanes * j, lanes) for j in range(2)]

        return take

    def _copying(
        self, rows: list[Pointer], length: Value, take: Take
    ) -> tuple[list[Pointer], Take]:
        """Return where copies of rows will be, and what also makes them, some steps ahead.

        Rows that are whole pages apart would drive each other out of the nearest cache.
        """
        k, pitch = self.k, DEPTH + APART
        copied = [self.room.at(r * pitch) for r in range(len(rows))]
        for row, place in zip(rows, copied, strict=True):
            for i in range(0, APART, k.lanes):
                place.store(row.load_some(length - i, k.lanes, i), i)
        apart = (rows[-1].address() - rows[0].address()) // (4 * max(1, len(rows) - 1))

        def also(i: Value) -> list[Value]:
            number = k.min(i % PERIOD, len(rows) - 1)
            column = i // PERIOD * PERIOD + APART
            part = rows[0].at(number * apart).load_some(length - column, PERIOD, column)
            self.room.at(number * pitch).store(part, column)
            return take(i)

        return copied, also

    def _packing(
        self, first: Value, panel: Value, start: Value, length: Value, is_whole: bool
    ) -> Take:
        """Return what reads a panel of y and packs it."""
        k, lanes, width = self.k, self.k.lanes, self.width
        place, column = panel - first, panel * width
        packed = self.scratch.at(place * (width * DEPTH))

        def take(i: Value) -> list[Value]:
            # Soon this panel; or the next part of the depth, the parts of each row in turn.
            turn = place * length + i
            row = k.select(self.is_short, length + turn // self.panels, i + SOON)
            near = k.select(self.is_short, (first + turn % self.panels) * width, column)
            given = self.y.at((start + i) * self.y_pitch + column)
            found = []
            for j in range(2):
                self.y.prefetch((start + row) * self.y_pitch + near + lanes * j)
                left = None if is_whole else self.columns - column - lanes * j
                found.append(read(k, given, k.value(lanes * j, i64), left))
                packed.store(found[j], i * width + lanes * j)
            return found

        return take

    def _few(self) -> None:
        """Write the code for few rows: y is read as it lies."""
        k = self.k
        first = self.begin * self.width
        last = lesser_number(k, self.end * self.width, self.columns)
        self.sums = k.room(f32, NEAREST + 48 * FEW)
        # Of more rows some at a time pass by a part of y that stays in the caches.
        part = k.select(self.rows > FEW, k.value(NEAREST // FEW, i64), self.columns)
        for start in k.range(first, last, part):
            stop = lesser_number(k, start + part, last)
            for row in k.range(0, self.rows, FEW):
                count = lesser_number(k, self.rows - row, k.value(FEW, i64))
                x, out = self.x.at(row * self.x_pitch), self.out.at(row * self.out_pitch)
                for size in range(1, FEW + 1):
                    with k.when(count.equals(size)):
                        self._rows(
                            [x.at(self.x_pitch * r) for r in range(size)],
                            [out.at(self.out_pitch * r) for r in range(size)],
                            start,
                            stop,
                        )

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

        _accumulate(k, rows, self.depth, sums, take)
        for place, totals in zip(places, sums, strict=True):
            for j, total in enumerate(totals):
                write(k, place, total.value, column + lanes * j, left[j])


def _accumulate(
    k: Builder, rows: list[Pointer], depth: Value, sums: list[list[Variable]],
    take: Take,
) -> None:  # fmt: skip
    """Write sums of products of rows and what ``take`` finds for each step of the depth."""
    for i in k.range(depth):
        line = take(i)
        for row, totals in zip(rows, sums, strict=True):
            x = row.splat(i, k.lanes)
            for total, value in zip(totals, line, strict=True):
                total.value = k.fma(x, value, total.value)


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
