"""The objects of the heap: strings, arrays, lists, records, channels and handles.

Each is a block of the arena whose header says its kind; its reference points to::

    STRING   0 length, then a byte for each character; if negative, -length 32-bit code points
    ARRAY    0 length   4 element type   8 owner or nil   12 address of the elements
    LIST     0 tail     4 element type   8 value
    CHANNEL  0 element type   4 capacity   8 buffered values   12 index of the first
             16, 20 the oldest offers to send and to receive, see channels.py   24 values
    MODULE   0 module data    4 number of its links in a table outside
    others   a record: the kind is the number of its type, the header's work word may have HOSTED

A slice is an array whose elements belong to its owner. References are counted, and an object is
freed with its last reference; ``collector.py`` finds what only cycles keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import ASTRAY, FREE, NIL
from llmbol_core.vm.heaptypes import BYTE, SOME, TypedArena
from llmbol_core.vm.module import TypeDescriptor

STRING, ARRAY, LIST, CHANNEL, MODULE, STACK = range(FREE + 1, FREE + 7)
"""Kinds of blocks in use; a STACK holds frames, whose references are roots for the collector."""

ARRAY_HEADER, LIST_HEADER, CHANNEL_HEADER = 16, 8, 24
LINKS = 4
HOSTED = 2
"""Flag of the header's work word: the host keeps a value for this object."""


class Heap(TypedArena):
    """The arena with objects in it.

    A method that makes an object returns a reference that the caller owns, to be passed on with
    ``give`` or dropped with ``release``. If memory is short, even after what ``shortage.py`` does
    then, the trap "out of memory: heap" is raised.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.hosted: dict[int, tuple[Any, int]] = {}
        """What the host keeps for records, and how many bytes are charged for it."""
        self.finalizers: dict[int, Callable[[int], None]] = {}
        """Called with a reference before an object of the kind is freed."""
        self.keep_back(0)

    # Counting

    def type_of(self, ref: int) -> int:
        """Return the kind or type number of an object."""
        return self.words[(ref >> 2) - 3]

    def retain(self, ref: int) -> int:
        """Count one more reference and return it; nil is not counted."""
        if ref != NIL:
            self.pointers[(ref >> 2) - 4] += 1
        return ref

    def release(self, ref: int) -> None:
        """Count one reference fewer, and free all that nothing refers to any more."""
        if ref == NIL:
            return
        counts = self.pointers
        at = (ref >> 2) - 4
        if (count := counts[at]) != 1:
            # There is none only if a program has damaged the header.
            counts[at] = max(count - 1, 0)
            return
        counts[at] = 0
        dying, freed = [ref], 0
        while dying:
            freed += 1
            if (freed % SOME == 0 or self.is_long(dying[-1])) and self.leaves(dying):
                return
            ref = dying.pop()
            for slot in self.slots(ref):
                if (child := counts[slot >> 2]) == NIL:
                    continue
                at = (child >> 2) - 4
                counts[slot >> 2], count = NIL, counts[at]
                counts[at] = max(count - 1, 0)
                if count == 1:
                    dying.append(child)
            self.discard(ref)

    def discard(self, ref: int) -> None:
        """Free one object regardless of what it refers to."""
        at = ref >> 2
        if (kind := self.words[at - 3]) in self.finalizers:
            self.finalizers[kind](ref)
        if self.words[at - 1] & HOSTED:
            value, charge = self.hosted.pop(ref, (None, 0))
            self.reserved -= charge
            getattr(value, "close", lambda: None)()
            if self.outlasts(ref):
                return
        self.free(ref)

    def slots(self, ref: int) -> Iterable[int]:
        """Return the addresses of the references in an object that are counted."""
        at = ref >> 2
        kind = self.words[at - 3]
        if kind > STACK:
            return [ref + offset for offset in self.types[kind].pointers]
        if kind == LIST:
            value, pointers = ref + LIST_HEADER, self.types[self.words[at + 1]].pointers
            return [ref, *[value + offset for offset in pointers]]
        if kind == ARRAY:
            if self.pointers[at + 2] != NIL:
                return [ref + 8]
            return self._elements(self.words[at + 1], self.pointers[at + 3], self.words[at])
        if kind == CHANNEL:
            return self._buffered(ref)
        return [ref] if kind == MODULE else ()

    def _elements(self, number: int, start: int, length: int) -> Iterable[int]:
        """Return the addresses of the references in a row of values."""
        size, pointers = self.types[number]
        if not pointers:
            return ()
        self.view(start, size * length)
        if size == 4:
            return range(start, start + 4 * length, 4)
        starts = self.with_pauses(range(start, start + size * length, size))
        return (at + offset for at in starts for offset in pointers)

    def _buffered(self, ref: int) -> Iterable[int]:
        """Return the addresses of the references in the values that wait in a channel."""
        number, capacity, count, first = self.words[ref >> 2 : (ref >> 2) + 4]
        size, pointers = self.types[number]
        if not pointers:
            return ()
        self.view(ref + CHANNEL_HEADER, size * count)
        values = (ref + CHANNEL_HEADER + size * ((first + i) % capacity) for i in range(count))
        return [value + offset for value in values for offset in pointers]

    def give(self, address: int, ref: int) -> None:
        """Store a reference that the caller owned, and release the old one."""
        try:
            old = self.pointer(address)
        except ASTRAY:
            self.release(ref)
            raise
        self.set_pointer(address, ref)
        self.release(old)

    def assign(self, address: int, ref: int) -> None:
        """Store another reference to an object, and release the old one."""
        self.give(address, self.retain(ref))

    def retain_value(self, address: int, number: int) -> None:
        """Count the references in a value of this type."""
        for at in self.types[number].pointers:
            self.retain(self.pointer(address + at))

    def release_value(self, address: int, number: int) -> None:
        """Release the references in a value of this type, and make them nil."""
        for offset in self.types[number].pointers:
            self.give(address + offset, NIL)

    def copy_value(self, source: int, destination: int, number: int) -> None:
        """Copy a value of this type, and release the one that was there."""
        size, pointers = self.types[number]
        value = bytes(self.view(source, size))
        self.view(destination, size)
        self.retain_value(source, number)
        old = [self.pointer(destination + offset) for offset in pointers]
        self.bytes[destination : destination + size] = value
        for ref in old:
            self.release(ref)

    # Making objects

    def new_object(self, kind: int, size: int, clears: bool = True) -> int:
        """Return a new object of a kind with room for so many bytes, all zero if it clears them."""
        ref = self.allocate(size, kind > STACK, clears)
        more = self.more_room() if ref is None else iter(())
        while ref is None:
            if not next(more, False):
                raise Trap(traps.HEAP_FULL)
            ref = self.allocate(size, kind > STACK, clears)
        self.words[(ref >> 2) - 3] = kind
        return ref

    def clear_value(self, address: int, number: int) -> None:
        """Make the references in memory for a value of this type nil, without releasing any."""
        for offset in self.types[number].pointers:
            self.set_pointer(address + offset, NIL)

    def new_record(self, type_: TypeDescriptor | int, clears: bool = True) -> int:
        """Return a new record: its pointers are nil, everything else is zero if it clears that."""
        number = type_ if isinstance(type_, int) else self.type_number(type_)
        size, pointers = self.types[number]
        ref = self.new_object(number, size, clears)
        for offset in pointers:
            self.pointers[(ref + offset) >> 2] = NIL
        return ref

    # Strings

    def new_string(self, text: str) -> int:
        """Return a string with this text; nil for an empty one."""
        return self.new_text(text) if text else NIL

    def new_text(self, text: str) -> int:
        """Return a string object with this text, even if it is empty."""
        try:
            data, length = text.encode("latin-1"), len(text)
        except UnicodeEncodeError:
            data, length = text.encode("utf-32-le", "surrogatepass"), -len(text)
        ref = self.new_object(STRING, 4 + len(data))
        self.words[ref >> 2] = length
        self.bytes[ref + 4 : ref + 4 + len(data)] = data
        return ref

    def string(self, ref: int) -> str:
        """Return the text of a string, empty for nil; what is no code point reads as U+FFFD."""
        if ref == NIL:
            return ""
        length = self.words[ref >> 2]
        if length >= 0:
            return str(self.view(ref + 4, length), "latin-1")
        data = self.view(ref + 4, -4 * length)
        try:
            return str(data, "utf-32-le", "surrogatepass")
        except UnicodeDecodeError:
            return "".join(chr(c) if c <= 0x10FFFF else "\ufffd" for c in data.cast("I"))

    # Arrays

    def new_array(self, element: TypeDescriptor | int, length: int) -> int:
        """Return an array of so many elements: a descriptor, or BYTE, WORD, BIG, REAL, POINTER."""
        if length < 0:
            raise Trap(traps.NEGATIVE_SIZE)
        number = element if isinstance(element, int) else self.type_number(element)
        size, pointers = self.types[number]
        at = (ref := self.new_object(ARRAY, ARRAY_HEADER + size * length)) >> 2
        self.words[at] = length
        self.words[at + 1] = number
        self.pointers[at + 2] = NIL
        self.pointers[at + 3] = ref + ARRAY_HEADER
        if pointers == (0,) and size == 4:
            self.fill(ref + ARRAY_HEADER, 4 * length, b"\xff")
        else:
            for slot in self._elements(number, ref + ARRAY_HEADER, length):
                self.pointers[slot >> 2] = NIL
        return ref

    def new_slice(self, array: int, start: int, length: int) -> int:
        """Return an array that shares elements of another one."""
        at = array >> 2
        number, owner, data = self.words[at + 1], self.pointers[at + 2], self.pointers[at + 3]
        view = (ref := self.new_object(ARRAY, ARRAY_HEADER)) >> 2
        self.words[view], self.words[view + 1] = length, number
        self.pointers[view + 2] = self.retain(array if owner == NIL else owner)
        self.pointers[view + 3] = data + start * self.types[number].size
        return ref

    def new_bytes(self, data: bytes | memoryview) -> int:
        """Return an array of byte with this content."""
        ref = self.new_array(BYTE, len(data))
        self.bytes[ref + ARRAY_HEADER : ref + ARRAY_HEADER + len(data)] = data
        return ref

    def array_length(self, ref: int) -> int:
        """Return the number of elements of an array, 0 for nil."""
        return 0 if ref == NIL else self.word(ref)

    def array_data(self, ref: int) -> int:
        """Return the address of the elements of an array."""
        return self.pointer(ref + 12)

    def array_bytes(self, ref: int) -> memoryview:
        """Return the storage of an array's elements, writable; it is valid as long as the array."""
        if ref == NIL:
            return self.bytes[:0]
        at = ref >> 2
        size = self.types[self.words[at + 1]].size
        return self.view(self.pointers[at + 3], self.words[at] * size)

    # Lists

    def new_list(self, element: TypeDescriptor | int, tail: int) -> int:
        """Return a list with one more value, still zero or nil, before a tail it takes over.

        The value lies at ``head(list)``.
        """
        number = element if isinstance(element, int) else self.type_number(element)
        size, pointers = self.types[number]
        ref = self.new_object(LIST, LIST_HEADER + size)
        self.pointers[ref >> 2] = tail
        self.words[(ref >> 2) + 1] = number
        for offset in pointers:
            self.set_pointer(ref + LIST_HEADER + offset, NIL)
        return ref

    def head(self, ref: int) -> int:
        """Return the address of the first value of a list; nil traps."""
        if ref == NIL:
            raise Trap(traps.NIL_DEREFERENCE)
        return ref + LIST_HEADER

    def tail(self, ref: int) -> int:
        """Return the rest of a list, not counted; nil traps."""
        return self.pointer(self.head(ref) - LIST_HEADER)

    def list_nodes(self, ref: int) -> Iterable[int]:
        """Yield the references of a list's nodes; raises ValueError if damage made it endless."""
        for _ in range(self.limit // LIST_HEADER):
            if ref == NIL:
                return
            yield ref
            ref = self.pointer(ref)
        raise ValueError("a list without an end")

    # Channels

    def new_channel(self, element: int, capacity: int) -> int:
        """Return a channel of values of a type that buffers so many of them."""
        if capacity < 0:
            raise Trap(traps.NEGATIVE_SIZE)
        ref = self.new_object(CHANNEL, CHANNEL_HEADER + capacity * self.types[element].size)
        self.words[ref >> 2] = element
        self.words[(ref >> 2) + 1] = capacity
        return ref

    # What the host keeps for a program

    def new_handle(self, value: object, charge: int, descriptor: TypeDescriptor | int) -> int:
        """Return a record for which the host keeps a value until its last reference dies.

        The value is then closed. ``charge`` bytes count against the memory limit meanwhile.
        """
        ref = self.new_record(descriptor)
        if not self.reserve(charge):
            self.make_room()
            if not self.reserve(charge):
                self.release(ref)
                raise Trap(traps.HEAP_FULL)
        self.words[(ref >> 2) - 1] = HOSTED
        self.hosted[ref] = (value, charge)
        return ref

    def handle(self, ref: int) -> Any:
        """Return the value that the host keeps for a record, or None if it keeps none."""
        return self.hosted.get(ref, (None, 0))[0]

    def new_module(self, data: int, links: int) -> int:
        """Return a module handle for module data it takes over and the number of its links.

        If there is no memory the module data is released.
        """
        try:
            ref = self.new_object(MODULE, 8)
        except BaseException:
            self.release(data)
            raise
        self.pointers[ref >> 2] = data
        self.words[(ref >> 2) + 1] = links
        return ref

    def close_handles(self) -> None:
        """Close what the host still keeps; the heap is not used afterwards."""
        while self.hosted:
            getattr(self.hosted.popitem()[1][0], "close", lambda: None)()

    @property
    def objects(self) -> int:
        """The number of live objects in the heap; -1 if a program has damaged it."""
        try:
            return sum(1 for ref in self.blocks() if self.type_of(ref) != STACK)
        except ASTRAY:
            return -1
