"""How long native code runs before anything but processes has its turn: a stretch."""

from __future__ import annotations

import ctypes
import time
from array import array

from llmbol_core.vm.jit.lent import nanoseconds
from llmbol_core.vm.jit.runtime import MORE, MOST_SLICE, QUANTUM, Machine, Survey

STRETCH = 1 << 24
"""Instructions of a stretch, unless its time is up sooner."""
SECONDS = 0.004
"""Seconds of a stretch."""
_STEP = 1 << 13
"""How many instructions too many machine code may run."""
_NEVER = (1 << 63) - 1
SIGNALS = ctypes.cast(ctypes.pythonapi.PyErr_CheckSignals, ctypes.c_void_p).value or 0
"""Python's own function that runs the handlers of signals that have come."""

# Looking up a member of an enumeration takes longer.
_FUEL, _OWED, _UNTIL, _DEADLINE = Machine.FUEL, Machine.OWED, Machine.UNTIL, Machine.DEADLINE
_SLICE, _SLICE_BEGAN, _PENDING = Machine.SLICE, Machine.SLICE_BEGAN, Machine.PENDING
_FREEING = (Survey.DYING, Survey.FRAMES, Survey.CALLED_FRAMES, Survey.PENDING)
_FIRST_SLICE = MOST_SLICE >> 3


def allowed(left: int | None) -> tuple[int, bool]:
    """Return how many instructions may run now, and whether they must be counted exactly.

    ``left`` is how many the program may still run in all. Machine code counts in steps of its own,
    so it stops before the program's last ones.
    """
    if left is None:
        return STRETCH, False
    if left > 2 * _STEP:
        return min(STRETCH, left - _STEP), False
    return min(STRETCH, left), True


def begin(words: array[int], until: float | None) -> None:
    """Give native code its time from now, but not beyond a moment of ``time.monotonic``."""
    now = nanoseconds()
    deadline = _NEVER if until is None else now + int((until - time.monotonic()) * 1e9)
    words[_UNTIL], words[_DEADLINE] = min(now + int(SECONDS * 1e9), deadline), deadline
    words[_FUEL], words[_OWED] = QUANTUM, 0
    words[_SLICE], words[_SLICE_BEGAN] = words[_SLICE] or _FIRST_SLICE, now


def begin_survey(words: array[int], until: float | None, what: Survey, hurries: bool) -> None:
    """Give native code its time for work on the whole heap.

    Objects that take longer to free are left for later, and all are if some are left already.
    """
    begin(words, until)
    words[Machine.SIGNALS] = SIGNALS
    if what in _FREEING:
        words[_UNTIL] -= MORE
        if hurries or (words[_PENDING] and what != Survey.PENDING):
            words[_FUEL] = 0
