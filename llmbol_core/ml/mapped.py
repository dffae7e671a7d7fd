"""Arrays that view mapped files: finding the file, and giving back its pages."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.native.files import MappedFile


def mapping_of(array: NDArray[Any]) -> tuple[MappedFile, int] | None:
    """Return the mapped file that an array views, and at which byte it begins."""
    owner: Any = array
    while owner is not None and not isinstance(owner, MappedFile):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    if owner is None:
        return None
    start = np.frombuffer(owner, np.uint8).ctypes.data
    return owner, array.ctypes.data - start


def release(array: NDArray[Any]) -> None:
    """Give back the pages of a mapped file that an array views; they are read again if needed.

    Does nothing to other arrays.
    """
    source = mapping_of(array)
    if source is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    mapping, offset = source
    page = mmap.PAGESIZE
    first = -(-offset // page) * page
    last = (offset + array.nbytes) // page * page
    if last > first:
        mapping.madvise(mmap.MADV_DONTNEED, first, last - first)


def large_room(size: int) -> NDArray[Any]:
    """Return bytes that begin a page, in large pages if that is possible."""
    length = max(1, -(-size // _LARGE_PAGE)) * _LARGE_PAGE
    # Memory that is not shared: the system gives large pages to no other.
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if os.name == "posix" else {}
    memory = mmap.mmap(-1, length + _LARGE_PAGE, **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    room = np.frombuffer(memory, np.uint8)
    return room[-room.ctypes.data % _LARGE_PAGE :][:size]


_LARGE_PAGE = 2 << 20
