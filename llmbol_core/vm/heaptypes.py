"""Types as the heap knows them: by number, since descriptors stay outside of the arena."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import Arena
from llmbol_core.vm.module import TypeDescriptor

BYTE, WORD, BIG, REAL, POINTER, HANDLE = range(8, 14)
"""Numbers of the types that every machine has; smaller ones are kinds of objects.

A HANDLE is a record of two words, for which the host keeps a value.
"""

_MODULE = 5
"""The kind of module handles, whose first word can be read."""
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


class TypedArena(Arena):
    """The arena and the types of what lies in it. ``types`` holds them by number."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.types: list[HeapType] = [HeapType(0, ())] * BYTE
        self._numbers: dict[int, tuple[int, TypeDescriptor]] = {}
        self._plain: dict[int, int] = {}
        self._hidden: dict[int, tuple[HeapType, frozenset[int]]] = {
            _MODULE: (HeapType(4, ()), frozenset())
        }
        for number, (size, pointer_map) in _BUILT_IN.items():
            assert self.type_number(TypeDescriptor(number, size, pointer_map)) == number

    def type_number(self, descriptor: TypeDescriptor) -> int:
        """Return the number of this very descriptor; equal ones are different types."""
        known = self._numbers.get(id(descriptor))
        if known is None:
            # The descriptor is kept, so that its id stays its own.
            known = (len(self.types), descriptor)
            self._numbers[id(descriptor)] = known
            self.types.append(HeapType(descriptor.size, descriptor.pointers))
        return known[0]

    def offered(self, number: int) -> HeapType:
        """Return what of a type's objects can be accessed by who does not know them."""
        return self._hidden[number][0] if number in self._hidden else self.types[number]

    def locked(self, number: int) -> Iterable[int]:
        """Return the words of a type's objects over which those may write no numbers."""
        return self._hidden[number][1] if number in self._hidden else self.types[number].pointers

    def hide(self, number: int, offered: HeapType, locked: frozenset[int]) -> None:
        """State what can be accessed so of the objects of a type."""
        self._hidden[number] = offered, locked

    def plain_type(self, size: int) -> int:
        """Return the number of the type of values of so many bytes without pointers."""
        if size < 0:
            raise Trap(traps.NEGATIVE_SIZE)
        if size not in self._plain:
            self._plain[size] = self.type_number(TypeDescriptor(-1, size))
        return self._plain[size]
