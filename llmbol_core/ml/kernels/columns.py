"""Batches of many columns: every super-block of a panel taken apart once, for all columns.

What its numbers are packed into is undone, then all columns pass by; their sums wait in between, so
that every sum is made in the order of super-blocks all the same. Taken apart, a super-block of a
panel is

    d         as it was packed; dmin likewise
    scales    int32, a vector of 16 rows for each part and group
    minima    int16, two for each row: of the parts whose activations' sums share a word
    cells     a byte is a number: 16 rows by 4 columns, of one group and of the other in turn
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import f32, i16, i32, u8
from llmbol_core.ml.kernels.products import MANY, TILES
from llmbol_core.ml.kernels.superblocks import (
    BLOCKS,
    COLUMNS,
    Rows,
    SuperForm,
    minima_of,
    scales_of,
    weights_of,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

LEAST = 24
"""Columns from which on it pays to take panels apart."""
_PANEL = ROWS * GROUPS

Sums = Sequence[Sequence["Variable"]]
"""Of each group, for each column."""


class Layout(NamedTuple):
    """Where things are in a super-block that was taken apart."""

    scales: int
    minima: int
    cells: int
    size: int

    @classmethod
    def of(cls, form: SuperForm) -> Layout:
        """Return that of a type."""
        minima = form.head + form.parts * GROUPS * CELL
        cells = minima + (form.parts // 2 * GROUPS * CELL if form.has_minima else 0)
        return cls(form.head, minima, cells, cells + COLUMNS // 4 * GROUPS * CELL)


def multiply(
    k: Builder,
    form: SuperForm,
    add: Callable[[Pointer, Sequence[Value], Sums], None],
    panel: Pointer,
    blocks: Value,
    columns: tuple[Value, Value],
) -> Pointer:
    """Compute all rows of a panel by a run of columns, and return where their sums are.

    ``add`` adds products of a super-block that was taken apart, and of columns' super-blocks, whose
    numbers it is given, to sums.
    """
    first, last = columns
    unit = form.unit
    sums, near = k.room(f32, MANY * _PANEL), k.room(u8, Layout.of(form).size)
    for i in k.range(0, (last - first) * _PANEL, ROWS):
        sums.store(k.zeros(f32, ROWS), i)
    for block in k.range(blocks):
        packed = panel.at(block * unit)
        _take_apart(k, form, packed, near)
        column = k.variable(first)
        for wide in TILES:
            stop = last - (last - column.value) % wide
            for begin in k.range(column.value, stop, wide):
                if wide == TILES[0]:
                    fetch(form, packed.at(unit), (begin - first) // wide, wide)
                at = [(begin + c) * blocks + block for c in range(wide)]
                _add(k, add, near, at, sums.at((begin - first) * _PANEL))
            column.value = stop
    return sums


def _take_apart(k: Builder, form: SuperForm, unit: Pointer, room: Pointer) -> None:
    """Undo what the numbers of a super-block are packed into."""
    layout = Layout.of(form)
    for line in range(0, form.head, CELL):
        room.store(unit.load(line, CELL), line)
    for g in range(GROUPS):
        row = Rows(unit.at(g * form.group + form.head), 0)
        here = room.at(g * CELL)
        for block in k.range(BLOCKS):
            for j in range(4):
                for h, cell in enumerate(weights_of(k, form, row, block, j)):
                    number = block * 8 + (j + 4 * h)
                    here.store(cell, number * (GROUPS * CELL) + layout.cells)
            count = form.parts // BLOCKS
            for i, scale in enumerate(scales_of(k, form, row, block)):
                part = block * count + i
                here.at(part * (GROUPS * CELL) + layout.scales).of(i32).store(scale)
        for i, pair in enumerate(minima_of(k, form, row) if form.has_minima else []):
            here.at(i * GROUPS * CELL + layout.minima).of(i16).store(pair)


def _add(
    k: Builder,
    add: Callable[[Pointer, Sequence[Value], Sums], None],
    near: Pointer,
    at: Sequence[Value],
    held: Pointer,
) -> None:
    """Add products of a super-block and some columns to their sums."""
    groups, columns = range(GROUPS), range(len(at))
    totals = [[k.variable(held.load(c * _PANEL + g * ROWS, ROWS)) for c in columns] for g in groups]
    add(near, at, totals)
    for g in groups:
        for c in columns:
            held.store(totals[g][c].value, c * _PANEL + g * ROWS)


def fetch(form: SuperForm, following: Pointer, step: Value, width: int) -> None:
    """Ask for some lines of what follows; all are asked for while the columns pass by.

    ``step`` counts times that this is done, as often as tiles of that width pass by.
    """
    count = -(-form.unit * width // (CELL * MANY))
    for line in range(count):
        following.prefetch(step * (count * CELL) + line * CELL, level=2)
