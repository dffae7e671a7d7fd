"""How the columns of products with K types are cut into tiles that registers hold.

While the tiles of a run of columns pass by a part of the packed weights, each asks for a share of
the part that follows, so that it is at hand when it is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.forms import CELL
from llmbol_core.ml.kernels.products import MANY, TILES

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

USUAL = MANY // TILES[0]
"""How many shares a single tile takes for what follows to have: the processor sees most of it."""


class Ahead(NamedTuple):
    """Which of the wide tiles of a run one is, and how many lines of a piece it asks for."""

    turn: Value
    share: Value

    def ask(self, k: Builder, following: Pointer, pieces: Value) -> None:
        """Ask for this tile's share of a piece; so many shares of pieces were asked for before."""
        for line in k.range(self.share):
            following.prefetch((pieces * self.share + line) * CELL, level=2)


def tiles(
    k: Builder, run: tuple[Value, Value], size: int, widths: Sequence[int] = TILES
) -> Iterator[tuple[int, Value, Ahead | None]]:
    """Write loops over the tiles of a run: how many columns, the first one, and what to ask for.

    ``size`` is how many bytes a piece of what follows has.
    """
    first, last = run
    rest = (last - first) % widths[0]
    if widths[0] == TILES[0]:  # eight are two tiles of four, rather than one of six and one of two
        is_uneven = (rest >= 2) & (rest <= 3) & (last - first > TILES[0])
        rest = k.select(is_uneven, rest + TILES[0], rest)
    left = [last - first, rest, *(rest % width for width in widths[1:])]
    start = first
    for width, before, after in zip(widths, left, left[1:], strict=False):
        count = (before - after) // width
        shares = k.select(count > 1, count, USUAL)
        share = (shares + (-(-size // CELL) - 1)) // shares
        for number in k.range(count):
            ahead = Ahead(number, share) if width == widths[0] else None
            yield width, start + number * width, ahead
        start = start + count * width
