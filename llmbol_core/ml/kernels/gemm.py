"""Products of float32 rows with packed weights, bias and limits of the result included.

packed   panels of two vectors of columns, then those of one vector for the columns left
result   min(max(x W^T + b, low), high)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.half import widened
from llmbol_core.ml.kernels.kinds import Kind, f16, f32, i64, u16
from llmbol_core.ml.kernels.tiles import (
    AHEAD,
    accumulate,
    greater_number,
    lesser_number,
    limited,
    most_rows,
    rows_in_turn,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("gemm")


class _Product:
    """The code of one product: which rows, which columns, what of the depth at a time."""

    def __init__(
        self, k: Builder, x: Pointer, w: Pointer, bias: Pointer, out: Pointer,
        stride: Value, pitch: Value, columns: Value, depth: Value, low: Value, high: Value,
        block: Value,
    ) -> None:  # fmt: skip
        self.k, self.x, self.w, self.bias, self.out = k, x, w, bias, out
        self.stride, self.pitch, self.columns, self.depth = stride, pitch, columns, depth
        self.low, self.high, self.block = low, high, block

    def panels(self) -> Value:
        """Return how many panels there are."""
        width = 2 * self.k.lanes
        rest = self.columns % width
        return self.columns // width + (rest + (self.k.lanes - 1)) // self.k.lanes

    def write(self, first: Value, last: Value, begin: Value, end: Value) -> None:
        """Write the code for rows first ... last and panels begin ... end."""
        k = self.k
        wide = self.columns // (2 * k.lanes)
        few = last - first < 4
        with k.either(few) as (yes, no):
            with yes:
                for size, count in ((1, 4), (2, 2), (3, 2)):
                    with k.when((last - first).equals(size)):
                        self._few(first, size, count, begin, lesser_number(k, end, wide))
            with no:
                for start in k.range(0, self.depth, self.block):
                    length = lesser_number(k, self.depth - start, self.block)
                    for panel in k.range(begin, lesser_number(k, end, wide)):
                        rows_in_turn(
                            k, first, last, most_rows(k),
                            lambda row, n: self._tile(row, n, 2, panel, start, length),
                        )  # fmt: skip
        for panel in k.range(greater_number(k, begin, wide), end):
            with k.either(self.depth >= DEEP) as (yes, no):
                with yes:
                    most = most_rows(k) // 2
                    rows_in_turn(
                        k, first, last, most, lambda row, n: self._narrow(row, n, panel, 4)
                    )
                with no:
                    most = most_rows(k)
                    rows_in_turn(
                        k, first, last, most, lambda row, n: self._narrow(row, n, panel, 1)
                    )

    def _few(self, first: Value, size: int, count: int, begin: Value, end: Value) -> None:
        """Write the code for very few rows: several panels at a time keep the machine busy."""
        k = self.k
        groups = greater_number(k, end - begin, k.value(0, i64)) // count
        for i in k.range(groups):
            self._tile(first, size, 2, begin + i * count, k.value(0, i64), self.depth, count)
        for panel in k.range(begin + groups * count, end):
            self._tile(first, size, 2, panel, k.value(0, i64), self.depth)

    def _tile(
        self, row: Value, size: int, vectors: int, panel: Value, start: Value, depth: Value,
        count: int = 1,
    ) -> None:  # fmt: skip
        k, lanes = self.k, self.k.lanes
        width = vectors * lanes
        rows = [self.x.at((row + r) * self.stride + start) for r in range(size)]
        panels = [self.w.at(((panel + p) * self.depth + start) * width) for p in range(count)]
        column = panel * width
        places = [self.out.at((row + r) * self.pitch + column) for r in range(size)]
        fresh = start.equals(0)
        initial = [
            [
                k.select(
                    fresh, self.bias.at(column).load(lanes * j, lanes), place.load(lanes * j, lanes)
                )
                for j in range(vectors * count)
            ]
            for place in places
        ]
        sums = accumulate(k, rows, panels, vectors, initial, depth)
        last = (start + depth).equals(self.depth)
        low = k.select(last, self.low, k.value(float("-inf"), f32))
        high = k.select(last, self.high, k.value(float("inf"), f32))
        for place, line in zip(places, sums, strict=True):
            for j, value in enumerate(line):
                place.store(limited(k, value, low, high), lanes * j)

    def _narrow(self, row: Value, size: int, panel: Value, chains: int) -> None:
        """Write the code for a panel of one vector, some of whose columns may not exist."""
        k, lanes = self.k, self.k.lanes
        wide = self.columns // (2 * lanes)
        column = (panel + wide) * lanes
        rows = [self.x.at((row + r) * self.stride) for r in range(size)]
        weights, bias = self.w.at(column * self.depth), self.bias.load(column, lanes)
        if chains > 1:
            sums = self._chains(rows, weights, bias, chains)
        else:
            lines = accumulate(k, rows, [weights], 1, [[bias]] * size, self.depth)
            sums = [line[0] for line in lines]
        count = lesser_number(k, self.columns - column, k.value(lanes, i64))
        for r, value in enumerate(sums):
            place = self.out.at((row + r) * self.pitch + column)
            place.store_some(limited(k, value, self.low, self.high), count)

    def _chains(
        self, rows: list[Pointer], weights: Pointer, bias: Value, chains: int
    ) -> list[Value]:
        """Write sums in several chains, the depth dealt out to them in turn, then added up."""
        k, lanes = self.k, self.k.lanes
        zero = k.zeros(f32, lanes)
        sums = [[k.variable(zero if c else bias) for c in range(chains)] for _ in rows]

        def step(i: Value, chain: int) -> None:
            weight = widened(weights.load(i * lanes, lanes))
            weights.prefetch(i * lanes + AHEAD)
            for row, totals in zip(rows, sums, strict=True):
                total = totals[chain]
                total.value = k.fma(row.splat(i, lanes), weight, total.value)

        whole = self.depth // chains * chains
        for i in k.range(0, whole, chains):
            for chain in range(chains):
                step(i + chain, chain)
        for i in k.range(whole, self.depth):
            step(i, 0)
        values = [[total.value for total in totals] for totals in sums]
        return [(a + b) + (c + d) for a, b, c, d in values]


DEEP = 512
"""The depth from which on a panel of one vector is summed in four chains."""
_PARAMETERS = (
    "x:f32* w:f32* bias:f32* out:f32* stride:i64 pitch:i64 columns:i64 depth:i64 low:f32 high:f32"
    " block:i64"
)


def panel_count(columns: int, lanes: int) -> int:
    """Return how many panels weights of so many columns have."""
    rest = columns % (2 * lanes)
    return columns // (2 * lanes) + -(-rest // lanes)


def _by_panels(k: Builder, rows: Value, *given: Any) -> None:
    """Multiply so many rows; the items are panels."""
    _Product(k, *given).write(k.value(0, i64), rows, k.begin, k.end)


def _kernels(group: Group, kind: Kind) -> tuple[Kernel, Kernel]:
    """Return the products with weights of one kind: by rows and by panels."""
    parameters = _PARAMETERS.replace("w:f32*", f"w:{kind}*")
    by_panels = group.kernel(f"rows:i64 {parameters}", f"product_by_panels_{kind}")(_by_panels)

    def by_rows(k: Builder, *given: Any) -> None:
        """Multiply rows, which are the items."""
        made = _Product(k, *given)
        x, out = made.x.at(k.begin * made.stride), made.out.at(k.begin * made.pitch)
        rows = (k.end - k.begin, x, made.w, made.bias, out, *given[4:])
        k.call_kernel(by_panels, k.value(0, i64), made.panels(), *rows)

    return group.kernel(parameters, f"product_{kind}")(by_rows), by_panels


PRODUCTS = {
    (4, "f"): _kernels(group, f32),
    (2, "f"): _kernels(Group("gemm_f16"), f16),
    (2, "u"): _kernels(Group("gemm_u16"), u16),
}
"""By size and kind of the weights' numbers; unsigned integers are the bits of bfloat16."""
