"""The memory of dead objects that uncounted addresses may still point into.

An address of an element or a field keeps nothing alive. Where it might outlast its object the
object is marked (``lifetimes.py``): a flag in the header's work word. When a marked object dies its
references are released and made nil, but its block is not used for anything else until no process
has a word in its frames, or an offer at a channel, that points into it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from llmbol_core.vm.arena import COUNT, KIND, NIL, SIZE, WORK
from llmbol_core.vm.objects import ARRAY, ARRAY_HEADER, CHANNEL, HOSTED, MODULE, STRING, Heap

MARKED = 4
"""Flag in the header's work word; ``HOSTED`` is set as well, so that Python sees the object die."""

_LEAST = 1 << 16
"""Bytes of remains at which to look which of them are still needed."""
_PIECE = 1 << 14
"""Words between two checks whether the program is to be stopped."""
_SOME = 1 << 11
"""The least number of remains that are looked at at once."""


class Remains:
    """The remains in one heap."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        self._refs: list[int] = []
        self._bytes = 0
        self._most = _LEAST
        heap.outlasts = self._outlasts

    @property
    def is_due(self) -> bool:
        """Whether there are so many that it is time to free some."""
        return self._bytes > self._most

    def mark(self, ref: int) -> None:
        """Let the memory of an object outlast it: also a slice's array, a handle's module data."""
        words = self._heap.words
        kind = words[(ref + KIND) >> 2]
        inner = {ARRAY: 8, MODULE: 0}.get(kind)
        refs = [ref] if inner is None else [ref, self._heap.pointer(ref + inner)]
        for marked in refs:
            if marked != NIL:
                words[(marked + WORK) >> 2] |= MARKED | HOSTED

    def _outlasts(self, ref: int) -> bool:
        """Keep the memory of an object if it was marked; its references are released."""
        heap = self._heap
        if not heap.words[(ref + WORK) >> 2] & MARKED:
            return False
        kind = heap.type_of(ref)
        # A slice's reference to its array may have been released before; the elements are not its.
        is_slice = kind == ARRAY and heap.array_data(ref) != ref + ARRAY_HEADER
        for slot in [ref + 8] if is_slice else heap.slots(ref):
            heap.set_pointer(slot, NIL)
        if kind in (CHANNEL, MODULE) or is_slice:
            # Turned into an empty string or array, there is nothing that can be done with it.
            heap.words[ref >> 2] = 0
            heap.words[(ref + KIND) >> 2] = ARRAY if is_slice else STRING
        heap.pointers[(ref + COUNT) >> 2] = 1
        heap.words[(ref + WORK) >> 2] = 0
        self._refs.append(ref)
        self._bytes += heap.pointers[(ref + SIZE) >> 2]
        return True

    def _known(self, refs: Sequence[int], words: Iterable[Sequence[int]]) -> list[int]:
        """Return which of some words may point into remains; raises LimitError if time is up."""
        sizes = self._heap.pointers
        least, most = min(refs), max(ref + sizes[(ref + SIZE) >> 2] for ref in refs)
        found = set[int]()
        for several in words:
            for start in range(0, len(several), _PIECE):
                self._heap.pause()
                piece = set(several[start : start + _PIECE])
                found.update(word for word in piece if least <= word < most)
        return sorted(found)

    def free(self, words: Iterable[Sequence[int]], cost: int, some: bool = False) -> None:
        """Free the remains that none of the given words points into: all, or only ``some``.

        ``cost`` is how many bytes of words there are: it is not soon done again if those are many.
        """
        # There are more than can be pointed into, so that each time some are freed.
        number = max(_SOME, cost >> 2) if some else len(self._refs)
        refs = self._refs[-number:]
        if not refs:
            return
        known, left, sizes = self._known(refs, words), list[int](), self._heap.pointers
        try:
            for ref in reversed(refs):
                size = sizes[(self._refs.pop() + SIZE) >> 2]
                at = bisect_left(known, ref)
                if at < len(known) and known[at] < ref + size:
                    left.append(ref)
                else:
                    self._bytes -= size
                    self._heap.release(ref)
        finally:
            self._refs[:0] = left
        self._most = 2 * sum(sizes[(ref + SIZE) >> 2] for ref in left) + cost + _LEAST
