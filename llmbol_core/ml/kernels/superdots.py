"""Dot products of the parts of super-blocks, times their scales, summed in int32: exact integers.

Where an instruction multiplies four bytes, a part's dot product is made and then multiplied. Where
one multiplies two, into 16 bits, such sums of a part are added up as far as they fit, and the
instruction that adds two of them in 32 bits multiplies them with the scale as well; numbers count
from zero there, and what ``form.zero`` brings is subtracted once for a super-block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.forms import CELL, GROUPS, ROWS
from llmbol_core.ml.kernels.kinds import i8, i16, i32
from llmbol_core.ml.kernels.superblocks import (
    BLOCKS,
    COLUMNS,
    Rows,
    SuperForm,
    scales_of,
    weights_of,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.columns import Layout, Places
    from llmbol_core.ml.kernels.products_k import Work
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable

SUMS = 12
"""Words of sums of a super-block's activations. Each holds two sums in 16 bits: of the parts 0 and
2, 1 and 3, 4 and 6 and so on; first 4 words for parts of 32 numbers, then 8 for parts of 16."""
STARTS = 16
"""Words of what the integer sums of parts of 16 numbers start with, as zero is no number of 0."""

Sums = list[list["Variable"]]
"""Of each vector of rows, for each column."""


def are_paired(k: Builder) -> bool:
    """Return whether products of bytes are summed by twos, in 16 bits."""
    return k.target.dot == "maddubs"


def _fitting(form: SuperForm) -> int:
    """Return how many cells' sums of two products fit into 16 bits."""
    return min(BLOCKS, 32767 // (form.most * 256))


def twice(scale: Value) -> Value:
    """Return int32 scales in 16 bits, twice each."""
    return scale.bits(i16).shuffle([i // 2 * 2 for i in range(2 * scale.lanes)])


def _new(k: Builder, rows: int, columns: int) -> Sums:
    return [[k.variable(k.zeros(i32, k.lanes)) for _ in range(columns)] for _ in range(rows)]


# ---- from packed numbers ----


def from_packed(
    k: Builder, form: SuperForm, work: Work, rows: Sequence[Rows], at: Sequence[Value]
) -> Sums:
    """Return the sums for some rows of a panel's super-block and some super-blocks of columns."""
    sums = _new(k, len(rows), len(at))
    add = _add_pairs if are_paired(k) else _add_dots
    for block in k.range(BLOCKS):
        add(k, form, work, rows, at, block, sums)
    return sums


def ask(form: SuperForm, unit: Pointer) -> None:
    """Ask for what is read first of a panel's super-block; it is used once."""
    lists = form.lists * (2 if form.has_minima else 1)
    for line in range(0, form.head, CELL):
        unit.prefetch(line, level=0)
    for group in range(GROUPS):
        for line in range(0, lists, CELL):
            unit.at(group * form.group + form.head).prefetch(line, level=0)


def _ask_cells(k: Builder, form: SuperForm, rows: Sequence[Rows], block: Value, j: int) -> None:
    """Ask for a quarter of the lines that a block's cells have in the next super-block."""
    lists = form.lists * (2 if form.has_minima else 1)
    for row in rows[:: ROWS // k.lanes]:
        cells = row.group.at(block * form.block + (form.unit + lists))
        for line in range(j * CELL, form.block, 4 * CELL):
            cells.prefetch(line, level=0)


def _add_dots(
    k: Builder,
    form: SuperForm,
    work: Work,
    rows: Sequence[Rows],
    at: Sequence[Value],
    block: Value,
    sums: Sums,
) -> None:
    """Add what a block of 32 columns brings."""
    low, high = ([_starts(k, form, work, at, 2 * block + i) for _ in rows] for i in range(2))
    halves = [low, high if form.parts == 16 else low]
    settles = len(at) > 1 and k.lanes == ROWS
    for j in range(4):
        if len(at) > 1:
            k.in_order()
        else:
            _ask_cells(k, form, rows, block, j)
        weights = [weights_of(k, form, row, block, j) for row in rows]
        for h, dots in enumerate(halves):
            for c, column in enumerate(at):
                x = _levels(k, work, column, block * 8 + (j + 4 * h))
                for r, pair in enumerate(weights):
                    dots[r][c] = k.dot(dots[r][c], pair[h], x)
                for r in range(len(rows) if settles else 0):
                    (dots[r][c],) = k.settle(dots[r][c])
    for r, row in enumerate(rows):
        for scale, dots in zip(scales_of(k, form, row, block), halves, strict=False):
            for c, total in enumerate(sums[r]):
                total.value += dots[r][c] * scale


def _add_pairs(
    k: Builder,
    form: SuperForm,
    work: Work,
    rows: Sequence[Rows],
    at: Sequence[Value],
    block: Value,
    sums: Sums,
) -> None:
    """Add what a block of 32 columns brings, as ``_add_dots`` does."""
    scales = [[twice(scale) for scale in scales_of(k, form, row, block)] for row in rows]
    fits, parts = _fitting(form), form.parts // BLOCKS
    apart = 1 if fits == BLOCKS and parts == 1 else 2
    pairs: dict[tuple[int, int, int], Value] = {}
    for j in range(4):
        k.in_order()
        if len(at) == 1:
            _ask_cells(k, form, rows, block, j)
        weights = [weights_of(k, form, row, block, j) for row in rows]
        for h in range(2):
            for c, column in enumerate(at):
                x = _levels(k, work, column, block * 8 + (j + 4 * h))
                for r, pair in enumerate(weights):
                    key = h % apart, r, c
                    found = k.pairs(pair[h], x)
                    pairs[key] = pairs[key] + found if key in pairs else found
        if j == 3 or (j + 1) % fits == 0:
            for (h, r, c), found in pairs.items():
                total = sums[r][c]
                total.value = k.add_products(total.value, found, scales[r][h % parts])
            pairs.clear()


def _levels(k: Builder, work: Work, column: Value, word: Value | int) -> Value:
    """Return four levels of a super-block of activations, in all lanes."""
    return work.levels.at(column * COLUMNS).of(i32).splat(word, k.lanes).bits(i8)


def _starts(
    k: Builder, form: SuperForm, work: Work, at: Sequence[Value], part: Value
) -> list[Value]:
    """Return what the sums of a part start with, for each column."""
    if not form.zero:
        return [k.zeros(i32, k.lanes) for _ in at]
    return [work.starts.splat(line * STARTS + part, k.lanes) for line in at]


# ---- from numbers that were taken apart ----


def from_apart(
    k: Builder,
    form: SuperForm,
    work: Work,
    layout: Layout,
    near: Pointer,
    at: Sequence[Value],
    places: Places,
) -> Sums:
    """Return the sums for some vectors of rows and some super-blocks of columns."""
    sums = _new(k, len(places), len(at))
    add = _add_pairs_apart if are_paired(k) else _add_dots_apart
    rows = [near.at(g * CELL + part * 4 * k.lanes) for g, part in places]
    for part in k.range(form.parts):
        scales = [row.at(part * (GROUPS * CELL) + layout.scales).of(i32) for row in rows]
        cells = [row.at(layout.cells) for row in rows]
        add(k, form, work, cells, scales, at, part, sums)
    return sums


def _add_dots_apart(
    k: Builder,
    form: SuperForm,
    work: Work,
    cells: Sequence[Pointer],
    scales: Sequence[Pointer],
    at: Sequence[Value],
    part: Value,
    sums: Sums,
) -> None:
    """Add what a part brings."""
    count = COLUMNS // 4 // form.parts
    dots = [_starts(k, form, work, at, part) for _ in cells]
    for j in range(count):
        number = part * count + j
        weights = [cell.load(number * (GROUPS * CELL), 4 * k.lanes) for cell in cells]
        for c, column in enumerate(at):
            x = _levels(k, work, column, number)
            for r, weight in enumerate(weights):
                dots[r][c] = k.dot(dots[r][c], weight, x)
            for r in range(len(weights)):
                (dots[r][c],) = k.settle(dots[r][c])
    for r, scale in enumerate(scales):
        for c, total in enumerate(sums[r]):
            total.value += dots[r][c] * scale.load(0, k.lanes)


def _add_pairs_apart(
    k: Builder,
    form: SuperForm,
    work: Work,
    cells: Sequence[Pointer],
    scales: Sequence[Pointer],
    at: Sequence[Value],
    part: Value,
    sums: Sums,
) -> None:
    """Add what a part brings, as ``_add_dots_apart`` does."""
    count = COLUMNS // 4 // form.parts
    fits = min(_fitting(form), count)
    pairs: dict[tuple[int, int], Value] = {}
    for first in range(0, count, 2):
        k.in_order()
        numbers = [part * count + (first + i) for i in range(2)]
        weights = [[cell.load(n * (GROUPS * CELL), 4 * k.lanes) for n in numbers] for cell in cells]
        for c, column in enumerate(at):
            x, y = (_levels(k, work, column, number) for number in numbers)
            for r, (low, high) in enumerate(weights):
                found = k.pairs(low, x) + k.pairs(high, y)
                found = pairs[r, c] + found if (r, c) in pairs else found
                if (first + 2) % fits == 0:
                    scale = scales[r].load(0, k.lanes).bits(i16)
                    sums[r][c].value = k.add_products(sums[r][c].value, found, scale)
                else:
                    pairs[r, c] = found
        if (first + 2) % fits == 0:
            pairs.clear()
