"""Products of quantized activations with packed super-blocks, [M, K] times [N, K] transposed.

As ``products``, but the scales of the parts of a super-block are integers as well: dot products
are multiplied with them and summed in int32, and only that sum is scaled as a float.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.columns import (
    LEAST,
    Layout,
    Places,
    Sums,
    has_pairs,
    multiply,
    pairs_of,
)
from llmbol_core.ml.kernels.cuts import Ahead, tiles
from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f16, f32, i16, i32, i64, u16, u32
from llmbol_core.ml.kernels.products import TILES, finish, runs
from llmbol_core.ml.kernels.superblocks import BLOCKS, COLUMNS, SUPER_FORMS, Rows, SuperForm
from llmbol_core.ml.kernels.superdots import (
    STARTS,
    SUMS,
    Later,
    are_paired,
    from_apart,
    from_packed,
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


class Work(NamedTuple):
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
        work = Work(*parameters)  # type: ignore[arg-type]
        begin = k.variable(k.begin)
        widths = _widths(k, form)
        if are_paired(k) or (k.lanes == ROWS and form.planes):
            with k.when(work.columns >= LEAST):
                _many(k, form, work)
                begin.value = k.end
        for run in runs(k, work.columns):
            for panel in k.range(begin.value, k.end):
                for count, column, ahead in tiles(k, run, form.unit // BLOCKS, widths):
                    # Fewer columns at a time read what comes in its order.
                    some = ahead if count == TILES[0] else None
                    _rows(k, form, work, panel, column, count, some)

    return write


def _widths(k: Builder, form: SuperForm) -> tuple[int, ...]:
    """Return how many columns are computed at a time."""
    if k.lanes < ROWS:
        return (2, 1)
    return (4, 2, 1) if form.planes == 2 else TILES


def _rows(
    k: Builder,
    form: SuperForm,
    work: Work,
    panel: Value,
    column: Value,
    count: int,
    ahead: Ahead | None,
) -> None:
    """Compute all rows of a panel and some columns."""
    parts = ROWS // k.lanes
    if parts == 1:
        _tile(k, form, work, panel, [(0, 0), (1, 0)], column, count, ahead)
        return
    if count == 1:  # what is read comes in its order
        places = [(group, part) for group in range(GROUPS) for part in range(parts)]
        _tile(k, form, work, panel, places, column, count)
        return
    for number in k.range(GROUPS * parts // 2):
        group, part = number * 2 // parts, number * 2 % parts
        _tile(k, form, work, panel, [(group, part), (group, part + 1)], column, count)


def _tile(
    k: Builder,
    form: SuperForm,
    work: Work,
    panel: Value,
    places: Sequence[tuple[Value | int, Value | int]],
    column: Value,
    count: int,
    ahead: Ahead | None = None,
) -> None:
    """Compute some rows by some columns, and ask for a share of the next panel meanwhile."""
    lanes = k.lanes
    totals = [[k.variable(k.zeros(f32, lanes)) for _ in range(count)] for _ in places]
    lines = [(column + c) * work.blocks for c in range(count)]
    stream = work.packed.at(panel * work.blocks * form.unit)
    for block in k.range(work.blocks):
        unit = stream.at(block * form.unit)
        later = None
        if ahead is not None:
            step = ahead.turn * work.blocks + block
            later = Later(stream.at(work.blocks * form.unit), step, ahead)
        at = [line + block for line in lines]
        _add_block(k, form, work, unit, places, at, totals, later)
    for (group, part), row_totals in zip(places, totals, strict=True):
        first = panel * (ROWS * GROUPS) + group * ROWS + part * lanes
        values = [total.value for total in row_totals]
        finish(k, work.bias, work.out, work.rows, work.stride, first, column, values)


def _add_block(
    k: Builder,
    form: SuperForm,
    work: Work,
    unit: Pointer,
    places: Sequence[tuple[Value | int, Value | int]],
    at: Sequence[Value],
    totals: Sequence[Sequence[Variable]],
    later: Later | None,
) -> None:
    """Add what one super-block of a panel brings for some vectors of rows."""
    rows = [Rows(unit, group, part) for group, part in places]
    sums = from_packed(k, form, work, rows, at, later)
    for (group, part), row, dots, total in zip(places, rows, sums, totals, strict=True):
        scales = unit.of(f16).at(group * ROWS + part * k.lanes)
        pairs = pairs_of(k, form, row) if has_pairs(k, form) else []
        add_scaled(k, form, work, scales, at, [dot.value for dot in dots], total, pairs)


def add_scaled(
    k: Builder,
    form: SuperForm,
    work: Work,
    scales: Pointer,
    at: Sequence[Value],
    dots: Sequence[Value],
    totals: Sequence[Variable],
    pairs: Sequence[Value],
) -> None:
    """Add one super-block's sums, scaled, less pairs times sums of activations.

    Pairs are of the minima, or of scales if the sums leave out what ``form.zero`` brings.
    """
    lanes = k.lanes
    d = scales.load(0, lanes).to(f32)
    least = scales.load(ROWS * GROUPS, lanes).to(f32) if form.has_minima else d
    for column, dot, total in zip(at, dots, totals, strict=True):
        factor = work.d.splat(column, lanes)
        offset = k.zeros(i32, lanes)
        sums = work.sums.at(column * SUMS + (4 if form.parts == 16 else 0))
        for number, pair in enumerate(pairs):
            offset = k.add_products(offset, pair, sums.splat(number, lanes).bits(i16))
        if pairs and not form.has_minima:
            dot = dot - offset * form.zero
        total.value += dot.to(f32) * (d * factor)
        if form.has_minima:
            total.value = total.value - offset.to(f32) * (least * factor)


# ---- many columns ----


def _many(k: Builder, form: SuperForm, work: Work) -> None:
    """Compute many columns of all panels, from numbers that were taken apart."""
    layout = Layout.of(k, form)

    def add(near: Pointer, at: Sequence[Value], places: Places, totals: Sums) -> None:
        sums = from_apart(k, form, work, layout, near, at, places)
        for (g, part), dots, row in zip(places, sums, totals, strict=True):
            stored = near.at(layout.pairs + g * CELL + part * 4 * k.lanes).of(i16)
            count = form.parts // 2 if has_pairs(k, form) else 0
            pairs = [stored.load(i * GROUPS * CELL // 2, 2 * k.lanes) for i in range(count)]
            scales = near.of(f16).at(g * ROWS + part * k.lanes)
            add_scaled(k, form, work, scales, at, [dot.value for dot in dots], row, pairs)

    for columns in runs(k, work.columns):
        for panel in k.items():
            stream = work.packed.at(panel * work.blocks * form.unit)
            sums = multiply(k, form, add, stream, work.blocks, columns)
            for column in k.range(*columns):
                held = sums.at((column - columns[0]) * (ROWS * GROUPS))
                for row in range(0, ROWS * GROUPS, k.lanes):
                    total, first = held.load(row, k.lanes), panel * (ROWS * GROUPS) + row
                    finish(k, work.bias, work.out, work.rows, work.stride, first, column, [total])


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
