"""Attention in training: as in ``attention``, with its weights kept, and its gradient.

    P = softmax(scale Q K^T)   O = (P M) V            M multiplies, element by element
    dV = (P M)^T dO   dP = dO V^T M   dS = scale P (dP - sum(dP P))   dQ = dS K   dK = dS^T Q

Queries, keys and values of a step lie in a row, [steps, 3 features], each head's part together.
Items are heads of samples; each works in room of its thread's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import fill_all, read, spread, write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rows import plus, reduced, softmax_row
from llmbol_core.ml.kernels.tiles import accumulate, lesser_number, most_rows, rows_in_turn
from llmbol_core.ml.kernels.training import transpose_rows

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("attention training")


def room_for(lanes: int, steps: int, width: int) -> int:
    """Return how many numbers a thread needs room for."""
    panel = 2 * lanes
    across, along = -(-steps // panel) * panel * width, -(-width // panel) * panel * steps
    return max(across, along) + 2 * steps * steps + 4 * panel


@group.kernel("x:f32* pitch:i64 rows:i64 depth:i64 columns:i64 packed:f32* out:f32* out_pitch:i64")
def multiply_packed(
    k: Builder, x: Pointer, pitch: Value, rows: Value, depth: Value, columns: Value,
    packed: Pointer, out: Pointer, out_pitch: Value,
) -> None:  # fmt: skip
    """Multiply rows by panels of two vectors of columns, which are the items."""
    lanes, panel = k.lanes, 2 * k.lanes
    zero = [k.zeros(f32, lanes)] * 2

    def tile(row: Value, count: int, start: Value) -> None:
        lines = [x.at((row + r) * pitch) for r in range(count)]
        sums = accumulate(k, lines, [packed.at(start * depth)], 2, [zero] * count, depth,
                          ahead=False)  # fmt: skip
        for r, line in enumerate(sums):
            place = out.at((row + r) * out_pitch + start)
            for value, j in zip(line, (0, lanes), strict=True):
                place.store_some(value, columns - start - j, j)

    for item in k.items():
        start = item * panel
        rows_in_turn(k, k.value(0, i64), rows, most_rows(k), lambda row, n: tile(row, n, start))


class _Head:
    """The code for one head: packed operands and squares of steps in a thread's room."""

    def __init__(self, k: Builder, scratch: Pointer, steps: Value, width: Value) -> None:
        self.k, self.steps, self.width, self.panel = k, steps, width, 2 * k.lanes
        square = steps * steps + self.panel
        self.first, self.second = scratch, scratch.at(square)
        self.packed = scratch.at(square * 2)

    def pack_across(self, x: Pointer, pitch: Value) -> None:
        """Write the code that makes the steps of x the columns of what products take."""
        k, panel = self.k, self.panel
        for start in k.range(0, self.steps, panel):
            count = lesser_number(k, self.steps - start, k.value(panel, i64))
            to = self.packed.at(start * self.width)
            row = k.value(panel, i64)
            transpose_rows(k, x.at(start * pitch), pitch, to, row, count, self.width)

    def pack(self, x: Pointer, pitch: Value) -> None:
        """Write the code that makes the steps of x the depth of what products take."""
        k, lanes, panel = self.k, self.k.lanes, self.panel
        for start in k.range(0, self.width, panel):
            to = self.packed.at(start * self.steps)
            left = self.width - start
            for row in k.range(self.steps):
                given = x.at(row * pitch + start)
                for j in (0, lanes):
                    to.store(given.load_some(left - j, lanes, j), row * panel + j)

    def multiply(
        self, x: Pointer, pitch: Value, rows: Value, depth: Value, columns: Value, out: Pointer,
        out_pitch: Value,
    ) -> None:  # fmt: skip
        """Write the code of rows times what is packed."""
        k = self.k
        panels = (columns + (self.panel - 1)) // self.panel
        given = (x, pitch, rows, depth, columns, self.packed, out, out_pitch)
        k.call_kernel(multiply_packed, k.value(0, i64), panels, *given)

    def masked(self, x: Pointer, mask: Pointer, out: Pointer) -> None:
        """Write the code that multiplies squares."""
        k = self.k

        def step(i: Value, left: Value | None) -> None:
            write(k, out, read(k, x, i, left) * read(k, mask, i, left), i, left)

        spread(k, self.steps * self.steps, step)


_SIZES = "scratch:f32* room:i64 heads:i64 steps:i64 width:i64 drops:i64 scale:f32"


@group.kernel(f"qkv:f32* kept:f32* mask:f32* out:f32* {_SIZES} causal:i64")
def attend(
    k: Builder, qkv: Pointer, kept: Pointer, mask: Pointer, out: Pointer, scratch: Pointer,
    room: Value, heads: Value, steps: Value, width: Value, drops: Value, scale: Value,
    causal: Value,
) -> None:  # fmt: skip
    """Mix values, and keep the weights [N, heads, steps, steps]; they are masked if it ``drops``.

    The result is [N, steps, heads, width].
    """
    features = heads * width
    pitch, square = features * 3, steps * steps
    for item in k.items():
        sample, head = item // heads, item % heads
        made = _Head(k, scratch.at(k.thread * room), steps, width)
        query = qkv.at(sample * steps * pitch + head * width)
        weights = kept.at(item * square)
        made.pack_across(query.at(features), pitch)
        made.multiply(query, pitch, steps, width, steps, weights, steps)
        for row in k.range(steps):
            line = weights.at(row * steps)
            length = k.select(causal.differs(0), row + 1, steps)
            softmax_row(k, line, line, length, scale.splat(k.lanes))
            fill_all(k, line.at(length), 0.0, steps - length)
        with k.when(drops.differs(0)):
            made.masked(weights, mask.at(item * square), made.first)
        made.pack(query.at(features * 2), pitch)
        given = k.place(drops.differs(0), made.first, weights)
        to = out.at(sample * steps * features + head * width)
        made.multiply(given, steps, steps, steps, width, to, features)


@group.kernel(f"qkv:f32* kept:f32* mask:f32* d:f32* g:f32* {_SIZES}")
def attend_gradient(
    k: Builder, qkv: Pointer, kept: Pointer, mask: Pointer, d: Pointer, g: Pointer,
    scratch: Pointer, room: Value, heads: Value, steps: Value, width: Value, drops: Value,
    scale: Value,
) -> None:  # fmt: skip
    """Write the gradient of queries, keys and values from that of the result."""
    features = heads * width
    pitch, square = features * 3, steps * steps
    for item in k.items():
        sample, head = item // heads, item % heads
        made = _Head(k, scratch.at(k.thread * room), steps, width)
        place = sample * steps * pitch + head * width
        query, to = qkv.at(place), g.at(place)
        given = d.at(sample * steps * features + head * width)
        weights, drawn = kept.at(item * square), mask.at(item * square)
        slopes, turned = made.first, made.second
        with k.when(drops.differs(0)):
            made.masked(weights, drawn, slopes)
        shown = k.place(drops.differs(0), slopes, weights)
        transpose_rows(k, shown, steps, turned, steps, steps, steps)
        made.pack(given, features)
        made.multiply(turned, steps, steps, steps, width, to.at(features * 2), pitch)
        made.pack_across(query.at(features * 2), pitch)
        made.multiply(given, features, steps, width, steps, slopes, steps)
        with k.when(drops.differs(0)):
            made.masked(slopes, drawn, slopes)
        for row in k.range(steps):
            _slopes(k, slopes.at(row * steps), weights.at(row * steps), steps, scale)
        made.pack(query.at(features), pitch)
        made.multiply(slopes, steps, steps, steps, width, to, pitch)
        transpose_rows(k, slopes, steps, turned, steps, steps, steps)
        made.pack(query, pitch)
        made.multiply(turned, steps, steps, steps, width, to.at(features), pitch)


def _slopes(k: Builder, x: Pointer, weights: Pointer, size: Value, scale: Value) -> None:
    """Write the gradient of a row of scores over that of its weights."""

    def product(value: Value, i: Value, left: Value | None) -> Value:
        return value * read(k, weights, i, left)

    total = reduced(k, x, size, 0.0, plus, product).splat(k.lanes)

    def step(i: Value, left: Value | None) -> None:
        value = read(k, weights, i, left) * (read(k, x, i, left) - total)
        write(k, x, value * scale, i, left)

    spread(k, size, step)
