"""Batches shared among several trainers: each computes some rows, and sums are taken over all.

Layers that look at a whole batch ask for ``current_share``: batch normalization adds up its sums
over everybody, dropout draws for the whole batch and takes its own rows. So the result is that of
one trainer, but for the order in which numbers are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Share:
    """The rows of a batch that this trainer computes, and how to add up over all trainers."""

    start: int
    stop: int
    total: int
    """Rows of the whole batch."""
    sum: Callable[[Array], Array]
    """Returns the sum of the arrays that all trainers give, in the same order of calls."""
    idle: bool = False
    """Whether there is no row left for this one: it computes some that count for nothing."""

    @classmethod
    def of(cls, total: int, rank: int, world: int, sum: Callable[[Array], Array]) -> Share:
        """Return the share of trainer ``rank``, from 0, of a ``world`` of trainers.

        >>> [(s.start, s.stop) for s in (Share.of(5, rank, 2, np.copy) for rank in (0, 1))]
        [(0, 2), (2, 5)]
        """
        start, stop = total * rank // world, total * (rank + 1) // world
        return cls(start, stop, total, sum) if start < stop else cls(0, 1, total, sum, True)

    def added(self, own: Array) -> Array:
        """Return the sum of everybody's array of this shape and type."""
        return self.sum(np.zeros_like(own) if self.idle else own)

    def gathered(self, rows: Array) -> Array:
        """Return the rows of all trainers in their order."""
        whole = np.zeros((self.total, *rows.shape[1:]), rows.dtype)
        if not self.idle:
            whole[self.start : self.stop] = rows
        return self.sum(whole)


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
