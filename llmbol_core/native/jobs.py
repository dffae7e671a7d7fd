"""Work in threads of its own, for which a program waits until it is done or its time is up.

LLVM must not run while Python shuts down, so the end of the process waits for work under way. A
process that ends at once (``os._exit``) decides how long to wait, by ``wait_for_jobs``.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")
_Wait = Callable[[float | None], None]
_waits: dict[object, _Wait] = {}
_INTERRUPTED = 130


def wait_at_end(key: object, wait: _Wait) -> None:
    """Register a wait for the end of Python's process; it is given the seconds left, or None."""
    _waits[key] = wait


def wait_for_jobs(seconds: float) -> None:
    """Wait so long at most for all work under way; the end of the process then waits no more."""
    until = time.monotonic() + seconds
    while _waits:
        _waits.popitem()[1](max(0.0, until - time.monotonic()))


@atexit.register
def _wait_for_all() -> None:
    try:
        while _waits:
            _waits.popitem()[1](None)
    except KeyboardInterrupt:
        sys.stdout.flush()
        os._exit(_INTERRUPTED)


if hasattr(os, "register_at_fork"):
    # The threads are not in the new process.
    os.register_at_fork(after_in_child=_waits.clear)


class Job(Generic[_T]):
    """A function that runs in a thread of its own, once."""

    def __init__(self, function: Callable[[], _T]) -> None:
        self._function, self._done = function, threading.Event()
        self._result: _T
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="job", daemon=True)
        wait_at_end(self, self._thread.join)
        self._thread.start()

    def wait(self, until: float | None = None) -> bool:
        """Wait for the end, or for a moment of ``time.monotonic``; return whether it is over.

        Signals interrupt this wait; they would not interrupt work outside of Python.
        """
        left = None if until is None else max(0.0, until - time.monotonic())
        return self._done.wait(left)

    def cancel(self) -> None:
        """Make the function end soon, if it is running Python; its result is dropped."""
        set_error = getattr(ctypes.pythonapi, "PyThreadState_SetAsyncExc", None)
        if set_error is not None and self._thread.ident is not None and not self._done.is_set():
            set_error(ctypes.c_ulong(self._thread.ident), ctypes.py_object(SystemExit))

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
