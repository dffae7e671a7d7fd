"""Types as the heap knows them: by number, since descriptors stay outside of the arena.

Work on large parts of the arena is done with pauses, in which LimitError is raised if time is up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import (
    FREE,
    HEADER,
    HEAP,
    KIND,
    LARGE,
    LAST,
    LAST_SIZE,
    MANY,
    NIL,
    SMALL,
)
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.shortage import OLD, ScarceArena

_T = TypeVar("_T")
BYTE, WORD, BIG, REAL, POINTER, HANDLE = range(8, 14)
"""Numbers of the types that every machine has; smaller ones are kinds of objects.

A HANDLE is a record of two words for which the host keeps a value.
"""

SOME = 16
"""Objects that die together between two checks whether there is a quicker way."""

_ARRAY, _MODULE = 2, 5
"""The kinds of arrays, and of module handles, whose first word can be read."""
_BUILT_IN = {
    BYTE: (1, b""),
    WORD: (4, b""),
    BIG: (8, b""),
    REAL: (8, b""),
    POINTER: (4, b"\x80"),
    HANDLE: (8, b""),
}


class HeapType(NamedTuple):
    """The size of a value, and where its pointers lie."""

    size: int
    pointers: tuple[int, ...]


class TypedArena(ScarceArena):
    """The arena and the types of what lies in it. ``types`` holds them by number."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.types: list[HeapType] = [HeapType(0, ())] * BYTE
        self._numbers: dict[int, tuple[int, TypeDescriptor]] = {}
        self._plain: dict[int, int] = {}
        self.shapes: dict[tuple[int, int, bytes], TypeDescriptor] = {}
        """Types that programs have made while they ran."""
        self.lent = Counter[tuple[int, object]]()
        """How many references Python holds, by object and Limbo type: see ``calling.lend``."""
        self._hidden: dict[int, tuple[HeapType, frozenset[int]]] = {
            _MODULE: (HeapType(4, ()), frozenset({0}))
        }
        for number, (size, pointer_map) in _BUILT_IN.items():
            assert self.type_number(TypeDescriptor(number, size, pointer_map)) == number

    def type_number(self, descriptor: TypeDescriptor) -> int:
        """Return the number of a descriptor; equal descriptors that are not the same differ."""
        known = self._numbers.get(id(descriptor))
        if known is None:
            # The descriptor is kept alive, so that no other one gets its id.
            known = (len(self.types), descriptor)
            self._numbers[id(descriptor)] = known
            self.types.append(HeapType(descriptor.size, descriptor.pointers))
        return known[0]

    def offered(self, number: int) -> HeapType:
        """Return the part of a type's objects that other modules may access."""
        return self._hidden[number][0] if number in self._hidden else self.types[number]

    def locked(self, number: int) -> Iterable[int]:
        """Return the words of a type's objects that other modules may write no numbers over."""
        return self._hidden[number][1] if number in self._hidden else self.types[number].pointers

    def hide(self, number: int, offered: HeapType, locked: frozenset[int]) -> None:
        """State which part of a type's objects other modules may access."""
        self._hidden[number] = offered, locked

    def plain_type(self, size: int) -> int:
        """Return the number of the type of values of so many bytes without pointers."""
        if size < 0:
            raise Trap(traps.NEGATIVE_SIZE)
        if size not in self._plain:
            self._plain[size] = self.type_number(TypeDescriptor(-1, size))
        return self._plain[size]

    def end_lending(self) -> list[int]:
        """Return all references that Python holds, and forget them."""
        lent = [ref for ref, _ in self.lent.elements()]
        self.lent.clear()
        return lent

    # What takes long

    def with_pauses(self, things: Iterable[_T]) -> Iterator[_T]:
        """Yield the items of an iterable, with pauses in between."""
        for number, thing in enumerate(things):
            if not number % MANY:
                self.pause()
            yield thing

    def move(self, source: int, target: int, size: int) -> None:
        """Copy memory, which may overlap, with pauses in between."""
        starts = range(0, size, LARGE)
        for start in starts if target <= source else reversed(starts):
            end = min(start + LARGE, size)
            piece = bytes(self.view(source + start, end - start))
            self.view(target + start, end - start)[:] = piece
            if size > LARGE:
                self.pause()

    def take_last(self, size: int) -> int:
        """Return the block for the text of an exception, nil if there is none or it is too small.

        Its kind is ``FREE`` if it was not in use; else it may be shared.
        """
        if self._start == HEAP or size > LAST_SIZE - HEADER:
            return NIL
        if self.words[(LAST + KIND) >> 2] == FREE:
            self._begin(LAST, LAST_SIZE)
        return LAST

    def is_long(self, ref: int) -> bool:
        """Return whether it may take long to release the elements of an array, if it is one."""
        at = ref >> 2
        kind, work = self.words[at - 3], self.words[at - 1]
        return kind == _ARRAY and not work & ~OLD and self.pointers[at - 2] > SMALL

    def leaves(self, dying: list[int]) -> bool:
        """Return whether many objects whose counts are 0 need no attention now.

        They are freed in some other way, or left to the collector as they are after LimitError.
        """
        if self.bury(dying) or self.hurries:
            return True
        self.pause()
        return False
