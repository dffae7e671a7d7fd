"""Products of quantized activations with packed weights, [M, K] times [N, K] transposed.

A result is a sum over blocks, in their order: the exact dot product of integers, scaled. Every row
and column is summed in the same way whatever else is computed, so that results depend neither on
the batch nor on threads; every product and sum is rounded, as in the definition, so that they do
not depend on the machine either. One kernel serves vectors and batches of any size; in it
micro-kernels hold the sums of some rows and columns in registers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import BLOCK, CELL, FIFTH, FORMS, GROUPS, ROWS, Form
from llmbol_core.ml.kernels.kinds import f16, f32, i1, i8, i16, i32, i64, u8, u16, u32, u64
from llmbol_core.ml.kernels.streams import ask, reading, side_by_side

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

PARAMETERS = (
    "packed:u8* levels:i8* d:f32* s:f32* start:i32* bias:f32* out:f32* "
    "blocks:i64 columns:i64 rows:i64 stride:i64"
)
"""Packed weights; activations: levels [M, K], scales d, scaled sums s and starts of the integer
sums, [M, blocks] each; a bias for each row or null; out [M, stride]; blocks of a row, M, N."""

TILES = (6, 4, 2, 1)
"""How many columns micro-kernels compute where vectors are as long as a group."""
MANY = 66
"""Columns whose activations stay in the cache while all rows pass by; at most."""


class _Place(NamedTuple):
    """A vector of rows: ``lanes`` rows of a group of a panel."""

    group: Value | int
    part: Value | int
    """Which of the group's vectors."""

    def row(self, lanes: int) -> Value | int:
        """Return its first row within the panel."""
        return self.group * ROWS + self.part * lanes


class _Work(NamedTuple):
    """The parameters as values."""

    packed: Pointer
    levels: Pointer
    d: Pointer
    s: Pointer
    start: Pointer
    bias: Pointer
    out: Pointer
    blocks: Value
    columns: Value
    rows: Value
    stride: Value


def _author(form: Form) -> Author:
    """Return the author of the kernel for one form; an item is a panel."""

    def write(k: Builder, *parameters: Pointer | Value) -> None:
        work = _Work(*parameters)  # type: ignore[arg-type]
        begin = k.variable(k.begin)
        for panels in side_by_side(k, begin, work.columns, reading(k, form.cells).panels):
            for places in _fours(k):
                _tile(k, form, work, panels, places, k.value(0, i64), 1)
        for first, last in runs(k, work.columns):
            for panel in k.range(begin.value, k.end):
                _columns(k, form, work, panel, first, last)

    return write


def runs(k: Builder, columns: Value) -> Iterator[tuple[Value, Value]]:
    """Write a loop over runs of columns: as few as possible, and none much shorter than others."""
    count = k.max((columns + (MANY - 1)) // MANY, 1)
    length = ((columns + count - 1) // count + (TILES[0] - 1)) // TILES[0] * TILES[0]
    for first in k.range(0, columns, length):
        yield first, k.min(first + length, columns)


def _columns(k: Builder, form: Form, work: _Work, panel: Value, first: Value, last: Value) -> None:
    """Compute all columns of a panel, as many at a time as registers hold."""
    parts = ROWS // k.lanes
    start = k.variable(first)
    if parts == 1:
        for count in TILES:
            stop = last - (last - start.value) % count
            for column in k.range(start.value, stop, count):
                ahead = (column - first) // count if count == TILES[0] else None
                _tile(k, form, work, [panel], [_Place(0, 0), _Place(1, 0)], column, count, ahead)
            start.value = stop
        return
    # There are fewer registers, of shorter vectors; products of signed bytes need more of them.
    high = 1 if form.is_signed else 2
    for count in (4, 2):
        stop = last - (last - start.value) % count
        for column in k.range(start.value, stop, count):
            for number in k.range(GROUPS * parts // high):
                group, part = number * high // parts, number * high % parts
                few = [_Place(group, part + i) for i in range(high)]
                _tile(k, form, work, [panel], few, column, count)
        start.value = stop
    for column in k.range(start.value, last):
        for few in _fours(k):
            _tile(k, form, work, [panel], few, column, 1)


def _fours(k: Builder) -> Iterator[list[_Place]]:
    """Return all places of a panel, four at a time."""
    parts = range(ROWS // k.lanes)
    places = [_Place(group, part) for group in range(GROUPS) for part in parts]
    for first in range(0, len(places), 4):
        yield places[first : first + 4]


def _tile(
    k: Builder,
    form: Form,
    work: _Work,
    panels: Sequence[Value],
    places: Sequence[_Place],
    column: Value,
    count: int,
    ahead: Value | None = None,
) -> None:
    """Compute some rows of each panel by some columns, with all sums in registers.

    ``ahead`` is which share of the panel after the first to ask for meanwhile.
    """
    lanes = k.lanes
    sums = [
        [[k.variable(k.zeros(f32, lanes)) for _ in range(count)] for _ in places] for _ in panels
    ]
    lines = [(column + c) * work.blocks for c in range(count)]
    levels = [work.levels.at(line * BLOCK) for line in lines]
    streams = [work.packed.at(panel * work.blocks * form.unit) for panel in panels]
    for block in k.range(work.blocks):
        if ahead is not None:
            _fetch(form, streams[0].at(work.blocks * form.unit), ahead * work.blocks + block)
        starts = [k.zeros(i32, lanes) for _ in lines]
        if form.shift(k.target):
            starts = [work.start.splat(line + block, lanes) for line in lines]
        given = [level.at(block * BLOCK) for level in levels]
        at = [line + block for line in lines]
        for stream, rows in zip(streams, sums, strict=True):
            unit = stream.at(block * form.unit)
            dots = _dots(k, form, unit, places, given, starts)
            for place, row, totals in zip(places, dots, rows, strict=True):
                _add_scaled(k, form, work, unit.of(f16).at(place.row(lanes)), at, row, totals)
    for panel, rows in zip(panels, sums, strict=True):
        for place, totals in zip(places, rows, strict=True):
            first = panel * (ROWS * GROUPS) + place.row(lanes)
            values = [total.value for total in totals]
            finish(k, work.bias, work.out, work.rows, work.stride, first, column, values)


def _fetch(form: Form, panel: Pointer, step: Value) -> None:
    """Ask for some lines of the next panel; all are asked for while the columns pass by."""
    count = -(-form.unit * TILES[0] // (CELL * MANY))
    for line in range(count):
        panel.prefetch(step * (count * CELL) + line * CELL, level=2)


def _add_scaled(
    k: Builder,
    form: Form,
    work: _Work,
    scales: Pointer,
    columns: Sequence[Value],
    dots: Sequence[Value],
    totals: Sequence[Variable],
) -> None:
    """Add one block's dot products of some rows, scaled, and what their minima bring."""
    weight = scales.load(0, k.lanes).to(f32)
    low = scales.load(ROWS * GROUPS, k.lanes).to(f32) if form.has_minima else weight
    for at, dot, total in zip(columns, dots, totals, strict=True):
        value = dot.to(f32) * (weight * work.d.splat(at, k.lanes))
        if form.has_minima:
            value = value + low * work.s.splat(at, k.lanes)
        total.value += value


def finish(
    k: Builder,
    bias: Pointer,
    out: Pointer,
    rows: Value,
    stride: Value,
    row: Value,
    column: Value,
    totals: Sequence[Value],
) -> None:
    """Add the bias and store what rows there are, from ``row`` on, of some columns."""
    lanes = k.lanes
    room = k.room(f32, lanes * len(totals))
    for number, total in enumerate(totals):
        room.store(total, number * lanes)
    has_bias = bias.address().differs(0)
    for c in k.range(len(totals)):
        result = k.variable(room.load(c * lanes, lanes))
        target = (column + c) * stride + row
        with k.either(row + lanes <= rows) as (whole, some):
            with whole:
                with k.when(has_bias):
                    result.value += bias.load(row, lanes)
                out.store(result.value, target)
            with some:
                left = k.max(rows - row, 0)
                with k.when(has_bias):
                    result.value += bias.load_some(left, lanes, row)
                out.store_some(result.value, left, target)


def _dots(
    k: Builder,
    form: Form,
    unit: Pointer,
    places: Sequence[_Place],
    levels: Sequence[Pointer],
    starts: Sequence[Value],
) -> list[list[Value]]:
    """Return the exact dot products of one block for all rows and columns."""
    sums = [[_Sum(k, form, start) for start in starts] for _ in places]
    whole, count = form.cells == "bytes", form.count
    # Unrolled code would be rearranged until 16 registers no longer suffice, if it were not told.
    has_many = k.lanes == ROWS
    is_wide = has_many and len(levels) == TILES[0] and k.target.dot == "vnni"
    for j in range(count):
        if not is_wide:
            k.in_order()
        if len(levels) == 1:  # every second line brings its neighbour if there is little to do
            ask(unit, form.unit, j, count, reading(k, form.cells).ahead, 2 if whole else 1)
        weights = [_weights(k, form, unit, place, j) for place in places]
        for h in range(1 if whole else 2):
            for c, level in enumerate(levels):
                x = level.of(i32).splat(j + 4 * h, k.lanes).bits(i8)
                for r in range(len(places)):
                    sums[r][c].add(weights[r][h], x)
                for r in range(len(places) if is_wide else 0):
                    sums[r][c].settle()
        for row in sums:
            for total in row:
                total.end_cell()
    return [[total.value() for total in row] for row in sums]


def _weights(k: Builder, form: Form, unit: Pointer, place: _Place, j: Value | int) -> list[Value]:
    """Return the weights of cell j, and of cell j + 4 where they share bytes."""
    lanes = 4 * k.lanes
    cells = unit.at(form.head)
    packed = cells.at(place.group * CELL + place.part * lanes).load(j * (GROUPS * CELL), lanes)
    if form.cells == "bytes":
        return [packed]
    low, high = packed & 15, (packed.bits(u16) >> 4).bits(u8) & 15
    if form.levels:
        shift = form.shift(k.target)
        table = k.vector(i8, [v - 256 if (v := (level + shift) & 255) > 127 else v
                              for level in form.levels])  # fmt: skip
        return [k.lookup(table, low), k.lookup(table, high)]
    if form.cells == "nibbles":
        return [low, high]
    kind = {64: u64, 32: u32, 16: u16}[lanes]
    found = []
    words = cells.at(place.group * FIFTH + place.part * (lanes // 8) + form.count * GROUPS * CELL)
    for number, nibbles in ((j, low), (j + 4, high)):
        bits = words.at(number * (GROUPS * FIFTH))
        chosen = bits.of(kind).load().bits(i1)
        found.append(nibbles | k.select(chosen, k.value(16, u8, lanes), 0))
    return found


class _Sum:
    """A dot product of one block, as the instruction set makes it best."""

    def __init__(self, k: Builder, form: Form, start: Value) -> None:
        self._k, self._form = k, form
        self._total = k.variable(start)
        self._in_pairs = not form.is_signed and k.target.dot == "maddubs"
        # Sums of two products fit into 16 bits; of these a whole block does, or half a block.
        self._fits = form.most * 128 * BLOCK // 2 <= 32767
        if self._in_pairs:
            self._pairs = k.variable(k.zeros(i16, 2 * k.lanes))

    def add(self, weights: Value, x: Value) -> None:
        """Add the products of bytes."""
        k, total = self._k, self._total
        if self._form.shift(k.target) == 128:
            total.value = k.dot(total.value, weights, x, wide=True)
        elif self._form.is_signed:
            total.value = k.dot_signed(total.value, weights.bits(i8), x)
        elif self._in_pairs:
            self._pairs.value += k.pairs(weights, x)
        else:
            total.value = k.dot(total.value, weights, x)

    def settle(self) -> None:
        """Add what was given so far before anything that follows."""
        (self._total.value,) = self._k.settle(self._total.value)

    def end_cell(self) -> None:
        """Tell that a cell of all columns is done."""
        if self._in_pairs and not self._fits:
            self._widen()
            self._pairs.value = self._k.zeros(i16, 2 * self._k.lanes)

    def _widen(self) -> None:
        self._total.value = self._k.add_pairs(self._total.value, self._pairs.value)

    def value(self) -> Value:
        """Return the sum in int32."""
        if self._in_pairs and self._fits:
            self._widen()
        return self._total.value


def _kernel(form: Form) -> Kernel:
    group = Group(f"product {form.name}")
    return group.kernel(PARAMETERS, f"product_{form.name.lower()}")(_author(form))


PRODUCTS = {name: _kernel(form) for name, form in FORMS.items()}
"""The kernel of each packed form, by the name of the storage type."""

# ---- activations ----

ACTIVATIONS = Group("activations")


@ACTIVATIONS.kernel("x:f32* levels:i8* d:f32* s:f32* start:i32* zero:i32")
def quantize_activations(
    k: Builder, x: Pointer, levels: Pointer, d: Pointer, s: Pointer, start: Pointer, zero: Value
) -> None:
    """Quantize blocks of 32 numbers to 8 bits, as ``codecs.encode_activations`` does.

    d is the scale rounded to float16, s the rounded product of scale and sum of the levels, start
    that sum times ``-zero``.
    """
    lanes = min(16, BLOCK // 2)
    for block in k.items():
        at = block * BLOCK
        parts = [x.load(at + i, lanes) for i in range(0, BLOCK, lanes)]
        greatest = k.max(*(k.abs(part) for part in parts)).max()
        inverse = k.select(greatest.equals(0), k.zeros(f32), 127 / greatest)
        finite = k.abs(inverse) < float("inf")
        total = k.zeros(i32, lanes)
        for i, part in enumerate(parts):
            level = k.rint(part * inverse).to(i32)
            level = k.select(finite.splat(lanes), level, -128)
            levels.store(level, at + i * lanes)
            total = total + level
        scale, sums = greatest / 127, total.sum()
        d.store(k.half(scale), block)
        s.store(k.half(scale * sums.to(f32)), block)
        start.store(-sums * zero, block)
