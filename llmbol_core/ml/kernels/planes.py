"""Convolutions of planes as they lie: positions of a channel are neighbours, nothing is packed.

A vector holds neighbouring positions, a tile some vectors of them and some output channels, whose
weights are read where they are and repeated. Positions are counted over whole lines of the input,
so that those behind the last window of a line are computed in vain and left out in the end. Where
borders or strides are in the way, ``lay_out`` copies planes first: with a border of zeros, and so
that the positions which windows meet with the same part of their kernel are neighbours.

    offsets  where each number of a window lies from its beginning
    block    so many lines of windows, as an item has them; single lines go where they belong at
             once, so many numbers as all of them and what lies between them are
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import copy_all
from llmbol_core.ml.kernels.gradients import transposed
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("planes")

MOST = 480
"""About how many positions a block has."""


def channels_at_once(lanes: int) -> int:
    """Return how many output channels a tile has at most."""
    return 8 if lanes == 16 else 4


def scratch_size(lanes: int, longest: int) -> int:
    """Return how many numbers a thread needs room for, of blocks of so many positions."""
    return channels_at_once(lanes) * (longest + 8 * lanes)


class _Convolution:
    """The code of ``convolve``."""

    def __init__(
        self, k: Builder, x: Pointer, w: Pointer, bias: Pointer, out: Pointer, scratch: Pointer,
        room: Value, x_sample: Value, x_group: Value, out_sample: Value, channels: Value,
        depth: Value, offsets: Pointer, groups: Value, blocks: Value, parts: Value, lines: Value,
        height: Value, width: Value, pitch: Value, total: Value, plane: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.w, self.bias, self.out = k, x, w, bias, out
        self.scratch, self.room = scratch.at(k.thread * room), room
        self.x_sample, self.x_group, self.out_sample = x_sample, x_group, out_sample
        self.channels, self.depth, self.offsets = channels, depth, offsets
        self.groups, self.blocks, self.parts = groups, blocks, parts
        self.lines, self.height, self.width, self.pitch = lines, height, width, pitch
        self.total, self.plane = total, plane
        self.single = lines.equals(1)
        self.most = channels_at_once(k.lanes)

    def write(self) -> None:
        """Write the code for all items: parts of the channels of blocks of groups of samples."""
        k = self.k
        share = (self.channels + (self.parts * self.most - 1)) // (self.parts * self.most)
        share = share * self.most
        for item in k.items():
            part, rest = item % self.parts, item // self.parts
            block, rest = rest % self.blocks, rest // self.blocks
            group_, sample = rest % self.groups, rest // self.groups
            first = block * self.lines
            start = first * self.pitch
            count = lesser_number(k, self.height - first, self.lines)
            whole = lesser_number(k, (count - 1) * self.pitch + self.width, self.total - start)
            x = self.x.at(sample * self.x_sample + group_ * self.x_group + start)
            own = group_ * self.channels
            out = self.out.at(sample * self.out_sample + own * self.plane)
            goal = out.at(first * self.width)
            begin = lesser_number(k, part * share, self.channels)
            end = lesser_number(k, begin + share, self.channels)
            self._channels(x, goal, own, begin, end, whole, count)

    def _channels(
        self, x: Pointer, goal: Pointer, own: Value, begin: Value, end: Value, length: Value,
        lines: Value,
    ) -> None:  # fmt: skip
        k, most = self.k, self.most
        full = begin + (end - begin) // most * most
        place = k.variable(begin)
        for channel in k.range(begin, full, most):
            self._tiles(x, goal, own, channel, most, length, lines)
            place.value = channel + most
        for size in (4, 2, 1):
            if size < most:
                with k.when(((end - begin) & size).differs(0)):
                    self._tiles(x, goal, own, place.value, size, length, lines)
                    place.value = place.value + size

    def _tiles(
        self, x: Pointer, goal: Pointer, own: Value, channel: Value, count: int, length: Value,
        lines: Value,
    ) -> None:  # fmt: skip
        """Write the code for some channels and all positions of a block."""
        k, lanes = self.k, self.k.lanes
        to = goal.at(channel * self.plane)
        rows = [self.w.at((own + channel + i) * self.depth) for i in range(count)]
        biases = [self.bias.load(own + channel + i).splat(lanes) for i in range(count)]
        vectors = (length + (lanes - 1)) // lanes
        pitch = vectors * lanes
        for size, place in self._turns(vectors, count):
            position = place * lanes
            given = [x.at(position + lanes * j) for j in range(size)]
            sums = self._sums(given, rows, biases)
            with k.either(self.single) as (yes, no):
                with yes:
                    left = length - position
                    self._store_line(sums, to.at(position), left)
                with no:
                    for i, line in enumerate(sums):
                        for j, value in enumerate(line):
                            self.scratch.at(pitch * i + position).store(value, lanes * j)
        with k.when(self.lines.differs(1)):
            for number in k.range(count):
                for row in k.range(lines):
                    source = self.scratch.at(pitch * number + row * self.pitch)
                    place = number * self.plane + row * self.width
                    copy_all(k, source, to.at(place), self.width)

    def _turns(self, vectors: Value, count: int) -> Iterator[tuple[int, Value]]:
        """Yield how many vectors a tile has and where it begins, as evenly as can be."""
        k = self.k
        place = k.variable(k.value(0, i64))
        if count == 1:  # as many chains of sums as hide how long one takes
            sizes = {8: vectors // 8, 4: vectors % 8 // 4, 2: vectors % 4 // 2, 1: vectors % 2}
        else:
            left = vectors % 3
            left = k.select(left.equals(1) & (vectors > 1), k.value(4, i64), left)
            sizes = {3: (vectors - left) // 3, 2: left // 2, 1: left % 2}
        for size, times in sizes.items():
            for _ in k.range(times):
                yield size, place.value
                place.value = place.value + size

    def _sums(
        self, given: Sequence[Pointer], rows: Sequence[Pointer], biases: Sequence[Value]
    ) -> list[list[Value]]:
        """Write the products of weights and positions; each sum is one chain over the depth."""
        k, lanes = self.k, self.k.lanes
        sums = [[k.variable(k.zeros(f32, lanes)) for _ in given] for _ in rows]
        for i in k.range(self.depth):
            offset = self.offsets.load(i)
            values = [place.load(offset, lanes) for place in given]
            for row, line in zip(rows, sums, strict=True):
                weight = row.splat(i, lanes)
                for total, value in zip(line, values, strict=True):
                    total.value = k.fma(value, weight, total.value)
        pairs = zip(sums, biases, strict=True)
        return [[total.value + bias for total in line] for line, bias in pairs]

    def _store_line(self, sums: list[list[Value]], to: Pointer, left: Value) -> None:
        lanes = self.k.lanes
        for i, line in enumerate(sums):
            for j, value in enumerate(line):
                place = to.at(self.plane * i)
                if j < len(line) - 1:
                    place.store(value, lanes * j)
                else:
                    place.store_some(value, left - lanes * j, lanes * j)


@group.kernel(
    "x:f32* w:f32* bias:f32* out:f32* scratch:f32* room:i64 x_sample:i64 x_group:i64"
    " out_sample:i64 channels:i64 depth:i64 offsets:i64* groups:i64 blocks:i64 parts:i64 lines:i64"
    " height:i64 width:i64 pitch:i64 total:i64 plane:i64"
)
def convolve(k: Builder, *given: Any) -> None:
    """Convolve channels of groups, w being [groups * channels, depth]."""
    _Convolution(k, *given).write()


@group.kernel(
    "x:f32* out:f32* x_sample:i64 out_sample:i64 planes:i64 x_plane:i64 out_plane:i64 pieces:i64"
    " table:i64* x_pitch:i64 out_pitch:i64 step:i64"
)
def lay_out(
    k: Builder, x: Pointer, out: Pointer, x_sample: Value, out_sample: Value, planes: Value,
    x_plane: Value, out_plane: Value, pieces: Value, table: Pointer, x_pitch: Value,
    out_pitch: Value, step: Value,
) -> None:  # fmt: skip
    """Copy pieces of planes, which are the items: lines that begin anywhere, of every ``step``.

    For each piece the table has where its first line goes and comes from, and its lines and width.
    """
    for item in k.items():
        sample, plane = item // planes, item % planes
        source = x.at(sample * x_sample + plane * x_plane)
        target = out.at(sample * out_sample + plane * out_plane)
        for piece in k.range(pieces):
            place = table.at(piece * 4)
            to, start, lines, width = (place.load(i) for i in range(4))
            for line in k.range(lines):
                given, made = source.at(start + line * x_pitch), target.at(to + line * out_pitch)
                with k.either(step.equals(1)) as (near, apart):
                    with near:
                        copy_all(k, given, made, width)
                    with apart:
                        _copy_some(k, given, made, width, step)


@group.kernel("x:f32* out:f32* table:i64*")
def gather(k: Builder, x: Pointer, out: Pointer, table: Pointer) -> None:
    """Write the numbers that a table names; they are the items."""
    for item in k.items():
        out.store(x.load(table.load(item)), item)


@group.kernel(
    "x:f32* out:f32* x_sample:i64 out_sample:i64 planes:i64 out_plane:i64 lines:i64 width:i64"
    " start:i64 pitch:i64 step:i64"
)
def weave(
    k: Builder, x: Pointer, out: Pointer, x_sample: Value, out_sample: Value, planes: Value,
    out_plane: Value, lines: Value, width: Value, start: Value, pitch: Value, step: Value,
) -> None:  # fmt: skip
    """Put planes, which are the items, between others: every ``step`` numbers of some lines."""
    for item in k.items():
        sample, plane = item // planes, item % planes
        source = x.at(sample * x_sample + plane * (lines * width))
        target = out.at(sample * out_sample + plane * out_plane + start)
        for line in k.range(lines):
            given, made = source.at(line * width), target.at(line * pitch)
            for i in k.range(width):
                made.store(given.load(i), i * step)


@group.kernel("x:f32* out:f32* rows:i64 columns:i64 x_row:i64 out_row:i64")
def turn(
    k: Builder, x: Pointer, out: Pointer, rows: Value, columns: Value, x_row: Value, out_row: Value
) -> None:
    """Write columns as rows; items are as many columns as a vector has lanes."""
    lanes = k.lanes
    for item in k.items():
        column = item * lanes
        across = lesser_number(k, columns - column, k.value(lanes, i64))
        for row in k.range(0, rows, lanes):
            down = lesser_number(k, rows - row, k.value(lanes, i64))
            square = [
                x.at(lesser_number(k, row + r, rows - 1) * x_row + column).load_some(across, lanes)
                for r in range(lanes)
            ]
            for c, vector in enumerate(transposed(k, square)):
                with k.when(across > c):
                    out.store_some(vector, down, (column + c) * out_row + row)


def _copy_some(k: Builder, x: Pointer, out: Pointer, count: Value, step: Value) -> None:
    """Write the code that copies every so many numbers."""
    lanes = k.lanes
    # Two vectors hold all of one, and perhaps a number that is not there.
    whole = k.select(step.equals(2), (count - 1) // lanes * lanes, k.value(0, i64))
    for i in k.range(0, whole, lanes):
        first, second = x.load(i * 2, lanes), x.load(i * 2 + lanes, lanes)
        out.store(first.shuffle(range(0, 2 * lanes, 2), second), i)
    for i in k.range(whole, count):
        out.store(x.load(i * step), i)
