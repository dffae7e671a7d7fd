"""Batches in shares: what is computed apart is put together as if one had computed all of it.

How a batch is cut depends on its size alone, and sums are taken over a balanced tree of the shares,
so that they come out the same to the last bit whichever node computes which of them::

        1            node 1 is the sum of all shares; of 4 shares, the leaves are 4, 5, 6 and 7
      2   3
     4 5 6 7

Layers that look at a whole batch ask for ``current_share``: batch normalization adds up its sums
over all, dropout draws for the whole batch and takes its own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

ROWS, MOST_SHARES = 8, 16
"""A share has so many rows at least, unless the batch has not, and a batch so many shares."""


@dataclass(frozen=True)
class Share:
    """The rows of a batch that are computed here, and how to add up over all shares."""

    start: int
    stop: int
    total: int
    """Rows of the whole batch."""
    added: Callable[[Array], Array]
    """Returns the sum of the arrays that all shares give, in the same order of calls."""


def share_count(total: int) -> int:
    """Return in how many shares a batch of so many rows is computed: a power of two.

    >>> [share_count(total) for total in (1, 15, 16, 29, 64, 1000)]
    [1, 1, 2, 2, 8, 16]
    """
    return min(MOST_SHARES, 1 << max(1, total // ROWS).bit_length() - 1)


def bounds(total: int, number: int, count: int) -> tuple[int, int]:
    """Return the first of a share's things and the first of the next one's, of ``total``.

    >>> [bounds(5, number, 2) for number in (0, 1)]
    [(0, 2), (2, 5)]
    """
    return total * number // count, total * (number + 1) // count


def add_up(nodes: Mapping[int, Array]) -> dict[int, Array]:
    """Return the sums that can be taken of what is known at some nodes of the tree.

    >>> {node: int(value) for node, value in add_up({4: 1, 5: 2, 7: 4}).items()}
    {7: 4, 2: 3}
    """
    known = dict(nodes)
    for node in range(max(known, default=0), 1, -1):
        if node % 2 and node in known and node - 1 in known:
            known[node // 2] = known.pop(node - 1) + known.pop(node)
    return known


_share: ContextVar[Share | None] = ContextVar("share", default=None)


def current_share() -> Share | None:
    """Return the share that is computed now; None if batches are not shared."""
    return _share.get()


@contextmanager
def sharing(share: Share) -> Iterator[None]:
    """Have layers compute a share while the block runs."""
    token = _share.set(share)
    try:
        yield
    finally:
        _share.reset(token)
