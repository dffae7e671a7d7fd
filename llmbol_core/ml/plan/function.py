"""A lowered graph as a Python function of one array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from llmbol_core.ml.plan.network import Bound
from llmbol_core.ml.plan.parts import Part
from llmbol_core.native.entry import Entry

Array = NDArray[Any]

_LONG = 2_000_000
"""Multiply-adds from which on other Python threads may run meanwhile."""
_BATCH_SIZES = 2


class Function:
    """Runs a part on arrays of the batch size that came last; the rest goes to another function.

    ``call`` takes an array and returns a new one, with next to no time beyond the operations'.
    """

    def __init__(self, part: Part, other: Callable[[Any], Array]) -> None:
        """Make the function; ``other`` does the same for anything like an array."""
        self._part, self._other = part, other
        self._bound: dict[int, Bound] = {}
        self._current = -1
        self._entry = Entry(self._elsewhere)
        self.call = self._entry.function

    def _elsewhere(self, x: Any) -> Array:
        """Compute in the other way, and be prepared for another such batch."""
        y = self._other(x)
        if len(y) not in (self._current, 0) and not self._entry.is_busy:
            self._prepare(len(y))
        return y

    def _prepare(self, batch: int) -> None:
        lowered = self._part.lowered
        if batch not in self._bound:
            # What was in use until now may still be: it is dropped another time.
            old = [size for size in self._bound if size != self._current]
            if len(self._bound) >= _BATCH_SIZES:
                del self._bound[old[0]]
            self._bound[batch] = Bound(lowered, batch, self._part.threads)
        self._current = batch
        bound = self._bound[batch]
        shape = (batch, *lowered.inputs[0].shape[1:])
        result = (batch, *self._part.shapes[0])
        is_long = batch * lowered.flops >= _LONG
        self._entry.run(shape, result, bound.bases, bound.words, is_long)
