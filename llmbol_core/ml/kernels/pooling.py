"""Windows of planes reduced to their greatest number or their mean: one or two axes of positions.

Lines of a window are joined first, whole lines at a time, then columns. Beyond the borders lies
what changes nothing. Items are planes.

    lines            for each line of the result where the window's lines begin and end
    heights, widths  what the sums of each line and of each column are divided by, together
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import fill_all, read, spread, write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import greater

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("pooling")

NEAR = 4
"""How far windows are apart at most to be read by vectors."""

Join = Callable[["Builder", "Value", "Value"], "Value"]


def scratch_size(lanes: int, length: int, border: int, width: int, step: int, kernel: int) -> int:
    """Return how many numbers a line and its borders take, as far as they are read."""
    return max(border + length, (width + lanes) * step + kernel) + 2 * lanes


class _Pool:
    """The code of one kernel."""

    def __init__(
        self, k: Builder, join: Join, least: float, x_width: Value, width: Value, kernel: Value,
        step: Value, line: Pointer,
    ) -> None:  # fmt: skip
        self.k, self.join, self.least = k, join, least
        self.x_width, self.width, self.kernel, self.step = x_width, width, kernel, step
        self.line = line

    def clear(self, border: Value, room: Value) -> None:
        """Write the code that fills what is beside lines with what changes nothing."""
        k = self.k
        behind = border + self.x_width
        for place, count in ((self.line, border), (self.line.at(behind), room - behind)):
            fill_all(k, place, self.least, count)

    def down(self, plane: Pointer, first: Value, last: Value, border: Value) -> None:
        """Write the code that joins lines of a plane."""
        k = self.k
        inner = self.line.at(border)

        def step(i: Value, left: Value | None) -> None:
            total = k.variable(k.value(self.least, f32, k.lanes))
            for number in k.range(first, last):
                given = read(k, plane.at(number * self.x_width), i, left)
                total.value = self.join(k, total.value, given)
            write(k, inner, total.value, i, left)

        spread(k, self.x_width, step)

    def across(self, out: Pointer, divisors: tuple[Value, Pointer] | None) -> None:
        """Write the code that joins columns, of a vector of windows at a time where they are near.

        Sums are divided by a number for all and one for each window.
        """
        k = self.k
        step = k.select(self.step > NEAR, k.value(0, i64), self.step)
        for case in k.cases(step, range(NEAR + 1)):
            if case:
                spread(k, self.width, lambda i, left: self._windows(out, divisors, i, left, case))
            else:
                for i in k.range(self.width):
                    total = self._joined(i, lambda place: self.line.load(place))
                    if divisors is not None:
                        total = total / (divisors[1].load(i) * divisors[0])
                    out.store(total, i)

    def _windows(
        self, out: Pointer, divisors: tuple[Value, Pointer] | None, i: Value, left: Value | None,
        step: int,
    ) -> None:  # fmt: skip
        """Write the code for a vector of windows, or what is left of one."""
        total = self._joined(i, lambda place: self._every(place, step))
        if divisors is not None:
            total = total / (read(self.k, divisors[1], i, left) * divisors[0])
        write(self.k, out, total, i, left)

    def _joined(self, i: Value, take: Callable[[Value], Value]) -> Value:
        """Write the code that joins what ``take`` reads of each column of windows."""
        k = self.k
        total = k.variable(take(i * self.step))
        for j in k.range(1, self.kernel):
            total.value = self.join(k, total.value, take(i * self.step + j))
        return total.value

    def _every(self, place: Value, step: int) -> Value:
        """Return a vector of every so many numbers of the line."""
        lanes = self.k.lanes
        made = self.line.load(place, lanes)
        for part in range(1, step):
            more = self.line.load(place + lanes * part, lanes)
            # What is there already stays, but that all of it moves to its place at first.
            known = [lane * step if part == 1 else lane for lane in range(lanes)]
            fresh = [lane * step - lanes * (part - 1) for lane in range(lanes)]
            order = [
                new if lanes <= new < 2 * lanes else old % lanes
                for old, new in zip(known, fresh, strict=True)
            ]
            made = made.shuffle(order, more)
        return made


def _kernel(name: str, join: Join, least: float, divides: bool) -> Kernel:
    def author(
        k: Builder, x: Pointer, out: Pointer, scratch: Pointer, room: Value, x_plane: Value,
        x_width: Value, height: Value, width: Value, kernel: Value, step: Value, border: Value,
        lines: Pointer, heights: Pointer, widths: Pointer,
    ) -> None:  # fmt: skip
        made = _Pool(k, join, least, x_width, width, kernel, step, scratch.at(k.thread * room))
        made.clear(border, room)
        for item in k.items():
            plane, target = x.at(item * x_plane), out.at(item * (height * width))
            for y in k.range(height):
                made.down(plane, lines.load(y * 2), lines.load(y * 2 + 1), border)
                divisors = (heights.load(y), widths) if divides else None
                made.across(target.at(y * width), divisors)

    return group.kernel(
        "x:f32* out:f32* scratch:f32* room:i64 x_plane:i64 x_width:i64 height:i64 width:i64"
        " kernel:i64 step:i64 border:i64 lines:i64* heights:f32* widths:f32*",
        name,
    )(author)


KERNELS = {
    "max": _kernel("greatest", lambda k, a, b: greater(k, a, b), float("-inf"), False),
    "avg": _kernel("mean", lambda k, a, b: a + b, 0.0, True),
}
