"""Lockstep: several computations as if in parallel, although only one at a time runs.

Each runs until it needs what the others have; when all have come that far, it is put together,
and they continue one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from threading import Condition
from typing import Any, TypeVar

T = TypeVar("T")


class Lockstep:
    """Runs up to so many functions, each in a thread of its own."""

    def __init__(self, most: int) -> None:
        self._threads = ThreadPoolExecutor(most, "llmbol-share")
        self._turn = Condition()
        self._places = self._round = 0
        self._brought: dict[int, Any] = {}
        self._together: Any = None
        self._error: BaseException | None = None

    def run(self, work: Sequence[Callable[[], T]]) -> list[T]:
        """Return what the functions return; raises what one of them raised first."""
        self._places, self._brought, self._error = len(work), {}, None
        others = [self._threads.submit(copy_context().run, self._in_turn, one) for one in work[1:]]
        try:
            first = self._in_turn(work[0])
        finally:
            for other in others:
                other.exception()
            if self._error is not None:
                raise self._error
        return [first, *(other.result() for other in others)]

    def meet(self, place: int, brought: Any, put_together: Callable[[list[Any]], Any]) -> Any:
        """Wait for the others; return the combination of what all have brought, in order."""
        self._brought[place] = brought
        if len(self._brought) == self._places:
            things = [self._brought[number] for number in range(self._places)]
            self._together = put_together(things)
            self._brought, self._round = {}, self._round + 1
            self._turn.notify_all()
            return self._together
        now = self._round
        while now == self._round and self._error is None:
            self._turn.wait()
        if self._error is not None:
            raise self._error
        return self._together

    def _in_turn(self, one: Callable[[], T]) -> T:
        with self._turn:
            try:
                return one()
            except BaseException as error:
                self._error = self._error or error
                self._turn.notify_all()
                raise
