"""What lives in a heap whose memory is not used again, for the oracle (``oracle.py``)."""

from __future__ import annotations

import bisect
from typing import NamedTuple

from llmbol_core.vm.arena import FREE, HEADER, NIL, SIZE
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.objects import STACK, Heap

_GONE = b"Z"
"""What blocks that are freed are filled with."""


class Forgery(Exception):
    """A verified program does what it must not be able to do. No trap: the run ends with it."""


class Area(NamedTuple):
    """What lies at an address: a value's type, and where in it the address is."""

    type: HeapType
    offset: int
    what: str
    locked: bool = False
    """Whether nothing may be written: a constant."""


class Blocks:
    """The blocks of a heap that live; those that are freed are not used again."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self.refs: list[int] = []
        self._freed: list[int] = []
        allocate = heap.allocate

        def noted(size: int, is_record: bool = False, clears: bool = True) -> int | None:
            ref = allocate(size, is_record, clears)
            if ref is not None:
                bisect.insort(self.refs, ref)
            return ref

        take_last = heap.take_last

        def noted_last(size: int) -> int:
            ref = take_last(size)
            if ref != NIL and not self.lives(ref):
                bisect.insort(self.refs, ref)
            return ref

        heap.allocate = noted  # type: ignore[method-assign]
        heap.take_last = noted_last  # type: ignore[method-assign]
        heap.free = self._free  # type: ignore[method-assign]
        heap.defragment = lambda ages=False: None  # type: ignore[method-assign]

    def _free(self, ref: int) -> None:
        at = bisect.bisect_left(self.refs, ref)
        if at == len(self.refs) or self.refs[at] != ref:
            raise Forgery(f"{ref:x} is freed twice")
        del self.refs[at]
        self._heap.words[(ref >> 2) - 3] = FREE
        self._freed.append(ref)
        self._heap.bytes[ref : ref + self._size(ref)] = _GONE * self._size(ref)

    def check_freed(self) -> None:
        """Raise Forgery if something was written into a block after it was freed."""
        for ref in self._freed:
            if not self.lives(ref) and bytes(self._heap.bytes[ref : ref + self._size(ref)]).strip(
                _GONE
            ):
                raise Forgery(f"the block at {ref:x} was written after it was freed")

    def _size(self, ref: int) -> int:
        return self._heap.pointers[(ref + SIZE) >> 2] - HEADER

    def lives(self, ref: int) -> bool:
        """Whether a reference leads to a block in use."""
        at = bisect.bisect_left(self.refs, ref)
        return at < len(self.refs) and self.refs[at] == ref

    def at(self, address: int) -> int | None:
        """Return the block that an address lies in."""
        at = bisect.bisect_right(self.refs, address) - 1
        if at < 0 or address >= self.refs[at] + self._size(self.refs[at]):
            return None
        return self.refs[at]


def check_heap(heap: Heap) -> None:
    """Raise Forgery unless all references in objects lead to objects."""
    refs = {ref for ref in heap.blocks() if heap.type_of(ref) != STACK}
    for ref in refs:
        for slot in heap.slots(ref):
            if heap.pointer(slot) != NIL and heap.pointer(slot) not in refs:
                raise Forgery(f"{heap.pointer(slot):x} in an object is no reference")
