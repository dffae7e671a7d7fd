"""Products of training: with weights that change at every step, and of gradients.

Positions of a batch are samples, lines and rows: vectors are rows of one sample, sequences have
one line for each sample, images many. The numbers of a position, its channels, lie together.

    rows_product   C[position, column] = sum over pieces and depth of A[position..] B
    outer          C[i, column] = sum over positions of A[position, i] B[position.., column]

Every sum is one chain from first to last, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

    def write(self) -> None:
        """Write the code for all items, which are panels."""
        k, g = self.k, self.g
        room = self.panel
        self.adds, self.hides = (g[name].differs(0) for name in ("adds", "hides"))
        for item in k.items():
            column = item * self.width
            left = lesser_number(k, g["columns"] - column, k.value(self.width, i64))
            self.panel = room
            with k.when(g["adds"].equals(0)):
                self.pack(column, left)
            self.panel = k.place(self.adds, g["b"].at(column * self.whole), room)
            for sample in k.range(g["samples"]):
                for line in k.range(g["lines"]):
                    a = g["a"].at(sample * g["a_sample"] + line * g["a_line"])
                    offset = sample * g["c_sample"] + line * g["c_line"] + column
                    c, mask = g["c"].at(offset), g["mask"].at(offset)
                    rows_in_turn(
                        k, k.value(0, i64), g["rows"], most_rows(k),
                        lambda row, n: self._tile(a, c, mask, row, n, column, left),
                    )  # fmt: skip

    def pack(self, column: Value, left: Value) -> None:
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
        self, a: Pointer, c: Pointer, mask: Pointer, row: Value, count: int, column: Value,
        left: Value,
    ) -> None:  # fmt: skip
        """Write the code of some rows and one panel."""
        k, g, lanes = self.k, self.g, self.k.lanes
        lines = [a.at((row + r) * g["a_row"]) for r in range(count)]
        start = self._start(c, row, count, column, left)

        def pieces() -> Iterator[Value]:
            for piece in k.range(g["pieces"]):
                yield piece * g["a_piece"]

        sums = accumulate(k, lines, [self.panel], 2, start, g["depth"], pieces, ahead=False)
        low = g["low"].splat(lanes)
        kept = [[k.select(value < low, low, value) for value in line] for line in sums]
        with k.either(self.hides) as branches:
            for branch, hides in zip(branches, (True, False), strict=True):
                with branch:
                    self._store(kept, c, mask if hides else None, row, left)

    def _start(
        self, c: Pointer, row: Value, count: int, column: Value, left: Value
    ) -> list[list[Value]]:
        """Write what the sums of a tile begin with: the bias, or what is there."""
        k, g, lanes = self.k, self.g, self.k.lanes
        start = [[k.variable(k.zeros(f32, lanes)) for _ in range(2)] for _ in range(count)]
        with k.either(self.adds) as (adds, begins):
            with adds:
                for r, line in enumerate(start):
                    for total, j in zip(line, (0, lanes), strict=True):
                        total.value = c.load_some(left - j, lanes, (row + r) * g["c_row"] + j)
            with begins:
                bias = [g["bias"].load(column + j, lanes) for j in (0, lanes)]
                for line in start:
                    for total, value in zip(line, bias, strict=True):
                        total.value = value
        return [[total.value for total in line] for line in start]

    def _store(
        self, kept: list[list[Value]], c: Pointer, mask: Pointer | None, row: Value, left: Value
    ) -> None:
        """Write the code that stores a tile, 0 where a mask is not above 0."""
        k, lanes = self.k, self.k.lanes
        for r, line in enumerate(kept):
            for value, j in zip(line, (0, lanes), strict=True):
                place = (row + r) * self.g["c_row"] + j
                if mask is not None:
                    shown = mask.load_some(left - j, lanes, place) > 0.0
                    value = k.select(shown, value, k.zeros(f32, lanes))
                c.store_some(value, left - j, place)


_ROWS = (
    "a:f32* a_sample:i64 a_line:i64 a_row:i64 a_piece:i64 b:f32* b_row:i64 b_col:i64"
    " c:f32* c_sample:i64 c_line:i64 c_row:i64 bias:f32* samples:i64 lines:i64 rows:i64 pieces:i64"
    " depth:i64 columns:i64 low:f32 mask:f32* scratch:f32* room:i64"
)


def _names(parameters: str) -> list[str]:
    return [entry.split(":")[0] for entry in parameters.split()]


@group.kernel(f"{_ROWS} hides:i64 adds:i64")
def any_rows_product(k: Builder, *given: Any) -> None:
    """Do the work that all products of rows share: the code exists once."""
    _RowsProduct(k, _names(f"{_ROWS} hides:i64 adds:i64"), given).write()


def _rows_product(name: str, hides: bool, adds: bool) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        flags = (k.value(int(flag), i64) for flag in (hides, adds))
        k.call_kernel(any_rows_product, k.begin, k.end, *given, *flags)

    return group.kernel(_ROWS, name)(author)


ROWS_PRODUCT = {
    False: _rows_product("rows_product", False, False),
    True: _rows_product("rows_product_masked", True, False),
}
"""By whether results are 0 where ``mask`` is not above 0. B is packed to room of each thread."""
rows_product_added = _rows_product("rows_product_added", False, True)
"""Adds to what C holds; B is packed already."""


@group.kernel("b:f32* b_row:i64 b_col:i64 depth:i64 columns:i64 out:f32*")
def pack(
    k: Builder, b: Pointer, b_row: Value, b_col: Value, depth: Value, columns: Value, out: Pointer
) -> None:
    """Pack a matrix as panels of two vectors of columns, which are the items."""
    names = ("b", "b_row", "b_col", "depth", "columns", "scratch", "room", "pieces")
    made = _RowsProduct(
        k, names, (b, b_row, b_col, depth, columns, out, k.value(0, i64), k.value(1, i64))
    )
    for item in k.items():
        column = item * made.width
        made.panel = out.at(column * depth)
        made.pack(column, lesser_number(k, columns - column, k.value(made.width, i64)))


_OUTER = (
    "a:f32* a_sample:i64 a_line:i64 a_row:i64 b:f32* b_sample:i64 b_line:i64 b_row:i64 b_piece:i64"
    " c:f32* c_row:i64 samples:i64 lines:i64 rows:i64 pieces:i64 depth:i64 height:i64 sums:f32*"
    " group:i64 span:i64 scratch:f32* room:i64 continued:i64"
)
_PANELS = 16
"""Panels of columns for which some columns of A are packed once."""
_POSITIONS = 256
"""How many positions are packed at a time, if samples are not larger."""
_SPAN = 8
_PACKED = 16
"""Numbers from one packed position to the next; no tile has more rows."""


class _Outer:
    """The code of ``outer``: items are tiles of A's columns, each with blocks of panels of B."""

    def __init__(self, k: Builder, names: Sequence[str], given: Sequence[Any]) -> None:
        self.k, self.width = k, 2 * k.lanes
        self.g: dict[str, Any] = dict(zip(names, given, strict=True))
        self.packed: Pointer = self.g["scratch"].at(k.thread * self.g["room"])

    def write(self) -> None:
        """Write the code for all items."""
        k, g = self.k, self.g
        most = most_rows(k)
        self.tiles = (g["height"] + (most - 1)) // most
        self.panels = (g["depth"] + (self.width - 1)) // self.width
        every = self.panels * g["pieces"]
        blocks = (every + (_PANELS - 1)) // _PANELS
        for item in k.items():
            span, block = item // blocks * g["span"], item % blocks
            until = lesser_number(k, span + g["span"], self.tiles)
            last = lesser_number(k, (block + 1) * _PANELS, every)
            for start in k.range(0, g["samples"], g["group"]):
                stop = lesser_number(k, start + g["group"], g["samples"])
                share = (stop - start) * g["lines"] * g["rows"] * _PACKED
                for tile in k.range(span, until):
                    packed = self.packed.at((tile - span) * share)
                    self._pack(packed, start, stop, tile, block)
                for panel in k.range(block * _PANELS, last):
                    for tile in k.range(span, until):
                        packed = self.packed.at((tile - span) * share)
                        self._panel(packed, panel, start, stop, *self._columns(tile))

    def _fresh(self, start: Value) -> Value:
        """Return whether sums begin with zero at a sample."""
        continued: Value = self.g["continued"]
        return start.equals(0) & continued.equals(0)

    def _columns(self, tile: Value) -> tuple[Value, Value]:
        """Return the first of A's columns that a tile has, and how many."""
        first = tile * self.g["height"] // self.tiles
        return first, (tile + 1) * self.g["height"] // self.tiles - first

    def _pack(self, packed: Pointer, start: Value, stop: Value, tile: Value, block: Value) -> None:
        """Write the code that copies a tile's columns of A, and adds them up."""
        k, g = self.k, self.g
        first, count = self._columns(tile)
        known = g["sums"].load_some(count, _PACKED, first)
        total = k.variable(k.select(self._fresh(start), k.zeros(f32, _PACKED), known))
        place = k.variable(k.value(0, i64))
        for sample in k.range(start, stop):
            for line in k.range(g["lines"]):
                source = g["a"].at(sample * g["a_sample"] + line * g["a_line"] + first)
                for row in k.range(g["rows"]):
                    value = source.load_some(count, _PACKED, row * g["a_row"])
                    packed.store(value, place.value * _PACKED)
                    total.value = total.value + value
                    place.value = place.value + 1
        with k.when(block.equals(0)):
            g["sums"].store_some(total.value, count, first)

    def _panel(
        self, packed: Pointer, panel: Value, start: Value, stop: Value, first: Value, count: Value
    ) -> None:
        """Write the code for one panel of B and a tile's columns."""
        k, g = self.k, self.g
        piece, column = panel // self.panels, panel % self.panels * self.width
        left = lesser_number(k, g["depth"] - column, k.value(self.width, i64))
        b = g["b"].at(piece * g["b_piece"] + column)
        c = g["c"].at(first * g["c_row"] + piece * g["depth"] + column)
        for size in range(1, most_rows(k) + 1):
            with k.when(count.equals(size)), k.either(left > k.lanes) as (wide, narrow):
                with wide:
                    self._tile(packed, b, c, left, 2, size, start, stop)
                with narrow:
                    self._tile(packed, b, c, left, 1, size, start, stop)

    def _tile(
        self, packed: Pointer, b: Pointer, c: Pointer, left: Value, vectors: int, count: int,
        start: Value, stop: Value,
    ) -> None:  # fmt: skip
        k, g, lanes = self.k, self.g, self.k.lanes
        fresh, zero = self._fresh(start), k.zeros(f32, lanes)
        counts = [left - j * lanes for j in range(vectors)]
        sums = [
            [
                k.variable(k.select(fresh, zero, c.load_some(n, lanes, r * g["c_row"] + j * lanes)))
                for j, n in enumerate(counts)
            ]
            for r in range(count)
        ]
        place = k.variable(k.value(0, i64))
        for sample in k.range(start, stop):
            for line in k.range(g["lines"]):
                source = b.at(sample * g["b_sample"] + line * g["b_line"])
                for row in k.range(g["rows"]):
                    given = source.at(row * g["b_row"])
                    right = [given.load_some(n, lanes, j * lanes) for j, n in enumerate(counts)]
                    scalars = packed.at(place.value * _PACKED)
                    for r, totals in enumerate(sums):
                        x = scalars.splat(r, lanes)
                        for total, value in zip(totals, right, strict=True):
                            total.value = k.fma(x, value, total.value)
                    place.value = place.value + 1
        for r, totals in enumerate(sums):
            for j, (total, n) in enumerate(zip(totals, counts, strict=True)):
                c.store_some(total.value, n, r * g["c_row"] + j * lanes)


@group.kernel(_OUTER)
def outer(k: Builder, *given: Any) -> None:
    """Multiply positions by positions, and add up A: the gradients of weights and biases.

    If it is ``continued``, the sums go on from the contents of C and ``sums``.
    """
    _Outer(k, _names(_OUTER), given).write()


@dataclass(frozen=True)
class OuterPlan:
    """How ``outer`` cuts its work: the results do not depend on it."""

    items: int
    group: int
    """Samples that are packed at a time."""
    span: int
    """Tiles that are packed together, for which a panel is read once."""
    room: int
    """Numbers of room for a thread."""


def plan_outer(
    lanes: int, tile: int, threads: int, positions: tuple[int, int, int],
    sizes: tuple[int, int, int],
) -> OuterPlan:  # fmt: skip
    """Return how to cut; ``tile`` is the rows of a tile, sizes are pieces, depth and height."""
    samples, lines, rows = positions
    pieces, depth, height = sizes
    tiles = -(-height // tile)
    blocks = -(-(-(-depth // (2 * lanes)) * pieces) // _PANELS)
    group = min(samples, max(1, _POSITIONS // (lines * rows)))
    span = max(1, min(_SPAN, tiles // (2 * threads))) if blocks < 2 * threads else min(_SPAN, tiles)
    return OuterPlan(-(-tiles // span) * blocks, group, span, span * group * lines * rows * _PACKED)
