"""Planes of numbers in other sizes: the nearest position, or linear between two.

Of each line of the input that is needed a line of the new width is made; lines of the result are
copies of them, or lie between two of them. Items are planes.

    columns   for each position of a line where it comes from, once or twice
    lines     the same for the lines of a plane
    shares    of the second source
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import copy_all, read, spread, write
from llmbol_core.ml.kernels.kinds import i64

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("resampling")


@group.kernel(
    "x:f32* out:f32* x_plane:i64 x_width:i64 height:i64 width:i64 lines:i64* columns:i64*"
)
def nearest(
    k: Builder, x: Pointer, out: Pointer, x_plane: Value, x_width: Value, height: Value,
    width: Value, lines: Pointer, columns: Pointer,
) -> None:  # fmt: skip
    """Write the number that each position falls on."""
    for item in k.items():
        source, target = x.at(item * x_plane), out.at(item * (height * width))
        last = k.variable(k.value(-1, i64))
        for y in k.range(height):
            line, to = lines.load(y), target.at(y * width)
            with k.either(line.equals(last.value)) as (again, new):
                with again:
                    copy_all(k, to.at(-width), to, width)
                with new:
                    given = source.at(line * x_width)
                    for i in k.range(width):
                        to.store(given.load(columns.load(i)), i)
            last.value = line


class _Lines:
    """The code that makes lines of the new width; the last two are kept, neighbours both."""

    def __init__(
        self, k: Builder, room: Pointer, width: Value, columns: Pointer, shares: Pointer
    ) -> None:  # fmt: skip
        self.k, self.room, self.width = k, room, width
        self.columns, self.shares = columns, shares
        self.held = k.room(i64, 2)

    def clear(self) -> None:
        """Write the code that forgets what is kept."""
        for half in range(2):
            self.held.store(self.k.value(-1, i64), half)

    def line(self, number: Value, given: Pointer) -> Pointer:
        """Write the code that makes a line of one of the input unless it is kept."""
        k, half = self.k, number % 2
        made = self.room.at(half * self.width)
        with k.when(self.held.load(half).differs(number)):
            self.held.store(number, half)
            for i in k.range(self.width):
                first, second = (given.load(self.columns.load(i * 2 + j)) for j in range(2))
                share = self.shares.load(i)
                made.store(first * (1.0 - share) + second * share, i)
        return made


@group.kernel(
    "x:f32* out:f32* scratch:f32* x_plane:i64 x_width:i64 height:i64 width:i64 lines:i64*"
    " line_shares:f32* columns:i64* column_shares:f32* flat:i64"
)
def linear(
    k: Builder, x: Pointer, out: Pointer, scratch: Pointer, x_plane: Value, x_width: Value,
    height: Value, width: Value, lines: Pointer, line_shares: Pointer, columns: Pointer,
    column_shares: Pointer, flat: Value,
) -> None:  # fmt: skip
    """Write what lies between two positions, of columns and of lines; ``flat`` planes are lines."""
    made = _Lines(k, scratch.at(k.thread * width * 2), width, columns, column_shares)
    for item in k.items():
        source, target = x.at(item * x_plane), out.at(item * (height * width))
        made.clear()
        for y in k.range(height):
            numbers = [lines.load(y * 2 + j) for j in range(2)]
            above, below = (made.line(n, source.at(n * x_width)) for n in numbers)
            share, to = line_shares.load(y), target.at(y * width)
            with k.either(flat.differs(0)) as (yes, no):
                with yes:
                    copy_all(k, above, to, width)
                with no:
                    _mix(k, above, below, share, to, width)


def _mix(
    k: Builder, above: Pointer, below: Pointer, share: Value, out: Pointer, count: Value
) -> None:
    second, first = share.splat(k.lanes), (1.0 - share).splat(k.lanes)

    def step(i: Value, left: Value | None) -> None:
        value = read(k, above, i, left) * first + read(k, below, i, left) * second
        write(k, out, value, i, left)

    spread(k, count, step)
