"""Handles that are made and released many times a second, such as those of tensors.

``new_handle`` does what ``Heap.new_handle`` does for a record of two words, whose block it takes
from the free list without the general allocator where it can.
"""

from __future__ import annotations

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import FREE_LISTS, HEADER, NIL
from llmbol_core.vm.heaptypes import HANDLE
from llmbol_core.vm.objects import HOSTED, Heap

_SIZE = HEADER + 8
_HEAD = (FREE_LISTS + _SIZE) >> 2


def new_handle(heap: Heap, value: object, charge: int, first: int, second: int) -> int:
    """Return a record of two words for which the host keeps a value; see ``Heap.new_handle``."""
    pointers = heap.pointers
    ref = pointers[_HEAD]
    if ref == NIL or not heap.reserve(charge):
        ref = heap.new_handle(value, charge, HANDLE)
        at = ref >> 2
    else:
        at = ref >> 2
        pointers[_HEAD] = pointers[at]
        pointers[at - 4] = 1
        pointers[at - 3] = HANDLE
        pointers[at - 2] = _SIZE
        pointers[at - 1] = HOSTED
        heap.hosted[ref] = (value, charge)
    words = heap.words
    words[at], words[at + 1] = first, second
    return ref


def charge(heap: Heap, size: int) -> None:
    """Charge the limit for bytes that the host keeps, or credit them; traps if it is reached."""
    if size <= 0:
        heap.reserved += size
    elif not heap.reserve(size):
        heap.make_room()
        if not heap.reserve(size):
            raise Trap(traps.HEAP_FULL)


def replace(heap: Heap, address: int, ref: int) -> None:
    """Store a reference that the caller owns, and release the old one, which usually is the last.

    The same as ``Heap.give`` for a place that holds a handle; traps if there is no place.
    """
    pointers = heap.pointers
    if address == NIL:
        heap.release(ref)
        raise Trap(traps.NIL_DEREFERENCE)
    old = pointers[address >> 2]
    pointers[address >> 2] = ref
    if old == NIL:
        return
    at = old >> 2
    if pointers[at - 4] == 1 and pointers[at - 3] == HANDLE and pointers[at - 1] == HOSTED:
        heap.discard(old)
    else:
        heap.release(old)
