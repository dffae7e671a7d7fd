"""The host's address space for the memory of a virtual machine."""

from __future__ import annotations

import mmap
from contextlib import suppress

UNDERRUN = 1 << 16
"""Bytes before the arena, where the header of an object at a low address would be."""
_OVERRUN = 1 << 17
"""Bytes behind the 4 GiB that compiled code can reach from the highest address."""
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)


def reserve_space(least: int) -> mmap.mmap:
    """Reserve 4 GiB and their margins, or as many bytes as are needed where that cannot be had."""
    try:
        return _mapped(UNDERRUN + (1 << 32) + _OVERRUN)
    except (AttributeError, OSError, OverflowError, ValueError):
        return mmap.mmap(-1, UNDERRUN + least)


def lend_space(size: int) -> mmap.mmap:
    """Return memory for a while, all zero; what is not touched costs nothing."""
    try:
        return _mapped(size)
    except AttributeError:
        return mmap.mmap(-1, size)


def _mapped(size: int) -> mmap.mmap:
    """Return memory in large pages where the system has them: those are walked a third faster."""
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
    with suppress(AttributeError, OSError):
        made.madvise(mmap.MADV_HUGEPAGE)
    return made
