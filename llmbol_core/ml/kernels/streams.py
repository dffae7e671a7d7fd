"""How packed weights come from memory for a vector, which reads each of them once.

Memory gives more to several streams than to one, where the processor finds them by itself, and
drops what it is asked for if it is asked for much at once. So panels are read side by side, a
block of each in turn, or their lines are asked for some time ahead, or both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.forms import CELL

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value, Variable


class Reading(NamedTuple):
    """A way to read panels."""

    panels: int
    """How many are read side by side."""
    ahead: int
    """How many bytes ahead of its use each is asked for; 0 leaves that to the processor."""


_READINGS = {
    (16, ""): Reading(1, 6144),
    (8, ""): Reading(1, 3072),
    (8, "bytes"): Reading(4, 0),
    (8, "nibbles"): Reading(2, 1152),
    (4, ""): Reading(1, 3072),
}
"""By the lanes of a vector, and by the cells of a form where these have their own."""


def reading(k: Builder, cells: str = "") -> Reading:
    """Return how panels with such cells are read."""
    return _READINGS.get((k.lanes, cells), _READINGS[k.lanes, ""])


def side_by_side(k: Builder, begin: Variable, columns: Value, most: int) -> Iterator[list[Value]]:
    """Write a loop over panels, so many at a time, if there is one column; ``begin`` passes them.

    Panels that are left over, or all of them, are the caller's.
    """
    if most == 1:
        return
    with k.when(columns.equals(1)):
        stop = begin.value + (k.end - begin.value) // most * most
        for panel in k.range(begin.value, stop, most):
            yield [panel + i for i in range(most)]
        begin.value = stop


def ask(here: Pointer, size: int, share: int, shares: int, ahead: int, step: int = 1) -> None:
    """Ask for a share of so many bytes, so far ahead.

    Lines are asked for in order, a few at a time, as evenly as they are used.
    """
    lines = -(-size // CELL) if ahead else 0
    for line in range(lines * share // shares, lines * (share + 1) // shares, step):
        here.prefetch(line * CELL + ahead, level=0)
