"""Dot products of the parts of super-blocks, times their scales, summed in int32: exact integers.

Where an instruction multiplies four bytes, a part's dot product is made and then multiplied. Where
one multiplies two, into 16 bits, such sums of a part are added up as far as they fit, and the
instruction that adds two of them in 32 bits multiplies them with the scale as well; numbers count
from zero there, and what ``form.zero`` brings is subtracted once for a super-block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.forms import CELL, ROWS
from llmbol_core.ml.kernels.kinds import i8, i16, i32
from llmbol_core.ml.kernels.streams import ask, reading
from llmbol_core.ml.kernels.superblocks import (
    BLOCKS,
    COLUMNS,
    LINES,
    Rows,
    SuperForm,
    scales_of,
    weights_of,
)

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.columns import Layout, Places
    from llmbol_core.ml.kernels.cuts import Ahead
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


class _Cells(NamedTuple):
    """Numbers of four columns, for some vectors of rows."""

    part: int
    """To which of the parts at hand they belong."""
    word: Value
    """Which four levels of a super-block of activations they meet."""
    numbers: list[Value]


class _Parts(NamedTuple):
    """Parts of a super-block that are at hand."""

    first: Value
    size: int
    steps: Iterator[list[_Cells]]
    """Some cells at a time: whoever takes them writes the code that reads them."""
    scale: Callable[[int, int], Value]
    """The scales of a part, by its number among these, for a vector of rows."""


def _add(
    k: Builder, form: SuperForm, work: Work, parts: _Parts, at: Sequence[Value], sums: Sums
) -> None:
    """Add what some parts bring."""
    (_add_pairs if are_paired(k) else _add_dots)(k, form, work, parts, at, sums)


def _add_dots(
    k: Builder, form: SuperForm, work: Work, parts: _Parts, at: Sequence[Value], sums: Sums
) -> None:
    """Add dot products of whole parts, times their scales."""
    dots = [[_starts(k, form, work, at, parts.first + i) for _ in sums] for i in range(parts.size)]
    settles = len(at) > 1 and k.lanes == ROWS
    for step in parts.steps:
        for part, word, numbers in step:
            for c, column in enumerate(at):
                x = _levels(k, work, column, word)
                for r, number in enumerate(numbers):
                    dots[part][r][c] = k.dot(dots[part][r][c], number, x)
                for r in range(len(numbers) if settles else 0):
                    (dots[part][r][c],) = k.settle(dots[part][r][c])
    for r, row in enumerate(sums):
        for part in range(parts.size):
            scale = parts.scale(part, r)
            for total, dot in zip(row, dots[part][r], strict=True):
                total.value += dot * scale


def _add_pairs(
    k: Builder, form: SuperForm, work: Work, parts: _Parts, at: Sequence[Value], sums: Sums
) -> None:
    """Add sums of two products, as many as fit into 16 bits, times their scales."""
    fits = min(_fitting(form), COLUMNS // 4 // form.parts)
    held: dict[tuple[int, int, int], list[Value]] = {}
    for step in parts.steps:
        for c, column in enumerate(at):
            levels = [_levels(k, work, column, cells.word) for cells in step]
            for r, row in enumerate(sums):
                for (part, _, numbers), x in zip(step, levels, strict=True):
                    pairs = held.setdefault((part, r, c), [])
                    pairs.append(k.pairs(numbers[r], x) + (pairs[-1] if pairs else 0))
                    if len(pairs) == fits:
                        scale = parts.scale(part, r).bits(i16)
                        row[c].value = k.add_products(row[c].value, pairs[-1], scale)
                        pairs.clear()


def _levels(k: Builder, work: Work, column: Value, word: Value) -> Value:
    """Return four levels of a super-block of activations, in all lanes."""
    return work.levels.at(column * COLUMNS).of(i32).splat(word, k.lanes).bits(i8)


def _starts(
    k: Builder, form: SuperForm, work: Work, at: Sequence[Value], part: Value
) -> list[Value]:
    """Return what the sums of a part start with, for each column."""
    if not form.zero:
        return [k.zeros(i32, k.lanes) for _ in at]
    return [work.starts.splat(line * STARTS + part, k.lanes) for line in at]


# ---- from packed numbers ----


class Later(NamedTuple):
    """What is used later: the next panel, and how many super-blocks passed by before this one."""

    panel: Pointer
    step: Value
    ahead: Ahead


def from_packed(
    k: Builder,
    form: SuperForm,
    work: Work,
    rows: Sequence[Rows],
    at: Sequence[Value],
    later: Later | None,
) -> Sums:
    """Return the sums for some rows of a panel's super-block and some super-blocks of columns."""
    sums = _new(k, len(rows), len(at))
    for block in k.range(BLOCKS):
        if later is not None:
            later.ahead.ask(k, later.panel, later.step * BLOCKS + block)
        for first in range(0, len(rows), 2):
            two = slice(first, first + 2)
            shares = None if later else range(2 * first, 2 * len(rows))
            _add(k, form, work, _packed(k, form, rows[two], block, shares), at, sums[two])
    return sums


def _packed(
    k: Builder, form: SuperForm, rows: Sequence[Rows], block: Value, shares: range | None
) -> _Parts:
    """Return a block of 32 columns; of what comes later it asks for the first four of shares."""
    here = rows[0].unit.at(block * (form.unit // BLOCKS))

    def steps() -> Iterator[list[_Cells]]:
        for j in range(4):
            k.in_order()
            if shares:
                ask(here, form.unit // BLOCKS, shares[j], shares.stop, reading(k).ahead)
            numbers = [weights_of(k, form, row, block, j) for row in rows]
            yield [
                _Cells(h * count // 2, block * 8 + (j + 4 * h), [pair[h] for pair in numbers])
                for h in range(2)
            ]

    @cache
    def scales(r: int) -> list[Value]:
        found = scales_of(k, form, rows[r], block)
        return [twice(scale) for scale in found] if are_paired(k) else found

    count = form.parts // BLOCKS
    return _Parts(block * count, count, steps(), lambda part, r: scales(r)[part])


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
    rows = [near.at(g * CELL + part * 4 * k.lanes) for g, part in places]
    for part in k.range(form.parts):
        _add(k, form, work, _apart(k, form, layout, rows, part), at, sums)
    return sums


def _apart(
    k: Builder, form: SuperForm, layout: Layout, rows: Sequence[Pointer], part: Value
) -> _Parts:
    """Return a part."""
    count, together = COLUMNS // 4 // form.parts, 2 if are_paired(k) else 1
    cells = [row.at(layout.cells) for row in rows]
    scales = [row.at(part * LINES + layout.scales).of(i32) for row in rows]

    def steps() -> Iterator[list[_Cells]]:
        for first in range(0, count, together):
            k.in_order()
            words = [part * count + (first + i) for i in range(together)]
            yield [
                _Cells(0, word, [cell.load(word * LINES, 4 * k.lanes) for cell in cells])
                for word in words
            ]

    return _Parts(part, 1, steps(), lambda _, r: scales[r].load(0, k.lanes))
