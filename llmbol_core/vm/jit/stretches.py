"""For how many instructions native code runs before others than processes have their turn."""

from __future__ import annotations

import time

STRETCH = 1 << 20
"""As many at first, and if the last stretch was not used up."""
_LEAST, _MOST = 1 << 19, 1 << 22
_BRIEF, _LONG = 0.001, 0.008
"""Seconds below which the next stretch is twice as long, and above which it is half as long."""
_STEP = 1 << 13
"""Instructions that machine code may run more than it was allowed."""


class Stretches:
    """Tells the length of each stretch, one after the other."""

    def __init__(self) -> None:
        self._length, self._since = STRETCH, 0.0

    def next(self, left: int | None, is_spent: bool) -> tuple[int, bool]:
        """Return how many instructions may run now, and whether they are to be counted exactly.

        ``left`` are those that the program may run at all, ``is_spent`` tells whether the last
        stretch was used up. Machine code counts in steps of its own, so that before the program's
        last ones it stops.
        """
        now = time.perf_counter()
        took, self._since = now - self._since, now
        if not is_spent:
            self._length = min(self._length, STRETCH)
        elif took < _BRIEF:
            self._length = min(2 * self._length, _MOST)
        elif took > _LONG:
            self._length = max(self._length // 2, _LEAST)
        if left is None:
            return self._length, False
        if left > 2 * _STEP:
            return min(self._length, left - _STEP), False
        return min(self._length, left), True
