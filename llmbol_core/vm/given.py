"""What programs give to the host as objects of some kind: that they are, or else a trap.

Only the verifier's own module is known to it: what comes in a pointer from elsewhere can be any
object.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.layout import STRING as TEXT
from llmbol_core.vm.layout import Type
from llmbol_core.vm.objects import ARRAY, LIST, MODULE, STACK, STRING, Heap
from llmbol_core.vm.process import TYPE


def text(heap: Heap, ref: int) -> str:
    """Return the text of a string; traps if it is another object."""
    if ref != NIL and heap.type_of(ref) != STRING:
        raise Trap(traps.TYPE_CHECK)
    return heap.string(ref)


def numbers(heap: Heap, ref: int, size: int) -> memoryview:
    """Return the bytes of an array of numbers of a size; traps if it is another object."""
    if heap.type_of(ref) != ARRAY or heap.types[heap.word(ref + 4)].pointers:
        raise Trap(traps.TYPE_CHECK)
    data = heap.array_bytes(ref)
    if len(data) % size:
        raise Trap(traps.TYPE_CHECK)
    return data


def number(heap: Heap, ref: int) -> int:
    """Return the number that a record begins with; traps if it does not, or is another object."""
    size, pointers = heap.offered(heap.type_of(ref))
    if heap.type_of(ref) <= STACK or size < WORD_SIZE or 0 in pointers:
        raise Trap(traps.TYPE_CHECK)
    return heap.word(ref)


def module(heap: Heap, at: int) -> int:
    """Return the module handle at an address; traps if it is another object."""
    ref = heap.pointer(at)
    if ref != NIL and heap.type_of(ref) != MODULE:
        raise Trap(traps.TYPE_CHECK)
    return ref


def references(heap: Heap, ref: int) -> range:
    """Return the addresses of an array's references; traps if it is another object."""
    if ref == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    return elements(heap, ref, TEXT)


def elements(heap: Heap, ref: int, element: Type) -> range:
    """Return the addresses of an array's elements of a type; traps if it is another object."""
    if ref == NIL:
        return range(0)
    wanted = (element.size, tuple(element.pointers()))
    if heap.type_of(ref) != ARRAY or heap.types[heap.word(ref + 4)] != wanted:
        raise Trap(traps.TYPE_CHECK)
    start, size = heap.array_data(ref), max(element.size, 1)
    return range(start, start + size * heap.array_length(ref), size)


def nodes(heap: Heap, ref: int, element: Type) -> Iterator[int]:
    """Yield the nodes of a list of values of a type; traps if one is another object."""
    wanted = tuple(element.pointers()) if element.size else ()
    for node in heap.list_nodes(ref):
        if heap.type_of(node) != LIST:
            raise Trap(traps.TYPE_CHECK)
        size, pointers = heap.types[heap.word(node + 4)]
        if size < element.size or pointers != wanted:
            raise Trap(traps.TYPE_CHECK)
        yield node


def argument(heap: Heap, frame: int, at: int, size: int, is_pointer: bool | None) -> int:
    """Return the address of one of a variable number of arguments; traps if there is no such one.

    ``is_pointer`` is None if it can be anything.
    """
    whole, pointers = heap.types[heap.word(frame + TYPE)]
    inside = any(at - 4 < pointer < at + size for pointer in pointers)
    if at + size > whole or is_pointer not in (inside, None):
        raise Trap(traps.TYPE_CHECK)
    return frame + at
