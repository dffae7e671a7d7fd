"""Rows of GGML's blocks into packed forms, in one pass over the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Author, Group, Kernel
from llmbol_core.ml.kernels.forms import CELL, FIFTH, FORMS, GROUPS, ROWS, Form
from llmbol_core.ml.kernels.kinds import i32, i64, u8, u16, u32, u64

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

_PARAMETERS = "blocks:u8* packed:u8* count:i64 rows:i64"
"""GGML's blocks [rows, count]; panels."""


def _author(form: Form) -> Author:
    """Return the author of the kernel for one form; an item is a panel."""
    head = 4 if form.has_minima else 2
    fifths = 4 if form.cells == "fifths" else 0
    numbers = 32 if form.cells == "bytes" else 16
    size = head + fifths + numbers

    def write(k: Builder, blocks: Pointer, packed: Pointer, count: Value, rows: Value) -> None:
        for panel in k.items():
            for group in k.range(GROUPS):
                first = (panel * GROUPS + group) * ROWS
                # Behind the last row it stands in for those that are not there.
                picked = [k.min(first + r, rows - 1) for r in range(ROWS)]
                starts = [blocks.at(row * count * size) for row in picked]
                for block in k.range(count):
                    sources = [start.at(block * size) for start in starts]
                    unit = packed.at((panel * count + block) * form.unit)
                    scales = unit.of(u16).at(group * ROWS)
                    for number in range(head // 2):
                        for r, source in enumerate(sources):
                            value = source.of(u16).load(number)
                            scales.store(value, number * ROWS * GROUPS + r)
                    cells = unit.at(form.head)
                    bodies = [source.at(head + fifths).of(i32) for source in sources]
                    for j, cell in enumerate(transposed_words(bodies, numbers // 4)):
                        stored = cell.bits(u8)
                        if form.cells == "bytes" and form.shift(k.target):
                            stored = stored ^ 0x80
                        cells.at(group * CELL).store(stored, j * GROUPS * CELL)
                    if fifths:
                        words = cells.at(form.count * GROUPS * CELL + group * FIFTH)
                        _fifths(k, [source.at(head).of(u32) for source in sources], words)

    return write


def transposed_words(rows: Sequence[Pointer], words: int) -> list[Value]:
    """Return words of 4 bytes, 16 rows by so many, as one vector of 16 rows for each column."""
    together = ROWS // words
    vectors = []
    for first in range(0, ROWS, together):
        loaded = [row.load(0, words) for row in rows[first : first + together]]
        while len(loaded) > 1:
            pairs = zip(loaded[::2], loaded[1::2], strict=True)
            loaded = [a.shuffle(range(2 * a.lanes), b) for a, b in pairs]
        vectors += loaded
    return _transposed(vectors, together, True)


def _transposed(vectors: Sequence[Value], rows: int, by_rows: bool) -> list[Value]:
    """Merge vectors of some rows by all columns until each holds all rows of one column."""
    if len(vectors) == 1:
        return list(vectors)
    width = ROWS // rows
    merged: list[list[Value]] = [[], []]
    for a, b in zip(vectors[::2], vectors[1::2], strict=True):
        for half in (0, 1):
            order = [
                (row % rows) * width + column if by_rows else column * rows + row % rows
                for column in range(half * width // 2, (half + 1) * width // 2)
                for row in range(2 * rows)
            ]
            order = [n + ROWS * (i // rows % 2) for i, n in enumerate(order)]
            merged[half].append(a.shuffle(order, b))
    return [vector for half in merged for vector in _transposed(half, 2 * rows, False)]


def _fifths(k: Builder, rows: Sequence[Pointer], target: Pointer) -> None:
    """Store the fifth bits of each cell as a word: four bits of each row."""
    room = k.room(u32, ROWS)
    for r, row in enumerate(rows):
        room.store(row.load(), r)
    bits = room.load(0, ROWS)
    places = k.vector(u64, [4 * r for r in range(ROWS)])
    for j in range(8):
        spread = ((bits >> (4 * j)) & 15).to(u64) << places
        while spread.lanes > 1:
            low, high = spread.halves()
            spread = low | high
        target.bytes_on(j * GROUPS * FIFTH).of(i64).store(spread.bits(i64))


REPACK_GROUP = Group("repack")


def _kernel(form: Form) -> Kernel:
    return REPACK_GROUP.kernel(_PARAMETERS, f"repack_{form.name.lower()}")(_author(form))


REPACKS = {name: _kernel(form) for name, form in FORMS.items()}
"""The kernel that packs each form, by the name of the storage type."""
