"""The engine's work on the heap as a whole, in native code if there is any.

Collecting cycles and listing free memory take time that grows with the heap, and Python would
take long; what native code has left to be released or freed is worked off here.
"""

from __future__ import annotations

import ctypes
import mmap
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import inf

from llmbol_core.vm.arena import ASTRAY, COUNT, FREE, HEADER, KIND, SIZE
from llmbol_core.vm.jit.runtime import BINS, HUGE, MACHINE_WORDS, SPARES, Machine, Survey
from llmbol_core.vm.jit.startup import STARTUP
from llmbol_core.vm.jit.stretches import SECONDS
from llmbol_core.vm.mapping import lend_space
from llmbol_core.vm.objects import Heap

_MANY_FRAMES = 1 << 10
"""Bytes of frames from which on native code releases them faster."""
_KEPT = 1 << 26
"""The largest quarter of a heap for which the memory lent to look through it is kept."""
_MUCH = 1 << 23
"""Bytes of objects from which on it pays to compile well the code that goes through them."""
_SOON = 0.04
"""Seconds to handle that there is no room, before it is seen whether there is some again."""
_REST = 20
"""How many times as long as it took to see whether there is room again that is not repeated."""
_LEAST_RESERVE = 1 << 16
_MOST_RESERVE = 1 << 22
_SHARE = 16
"""The reserve is usually this fraction of the limit: a 16th."""


class Upkeep:
    """The upkeep of one machine's heap; ``survey`` calls native code, or returns -1 without any.

    ``may_wait`` tells whether dying objects can be freed a little later.
    """

    def __init__(
        self,
        heap: Heap,
        words: array[int],
        survey: Callable[[Survey], int],
        may_wait: Callable[[], bool],
    ) -> None:
        self._heap, self._words, self._survey, self._may_wait = heap, words, survey, may_wait
        heap.settle, heap.list_free, heap.bury = self._take_back, self._list_free, self._bury
        heap.keep, heap.release_frames = self._keep, self._release_frames
        self._memory: mmap.mmap | None = None
        self._looks_from = 0.0
        """The moment from which to see whether there is room again."""
        self.keeps = False
        """Whether large blocks are kept for native code."""
        self._releases = False
        """Whether what native code has left to Python is being released."""

    def collect(self) -> int:
        """Free all objects that only cycles keep; return how many, -1 if that is not possible."""
        with self._lent(is_cleared=True):
            found = self._survey(Survey.CYCLES)
        self._heap.pause()
        for ref in self._taken(Machine.DISCARDED, COUNT):
            self._heap.discard(ref)
            self._heap.pause()
        self.release()
        return found

    def release_some(self) -> None:
        """Do what ``release`` does, but no longer than a stretch if the rest may wait."""
        self.release(time.monotonic() + SECONDS)
        if self._is_left_to_python and not self._may_wait():
            self.release()

    def release(self, until: float = inf) -> None:
        """Release and free what native code has left to Python, up to a moment.

        What it leaves meanwhile is released by the call that has begun.
        """
        if self._releases:
            return
        self._releases = True
        try:
            for ref in self._taken(Machine.RELEASED, COUNT):
                self._heap.pointers[(ref + COUNT) >> 2] = 1
                self._heap.release(ref)
                self._heap.pause()
                if time.monotonic() > until:
                    break
        finally:
            self._releases = False
        for ref in self._taken(Machine.FREED, 0):
            self._heap.give_back(ref)

    def bury_pending(self, some: bool = False) -> None:
        """Free what was left for later, or only ``some``: as much as the time of a stretch allows.

        Raises LimitError if the program's time is up first.
        """
        until = time.monotonic() + SECONDS if some else inf
        self.release(until)
        while self._words[Machine.PENDING] and self._survey(Survey.PENDING) >= 0:
            self.release(until)
            self._heap.pause()
            if self._heap.hurries or time.monotonic() > until:
                return

    def work_off(self) -> None:
        """Free some of what was left for later, or all if the program can tell the difference.

        Then see, if the program was told that there is no room, whether there is some again.
        """
        heap = self._heap
        if self._is_left:
            self.bury_pending(some=self._may_wait())
        elif heap.refused is None:
            self._looks_from = time.monotonic() + _SOON
        elif not heap.kept_back and time.monotonic() >= self._looks_from:
            began = time.monotonic()
            with suppress(*ASTRAY):
                heap.defragment()
                heap.keep_back(heap.refused)
            self._looks_from = time.monotonic() + _REST * (time.monotonic() - began)

    @property
    def _is_left(self) -> bool:
        """Whether anything was left for later."""
        return bool(self._words[Machine.PENDING] or self._is_left_to_python)

    @property
    def _is_left_to_python(self) -> bool:
        """Whether native code has left anything for Python to release."""
        return bool(self._words[Machine.RELEASED])

    def _finish(self, is_end: bool = False) -> None:
        """Release what native code has left to Python; leave nothing that the host may close."""
        if is_end:
            self.release()
        else:
            self.release_some()
        is_left = self._heap.hosted and self._is_left and not self._heap.hurries
        if is_left and (is_end or not self._may_wait()):
            self.bury_pending()

    def _taken(self, head: Machine, link: int) -> Iterator[int]:
        """Yield the objects of a list, removing each from it."""
        while ref := self._words[head]:
            self._words[head] = self._heap.pointers[(ref + link) >> 2]
            yield ref

    def _release_frames(self, start: int, end: int, are_left: bool) -> bool:
        """Release what frames refer to, if there are many; return whether that was done."""
        if end - start < _MANY_FRAMES:
            return False
        self._words[Machine.TABLE], self._words[Machine.STACK] = start, end
        if self._survey(Survey.FRAMES if are_left else Survey.CALLED_FRAMES) < 0:
            return False
        self._finish(is_end=not are_left)
        return True

    def _bury(self, dying: list[int]) -> bool:
        """Free objects without references, and what only they keep; return whether it was done."""
        words = self._words
        words[Machine.DYING] = 0
        for ref in dying:
            self._heap.pointers[(ref + COUNT) >> 2] = words[Machine.DYING]
            words[Machine.DYING] = ref
        if not dying or self._survey(Survey.DYING) < 0:
            return False
        self._finish()
        return True

    def _list_free(self, ages: bool) -> tuple[list[int], list[int], int] | None:
        """Make holes of free memory in the heap; None if native code cannot, or has no time."""
        self._words[Machine.YOUNG] = ages
        with self._lent():
            self._heap.pause()
            count = self._survey(Survey.FREE)
            if count < 0:
                return None
            rows = array("I")
            rows.frombytes(ctypes.string_at(self._words[Machine.TABLE], 8 * count))
        return rows[::2].tolist(), rows[1::2].tolist(), self._words[Machine.YOUNG]

    def provide(self) -> bool:
        """Give native code the memory that it has asked for, if any; return whether that worked.

        Unless a huge block was wanted, it gets a new reserve.
        """
        words = self._words
        wanted, words[Machine.WANTED] = words[Machine.WANTED], 0
        if not wanted:
            return False
        if self._is_left:
            self.work_off()
            return True
        if wanted >= HUGE:
            ref = self._heap.from_hole(wanted)
            if ref is not None:
                self._keep_huge(ref)
            return ref is not None
        if self._heap.used > max(self._heap.limit >> 2, _MUCH):
            STARTUP.hasten(self._heap.pause)
        self._return_reserve()
        usual = min(max(self._heap.limit // _SHARE, _LEAST_RESERVE), _MOST_RESERVE)
        for size in (max(usual, wanted), wanted):
            ref = self._heap.from_hole(size)
            if ref is not None:
                words[Machine.RESERVE] = ref - HEADER
                words[Machine.RESERVE_END] = ref - HEADER + size
                return True
        return False

    def _keep(self, ref: int) -> bool:
        """Keep a large block for native code, in the way that it keeps blocks itself."""
        if not self.keeps:
            return False
        pointers = self._heap.pointers
        size = pointers[(ref + SIZE) >> 2]
        if size >= HUGE:
            self._keep_huge(ref)
            return True
        octave = size.bit_length() - 11
        at = BINS + 8 * octave + (size >> (octave + 7) & 7)
        pointers[(ref + KIND) >> 2] = FREE
        pointers[ref >> 2], self._words[at] = self._words[at], ref
        return True

    def _keep_huge(self, ref: int) -> None:
        words = self._words
        at = Machine.SPARE + words[Machine.TURN]
        words[Machine.TURN] = (words[Machine.TURN] + 1) % SPARES
        self._heap.pointers[(ref + KIND) >> 2] = FREE
        before, words[at] = words[at], ref
        if before:
            self._heap.give_back(before)

    def _take_back(self) -> None:
        """Return the blocks that native code keeps, and its reserve, to the arena."""
        self.bury_pending()
        for at in range(Machine.SPARE, BINS):
            ref, self._words[at] = self._words[at], 0
            if ref:
                self._heap.give_back(ref)
        for at in range(BINS, MACHINE_WORDS):
            ref, self._words[at] = self._words[at], 0
            while ref:
                following = self._heap.pointers[ref >> 2]
                self._heap.give_back(ref)
                ref = following
        self._return_reserve()

    def _return_reserve(self) -> None:
        words = self._words
        start, end = words[Machine.RESERVE], words[Machine.RESERVE_END]
        words[Machine.RESERVE] = words[Machine.RESERVE_END] = 0
        if start < end:
            self._heap.give_hole(start, end - start)

    @property
    def _table_size(self) -> int:
        """The bytes of a table with two words for each 32 bytes of the arena."""
        return -(-len(self._heap.bytes) // 32) * 8

    @contextmanager
    def _lent(self, is_cleared: bool = False) -> Iterator[None]:
        """Lend native code memory to look through the heap, which is prepared for that.

        Unless it is large, it is kept for the next time, as new memory is slow at first.
        """
        end = self._heap.prepare_walk()
        size, memory = self._table_size, self._memory
        if memory is None:
            memory, is_cleared = lend_space(2 * size), False
        lent = ctypes.c_char.from_buffer(memory)
        table = ctypes.addressof(lent)
        if is_cleared:
            ctypes.memset(table, 0, end // 8 + 8)
        self._words[Machine.TABLE], self._words[Machine.STACK] = table, table + size
        try:
            yield
        finally:
            del lent
            self._memory = memory if size <= _KEPT else None
            if self._memory is None:
                memory.close()
