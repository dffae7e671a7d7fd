"""Batches of many columns: every super-block of a panel is unpacked once, for all columns.

Its numbers are unpacked, then all columns are multiplied with them; their sums wait in between, so
that every sum is made in the order of super-blocks all the same. Taken apart, a super-block of a
panel is

    d         as it was packed; dmin likewise
    scales    int32, a vector of 16 rows for each part and group; twice in 16 bits where products of
              bytes are summed by twos
    pairs     int16, two for each row: minima of the parts whose activations' sums share a word; or
              scales, where they are needed for what zero brings
    cells     a byte is a number: 16 rows by 4 columns, of one group and of the other in turn
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.cuts import tiles
from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f32, i16, i32, u8
from llmbol_core.ml.kernels.products import MANY, TILES
from llmbol_core.ml.kernels.superblocks import (
    BLOCKS,
    COLUMNS,
    Rows,
    SuperForm,
    minima_of,
    paired,
    scales_of,
    weights_of,
)
from llmbol_core.ml.kernels.superdots import are_paired, twice

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

LEAST = 24
"""Columns from which on it pays to take panels apart."""
_PANEL = ROWS * GROUPS

Sums = Sequence[Sequence["Variable"]]
"""Of each vector of rows, for each column."""
Places = Sequence[tuple[int, int]]
"""Vectors of rows of a panel: of which group, and which of its vectors."""
_FEWER = (4, 2, 1)
"""How many columns are computed at a time where there are fewer registers."""


class Layout(NamedTuple):
    """Where things are in a super-block that was taken apart."""

    scales: int
    pairs: int
    cells: int
    size: int

    @classmethod
    def of(cls, k: Builder, form: SuperForm) -> Layout:
        """Return that of a type."""
        pairs = form.head + form.parts * GROUPS * CELL
        cells = pairs + (form.parts // 2 * GROUPS * CELL if has_pairs(k, form) else 0)
        return cls(form.head, pairs, cells, cells + COLUMNS // 4 * GROUPS * CELL)


def has_pairs(k: Builder, form: SuperForm) -> bool:
    """Return whether sums of activations are multiplied with something."""
    return form.has_minima or (bool(form.zero) and are_paired(k))


def pairs_of(k: Builder, form: SuperForm, row: Rows) -> list[Value]:
    """Return what they are multiplied with."""
    return (minima_of if form.has_minima else paired)(k, form, row)


Add = Callable[["Pointer", Sequence["Value"], Places, Sums], None]
"""Adds products of a super-block that was taken apart, and of columns' super-blocks, whose numbers
are given, to the sums of some vectors of rows."""


def multiply(
    k: Builder,
    form: SuperForm,
    add: Add,
    panel: Pointer,
    blocks: Value,
    columns: tuple[Value, Value],
) -> Pointer:
    """Compute all rows of a panel by a run of columns, and return where their sums are."""
    first, last = columns
    unit = form.unit
    sums, near = k.room(f32, MANY * _PANEL), k.room(u8, Layout.of(k, form).size)
    parts = ROWS // k.lanes
    places = [(g, part) for g in range(GROUPS) for part in range(parts)]
    widths = TILES if parts == 1 else _FEWER
    for i in k.range(0, (last - first) * _PANEL, ROWS):
        sums.store(k.zeros(f32, ROWS), i)
    for block in k.range(blocks):
        packed = panel.at(block * unit)
        _take_apart(k, form, packed, near)
        for wide, column, ahead in tiles(k, columns, unit, widths):
            if ahead is not None:
                ahead.ask(k, packed.at(unit), ahead.turn)
            at = [(column + c) * blocks + block for c in range(wide)]
            held = sums.at((column - first) * _PANEL)
            for two in range(0, len(places), 2):
                _add(k, add, near, at, held, places[two : two + 2])
    return sums


def _take_apart(k: Builder, form: SuperForm, unit: Pointer, room: Pointer) -> None:
    """Undo what the numbers of a super-block are packed into."""
    layout, width = Layout.of(k, form), 4 * k.lanes
    for line in range(0, form.head, width):
        room.store(unit.load(line, width), line)
    for g in range(GROUPS):
        for part in k.range(ROWS // k.lanes):
            row = Rows(unit, g, part)
            here = room.at(g * CELL + part * width)
            _take_rows_apart(k, form, layout, row, here)


def _take_rows_apart(k: Builder, form: SuperForm, layout: Layout, row: Rows, here: Pointer) -> None:
    """Do so for a vector of rows."""
    count = form.parts // BLOCKS
    for block in k.range(BLOCKS):
        for j in range(4):
            for h, cell in enumerate(weights_of(k, form, row, block, j)):
                number = block * 8 + (j + 4 * h)
                here.store(cell, number * (GROUPS * CELL) + layout.cells)
        for i, scale in enumerate(scales_of(k, form, row, block)):
            place = here.at((block * count + i) * (GROUPS * CELL) + layout.scales)
            if are_paired(k):
                place.of(i16).store(twice(scale))
            else:
                place.of(i32).store(scale)
    for i, pair in enumerate(pairs_of(k, form, row) if has_pairs(k, form) else []):
        here.at(i * GROUPS * CELL + layout.pairs).of(i16).store(pair)


def _add(
    k: Builder, add: Add, near: Pointer, at: Sequence[Value], held: Pointer, places: Places
) -> None:
    """Add products of a super-block and some columns to their sums."""
    columns = range(len(at))
    starts = [g * ROWS + part * k.lanes for g, part in places]
    totals = [
        [k.variable(held.load(c * _PANEL + start, k.lanes)) for c in columns] for start in starts
    ]
    add(near, at, places, totals)
    for start, row in zip(starts, totals, strict=True):
        for c in columns:
            held.store(row[c].value, c * _PANEL + start)
