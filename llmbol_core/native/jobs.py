"""Work in threads of its own, for which a program waits until it is done or time is up.

LLVM must not work while Python takes itself apart, so that its end waits for what is under way. A
process that ends at once (``os._exit``) need not wait, and says so by ``end_at_once``.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_waits: dict[object, Callable[[], None]] = {}


def wait_at_end(key: object, wait: Callable[[], None]) -> None:
    """Have something waited for when Python's process ends."""
    _waits[key] = wait


def end_at_once() -> None:
    """Wait for nothing: the process ends as it is."""
    _waits.clear()


@atexit.register
def _wait_for_all() -> None:
    for wait in list(_waits.values()):
        wait()


if hasattr(os, "register_at_fork"):
    # The threads are not in the new process.
    os.register_at_fork(after_in_child=_waits.clear)


class Job(Generic[_T]):
    """A function that runs in a thread of its own, once."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function, self._done = function, threading.Event()
        self._result: _T
        self._error: BaseException | None = None
        thread = threading.Thread(target=self._work, name="job", daemon=True)
        wait_at_end(self, thread.join)
        thread.start()

    def wait(self, until: float | None = None) -> bool:
        """Wait for the end, or for a moment of ``time.monotonic``; return whether it is over.

        Signals interrupt that, as they do not interrupt what is not Python.
        """
        left = None if until is None else max(0.0, until - time.monotonic())
        return self._done.wait(left)

    def result(self) -> _T:
        """Return the function's result, or raise what it raised; it must be over."""
        if self._error is not None:
            raise self._error
        return self._result

    def _work(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 -- raised again where it is waited for
            self._error = error
        self._done.set()
        _waits.pop(self, None)
