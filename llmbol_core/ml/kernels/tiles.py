"""Register tiles: rows of numbers times a packed panel of weights, the sums kept in registers.

A panel holds some columns of a matrix [depth, columns], one row of them after another, so that a
tile reads it from front to back. Each sum is one chain of fused multiply-adds over the depth from
first to last, whatever the tile: a result does not depend on how rows and columns are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.half import widened
from llmbol_core.ml.kernels.kinds import i64

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.target import Target
    from llmbol_core.ml.kernels.vectors import Pointer, Value

AHEAD = 1024
"""How many numbers ahead of its use a panel is asked for."""


def most_rows(k: Builder) -> int:
    """Return how many rows of two vectors fit into the registers, with what else is needed."""
    return rows_of(k.target)


def rows_of(target: Target) -> int:
    """Return how many rows of two vectors fit into the registers of an instruction set."""
    return 12 if target.lanes == 16 or target.architecture != "x86_64" else 6


def accumulate(
    k: Builder,
    rows: Sequence[Pointer],
    panels: Sequence[Pointer],
    vectors: int,
    start: Sequence[Sequence[Value]],
    depth: Value | int,
    pieces: Callable[[], Iterator[Value]] | None = None,
    ahead: bool = True,
) -> list[list[Value]]:
    """Return ``start`` plus the products of rows and panels, [row][vector].

    A panel has so many vectors in a row, of float32 or of 16 bits. With ``pieces`` the rows consist
    of parts of ``depth`` numbers that begin at these offsets; the panels go on from part to part.
    With ``ahead`` panels are asked for before they are needed.
    """
    lanes, width = k.lanes, vectors * k.lanes
    sums = [[k.variable(value) for value in line] for line in start]
    done = k.variable(k.value(0, i64))

    def multiply(offset: Value | int) -> None:
        base = done.value
        for i in k.range(depth):
            column = [
                widened(panel.load((base + i) * width + lanes * j, lanes))
                for panel in panels
                for j in range(vectors)
            ]
            for panel in panels if ahead else ():
                for j in range(vectors):
                    panel.prefetch((base + i) * width + (lanes * j + AHEAD))
            for row, line in zip(rows, sums, strict=True):
                x = row.splat(i + offset, lanes)
                for total, w in zip(line, column, strict=True):
                    total.value = k.fma(x, w, total.value)
        done.value = base + depth

    if pieces is None:
        multiply(0)
    else:
        for offset in pieces():
            multiply(offset)
    return [[total.value for total in line] for line in sums]


def limited(k: Builder, x: Value, low: Value, high: Value) -> Value:
    """Return x limited to low ... high; NaN stays."""
    above = k.select(x < low, low.splat(x.lanes), x)
    return k.select(above > high, high.splat(x.lanes), above)


def rows_in_turn(
    k: Builder, first: Value, last: Value, most: int, tile: Callable[[Value, int], None]
) -> None:
    """Write a loop over rows: ``tile(row, count)`` for counts that are as even as they can be."""
    row = k.variable(first)
    full = last - first
    # As long as two more full tiles are needed take full ones; cut the rest in two even parts.
    whole = k.select(full > 2 * most, (full - (most + 1)) // most, k.value(0, i64))
    for turn in k.range(whole + 2):
        left = last - row.value
        even = k.select(left > most, (left + 1) // 2, left)
        count = k.select(turn < whole, k.value(most, i64), even)
        for size in k.cases(count, range(1, most + 1)):
            tile(row.value, size)
        row.value = row.value + count


def greater(k: Builder, a: Value, b: Value) -> Value:
    """Return the greater of two, NaN if either is."""
    return k.select(a > b, a, k.select(a.equals(a), b, a))


def lesser_number(k: Builder, a: Value, b: Value) -> Value:
    """Return the lesser of two whole numbers."""
    return k.select(a < b, a, b)


def greater_number(k: Builder, a: Value, b: Value) -> Value:
    """Return the greater of two whole numbers."""
    return k.select(a > b, a, b)
