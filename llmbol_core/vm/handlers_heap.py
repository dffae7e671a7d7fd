"""Handlers of the instructions on objects: records, arrays, lists, references, addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.isa import ELEMENT_SIZES
from llmbol_core.vm.objects import LIST_HEADER
from llmbol_core.vm.objects import Heap as _Heap
from llmbol_core.vm.steps import Handler, handler

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter as Engine


_MANY = 1 << 12
"""Elements that are copied before it is looked whether time is up."""

# Making objects; the elements of arrays are always zero here, which plain newa does not promise


@handler("new")
def new(e: Engine, number: int) -> int:
    """Return a record of a type; what is no pointer may be what another one left behind."""
    return e.heap.new_record(number, clears=False)


@handler("newz")
def newz(e: Engine, number: int) -> int:
    """Return a record of a type, all zero or nil."""
    return e.heap.new_record(number)


@handler("mnewz")
def mnewz(e: Engine, handle: int, number: int) -> int:
    """Return a record of a type of a module."""
    types = e.module_of(handle).types
    if not 0 <= number < len(types):
        raise Trap(traps.ILLEGAL)
    return e.heap.new_record(types[number])


@handler("newa", "newaz")
def newa(e: Engine, length: int, number: int) -> int:
    """Return an array of elements of a type."""
    return e.heap.new_array(number, length)


# Copying


@handler("movp")
def movp(e: Engine, ref: int) -> int:
    """Return one more reference."""
    return e.heap.retain(ref)


@handler("movm")
def movm(e: Engine, source: int, size: int, destination: int) -> None:
    """Copy bytes."""
    data = bytes(e.heap.view(source, size))
    e.heap.view(destination, size)[:] = data


@handler("movmp")
def movmp(e: Engine, source: int, number: int, destination: int) -> None:
    """Copy a value of a type."""
    e.heap.copy_value(source, destination, number)


@handler("lea")
def lea(e: Engine, address: int) -> int:
    """Return an address; behind nil there is none, but nil again."""
    return min(address, NIL)


@handler("tcmp")
def tcmp(e: Engine, ref: int, like: int) -> None:
    """Trap unless an object is nil or has the same type as another."""
    if ref != NIL and (like == NIL or e.heap.type_of(ref) != e.heap.type_of(like)):
        raise Trap(traps.TYPE_CHECK)


# Arrays


def _index(size: int) -> Handler:
    def index(e: Engine, array: int, number: int) -> int:
        """Return the address of an element."""
        words, at = e.heap.pointers, array >> 2
        if array == NIL or not 0 <= number < words[at]:
            raise Trap(traps.BOUNDS)
        return (words[at + 3] + size * number) & NIL

    return index


for _mnemonic, _size in ELEMENT_SIZES.items():
    handler(_mnemonic)(_index(_size))


@handler("indx")
def indx(e: Engine, array: int, number: int) -> int:
    """Return the address of an element of any size."""
    words, at = e.heap.pointers, array >> 2
    if array == NIL or not 0 <= number < words[at]:
        raise Trap(traps.BOUNDS)
    return (words[at + 3] + e.heap.types[words[at + 1]].size * number) & NIL


@handler("lena")
def lena(e: Engine, array: int) -> int:
    """Return the length of an array, 0 for nil."""
    return e.heap.array_length(array)


@handler("slicea")
def slicea(e: Engine, start: int, end: int, place: int) -> None:
    """Replace an array by some of its elements, which stay where they are."""
    heap = e.heap
    array = heap.pointer(place)
    if array == NIL:
        if start == end:
            return
        raise Trap(traps.NIL_DEREFERENCE)
    if not 0 <= start <= end <= heap.array_length(array):
        raise Trap(traps.BOUNDS)
    heap.give(place, heap.new_slice(array, start, end - start))


@handler("slicela")
def slicela(e: Engine, source: int, start: int, destination: int) -> None:
    """Copy the elements of an array into another one, from an index on."""
    heap = e.heap
    if source == NIL:
        return
    if destination == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    length = heap.array_length(source)
    if start < 0 or start + length > heap.array_length(destination):
        raise Trap(traps.BOUNDS)
    number = heap.word(destination + 4)
    size, pointers = heap.types[number]
    if heap.types[heap.word(source + 4)] != (size, pointers):
        raise Trap(traps.TYPE_CHECK)
    data, target = heap.array_data(source), heap.array_data(destination) + start * size
    if not pointers:
        heap.move(data, target, length * size)
        return
    # From the end if the ranges may overlap that way, so that nothing is copied twice.
    order = range(length) if target <= data else range(length - 1, -1, -1)
    # What is replaced may hold the last reference to one of the arrays.
    arrays = heap.retain(source), heap.retain(destination)
    try:
        for i in order:
            if not i % _MANY:
                heap.pause()
            heap.copy_value(data + i * size, target + i * size, number)
    finally:
        for array in arrays:
            heap.release(array)


# Lists


def _cons(heap: _Heap, number: int, place: int) -> int:
    """Put a new value before the list at a place and return the value's address."""
    node = heap.new_list(number, heap.pointer(place))
    heap.set_pointer(place, node)
    return node + LIST_HEADER


@handler("consb")
def consb(e: Engine, value: int, place: int) -> None:
    """Put a byte before a list."""
    e.heap.set_byte(_cons(e.heap, BYTE, place), value)


@handler("consw")
def consw(e: Engine, value: int, place: int) -> None:
    """Put a word before a list."""
    e.heap.set_word(_cons(e.heap, WORD, place), value)


@handler("consl")
def consl(e: Engine, value: int, place: int) -> None:
    """Put a big before a list."""
    e.heap.set_big(_cons(e.heap, BIG, place), value)


@handler("consf")
def consf(e: Engine, value: float, place: int) -> None:
    """Put a real before a list."""
    e.heap.set_real(_cons(e.heap, REAL, place), value)


@handler("consp")
def consp(e: Engine, value: int, place: int) -> None:
    """Put a reference before a list."""
    at = _cons(e.heap, POINTER, place)
    e.heap.set_pointer(at, e.heap.retain(value))


@handler("consm")
def consm(e: Engine, source: int, size: int, place: int) -> None:
    """Put bytes before a list."""
    at = _cons(e.heap, e.heap.plain_type(size), place)
    movm(e, source, size, at)


@handler("consmp")
def consmp(e: Engine, source: int, number: int, place: int) -> None:
    """Put a value of a type before a list."""
    e.heap.copy_value(source, _cons(e.heap, number, place), number)


@handler("headb")
def headb(e: Engine, ref: int) -> int:
    """Return the byte at the head of a list."""
    return e.heap.byte(e.heap.head(ref))


@handler("headw")
def headw(e: Engine, ref: int) -> int:
    """Return the word at the head of a list."""
    return e.heap.word(e.heap.head(ref))


@handler("headl")
def headl(e: Engine, ref: int) -> int:
    """Return the big at the head of a list."""
    return e.heap.big(e.heap.head(ref))


@handler("headf")
def headf(e: Engine, ref: int) -> float:
    """Return the real at the head of a list."""
    return e.heap.real(e.heap.head(ref))


@handler("headp")
def headp(e: Engine, ref: int) -> int:
    """Return the reference at the head of a list."""
    return e.heap.retain(e.heap.pointer(e.heap.head(ref)))


@handler("headm")
def headm(e: Engine, ref: int, size: int, destination: int) -> None:
    """Copy bytes from the head of a list."""
    movm(e, e.heap.head(ref), size, destination)


@handler("headmp")
def headmp(e: Engine, ref: int, number: int, destination: int) -> None:
    """Copy the head of a list, a value of a type."""
    e.heap.copy_value(e.heap.head(ref), destination, number)


@handler("tail")
def tail(e: Engine, ref: int) -> int:
    """Return the rest of a list."""
    return e.heap.retain(e.heap.tail(ref))


@handler("lenl")
def lenl(e: Engine, ref: int) -> int:
    """Return the length of a list."""
    return sum(1 for _ in e.heap.list_nodes(ref))
