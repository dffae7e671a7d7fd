"""Products of quantized activations with packed super-blocks, [M, K] times [N, K] transposed.

As ``products``, but the scales of the parts of a super-block are integers as well: dot products
are multiplied with them and summed in int32, and only that sum is scaled as a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f16, f32, i1, i8, i16, i32, i64, u8, u16, u32, u64
from llmbol_core.ml.kernels.products import finish
from llmbol_core.ml.kernels.superblocks import BLOCKS, COLUMNS, SUPER_FORMS, SuperForm

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

PARAMETERS = (
    "packed:u8* levels:i8* d:f32* sums:i32* bias:f32* out:f32* "
    "blocks:i64 columns:i64 rows:i64 stride:i64"
)
"""Packed weights; activations: levels [M, K], scales d [M, blocks], sums [M, blocks, 12]; a bias
for each row or null; out [M, stride]; super-blocks of a row, M, N."""

SUMS = 12
"""Words of sums of a super-block's activations. Each holds two sums in 16 bits: of the parts 0 and
2, 1 and 3, 4 and 6 and so on; first 4 words for parts of 32 numbers, then 8 for parts of 16."""

_AHEAD = 4096
_COLUMNS_AT_A_TIME = 120


class _Work(NamedTuple):
    """The parameters as values."""

    packed: Pointer
    levels: Pointer
    d: Pointer
    sums: Pointer
    bias: Pointer
    out: Pointer
    blocks: Value
    columns: Value
    rows: Value
    stride: Value


class _Rows(NamedTuple):
    """A vector of rows: where its group begins in a super-block, and its place in the group."""

    group: Pointer
    part: Value | int


def _author(form: SuperForm) -> Author:
    """Return the author of the kernel for one type; an item is a panel."""

    def write(k: Builder, *parameters: Pointer | Value) -> None:
        work = _Work(*parameters)  # type: ignore[arg-type]
        counts = (4, 2, 1) if k.lanes == ROWS else (2, 1)
        if k.lanes == ROWS and form.planes:
            counts = (8, *counts)
        for first in k.range(0, work.columns, _COLUMNS_AT_A_TIME):
            last = k.min(first + _COLUMNS_AT_A_TIME, work.columns)
            for panel in k.items():
                start = k.variable(first)
                for count in counts:
                    stop = last - (last - start.value) % count
                    for column in k.range(start.value, stop, count):
                        _rows(k, form, work, panel, column, count)
                    start.value = stop

    return write


def _rows(
    k: Builder, form: SuperForm, work: _Work, panel: Value, column: Value, count: int
) -> None:
    """Compute all rows of a panel, two vectors at a time."""
    parts = ROWS // k.lanes
    if parts == 1:
        # Many columns take all registers for one vector of rows, whose numbers they share.
        places = [(0, 0), (1, 0)]
        for some in [[place] for place in places] if count == 8 else [places]:
            _tile(k, form, work, panel, some, column, count)
        return
    for number in k.range(GROUPS * parts // 2):
        group, part = number * 2 // parts, number * 2 % parts
        _tile(k, form, work, panel, [(group, part), (group, part + 1)], column, count)


def _tile(
    k: Builder,
    form: SuperForm,
    work: _Work,
    panel: Value,
    places: Sequence[tuple[Value | int, Value | int]],
    column: Value,
    count: int,
) -> None:
    """Compute some rows by some columns."""
    lanes = k.lanes
    totals = [[k.variable(k.zeros(f32, lanes)) for _ in range(count)] for _ in places]
    lines = [(column + c) * work.blocks for c in range(count)]
    stream = work.packed.at(panel * work.blocks * form.unit)
    for block in k.range(work.blocks):
        unit = stream.at(block * form.unit)
        if count == 1:
            for line in range(0, form.unit, 64):
                unit.prefetch(_AHEAD + line, level=0)
        at = [line + block for line in lines]
        rows = [_Rows(unit.at(group * form.group + form.head), part) for group, part in places]
        sums = _integers(k, form, rows, [work.levels.at(line * COLUMNS) for line in at])
        for (group, part), row, dots, total in zip(places, rows, sums, totals, strict=True):
            scales = unit.of(f16).at(group * ROWS + part * lanes)
            _add_scaled(k, form, work, scales, row, at, [dot.value for dot in dots], total)
    for (group, part), row_totals in zip(places, totals, strict=True):
        first = panel * (ROWS * GROUPS) + group * ROWS + part * lanes
        values = [total.value for total in row_totals]
        finish(k, work.bias, work.out, work.rows, work.stride, first, column, values)


def _integers(
    k: Builder, form: SuperForm, rows: Sequence[_Rows], levels: Sequence[Pointer]
) -> list[list[Variable]]:
    """Return sums of dot products of parts times their scales."""
    lanes = k.lanes
    sums = [[k.variable(k.zeros(i32, lanes)) for _ in levels] for _ in rows]
    for block in k.range(BLOCKS):
        start = [[k.zeros(i32, lanes) for _ in levels] for _ in rows]
        low, high = [list(row) for row in start], [list(row) for row in start]
        for j in range(4):
            if len(levels) > 1:
                k.in_order()
            weights = [_weights(k, form, row, block, j) for row in rows]
            for c, level in enumerate(levels):
                words = level.of(i32).at(block * 8 + j)
                x, y = (words.splat(i, lanes).bits(i8) for i in (0, 4))
                for r in range(len(rows)):
                    low[r][c] = k.dot(low[r][c], weights[r][0], x)
                    target = high if form.parts == 16 else low
                    target[r][c] = k.dot(target[r][c], weights[r][1], y)
        for r, row in enumerate(rows):
            scales = _scales(k, form, row, block)
            for c in range(len(levels)):
                sums[r][c].value += low[r][c] * scales[0]
                if form.parts == 16:
                    sums[r][c].value += high[r][c] * scales[1]
    return sums


def _weights(k: Builder, form: SuperForm, row: _Rows, block: Value, j: int) -> tuple[Value, Value]:
    """Return the numbers of cell j and of cell j + 4 of a block of 32 columns."""
    lanes = 4 * k.lanes
    lists = form.lists * (2 if form.has_minima else 1)
    cells = row.group.at(block * form.block + lists)
    packed = cells.at(row.part * lanes).load(j * 64, lanes)
    found = [packed & 15, (packed.bits(u16) >> 4).bits(u8) & 15]
    words = cells.at(row.part * (lanes // 8) + 256)
    kind = {64: u64, 32: u32, 16: u16}[lanes]
    for plane in range(form.planes):
        for half in range(2):
            bits = words.at(64 * plane + 8 * (j + 4 * half)).of(kind).load().bits(i1)
            value = k.value(16 << plane, u8, lanes)
            found[half] = found[half] | k.select(bits, value, 0)
    return found[0], found[1]


def _scales(k: Builder, form: SuperForm, row: _Rows, block: Value) -> list[Value]:
    """Return the scales of a block's parts: one, or two of 16 columns each."""
    count = form.parts // BLOCKS
    first = block * count
    words = row.group.of(i32).at(first // 4 * ROWS + row.part * k.lanes).load(0, k.lanes)
    found = []
    for i in range(count):
        shift = ((first + i) % 4) * 8
        found.append((words << (24 - shift).to(i32)) >> 24)
    return found


def _add_scaled(
    k: Builder,
    form: SuperForm,
    work: _Work,
    scales: Pointer,
    row: _Rows,
    at: Sequence[Value],
    dots: Sequence[Value],
    totals: Sequence[Variable],
) -> None:
    """Add one super-block's sums of some rows, scaled, less what zero or the minima bring."""
    lanes = k.lanes
    d = scales.load(0, lanes).to(f32)
    least = scales.load(ROWS * GROUPS, lanes).to(f32) if form.has_minima else d
    for column, dot, total in zip(at, dots, totals, strict=True):
        factor = work.d.splat(column, lanes)
        whole = dot
        if form.has_minima or form.zero:
            offset = _lowered(k, form, work, row, column)
            if form.zero:
                whole = dot - offset * form.zero
        total.value += whole.to(f32) * (d * factor)
        if form.has_minima:
            total.value = total.value - offset.to(f32) * (least * factor)


def _lowered(k: Builder, form: SuperForm, work: _Work, row: _Rows, column: Value) -> Value:
    """Return the sum of the parts' minima, or scales, times the sums of their activations."""
    lanes = k.lanes
    at = form.lists // 4 if form.has_minima else 0
    words = row.group.of(i16).at((row.part * lanes + at) * 2)
    sums = work.sums.at(column * SUMS + (4 if form.parts == 16 else 0))
    total = k.zeros(i32, lanes)
    for four in range(form.parts // 4):
        pairs = words.load(four * 2 * ROWS, 2 * lanes)
        for i, bytes_ in enumerate(((pairs << 8) >> 8, pairs >> 8)):
            given = sums.splat(2 * four + i, lanes).bits(i16)
            total = k.add_products(total, bytes_, given)
    return total


def _kernel(form: SuperForm) -> Kernel:
    group = Group(f"product {form.name}")
    return group.kernel(PARAMETERS, f"product_{form.name.lower()}")(_author(form))


SUPER_PRODUCTS = {name: _kernel(form) for name, form in SUPER_FORMS.items()}
"""The kernel of each K type, by its name."""

# ---- activations ----

ACTIVATIONS_K = Group("activations K")
_HALF = 16


@ACTIVATIONS_K.kernel("x:f32* levels:i8* d:f32* sums:i32*")
def quantize_activations_k(
    k: Builder, x: Pointer, levels: Pointer, d: Pointer, sums: Pointer
) -> None:
    """Quantize super-blocks to 8 bits, as ``kquants.encode_activations`` does."""
    room = k.room(i32, COLUMNS // _HALF)
    for block in k.items():
        source, target = x.at(block * COLUMNS), levels.at(block * COLUMNS)
        sizes = k.variable(k.zeros(f32, _HALF))
        for i in k.range(0, COLUMNS, _HALF):
            sizes.value = k.max(k.abs(source.load(i, _HALF)), sizes.value)
        greatest = sizes.value.max()
        first = k.variable(k.zeros(i32))
        for i in k.range(0, COLUMNS, _HALF):
            at = COLUMNS - _HALF - i
            found = k.abs(source.load(at, _HALF)).equals(greatest).bits(u16).to(u32)
            place = at.to(i32) + k.trailing_zeros(found | (1 << _HALF)).to(i32)
            first.value = k.select(found.differs(0), place, first.value)
        furthest = source.load(first.value.to(i64))
        inverse = k.select(furthest.equals(0), k.zeros(f32), -127 / furthest)
        d.store(k.select(inverse.equals(0), k.zeros(f32), 1 / inverse), block)
        factor = k.select(k.abs(inverse) < float("inf"), inverse, 0)
        for i in k.range(COLUMNS // _HALF):
            scaled = k.rint(source.load(i * _HALF, _HALF) * factor)
            level = k.min(scaled, 127).to(i32)
            target.store(level, i * _HALF)
            room.store(level.sum(), i)
        _store_sums(room, sums.at(block * SUMS))


def _store_sums(room: Pointer, sums: Pointer) -> None:
    """Store the sums of parts of 32, and of 16, two in a word."""
    small = [room.load(i) for i in range(COLUMNS // _HALF)]
    large = [a + b for a, b in zip(small[::2], small[1::2], strict=True)]
    at = 0
    for parts in (large, small):
        for four in range(0, len(parts), 4):
            for first, second in ((0, 2), (1, 3)):
                low, high = parts[four + first], parts[four + second]
                sums.store((low & 0xFFFF) | (high << 16), at)
                at += 1
