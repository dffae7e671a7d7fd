"""Products of training: with weights that change at every step, and of gradients.

Positions of a batch are samples, lines and rows: vectors are rows of one sample, sequences have
one line for each sample, images many. The numbers of a position, its channels, lie together.

    rows_product   C[position, column] = sum over pieces and depth of A[position..] B
    outer          C[i, column] = sum over positions of A[position, i] B[position.., column]

Every sum is one chain from first to last, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import accumulate, lesser_number, most_rows, rows_in_turn

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("gradients")


def transposed(k: Builder, vectors: Sequence[Value]) -> list[Value]:
    """Return a square of as many vectors as they have lanes with rows and columns exchanged."""
    lines, count = list(vectors), len(vectors)
    step = count // 2
    while step:
        low = [j if not j & step else count + j - step for j in range(count)]
        high = [j + step if not j & step else count + j for j in range(count)]
        for i in range(count):
            if not i & step:
                a, b = lines[i], lines[i | step]
                lines[i], lines[i | step] = a.shuffle(low, b), a.shuffle(high, b)
        step //= 2
    return lines


class _RowsProduct:
    """The code of ``rows_product``, one panel of two vectors of columns after another."""

    def __init__(self, k: Builder, names: Sequence[str], given: Sequence[Any]) -> None:
        self.k, self.width = k, 2 * k.lanes
        self.g: dict[str, Any] = dict(zip(names, given, strict=True))
        self.panel: Pointer = self.g["scratch"].at(k.thread * self.g["room"])
        self.whole: Value = self.g["pieces"] * self.g["depth"]

    def write(self, masked: bool) -> None:
        """Write the code for all items, which are panels."""
        k, g = self.k, self.g
        for item in k.items():
            column = item * self.width
            left = lesser_number(k, g["columns"] - column, k.value(self.width, i64))
            self._pack(column, left)
            for sample in k.range(g["samples"]):
                for line in k.range(g["lines"]):
                    a = g["a"].at(sample * g["a_sample"] + line * g["a_line"])
                    offset = sample * g["c_sample"] + line * g["c_line"] + column
                    c, mask = g["c"].at(offset), g["mask"].at(offset)
                    rows_in_turn(
                        k, k.value(0, i64), g["rows"], most_rows(k),
                        lambda row, n: self._tile(a, c, mask if masked else None, row, n,
                                                  column, left),
                    )  # fmt: skip

    def _pack(self, column: Value, left: Value) -> None:
        """Write the code that copies a panel of B to the thread's room."""
        k, g = self.k, self.g
        with k.either(g["b_col"].equals(1)) as (direct, across):
            with direct:
                start = g["b"].at(column)
                for i in k.range(self.whole):
                    row, to = start.at(i * g["b_row"]), self.panel.at(i * self.width)
                    for j in (0, k.lanes):
                        to.store(row.load_some(left - j, k.lanes, j), j)
            with across:
                for j in (0, k.lanes):
                    self._pack_across(column + j, j)

    def _pack_across(self, column: Value, shift: int) -> None:
        """Write the code for one vector of columns whose numbers lie along the depth."""
        k, g, lanes = self.k, self.g, self.k.lanes
        last = g["columns"] - 1
        lines = [g["b"].at(lesser_number(k, column + c, last) * g["b_col"]) for c in range(lanes)]
        full = self.whole // lanes * lanes
        for i in k.range(0, full, lanes):
            rows = transposed(k, [line.load(i, lanes) for line in lines])
            for d, row in enumerate(rows):
                self.panel.store(row, (i + d) * self.width + shift)
        rest = self.whole - full
        with k.when(rest > 0):
            rows = transposed(k, [line.load_some(rest, lanes, full) for line in lines])
            for d, row in enumerate(rows):
                with k.when(rest > d):
                    self.panel.store(row, (full + d) * self.width + shift)

    def _tile(
        self, a: Pointer, c: Pointer, mask: Pointer | None, row: Value, count: int, column: Value,
        left: Value,
    ) -> None:  # fmt: skip
        """Write the code of some rows and one panel."""
        k, g, lanes = self.k, self.g, self.k.lanes
        lines = [a.at((row + r) * g["a_row"]) for r in range(count)]
        bias = [g["bias"].load(column + j, lanes) for j in (0, lanes)]

        def pieces() -> Iterator[Value]:
            for piece in k.range(g["pieces"]):
                yield piece * g["a_piece"]

        start = [bias] * count
        sums = accumulate(k, lines, [self.panel], 2, start, g["depth"], pieces, ahead=False)
        low = g["low"].splat(lanes)
        for r, line in enumerate(sums):
            place = (row + r) * g["c_row"]
            for value, j in zip(line, (0, lanes), strict=True):
                kept = k.select(value < low, low, value)
                if mask is not None:
                    shown = mask.load_some(left - j, lanes, place + j)
                    kept = k.select(shown > 0.0, kept, k.zeros(f32, lanes))
                c.store_some(kept, left - j, place + j)


_ROWS = (
    "a:f32* a_sample:i64 a_line:i64 a_row:i64 a_piece:i64 b:f32* b_row:i64 b_col:i64"
    " c:f32* c_sample:i64 c_line:i64 c_row:i64 bias:f32* samples:i64 lines:i64 rows:i64 pieces:i64"
    " depth:i64 columns:i64 low:f32 mask:f32* scratch:f32* room:i64"
)


def _names(parameters: str) -> list[str]:
    return [entry.split(":")[0] for entry in parameters.split()]


def _rows_product(masked: bool) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        _RowsProduct(k, _names(_ROWS), given).write(masked)

    return group.kernel(_ROWS, "rows_product_masked" if masked else "rows_product")(author)


ROWS_PRODUCT = {masked: _rows_product(masked) for masked in (False, True)}
"""By whether results are 0 where ``mask`` is not above 0. B is packed to room of each thread."""

_OUTER = (
    "a:f32* a_sample:i64 a_line:i64 a_row:i64 b:f32* b_sample:i64 b_line:i64 b_row:i64 b_piece:i64"
    " c:f32* c_row:i64 samples:i64 lines:i64 rows:i64 depth:i64 height:i64"
)


class _Outer:
    """The code of ``outer``: items are panels of columns, counted on from piece to piece."""

    def __init__(self, k: Builder, names: Sequence[str], given: Sequence[Any]) -> None:
        self.k, self.width = k, 2 * k.lanes
        self.g: dict[str, Any] = dict(zip(names, given, strict=True))

    def write(self) -> None:
        """Write the code for all items."""
        k, g = self.k, self.g
        panels = (g["depth"] + (self.width - 1)) // self.width
        for item in k.items():
            piece, column = item // panels, (item % panels) * self.width
            left = lesser_number(k, g["depth"] - column, k.value(self.width, i64))
            b = g["b"].at(piece * g["b_piece"] + column)
            c = g["c"].at(piece * g["depth"] + column)
            with k.either(left > k.lanes) as (wide, narrow):
                with wide:
                    self._rows(b, c, left, 2)
                with narrow:
                    self._rows(b, c, left, 1)

    def _rows(self, b: Pointer, c: Pointer, left: Value, vectors: int) -> None:
        k = self.k
        most = most_rows(k) if vectors > 1 else most_rows(k) + 4
        rows_in_turn(
            k, k.value(0, i64), self.g["height"], most,
            lambda i, n: self._tile(b, c, left, vectors, i, n),
        )  # fmt: skip

    def _tile(
        self, b: Pointer, c: Pointer, left: Value, vectors: int, first: Value, count: int
    ) -> None:
        k, g, lanes = self.k, self.g, self.k.lanes
        zero = k.zeros(f32, lanes)
        sums = [[k.variable(zero) for _ in range(vectors)] for _ in range(count)]
        for sample in k.range(g["samples"]):
            for line in k.range(g["lines"]):
                left_row = g["a"].at(sample * g["a_sample"] + line * g["a_line"] + first)
                right_row = b.at(sample * g["b_sample"] + line * g["b_line"])
                for row in k.range(g["rows"]):
                    given = right_row.at(row * g["b_row"])
                    right = [given.load_some(left - j * lanes, lanes, j * lanes)
                             for j in range(vectors)]  # fmt: skip
                    scalars = left_row.at(row * g["a_row"])
                    for r, totals in enumerate(sums):
                        x = scalars.splat(r, lanes)
                        for total, value in zip(totals, right, strict=True):
                            total.value = k.fma(x, value, total.value)
        for r, totals in enumerate(sums):
            for j, total in enumerate(totals):
                place = (first + r) * g["c_row"] + j * lanes
                c.store_some(total.value, left - j * lanes, place)


@group.kernel(_OUTER)
def outer(k: Builder, *given: Any) -> None:
    """Multiply positions by positions: the gradient of weights."""
    _Outer(k, _names(_OUTER), given).write()


@group.kernel(
    "x:f32* x_sample:i64 x_line:i64 x_row:i64 out:f32* samples:i64 lines:i64 rows:i64 columns:i64"
)
def column_sums(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, out: Pointer,
    samples: Value, lines: Value, rows: Value, columns: Value,
) -> None:  # fmt: skip
    """Add up each column over all positions; items are vectors of columns."""
    for item in k.items():
        column = item * k.lanes
        left = lesser_number(k, columns - column, k.value(k.lanes, i64))
        total = k.variable(k.zeros(f32, k.lanes))
        for sample in k.range(samples):
            for line in k.range(lines):
                start = x.at(sample * x_sample + line * x_line + column)
                for row in k.range(rows):
                    total.value = total.value + start.load_some(left, k.lanes, row * x_row)
        out.store_some(total.value, left, column)
