"""Products of quantized activations with packed super-blocks, [M, K] times [N, K] transposed.

As ``products``, but the scales of the parts of a super-block are integers as well: dot products
are multiplied with them and summed in int32, and only that sum is scaled as a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.columns import LEAST, Layout, Sums, fetch, multiply
from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f16, f32, i8, i16, i32, i64, u16, u32
from llmbol_core.ml.kernels.products import finish, runs
from llmbol_core.ml.kernels.superblocks import (
    BLOCKS,
    COLUMNS,
    SUPER_FORMS,
    Rows,
    SuperForm,
    minima_of,
    scales_of,
    weights_of,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

PARAMETERS = (
    "packed:u8* levels:i8* d:f32* sums:i32* starts:i32* bias:f32* out:f32* "
    "blocks:i64 columns:i64 rows:i64 stride:i64"
)
"""Packed weights; activations: levels [M, K], scales d [M, blocks], sums [M, blocks, 12] and starts
of the integer sums [M, blocks, 16]; a bias for each row or null; out [M, stride]; super-blocks of a
row, M, N."""

SUMS = 12
"""Words of sums of a super-block's activations. Each holds two sums in 16 bits: of the parts 0 and
2, 1 and 3, 4 and 6 and so on; first 4 words for parts of 32 numbers, then 8 for parts of 16."""
STARTS = 16
"""Words of what the integer sums of parts of 16 numbers start with, as zero is no number of 0."""

_AHEAD = 4096


class _Work(NamedTuple):
    """The parameters as values."""

    packed: Pointer
    levels: Pointer
    d: Pointer
    sums: Pointer
    starts: Pointer
    bias: Pointer
    out: Pointer
    blocks: Value
    columns: Value
    rows: Value
    stride: Value


def _author(form: SuperForm) -> Author:
    """Return the author of the kernel for one type; an item is a panel."""

    def write(k: Builder, *parameters: Pointer | Value) -> None:
        work = _Work(*parameters)  # type: ignore[arg-type]
        begin = k.variable(k.begin)
        counts = (4, 2, 1) if k.lanes == ROWS else (2, 1)
        if k.lanes == ROWS and form.planes:
            counts = (8, *counts)
            with k.when(work.columns >= LEAST):
                _many(k, form, work)
                begin.value = k.end
        for first, last in runs(k, work.columns):
            for panel in k.range(begin.value, k.end):
                start = k.variable(first)
                for count in counts:
                    stop = last - (last - start.value) % count
                    for column in k.range(start.value, stop, count):
                        _rows(k, form, work, panel, first, column, count)
                    start.value = stop

    return write


def _rows(
    k: Builder,
    form: SuperForm,
    work: _Work,
    panel: Value,
    first: Value,
    column: Value,
    count: int,
) -> None:
    """Compute all rows of a panel, two vectors at a time; a run of columns begins at ``first``."""
    parts = ROWS // k.lanes
    if parts == 1:
        ahead = (column - first) // count * work.blocks if count == 4 else None
        # Many columns take all registers for one vector of rows, whose numbers they share.
        places = [(0, 0), (1, 0)]
        for some in [[place] for place in places] if count == 8 else [places]:
            _tile(k, form, work, panel, some, column, count, ahead)
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
    ahead: Value | None = None,
) -> None:
    """Compute some rows by some columns, and ask for a share of the next panel meanwhile."""
    lanes = k.lanes
    totals = [[k.variable(k.zeros(f32, lanes)) for _ in range(count)] for _ in places]
    lines = [(column + c) * work.blocks for c in range(count)]
    stream = work.packed.at(panel * work.blocks * form.unit)
    for block in k.range(work.blocks):
        unit = stream.at(block * form.unit)
        if count == 1:
            for line in range(0, form.unit, 64):
                unit.prefetch(_AHEAD + line, level=0)
        if ahead is not None:
            fetch(form, stream.at(work.blocks * form.unit), ahead + block, count)
        at = [line + block for line in lines]
        rows = [Rows(unit.at(group * form.group + form.head), part) for group, part in places]
        sums = _integers(k, form, work, rows, at)
        for (group, part), row, dots, total in zip(places, rows, sums, totals, strict=True):
            scales = unit.of(f16).at(group * ROWS + part * lanes)
            _add_scaled(k, form, work, scales, row, at, [dot.value for dot in dots], total)
    for (group, part), row_totals in zip(places, totals, strict=True):
        first = panel * (ROWS * GROUPS) + group * ROWS + part * lanes
        values = [total.value for total in row_totals]
        finish(k, work.bias, work.out, work.rows, work.stride, first, column, values)


def _integers(
    k: Builder, form: SuperForm, work: _Work, rows: Sequence[Rows], at: Sequence[Value]
) -> list[list[Variable]]:
    """Return sums of dot products of parts times their scales."""
    lanes = k.lanes
    levels = [work.levels.at(line * COLUMNS) for line in at]
    sums = [[k.variable(k.zeros(i32, lanes)) for _ in levels] for _ in rows]
    for block in k.range(BLOCKS):
        low, high = ([_starts(k, form, work, at, 2 * block + i) for _ in rows] for i in range(2))
        for j in range(4):
            if len(levels) > 1:
                k.in_order()
            weights = [weights_of(k, form, row, block, j) for row in rows]
            for c, level in enumerate(levels):
                words = level.of(i32).at(block * 8 + j)
                x, y = (words.splat(i, lanes).bits(i8) for i in (0, 4))
                for r in range(len(rows)):
                    low[r][c] = k.dot(low[r][c], weights[r][0], x)
                    target = high if form.parts == 16 else low
                    target[r][c] = k.dot(target[r][c], weights[r][1], y)
        for r, row in enumerate(rows):
            scales = scales_of(k, form, row, block)
            for c in range(len(levels)):
                sums[r][c].value += low[r][c] * scales[0]
                if form.parts == 16:
                    sums[r][c].value += high[r][c] * scales[1]
    return sums


def _starts(
    k: Builder, form: SuperForm, work: _Work, at: Sequence[Value], part: Value
) -> list[Value]:
    """Return what the sums of a part start with, for each column."""
    if not form.zero:
        return [k.zeros(i32, k.lanes) for _ in at]
    return [work.starts.splat(line * STARTS + part, k.lanes) for line in at]


def _add_scaled(
    k: Builder,
    form: SuperForm,
    work: _Work,
    scales: Pointer,
    row: Rows,
    at: Sequence[Value],
    dots: Sequence[Value],
    totals: Sequence[Variable],
) -> None:
    """Add one super-block's sums of some rows, scaled, less what the minima bring."""
    minima = minima_of(k, form, row) if form.has_minima else []
    add_scaled(k, form, work, scales, at, dots, totals, minima)


def add_scaled(
    k: Builder,
    form: SuperForm,
    work: _Work,
    scales: Pointer,
    at: Sequence[Value],
    dots: Sequence[Value],
    totals: Sequence[Variable],
    minima: Sequence[Value],
) -> None:
    """Add one super-block's sums, scaled, less minima in pairs times sums of activations."""
    lanes = k.lanes
    d = scales.load(0, lanes).to(f32)
    least = scales.load(ROWS * GROUPS, lanes).to(f32) if form.has_minima else d
    for column, dot, total in zip(at, dots, totals, strict=True):
        factor = work.d.splat(column, lanes)
        total.value += dot.to(f32) * (d * factor)
        if form.has_minima:
            sums = work.sums.at(column * SUMS + (4 if form.parts == 16 else 0))
            offset = k.zeros(i32, lanes)
            for number, pair in enumerate(minima):
                offset = k.add_products(offset, pair, sums.splat(number, lanes).bits(i16))
            total.value = total.value - offset.to(f32) * (least * factor)


# ---- many columns ----


def _many(k: Builder, form: SuperForm, work: _Work) -> None:
    """Compute many columns of all panels, from numbers that were taken apart."""
    layout = Layout.of(form)

    def add(near: Pointer, at: Sequence[Value], totals: Sums) -> None:
        sums = _apart_integers(k, form, work, layout, near, at)
        for g, row in enumerate(totals):
            pairs = near.at(layout.minima + g * CELL).of(i16)
            count = form.parts // 2 if form.has_minima else 0
            minima = [pairs.load(i * GROUPS * CELL // 2, 2 * ROWS) for i in range(count)]
            scales = near.of(f16).at(g * ROWS)
            add_scaled(k, form, work, scales, at, [s.value for s in sums[g]], row, minima)

    for columns in runs(k, work.columns):
        for panel in k.items():
            stream = work.packed.at(panel * work.blocks * form.unit)
            sums = multiply(k, form, add, stream, work.blocks, columns)
            for column in k.range(*columns):
                held = sums.at((column - columns[0]) * (ROWS * GROUPS))
                for g in range(GROUPS):
                    total, row = held.load(g * ROWS, ROWS), (panel * GROUPS + g) * ROWS
                    finish(k, work.bias, work.out, work.rows, work.stride, row, column, [total])


def _apart_integers(
    k: Builder, form: SuperForm, work: _Work, layout: Layout, near: Pointer, at: Sequence[Value]
) -> list[list[Variable]]:
    """Return sums of dot products of parts times their scales, for each group and column."""
    groups = range(GROUPS)
    sums = [[k.variable(k.zeros(i32, ROWS)) for _ in at] for _ in groups]
    levels = [work.levels.at(line * COLUMNS).of(i32) for line in at]
    cells = COLUMNS // 4 // form.parts
    for part in k.range(form.parts):
        dots = [_starts(k, form, work, at, part) for _ in groups]
        for j in range(cells):
            cell = near.at((part * cells + j) * (GROUPS * CELL) + layout.cells)
            weights = [cell.load(g * CELL, CELL) for g in groups]
            for c, level in enumerate(levels):
                x = level.splat(part * cells + j, ROWS).bits(i8)
                for g in groups:
                    dots[g][c] = k.dot(dots[g][c], weights[g], x)
        for g in groups:
            scale = near.at(part * (GROUPS * CELL) + (layout.scales + g * CELL)).of(i32)
            for c in range(len(at)):
                sums[g][c].value += dots[g][c] * scale.load(0, ROWS)
    return sums


def _kernel(form: SuperForm) -> Kernel:
    group = Group(f"product {form.name}")
    return group.kernel(PARAMETERS, f"product_{form.name.lower()}")(_author(form))


SUPER_PRODUCTS = {name: _kernel(form) for name, form in SUPER_FORMS.items()}
"""The kernel of each K type, by its name."""

# ---- activations ----

ACTIVATIONS_K = Group("activations K")
_HALF = 16


@ACTIVATIONS_K.kernel("x:f32* levels:i8* d:f32* sums:i32* starts:i32* zero:i32")
def quantize_activations_k(
    k: Builder, x: Pointer, levels: Pointer, d: Pointer, sums: Pointer, starts: Pointer, zero: Value
) -> None:
    """Quantize super-blocks to 8 bits, as ``kquants.encode_activations`` does.

    Starts are sums of parts of 16 levels times ``-zero``.
    """
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
        starts.store(room.load(0, STARTS) * -zero, block * STARTS)


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
