"""Attention of one head of one sample at a time: softmax(scale q k^T) v without whole matrices.

Keys are turned into panels of columns and values into panels of rows, in room of the thread's own;
then some queries at a time go through scores, softmax and the product with the values. For few
queries keys and values are read as they lie.

    strides   of samples, heads and positions, in numbers; the numbers of a position are neighbours
    mask      is added to the scores; where that of each head begins, strides of queries and keys
    extent    how many keys there are, and the strides of heads of keys and values
    scratch   keys [key panels, width, 2 lanes], values [value panels, positions, 2 lanes],
              scores [BLOCK, positions rounded up]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.functions import exp
from llmbol_core.ml.kernels.gradients import transposed
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rows import plus, reduced
from llmbol_core.ml.kernels.tiles import (
    accumulate,
    greater,
    lesser_number,
    most_rows,
    rows_in_turn,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("attention")

BLOCK = 48
"""How many queries are worked on together."""
FEW = 4
"""Up to so many queries packing does not pay."""
_VECTORS = 4
"""Vectors of values that few queries sum at a time."""


def scratch_size(lanes: int, queries: int, keys: int, width: int, values: int) -> int:
    """Return how many numbers a thread needs room for."""
    panel = 2 * lanes
    columns = -(-keys // panel) * panel
    return columns * width + -(-values // panel) * panel * keys + BLOCK * columns + 16


class _Attention:
    """The code for one head."""

    def __init__(
        self, k: Builder, sizes: dict[str, Value], scratch: Pointer, mask: Pointer
    ) -> None:  # fmt: skip
        self.k, self.sizes, self.mask = k, sizes, mask
        self.panel = 2 * k.lanes
        self.keys, self.width, self.values = sizes["keys"], sizes["width"], sizes["values"]
        self.columns = (self.keys + (self.panel - 1)) // self.panel * self.panel
        self.value_columns = (self.values + (self.panel - 1)) // self.panel * self.panel
        self.packed_keys = scratch
        self.packed_values = scratch.at(self.columns * self.width)
        self.scores = self.packed_values.at(self.value_columns * self.keys)

    def pack_keys(self, key: Pointer, stride: Value) -> None:
        """Write keys as panels of columns; behind the last one it is repeated."""
        k, lanes, panel = self.k, self.k.lanes, self.panel
        whole = self.width // lanes * lanes
        for start in k.range(0, self.columns, lanes):
            to = self.packed_keys.at(start // panel * panel * self.width + start % panel)
            rows = self._keys(key, stride, start)
            for d in k.range(0, whole, lanes):
                for i, value in enumerate(transposed(k, [row.load(d, lanes) for row in rows])):
                    to.at((d + i) * panel).store(value)
            rest = self.width - whole
            with k.when(rest > 0):
                square = transposed(k, [row.load_some(rest, lanes, whole) for row in rows])
                for i, value in enumerate(square):
                    with k.when(rest > i):
                        to.at((whole + i) * panel).store(value)

    def _keys(self, key: Pointer, stride: Value, start: Value) -> list[Pointer]:
        """Return a vector's number of keys, the last one again where there are no more."""
        last = self.keys - 1
        return [
            key.at(lesser_number(self.k, start + j, last) * stride) for j in range(self.k.lanes)
        ]

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
        columns: Value, out: Pointer, out_pitch: Value, whole: bool,
    ) -> None:  # fmt: skip
        """Write the code of rows times panels; unless all are whole the last one may be cut."""
        k, lanes = self.k, self.k.lanes
        zero = [k.zeros(f32, lanes)] * 2

        def tile(row: Value, count: int, start: Value) -> None:
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
        for start in k.range(0, columns, self.panel):
            rows_in_turn(k, first, rows, most_rows(k), lambda row, n: tile(row, n, start))

    def queries(self, query: Pointer, pitch: Value, out: Pointer, out_pitch: Value) -> None:
        """Write the code for all queries, a block at a time."""
        k = self.k
        count = self.sizes["queries"]
        for start in k.range(0, count, BLOCK):
            rows = lesser_number(k, count - start, k.value(BLOCK, i64))
            self.multiply(query.at(start * pitch), pitch, rows, self.packed_keys, self.width,
                          self.columns, self.scores, self.columns, True)  # fmt: skip
            for r in k.range(rows):
                self.softmax(self.scores.at(r * self.columns), start + r)
            self.multiply(self.scores, self.columns, rows, self.packed_values, self.keys,
                          self.values, out.at(start * out_pitch), out_pitch, False)  # fmt: skip

    def softmax(self, line: Pointer, number: Value) -> None:
        """Write the code that turns a query's scores into shares: 0 for keys that it may not see.

        If a query may see no key, all its shares are 0.
        """
        k, causal = self.k, self.sizes["causal"]
        scale = self.sizes["scale"].splat(k.lanes)
        length = k.select(
            causal.differs(0), self.keys - self.sizes["queries"] + number + 1, self.keys
        )
        mask = self.mask.at(number * self.sizes["mask_row"])
        column = self.sizes["mask_column"]

        def scaled(value: Value, i: Value, left: Value | None) -> Value:
            made = value * scale
            write(k, line, made, i, left)
            return made

        def masked(value: Value, i: Value, left: Value | None) -> Value:
            there = k.value(k.lanes, i64) if left is None else left
            shown = k.select(
                column.equals(0),
                mask.splat(0, k.lanes),
                mask.load_some(k.select(column.equals(0), k.value(0, i64), there), k.lanes, i),
            )
            made = value * scale + shown
            write(k, line, made, i, left)
            return made

        greatest = k.variable(k.value(float("-inf"), f32))
        with k.either(self.mask.address().differs(0)) as branches:
            for branch, change in zip(branches, (masked, scaled), strict=True):
                with branch:
                    greatest.value = reduced(
                        k, line, length, float("-inf"), lambda a, b: greater(k, a, b), change
                    )
        nothing = greatest.value.equals(float("-inf"))
        top = k.select(nothing, k.value(0.0, f32), greatest.value).splat(k.lanes)

        def power(value: Value, i: Value, left: Value | None) -> Value:
            made = exp(k, value - top)
            write(k, line, made, i, left)
            return made

        total = reduced(k, line, length, 0.0, plus, power)
        factor = (1.0 / k.select(nothing, k.value(1.0, f32), total)).splat(k.lanes)

        def divide(i: Value, left: Value | None) -> None:
            write(k, line, read(k, line, i, left) * factor, i, left)

        spread(k, length, divide)
        rest, zeros = line.at(length), k.zeros(f32, k.lanes)
        spread(k, self.keys - length, lambda i, left: write(k, rest, zeros, i, left))

    # ---- few queries ----

    def query(
        self, query: Pointer, key: Pointer, k_row: Value, value: Pointer, v_row: Value,
        number: Value, out: Pointer,
    ) -> None:  # fmt: skip
        """Write the code for one query: keys and values as they lie."""
        k, lanes = self.k, self.k.lanes
        zero = k.zeros(f32, lanes)
        for start in k.range(0, self.keys, lanes):
            rows = self._keys(key, k_row, start)
            sums = [k.variable(zero) for _ in rows]

            def step(
                i: Value, left: Value | None, rows: list[Pointer] = rows, sums: Any = sums
            ) -> None:
                own = read(k, query, i, left)
                for row, total in zip(rows, sums, strict=True):
                    total.value = k.fma(own, read(k, row, i, left), total.value)

            spread(k, self.width, step)
            parts = transposed(k, [total.value for total in sums])
            while len(parts) > 1:
                half = len(parts) // 2
                parts = [a + b for a, b in zip(parts[:half], parts[half:], strict=True)]
            self.packed_keys.store(parts[0], start)
        line = self.packed_keys
        self.softmax(line, number)
        wide = self.values // (_VECTORS * lanes) * (_VECTORS * lanes)
        for j in k.range(0, wide, _VECTORS * lanes):
            self._mix(line, value.at(j), v_row, out.at(j), _VECTORS, None)
        for j in k.range(wide, self.values, lanes):
            self._mix(line, value.at(j), v_row, out.at(j), 1, self.values - j)

    def _mix(
        self, line: Pointer, value: Pointer, v_row: Value, out: Pointer, count: int,
        left: Value | None,
    ) -> None:  # fmt: skip
        """Write the code that adds up values times shares."""
        k, lanes = self.k, self.k.lanes
        sums = [k.variable(k.zeros(f32, lanes)) for _ in range(count)]
        for row in k.range(self.keys):
            share, given = line.splat(row, lanes), value.at(row * v_row)
            for j, total in enumerate(sums):
                total.value = k.fma(share, read(k, given.at(lanes * j), k.value(0, i64), left),
                                    total.value)  # fmt: skip
        for j, total in enumerate(sums):
            write(k, out.at(lanes * j), total.value, k.value(0, i64), left)


@group.kernel(
    "query:f32* key:f32* value:f32* mask:f32* out:f32* scratch:f32* scratch_size:i64 heads:i64"
    " shared:i64 queries:i64 extent:i64* width:i64 values:i64 q_sample:i64 q_head:i64 q_row:i64"
    " k_sample:i64 k_row:i64 v_sample:i64 v_row:i64 mask_starts:i64* mask_row:i64 mask_column:i64"
    " out_sample:i64 out_head:i64 out_row:i64 causal:i64 scale:f32"
)
def attend(
    k: Builder, query: Pointer, key: Pointer, value: Pointer, mask: Pointer, out: Pointer,
    scratch: Pointer, scratch_size: Value, heads: Value, shared: Value, queries: Value,
    extent: Pointer, width: Value, values: Value, q_sample: Value, q_head: Value, q_row: Value,
    k_sample: Value, k_row: Value, v_sample: Value, v_row: Value, mask_starts: Pointer,
    mask_row: Value, mask_column: Value, out_sample: Value, out_head: Value, out_row: Value,
    causal: Value, scale: Value,
) -> None:  # fmt: skip
    """Mix values for items that are heads of samples; ``shared`` heads share keys and values."""
    keys, k_head, v_head = (extent.load(i) for i in range(3))
    sizes = {"queries": queries, "keys": keys, "width": width, "values": values, "causal": causal,
             "scale": scale, "mask_row": mask_row, "mask_column": mask_column}  # fmt: skip
    own = scratch.at(k.thread * scratch_size)
    for item in k.items():
        sample, head = item // heads, item % heads
        group_ = head // shared
        is_masked = mask.address().differs(0)
        shown = k.variable(mask.address())
        with k.when(is_masked):
            shown.value = mask.at(mask_starts.load(head)).address()
        made = _Attention(k, sizes, own, k.pointer(shown.value, f32))
        keys_at = key.at(sample * k_sample + group_ * k_head)
        values_at = value.at(sample * v_sample + group_ * v_head)
        queries_at = query.at(sample * q_sample + head * q_head)
        place = out.at(sample * out_sample + head * out_head)
        with k.either(queries <= FEW) as (few, many):
            with few:
                for number in k.range(queries):
                    made.query(queries_at.at(number * q_row), keys_at, k_row, values_at, v_row,
                               number, place.at(number * out_row))  # fmt: skip
            with many:
                made.pack_keys(keys_at, k_row)
                made.pack_values(values_at, v_row)
                made.queries(queries_at, q_row, place, out_row)
