"""What is done when memory is short: blocks are joined, and objects that only cycles keep freed.

To look for those takes long, so that is not left for the moment when nothing is free any more. The
last part of the memory is kept back until it has been done once. If that has freed little, the last
part is given out; when it is used up as well there is no need to look again, unless much has been
made anew: most of what lived just before lives still. So a program that needs too much is told so
soon after the last object for which there was room. Next time all is looked through, since it may
have let go of much when it heard that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from llmbol_core.vm.arena import ASTRAY, HEADER, HEAP, MANY, WORK, Arena

OLD = 8
"""Flag in the header's work word: the block was there when memory was last looked through."""

_LAST = 8
"""The last part of the memory is the limit shifted by so many bits: a 256th."""
_MUCH = 4
"""Likewise for how much must have been made anew to look again: a 16th."""
_WORTH_TIDYING = 1 << 20


class ScarceArena(Arena):
    """The arena, and how to find more room in it."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.collect: Callable[[], object] = lambda: None
        """Called to free unreachable cycles."""
        self.list_free: Callable[[bool], tuple[list[int], list[int], int] | None]
        self.list_free = lambda ages: None
        """What makes holes of all that is free but the first, if that is quicker: it tells all
        starts and sizes, and the bytes of blocks in use that are not old. It may age them."""
        self.young = limit
        """Bytes of blocks that have been made since memory was last looked through, when blocks
        were last joined."""
        self.refused: int | None = None
        """The bytes that were free when somebody was told that there is no room, if that was since
        memory was last looked through."""
        self._used_after_tidying = 0

    @property
    def _free(self) -> int:
        return self._hole_bytes - self.reserved

    def keep_back(self, before: int) -> None:
        """Keep the last part of the memory back if there is use in looking for cycles again.

        That is so if much more is free than before, or in one piece; small pieces may be too small.
        """
        last = self.limit >> _LAST
        is_found = self._free >= 2 * last and self._free - before >= last
        is_new = any(size >= 2 * last for size in self._hole_sizes.values())
        self.kept_back = last if is_found or is_new else 0

    def more_room(self) -> Iterator[bool]:
        """Yield true after each thing done because of which there may be more room."""
        # Joined blocks of other sizes may be enough, and are found sooner than cycles.
        self.defragment()
        yield True
        is_doubtful = self.kept_back or self.refused is not None
        if is_doubtful or self.young >= self.limit >> _MUCH:
            self.make_room()
            yield True
        else:
            self.refused = self._free

    def make_room(self) -> None:
        """Free everything that is not needed, cycles included."""
        before, self.refused = self._free, None
        self.collect()
        self.defragment(ages=True)
        self.keep_back(before)
        self._used_after_tidying = self.used

    def tidy(self) -> None:
        """Look for cycles if the heap has grown much since that was last done."""
        if self.used > 2 * self._used_after_tidying + max(_WORTH_TIDYING, self.limit // 8):
            with suppress(*ASTRAY):
                self.make_room()
            self._used_after_tidying = self.used

    def defragment(self, ages: bool = False) -> None:
        """Turn all free small blocks into holes again, and tell how much is young.

        If it ``ages`` the others they are old from now on.
        """
        self.prepare_walk()
        made = self.list_free(ages)
        if made is not None:
            starts, sizes, self.young = made
            self._forget_free()
            self._take_holes(starts, sizes)
            return
        free = list[tuple[int, int]]()
        self.young = 0
        for at, size, is_free in self._walk():
            work = (at + HEADER + WORK) >> 2
            if is_free:
                free.append((at, size))
            elif not self.words[work] & OLD:
                self.young += size
                self.words[work] |= OLD if ages else 0
        self._forget_free()
        for number, (at, size) in enumerate(free):
            if not number % MANY:
                self.pause()
            self._give_rest(at, at + size)

    def _take_holes(self, starts: list[int], sizes: list[int]) -> None:
        """Know of holes that were made, of which no two touch, and make the first one."""
        at, size = (starts.pop(0), sizes.pop(0)) if starts else (HEAP, 0)
        self._holes, self._hole_sizes = starts, dict(zip(starts, sizes, strict=True))
        self._hole_bytes += sum(sizes)
        self._give_rest(at, at + size)

    def _give_rest(self, at: int, end: int) -> None:
        """Make a hole of what is free, but for the block that is kept back for exceptions."""
        if (start := max(at, self._start)) < end:
            self.give_hole(start, end - start)
