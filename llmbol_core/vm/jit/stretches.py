"""For how many instructions native code runs before others than processes have their turn."""

from __future__ import annotations

import time

STRETCH = 1 << 20
"""As many at first, and wherever they take long."""
_LONGEST, _BRIEF = 1 << 22, 0.001
"""As many at most, as long as the last ones took less than so many seconds."""
_STEP = 1 << 13
"""Instructions that machine code may run more than it was allowed."""


class Stretches:
    """Tells the length of each stretch, one after the other."""

    def __init__(self) -> None:
        self._most, self._since = STRETCH, 0.0

    def next(self, left: int | None, is_spent: bool) -> tuple[int, bool]:
        """Return how many instructions may run now, and whether they are to be counted exactly.

        ``left`` are those that the program may run at all, ``is_spent`` tells whether the last
        stretch was used up. Machine code counts in steps of its own, so that before the program's
        last ones it stops.
        """
        now = time.perf_counter()
        is_brief = is_spent and now - self._since < _BRIEF
        self._most = min(2 * self._most, _LONGEST) if is_brief else STRETCH
        self._since = now
        if left is None:
            return self._most, False
        if left > 2 * _STEP:
            return min(self._most, left - _STEP), False
        return min(self._most, left), True
