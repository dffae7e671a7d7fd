"""Arrays that are made once from weights: large ones are shared if those come from mapped files.

What is made is then kept on disk and mapped, so that all processes of a user have the same pages
and later ones find them ready; the pages of the weights that it was made from are given back. All
else is memory of the process.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.mapped import large_room, mapping_of, release
from llmbol_core.native.identity import text_of
from llmbol_core.native.shared import Write, kept
from llmbol_core.native.threads import thread_count

Array = NDArray[Any]

_LARGE = 1 << 20
"""Bytes from which on an array is large."""
_PAGE = 2 << 20
"""Bytes of a large page; files have some that were written in one go."""
_EACH = 8
"""How many items a thread makes at a time, at least."""
_LINE = 64
_HERE = os.path.dirname(__file__)


def derived(
    how: tuple[object, ...], sources: Sequence[Array], size: int, make: Callable[[Write], None]
) -> Array:
    """Return so many bytes, which ``make`` writes from these sources alone, in this way."""
    found = shared(how, sources, size, make)
    if found is not None:
        return found
    made = room(size)

    def write(offset: int, data: memoryview) -> None:
        made[offset : offset + len(data)] = data

    make(write)
    return made


def shared(
    how: tuple[object, ...], sources: Sequence[Array], size: int, make: Callable[[Write], None]
) -> Array | None:
    """Return what ``derived`` does if that can be shared, else None."""
    if not is_large(size) or not any(is_shared(source) for source in sources):
        return None
    origins = [_origin(source) for source in sources]
    found = None if None in origins else kept((*how, *origins, _version()), size, make)
    if found is None:
        return None
    for source in sources:
        release(source)
    return np.frombuffer(found, np.uint8)


def derived_numbers(
    how: tuple[object, ...],
    sources: Sequence[Array],
    shape: tuple[int, ...],
    make: Callable[[], Array],
) -> Array:
    """Return the float32 array that ``make`` returns, of this shape, as ``derived`` does."""
    size = 4 * int(np.prod(shape, dtype=np.int64))
    if not is_large(size) or not any(is_shared(source) for source in sources):
        return make()
    found = derived(how, sources, size, lambda write: write(0, make().reshape(-1).data.cast("B")))
    return found.view(np.float32).reshape(shape)


def is_large(size: int) -> bool:
    """Return whether so many bytes are worth sharing."""
    return size >= _LARGE


def is_shared(array: Array) -> bool:
    """Return whether an array's bytes are those of a file, which other processes share."""
    return mapping_of(array) is not None


def in_slabs(items: int, item: int, make: Callable[[int, Array], Array], write: Write) -> None:
    """Write items of so many bytes one after the other, some at a time.

    ``make(first, room)`` fills the room with as many as fit and returns the weights that it read.
    Each thread has a room of its own: fresh memory takes longer than most making. What is written
    begins and ends where large pages do; the items there are made twice.
    """
    local = threading.local()
    size = items * item
    slab = -(-max(_EACH * item, 1) // _PAGE) * _PAGE

    def work(start: int) -> None:
        if not hasattr(local, "room"):
            local.room = room(slab + 2 * item)
        stop = min(start + slab, size)
        first, last = start // item, -(-stop // item)
        here = local.room[: (last - first) * item]
        used = make(first, here)
        write(start, here.data[start - first * item : stop - first * item])
        release(used)

    starts = range(0, size, slab)
    threads = min(thread_count(), len(starts))
    if threads < 2:
        deque(map(work, starts), 0)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(threads) as pool:
        deque(pool.map(work, starts), 0)


def room(size: int) -> Array:
    """Return bytes that begin a cache line, in large pages if there are many."""
    if size >= 4 * _LARGE:
        return large_room(size)
    raw = np.empty(size + _LINE, np.uint8)
    return raw[-raw.ctypes.data % _LINE :][:size]


def _origin(array: Array) -> tuple[object, ...] | None:
    """Return what identifies an array, None if nothing does that is quickly known."""
    form = (array.dtype.str, array.shape, array.strides)
    source = mapping_of(array)
    if source is not None:
        return (*source[0].identity, source[1], *form)
    if not is_large(array.nbytes):
        return (hashlib.sha256(array.tobytes()).hexdigest(), *form)
    return None


@functools.cache
def _version() -> str:
    """Return what identifies this version of the code that makes such arrays."""
    return text_of(_HERE)
