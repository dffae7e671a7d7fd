"""Attention of one head of one sample at a time: softmax(scale q k^T) v without whole matrices.

Keys are turned into panels of columns and values into panels of rows, in room of the thread's own;
then some queries at a time go through scores, softmax and the product with the values.

    strides   of samples, heads and positions, in numbers; the numbers of a position are neighbours
    scratch   keys [key panels, width, 2 lanes], values [value panels, positions, 2 lanes],
              scores [BLOCK, positions rounded up]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import spread
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rows import softmax_row
from llmbol_core.ml.kernels.tiles import accumulate, lesser_number, most_rows, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("attention")

BLOCK = 48
"""How many queries are worked on together."""


def scratch_size(lanes: int, queries: int, keys: int, width: int, values: int) -> int:
    """Return how many numbers a thread needs room for."""
    panel = 2 * lanes
    columns = -(-keys // panel) * panel
    return columns * width + -(-values // panel) * panel * keys + BLOCK * columns + 16


class _Attention:
    """The code for one head."""

    def __init__(self, k: Builder, sizes: dict[str, Value], scratch: Pointer) -> None:
        self.k, self.sizes = k, sizes
        self.panel = 2 * k.lanes
        self.keys, self.width, self.values = sizes["keys"], sizes["width"], sizes["values"]
        self.columns = (self.keys + (self.panel - 1)) // self.panel * self.panel
        self.value_columns = (self.values + (self.panel - 1)) // self.panel * self.panel
        self.packed_keys = scratch
        self.packed_values = scratch.at(self.columns * self.width)
        self.scores = self.packed_values.at(self.value_columns * self.keys)

    def pack_keys(self, key: Pointer, stride: Value) -> None:
        """Write keys as panels of columns, zeros behind the last."""
        k, panel = self.k, self.panel
        for start in k.range(0, self.columns, panel):
            to = self.packed_keys.at(start * self.width)
            for j in k.range(panel):
                with k.either(start + j < self.keys) as (yes, no):
                    with yes:
                        row = key.at((start + j) * stride)
                        for d in k.range(self.width):
                            to.store(row.load(d), d * panel + j)
                    with no:
                        for d in k.range(self.width):
                            to.store(k.value(0.0, f32), d * panel + j)

    def pack_values(self, value: Pointer, stride: Value) -> None:
        """Write values as panels of rows."""
        k, lanes, panel = self.k, self.k.lanes, self.panel
        for start in k.range(0, self.values, panel):
            to = self.packed_values.at(start * self.keys)
            left = lesser_number(k, self.values - start, k.value(panel, i64))
            for row in k.range(self.keys):
                given = value.at(row * stride + start)
                for j in range(2):
                    rest = left - lanes * j
                    to.store(given.load_some(rest, lanes, lanes * j), row * panel + lanes * j)

    def multiply(
        self, x: Pointer, pitch: Value, rows: Value, packed: Pointer, depth: Value,
        columns: Value, out: Pointer, out_pitch: Value,
    ) -> None:  # fmt: skip
        """Write the code of rows times panels; what does not exist of the last is not stored."""
        k, lanes = self.k, self.k.lanes
        zero = [k.zeros(f32, lanes)] * 2

        def tile(row: Value, count: int, start: Value, whole: bool) -> None:
            lines = [x.at((row + r) * pitch) for r in range(count)]
            panel = packed.at(start * depth)
            sums = accumulate(k, lines, [panel], 2, [zero] * count, depth, ahead=False)
            for r, line in enumerate(sums):
                place = out.at((row + r) * out_pitch + start)
                for j, value in enumerate(line):
                    if whole:
                        place.store(value, lanes * j)
                    else:
                        place.store_some(value, columns - start - lanes * j, lanes * j)

        first = k.value(0, i64)
        for start in k.range(0, columns // self.panel * self.panel, self.panel):
            rows_in_turn(k, first, rows, most_rows(k), lambda row, n: tile(row, n, start, True))
        for start in k.range(columns // self.panel * self.panel, columns, self.panel):
            rows_in_turn(k, first, rows, most_rows(k), lambda row, n: tile(row, n, start, False))

    def queries(self, query: Pointer, pitch: Value, out: Pointer, out_pitch: Value) -> None:
        """Write the code for all queries, a block at a time."""
        k = self.k
        count, causal = self.sizes["queries"], self.sizes["causal"]
        scale = k.value(0, i64).to(f32) + self.sizes["scale"]
        spread_scale = scale.splat(k.lanes)
        for start in k.range(0, count, BLOCK):
            rows = lesser_number(k, count - start, k.value(BLOCK, i64))
            self.multiply(query.at(start * pitch), pitch, rows, self.packed_keys, self.width,
                          self.columns, self.scores, self.columns)  # fmt: skip
            for r in k.range(rows):
                line = self.scores.at(r * self.columns)
                seen = self.keys - count + start + r + 1
                length = k.select(causal.differs(0), seen, self.keys)
                softmax_row(k, line, line, length, spread_scale)
                rest = line.at(length)
                zeros = k.zeros(f32, k.lanes)

                def clear(i: Value, left: Value | None) -> None:
                    if left is None:
                        rest.store(zeros, i)
                    else:
                        rest.store_some(zeros, left, i)

                spread(k, self.keys - length, clear)
            self.multiply(self.scores, self.columns, rows, self.packed_values, self.keys,
                          self.values, out.at(start * out_pitch), out_pitch)  # fmt: skip


@group.kernel(
    "query:f32* key:f32* value:f32* out:f32* scratch:f32* scratch_size:i64 heads:i64 shared:i64"
    " queries:i64 keys:i64 width:i64 values:i64 q_sample:i64 q_head:i64 q_row:i64 k_sample:i64"
    " k_head:i64 k_row:i64 v_sample:i64 v_head:i64 v_row:i64 causal:i64 scale:f32"
)
def attend(
    k: Builder, query: Pointer, key: Pointer, value: Pointer, out: Pointer, scratch: Pointer,
    scratch_size: Value, heads: Value, shared: Value, queries: Value, keys: Value, width: Value,
    values: Value, q_sample: Value, q_head: Value, q_row: Value, k_sample: Value, k_head: Value,
    k_row: Value, v_sample: Value, v_head: Value, v_row: Value, causal: Value, scale: Value,
) -> None:  # fmt: skip
    """Mix values for items that are heads of samples; ``shared`` heads share keys and values.

    The result is [N, queries, heads, values].
    """
    sizes = {"queries": queries, "keys": keys, "width": width, "values": values,
             "causal": causal, "scale": scale}  # fmt: skip
    own = scratch.at(k.thread * scratch_size)
    for item in k.items():
        sample, head = item // heads, item % heads
        group_ = head // shared
        made = _Attention(k, sizes, own)
        made.pack_keys(key.at(sample * k_sample + group_ * k_head), k_row)
        made.pack_values(value.at(sample * v_sample + group_ * v_head), v_row)
        place = out.at((sample * queries * heads + head) * values)
        made.queries(query.at(sample * q_sample + head * q_head), q_row, place, heads * values)
