"""What the engine does with the heap as a whole, by native code where there is some.

Cycles are collected and free memory is listed in time that grows with the heap, which Python would
be long at; what native code has left to be released or freed is gone through.
"""

from __future__ import annotations

import ctypes
import mmap
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmbol_core.vm.arena import COUNT, FREE, KIND
from llmbol_core.vm.jit.runtime import MACHINE_WORDS, SPARES, Machine, Survey
from llmbol_core.vm.objects import Heap


class Upkeep:
    """The upkeep of one machine's heap; ``survey`` enters native code, -1 if there is none."""

    def __init__(self, heap: Heap, words: array[int], survey: Callable[[Survey], int]) -> None:
        self._heap, self._words, self._survey = heap, words, survey
        heap.settle, heap.list_free, heap.bury = self._take_back, self._list_free, self._bury
        heap.keep = self._keep
        self.keeps = False
        """Whether there is native code that large blocks are kept for."""

    def collect(self) -> int:
        """Free all objects that only cycles keep; return how many, or -1 if that cannot be done."""
        with self._lent():
            found = self._survey(Survey.CYCLES)
        for ref in self._taken(Machine.DISCARDED, COUNT):
            self._heap.discard(ref)
        self.release()
        return found

    def release(self) -> None:
        """Release and free what native code has left of that."""
        for ref in self._taken(Machine.RELEASED, COUNT):
            self._heap.pointers[(ref + COUNT) >> 2] = 1
            self._heap.release(ref)
        for ref in self._taken(Machine.FREED, 0):
            self._heap.give_back(ref)

    def _taken(self, head: Machine, link: int) -> Iterator[int]:
        """Yield the objects of a list, taking each out of it."""
        while ref := self._words[head]:
            self._words[head] = self._heap.pointers[(ref + link) >> 2]
            yield ref

    def _bury(self, dying: list[int]) -> bool:
        """Free objects that have no references any more, and what only they keep."""
        words = self._words
        words[Machine.DYING] = 0
        for ref in dying:
            self._heap.pointers[(ref + COUNT) >> 2] = words[Machine.DYING]
            words[Machine.DYING] = ref
        if not dying or self._survey(Survey.DYING) < 0:
            return False
        self.release()
        return True

    def _list_free(self) -> list[tuple[int, int]] | None:
        """Return start and size of what is free in the heap; None if native code cannot tell."""
        with self._lent():
            count = self._survey(Survey.FREE)
            if count < 0:
                return None
            rows = array("I")
            rows.frombytes(ctypes.string_at(self._words[Machine.TABLE], 8 * count))
        return list(zip(rows[::2], rows[1::2], strict=True))

    def _keep(self, ref: int) -> bool:
        """Keep a large block for native code, as it does by itself."""
        if not self.keeps:
            return False
        words = self._words
        at = Machine.SPARE + words[Machine.TURN]
        words[Machine.TURN] = (words[Machine.TURN] + 1) % SPARES
        self._heap.pointers[(ref + KIND) >> 2] = FREE
        before, words[at] = words[at], ref
        if before:
            self._heap.give_back(before)
        return True

    def _take_back(self) -> None:
        """Free the large blocks that native code keeps."""
        for at in range(Machine.SPARE, MACHINE_WORDS):
            ref, self._words[at] = self._words[at], 0
            if ref:
                self._heap.give_back(ref)

    @contextmanager
    def _lent(self) -> Iterator[None]:
        """Lend native code memory to look through the heap, which is made ready for that."""
        self._heap.prepare_walk()
        size = len(self._heap.bytes) // 4
        table, stack = mmap.mmap(-1, size), mmap.mmap(-1, size)
        lent = [ctypes.c_char.from_buffer(memory) for memory in (table, stack)]
        self._words[Machine.TABLE], self._words[Machine.STACK] = map(ctypes.addressof, lent)
        yield
        lent.clear()
        table.close()
        stack.close()
