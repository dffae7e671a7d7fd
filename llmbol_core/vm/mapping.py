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
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE
        made = mmap.mmap(-1, UNDERRUN + (1 << 32) + _OVERRUN, flags=flags)
    except (AttributeError, OSError, OverflowError, ValueError):
        return mmap.mmap(-1, UNDERRUN + least)
    # Large arrays are walked a third faster where the system has large pages.
    with suppress(AttributeError, OSError):
        made.madvise(mmap.MADV_HUGEPAGE)
    return made
