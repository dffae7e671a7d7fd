"""Products of float32 matrices where registers are few, [M, K] times [K, N], as GotoBLAS does.

A block of rows of x stays in the second cache and a micro-panel of y, two vectors wide, in the
first one while those rows pass by it, a tile of some rows at a time. Panels that several blocks use
are packed before; if there is but one block, its first tile packs the panel on its way. Rows may
lie a multiple of a page apart, where all of them compete for a few places of a cache: that is why
those of x are copied, a vector of each row of a tile after another, and why sums wait for the next
part of the depth in an order of their own.
Every result is one chain of sums over the depth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.elementwise import write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import lesser_number, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

DEPTH = 256
"""How much of the depth is done at a time: a micro-panel is half of a first cache of 32 KB."""
ROWS = 192
"""Rows of a block: less than half of a second cache of 512 KB."""
BLOCKS = 6
"""Blocks of rows whose sums wait at a time."""
PANELS = 64
"""Panels whose sums wait at a time."""
LEAST = 3
"""So many rows or less are no block of their own: the one before takes them."""
TALLEST = 6
"""Rows of a tile: with two vectors of each, and one of x and two of y, they fill 16 registers."""
WIDE = 8
"""Panels from which on a block is copied: its rows do not keep others out of the cache then."""
STEPS = 4
"""Steps of the depth that a turn of the innermost loop does with rows as they lie."""
AHEAD = 24
"""How many rows ahead a tile that packs asks for y."""
SOON = 16
"""How many rows ahead y is asked for where it is packed before."""
PACKED = 8
"""Rows that are packed together: what panels begin with lies in the same few places of a cache."""
APART, USED = 512, 16
"""How far apart rows of y lie, and how many rows use it, if it is packed before in any case."""
_MOST = ROWS * BLOCKS + LEAST


def room_size(lanes: int) -> int:
    """Return how many numbers a thread needs room for."""
    return (2 * lanes * PANELS + ROWS + LEAST) * DEPTH + 2 * lanes * PANELS * _MOST


class MicroPanels:
    """The code of a product; items are panels."""

    def __init__(
        self, k: Builder, x: Pointer, y: Pointer, out: Pointer, room: Pointer, rows: Value,
        depth: Value, columns: Value, x_pitch: Value, y_pitch: Value, out_pitch: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.y, self.out = k, x, y, out
        self.rows, self.depth, self.columns = rows, depth, columns
        self.x_pitch, self.y_pitch, self.out_pitch = x_pitch, y_pitch, out_pitch
        self.width = 2 * k.lanes
        self.packed = room
        self.copied = room.at(PANELS * self.width * DEPTH)
        self.sums = self.copied.at((ROWS + LEAST) * DEPTH)

    def write(self, begin: Value, end: Value) -> None:
        """Write the code for some panels."""
        k = self.k
        blocks = k.max(self.rows - LEAST, 0) // ROWS + 1
        is_used = (blocks > 1) | ((self.y_pitch >= APART) & (self.rows >= USED))
        for top in k.range(0, blocks, BLOCKS):
            bottom = lesser_number(k, top + BLOCKS, blocks)
            for left in k.range(begin, end, PANELS):
                right = lesser_number(k, left + PANELS, end)
                for part in self._parts():
                    with k.when(is_used):
                        self._pack(part, left, right)
                    for number in k.range(top, bottom):
                        first = number * ROWS
                        is_last = (number + 1).equals(blocks)
                        count = k.select(is_last, self.rows - first, k.value(ROWS, i64))
                        sums = self.sums.at((number - top) * (ROWS * self.width))
                        self._block(first, count, part, left, right, sums, is_used)

    def _parts(self) -> Iterator[_Part]:
        """Write a loop over parts of the depth that are as even as can be."""
        k = self.k
        count = (self.depth + (DEPTH - 1)) // DEPTH
        step = ((self.depth + count - 1) // count + (k.lanes - 1)) // k.lanes * k.lanes
        for start in k.range(0, self.depth, step):
            stop = lesser_number(k, start + step, self.depth)
            yield _Part(start, stop - start, stop.equals(self.depth))

    def _pack(self, part: _Part, begin: Value, end: Value) -> None:
        """Write the code that packs panels; of the last one some columns may not exist."""
        k, lanes, width = self.k, self.k.lanes, self.width
        whole = k.max(lesser_number(k, end, self.columns // width), begin)

        def pack(first: Value, count: int) -> None:
            lines = [self.y.at((part.start + first + i) * self.y_pitch) for i in range(count)]
            for panel in k.range(begin, whole):
                target = self.packed.at((panel - begin) * (width * DEPTH) + first * width)
                for i, line in enumerate(lines):
                    line.prefetch(self.y_pitch * SOON + panel * width, level=2)
                    for j in range(0, width, lanes):
                        target.store(line.load(panel * width + j, lanes), i * width + j)
            with k.when(whole < end):
                target = self.packed.at((whole - begin) * (width * DEPTH) + first * width)
                for i, line in enumerate(lines):
                    for j in range(0, width, lanes):
                        left = k.max(self.columns - whole * width - j, 0)
                        value = line.load_some(left, lanes, whole * width + j)
                        target.store(value, i * width + j)

        most = part.length // PACKED * PACKED
        for first in k.range(0, most, PACKED):
            pack(first, PACKED)
        for first in k.range(most, part.length):
            pack(first, 1)

    def _block(
        self, first: Value, count: Value, part: _Part, begin: Value, end: Value, sums: Pointer,
        is_packed: Value,
    ) -> None:  # fmt: skip
        """Write the code for so many rows, some panels, and a part of the depth."""
        k = self.k
        given = self.x.at(first * self.x_pitch + part.start)
        with k.either(end - begin >= WIDE) as (yes, no):
            with yes:
                self._copy(given, count, part.length)
                self._panels(_Rows(self.copied), first, count, part, begin, end, sums, is_packed)
            with no:
                rows = _Rows(given, self.x_pitch)
                self._panels(rows, first, count, part, begin, end, sums, is_packed)

    def _copy(self, given: Pointer, count: Value, length: Value) -> None:
        """Write the code that copies rows of x: a vector of each row of a tile after another."""
        k, lanes = self.k, self.k.lanes
        whole = length // lanes * lanes

        def tile(row: Value, size: int) -> None:
            lines = [given.at((row + r) * self.x_pitch) for r in range(size)]
            place = self.copied.at(row * DEPTH)
            for i in k.range(0, whole, lanes):
                for r, line in enumerate(lines):
                    place.store(line.load(i, lanes), i * size + r * lanes)
            with k.when(whole < length):
                for r, line in enumerate(lines):
                    some = line.load_some(length - whole, lanes, whole)
                    place.store(some, whole * size + r * lanes)

        rows_in_turn(k, k.value(0, i64), count, TALLEST, tile)

    def _panels(
        self, rows: _Rows, first: Value, count: Value, part: _Part, begin: Value, end: Value,
        sums: Pointer, is_packed: Value,
    ) -> None:  # fmt: skip
        """Write a loop over panels, for rows of x that are copied or not."""
        k = self.k
        for panel in k.range(begin, end):
            number, column = panel - begin, panel * self.width
            packs = is_packed.equals(0) & (self.columns - column >= self.width)
            with k.when((is_packed | packs).equals(0)):
                self._pack(part, panel, panel + 1)
            packed = self.packed.at(
                k.select(is_packed, number, k.value(0, i64)) * (self.width * DEPTH)
            )
            place = self.out.at(first * self.out_pitch + column)
            made = _Panel(self, part, column, place, sums.at(number * (self.width * _MOST)), packed)
            made.write(rows, count, packs)


class _Rows(NamedTuple):
    """Rows of x: copied ones, or as they lie, so far apart."""

    place: Pointer
    pitch: Value | None = None

    def at(self, row: Value) -> _Rows:
        """Return the rows of a tile that begins with one."""
        apart = DEPTH if self.pitch is None else self.pitch
        return _Rows(self.place.at(row * apart), self.pitch)

    def step(self, i: Value, vector: Value, size: int) -> Callable[[int, int], Value]:
        """Return what reads a number of each of so many rows, so many steps after step i.

        ``vector`` is the step at which the vectors begin that it lies in.
        """
        k = self.place.k
        if self.pitch is None:
            near = self.place.at(vector * size + (i - vector))
            return lambda r, step: near.splat(r * k.lanes + step, k.lanes)
        # Two rows are in registers: the others are a multiple of the pitch away from one.
        pitch = self.pitch
        bases = [k.settled(self.place.at(pitch * r + i)) for r in range(0, size, 3)]
        return lambda r, step: bases[r // 3].at(pitch * (r % 3)).splat(step, k.lanes)


class _Part(NamedTuple):
    """A part of the depth."""

    start: Value
    length: Value
    is_last: Value


class _Panel:
    """The code for a panel and a block of rows."""

    def __init__(
        self, work: MicroPanels, part: _Part, column: Value, out: Pointer, sums: Pointer,
        packed: Pointer,
    ) -> None:  # fmt: skip
        self.k, self.work, self.part, self.out, self.sums = work.k, work, part, out, sums
        self.here, self.packed = work.y.at(part.start * work.y_pitch + column), packed
        self.left = work.columns - column

    def write(self, rows: _Rows, count: Value, packs: Value) -> None:
        """Write the code for so many rows; with ``packs`` the first tile packs the panel."""
        k, none = self.k, self.k.value(0, i64)
        head = k.select(count > 2 * TALLEST, k.value(TALLEST, i64), (count + 1) // 2)
        with k.when(packs):
            for size in k.cases(head, range((LEAST + 2) // 2, TALLEST + 1)):
                self._tile(rows, none, size, packs=True)

        def tile(row: Value, size: int) -> None:
            self._tile(rows, row, size, packs=False)

        rows_in_turn(k, k.select(packs, head, none), count, TALLEST, tile)

    def _tile(self, rows: _Rows, row: Value, size: int, packs: bool) -> None:
        """Write the code for so many rows from ``row`` on."""
        k, lanes, length = self.k, self.k.lanes, self.part.length
        held = self.sums.at(row * (2 * lanes))
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(2)] for _ in range(size)]
        flat = [total for totals in sums for total in totals]
        with k.when(self.part.start.differs(0)):
            for i, total in enumerate(flat):
                total.value = held.load(i * lanes, lanes)
        here, steps = rows.at(row), STEPS if rows.pitch else lanes
        whole = length // steps * steps
        for first in k.range(0, whole, steps):
            self._steps(here.step(first, first, size), first, steps, sums, packs)
        for last in k.range(whole, length):
            self._steps(here.step(last, whole, size), last, 1, sums, packs)
        with k.either(self.part.is_last) as (yes, no):
            with yes:
                self._finish(row, sums)
            with no:
                for i, total in enumerate(flat):
                    held.store(total.value, i * lanes)

    def _steps(
        self, factor: Callable[[int, int], Value], first: Value, count: int,
        sums: list[list[Variable]], packs: bool,
    ) -> None:  # fmt: skip
        """Write so many steps of the depth, with the numbers of x for a row and step."""
        k, lanes, y_pitch = self.k, self.k.lanes, self.work.y_pitch
        packed = self.packed.at(first * (2 * lanes))
        for step in range(count):
            source = (
                self.here.at((first + step) * y_pitch) if packs else packed.at(2 * lanes * step)
            )
            line = [source.load(j * lanes, lanes) for j in range(2)]
            if packs:
                for j in (0, 2 * lanes - 1):  # it may lie in two lines
                    source.prefetch(y_pitch * AHEAD + j, level=2)
                for j, value in enumerate(line):
                    packed.store(value, (2 * step + j) * lanes)
            for r, totals in enumerate(sums):
                x = factor(r, step)
                for total, value in zip(totals, line, strict=True):
                    total.value = k.fma(x, value, total.value)

    def _finish(self, row: Value, sums: list[list[Variable]]) -> None:
        """Write the code that stores results, as far as their columns exist."""
        k, lanes, pitch = self.k, self.k.lanes, self.work.out_pitch
        with k.either(self.left >= 2 * lanes) as branches:
            for branch, is_whole in zip(branches, (True, False), strict=True):
                with branch:
                    for r, totals in enumerate(sums):
                        for j, total in enumerate(totals):
                            left = None if is_whole else k.max(self.left - j * lanes, 0)
                            place = self.out.at((row + r) * pitch)
                            write(k, place, total.value, k.value(j * lanes, i64), left)
