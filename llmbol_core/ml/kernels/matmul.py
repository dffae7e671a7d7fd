"""Products of float32 matrices as they lie, for operations that run once: x [M, K] times y [K, N].

Blocks of y are packed into panels that stay in the cache, unless there are few rows of x: then y is
read as it lies. While a block is multiplied, the next one is packed, a few lines at a time between
many steps of the sums, which hides it. Where there are only 16 registers of shorter vectors that
takes longer than it saves: ``micropanels`` has another order for them. A result depends on its row
and column alone, not on how many others there are: it is one chain of sums over the depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, write
from llmbol_core.ml.kernels.few import BROAD, FEW, FewRows, Take, accumulate
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.micropanels import MicroPanels, room_size
from llmbol_core.ml.kernels.tiles import AHEAD, greater_number, lesser_number, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

group = Group("matmul")

DEPTH = 1024
"""How much of the depth ``multiply`` does at a time: results are read again as seldom as can be."""
LINE = 16
"""How many numbers a line of the cache holds."""
LAST = 2 * LINE
"""How many steps before its end a tile asks for the lines that it will write to."""
NEXT = 12
"""How many rows ahead y is asked for where it is packed by itself."""
SOON = 8
"""How many rows ahead room is asked for there."""
SHORT = 64
"""Up to how many rows what is packed is not used often."""
FEWER = 6
"""Up to how many rows packing does not pay even if y is near, with 16 registers."""
NEAR = 1 << 17
"""How many numbers y may have to be near at hand then."""
VAST = 1 << 20
"""How many numbers y must have for some times as many rows to be few."""


PANELS = 4
"""Panels that are packed at a time, half of a second cache of 1 MB; one more if that makes their
number even."""
TALLEST = 8
"""Rows of a tile: as many as a line of the nearest cache holds."""
BLOCK = (PANELS + 1) * 32 * DEPTH
"""How many numbers a packed block may have; there is room for this one and the next."""


def scratch_size(lanes: int) -> int:
    """Return how many numbers a thread of ``multiply`` needs room for."""
    return 2 * BLOCK + AHEAD if lanes == 16 else room_size(lanes)


@dataclass(frozen=True)
class _Block:
    """Panels first ... last, and ``length`` steps of the depth from ``start`` on."""

    first: Value
    last: Value
    start: Value
    length: Value


@dataclass(frozen=True)
class _Ahead:
    """How tiles pack the next block: ``done`` of its pieces, each a row's part of a panel."""

    block: _Block
    room: Pointer
    count: Value
    done: Variable
    share: Value
    """How many pieces a tile packs, and 2^16 times how many it packs for each line of the depth."""
    rate: Value


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
        self.few = FewRows(k, x, y, out, rows, depth, columns, x_pitch, y_pitch, out_pitch)

    def write(self, begin: Value, end: Value) -> None:
        """Write the code for some panels."""
        k, size = self.k, self.depth * self.columns
        is_few = self.rows <= FEW
        if k.lanes == 16:
            is_broad = (end - begin) * self.width >= BROAD
            is_few = is_few | ((self.rows <= 2 * FEW) & (size >= VAST) & is_broad)
        else:
            is_few = is_few & ((self.rows <= FEWER) | (size > NEAR))
        with k.either(is_few) as (yes, no):
            with yes:
                last = lesser_number(k, end * self.width, self.columns)
                self.few.write(begin * self.width, last)
            with no:
                self._packed(begin, end)

    def _packed(self, begin: Value, end: Value) -> None:
        """Write the code for some panels that are packed."""
        k = self.k
        if k.lanes < 16:
            pitches = (self.x_pitch, self.y_pitch, self.out_pitch)
            sizes = (self.rows, self.depth, self.columns)
            panels = MicroPanels(k, self.x, self.y, self.out, self.scratch, *sizes, *pitches)
            panels.write(begin, end)
            return
        with k.either(self.rows <= SHORT) as (short, tall):
            with short:
                # There are few rows to use what is packed: more of it is asked for early.
                for block, _ in self._blocks(begin, end, DEPTH // 4):
                    self._short(block)
            with tall:
                self._tall_blocks(begin, end)

    def _blocks(self, begin: Value, end: Value, most: int) -> Iterator[tuple[_Block, _Block]]:
        """Write a loop over blocks, each with the next one; the last one's next has no panels."""
        k = self.k
        parts = (self.depth + (most - 1)) // most
        step = ((self.depth + parts - 1) // parts + (LINE - 1)) // LINE * LINE
        count, full = greater_number(k, end - begin, k.value(1, i64)), PANELS
        groups = greater_number(k, (count + full // 2) // full, (count + full) // (full + 1))
        group = (count + groups - 1) // groups

        def block(first: Value, start: Value) -> _Block:
            last = lesser_number(k, first + group, end)
            return _Block(first, last, start, lesser_number(k, self.depth - start, step))

        for first in k.range(begin, end, group):
            for start in k.range(0, self.depth, step):
                is_over = start + step >= self.depth
                following = lesser_number(k, k.select(is_over, first + group, first), end)
                after = block(following, k.select(is_over, k.value(0, i64), start + step))
                yield block(first, start), after

    def _tall_blocks(self, begin: Value, end: Value) -> None:
        """Write the code for many rows: tiles pack the next block while they multiply one."""
        k, zero = self.k, self.k.value(0, i64)
        done, turn = k.variable(zero), k.variable(zero)
        tiles = greater_number(k, self.rows // TALLEST, k.value(1, i64))
        for block, after in self._blocks(begin, end, DEPTH):
            room, other = (self.scratch.at(n * BLOCK) for n in (turn.value, 1 - turn.value))
            panels = block.last - block.first
            self._pack(block, room, done.value // panels)
            done.value = zero
            count = (after.last - after.first) * after.length
            share = (count + tiles * panels - 1) // (tiles * panels)
            lines = greater_number(k, block.length // LINE - LAST // LINE, k.value(1, i64))
            ahead = _Ahead(after, other, count, done, share, (share << 16) // lines)
            self._tall(block, room, ahead)
            turn.value = 1 - turn.value

    def _tall(self, block: _Block, room: Pointer, ahead: _Ahead) -> None:
        """Write the code for a block and many rows."""

        def tile(row: Value, count: int) -> None:
            for panel in self.k.range(block.first, block.last):
                packs = ahead if count == TALLEST else None
                self._tile(row, count, block, panel, room, packs)

        rows_in_turn(self.k, self.k.value(0, i64), self.rows, TALLEST, tile)

    def _short(self, block: _Block) -> None:
        """Write the code for a block and few rows; the first tiles pack it."""
        k, most = self.k, TALLEST
        head = k.select(self.rows > 2 * most, k.value(most, i64), (self.rows + 1) // 2)
        for panel in k.range(block.first, block.last):
            for size in k.cases(head, range((FEW + 2) // 2, most + 1)):
                self._tile(k.value(0, i64), size, block, panel, None)

        def tile(row: Value, count: int) -> None:
            for panel in k.range(block.first, block.last):
                self._tile(row, count, block, panel, self.scratch)

        rows_in_turn(k, head, self.rows, most, tile)

    def _pack(self, block: _Block, room: Pointer, done: Value) -> None:
        """Write the code that packs a block except for the rows that are packed already."""
        k, lanes, width = self.k, self.k.lanes, self.width
        first, last = block.first, block.last
        whole = lesser_number(k, last, self.columns // width)
        for i in k.range(done, block.length):
            given, packed = self.y.at((block.start + i) * self.y_pitch), room.at(i * width)
            for panel in k.range(first, whole):
                target = packed.at((panel - first) * (width * DEPTH))
                for j in range(0, width, lanes):
                    given.prefetch(self.y_pitch * NEXT + panel * width + j)
                    target.prefetch(width * SOON + j, writes=True)
                    target.store(given.load(panel * width + j, lanes), j)
            with k.when(whole < last):
                for j in range(0, width, lanes):
                    left = self.columns - whole * width - j
                    value = given.load_some(left, lanes, whole * width + j)
                    packed.store(value, (whole - first) * (width * DEPTH) + j)

    def _pack_ahead(self, ahead: _Ahead, due: Value) -> None:
        """Write the code that packs pieces of the next block until so many are done."""
        k, lanes, width = self.k, self.k.lanes, self.width
        block, panels = ahead.block, ahead.block.last - ahead.block.first
        with k.when(ahead.done.value < due):
            reach = (ahead.share // panels + 1) * self.y_pitch
            for piece in k.range(ahead.done.value, due):
                i, panel = piece // panels, piece % panels
                column = (block.first + panel) * width
                given = self.y.at((block.start + i) * self.y_pitch + column)
                target = ahead.room.at((panel * DEPTH + i) * width)
                # Pieces need not begin at a cache line: the last one ends in one more.
                end = k.select(panel.equals(panels - 1), k.value(width, i64), k.value(0, i64))
                given.prefetch(reach + end, level=2)
                for j in range(0, width, LINE):
                    given.prefetch(reach + j, level=2)
                with k.either(self.columns - column >= width) as (whole, part):
                    with whole:
                        for j in range(0, width, lanes):
                            target.store(given.load(j, lanes), j)
                    with part:
                        for j in range(0, width, lanes):
                            left = self.columns - column - j
                            target.store(given.load_some(left, lanes, j), j)
            ahead.done.value = due

    def _tile(
        self, row: Value, count: int, block: _Block, panel: Value, room: Pointer | None,
        ahead: _Ahead | None = None,
    ) -> None:  # fmt: skip
        """Write the code for so many rows and a panel, which is packed already or now."""
        k, lanes, column = self.k, self.k.lanes, panel * self.width
        start, length = block.start, block.length
        rows = [self.x.at((row + r) * self.x_pitch + start) for r in range(count)]
        there = lesser_number(k, self.columns - column, k.value(self.width, i64))
        left = [there - lanes * j for j in range(2)]
        targets = [self.out.at((row + r) * self.out_pitch + column) for r in range(count)]
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in range(2)] for _ in targets]
        with k.when(start.differs(0)):
            for target, totals in zip(targets, sums, strict=True):
                for j, total in enumerate(totals):
                    total.value = read(k, target, k.value(lanes * j, i64), left[j])
        for target in targets:
            for j in range(2):  # where the rows below will go
                target.prefetch(self.out_pitch * count + lanes * j, writes=True)
        if room is None:
            take = self._packing(block, panel)
            accumulate(k, rows, k.value(0, i64), length, sums, take)
        else:
            place = panel - block.first
            packed = room.at(place * (self.width * DEPTH))
            share = -(-TALLEST // PANELS)
            below = row + (count + place * share)
            later = [self.x.at((below + r) * self.x_pitch + start) for r in range(share)]
            self._multiply_packed(rows, later, targets, packed, length, sums, ahead)
        for target, totals in zip(targets, sums, strict=True):
            for j, total in enumerate(totals):
                write(k, target, total.value, k.value(lanes * j, i64), left[j])

    def _multiply_packed(
        self, rows: list[Pointer], later: list[Pointer], targets: list[Pointer], packed: Pointer,
        length: Value, sums: Any, ahead: _Ahead | None,
    ) -> None:  # fmt: skip
        """Write sums of products with a packed panel.

        A line of each of some rows below is asked for at a time, and in the end what is written to.
        """
        k, lanes, width = self.k, self.k.lanes, self.width
        before = None if ahead is None else ahead.done.value

        def take(i: Value) -> list[Value]:
            for j in range(2):
                packed.prefetch(i * width + (lanes * j + AHEAD))
            return [packed.load(i * width + lanes * j, lanes) for j in range(2)]

        early = greater_number(k, length - LAST, k.value(0, i64)) // LINE * LINE
        for i in k.range(0, early, LINE):
            for line in later:
                line.prefetch(i, level=2)
            if ahead is not None and before is not None:
                due = before + ((i // LINE + 1) * ahead.rate >> 16)
                self._pack_ahead(ahead, lesser_number(k, due, ahead.count))
            accumulate(k, rows, i, i + LINE, sums, take, 2 if ahead is not None else 1)
        for line in later:
            for j in (0, LINE, LAST):
                line.prefetch(early + j, level=2)
        for target in targets:
            for j in range(0, width + 1, LINE):  # one more line if it does not begin one
                target.prefetch(j, writes=True)
        accumulate(k, rows, early, length, sums, take)

    def _packing(self, block: _Block, panel: Value) -> Take:
        """Return what reads a panel of y and packs it; parts of the next block are asked for."""
        k, lanes, width = self.k, self.k.lanes, self.width
        first, start, length = block.first, block.start, block.length
        place, column = panel - first, panel * width
        packed = self.scratch.at(place * (width * DEPTH))
        there = lesser_number(k, self.columns - column, k.value(width, i64))

        def take(i: Value) -> list[Value]:
            turn = place * length + i
            row = length + turn // PANELS
            near = (first + turn % PANELS) * width
            given = self.y.at((start + i) * self.y_pitch + column)
            found = []
            for j in range(2):
                self.y.prefetch((start + row) * self.y_pitch + near + lanes * j)
                found.append(read(k, given, k.value(lanes * j, i64), there - lanes * j))
                packed.store(found[j], i * width + lanes * j)
            return found

        return take


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
        k.call_kernel(
            multiply, k.value(0, i64), panels, x.at(sample * x_sample + x_starts.load(i)),
            y.at(sample * y_sample + y_starts.load(i)), out.at(item * rows * columns), scratch,
            rows, depth, columns, depth, columns, columns,
        )  # fmt: skip
