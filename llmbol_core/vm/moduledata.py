"""Module data: made from an object file's data items, copied for each instance of a module."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmbol_core.errors import DisFormatError
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.module import DataKind, Datum, TypeDescriptor
from llmbol_core.vm.objects import ARRAY, ARRAY_HEADER, Heap
from llmbol_core.vm.offers import hide_data
from llmbol_core.vm.strings import decode

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule


def copied(heap: Heap, data: int) -> int:
    """Return a copy of module data: its arrays are copied, everything else is shared."""
    if data == NIL:
        return NIL
    number = heap.type_of(data)
    ref = heap.new_record(number)
    size, pointers = heap.types[number]
    heap.view(ref, size)[:] = heap.view(data, size)
    heap.clear_value(ref, number)
    inside: list[Iterator[tuple[int, int]]] = [((data + at, ref + at) for at in pointers)]
    try:
        while inside:
            slots = next(inside[-1], None)
            if slots is None:
                inside.pop()
            else:
                inside.append(_copy(heap, *slots))
    except BaseException:
        heap.release(ref)
        raise
    return ref


def _copy(heap: Heap, source: int, target: int) -> Iterator[tuple[int, int]]:
    """Copy the pointer in a slot to another slot; yield the pairs of slots still to be copied."""
    ref = heap.pointer(source)
    if ref == NIL or heap.type_of(ref) != ARRAY:
        heap.set_pointer(target, heap.retain(ref))
        return
    length, number = heap.array_length(ref), heap.word(ref + 4)
    copy = heap.new_array(number, length)
    heap.set_pointer(target, copy)
    start, end = heap.array_data(ref), copy + ARRAY_HEADER
    size, pointers = heap.types[number]
    if number == POINTER or (size == 4 and pointers):
        yield from ((start + at, end + at) for at in range(0, 4 * length, 4))
        return
    for i in range(length if pointers else 0):
        heap.copy_value(start + i * size, end + i * size, number)
    if not pointers:
        heap.view(end, length * size)[:] = heap.view(start, length * size)


def initial(heap: Heap, loaded: LoadedModule, kind: TypeDescriptor) -> int:
    """Return the module data that the data items describe, of a given type; nil if there is none.

    Raises DisFormatError for an item that does not fit.
    """
    module = loaded.module
    if not module.data_size:
        return NIL
    data = heap.new_record(kind)
    hide_data(heap, loaded, kind)
    try:
        _Initializer(heap, loaded, data, module.data_size).run()
    except BaseException:
        heap.release(data)
        raise
    return data


class _Initializer:
    """Carries out the data items of a module."""

    def __init__(self, heap: Heap, loaded: LoadedModule, base: int, size: int) -> None:
        self._heap, self._loaded = heap, loaded
        self._bases = [(base, size)]

    def run(self) -> None:
        """Fill the module data."""
        for item in self._loaded.module.data:
            if item.kind is DataKind.DAPOP:
                if len(self._bases) < 2:
                    raise self._wrong("pop range")
                self._bases.pop()
            else:
                self._fill(item)

    def _fill(self, item: Datum) -> None:
        heap = self._heap
        if item.kind is DataKind.DEFS:
            heap.give(self._at(item.offset, 4), heap.new_text(decode(item.payload)))
        elif item.kind is DataKind.DEFA:
            number, length = (int(v) for v in item.values)
            if not 0 <= number < len(self._loaded.types):
                raise self._wrong("bad array type")
            array = heap.new_array(self._loaded.types[number], length)
            heap.give(self._at(item.offset, 4), array)
        elif item.kind is DataKind.DIND:
            self._enter(heap.pointer(self._at(item.offset, 4)), int(item.values[0]))
        else:
            self._store(item)

    def _store(self, item: Datum) -> None:
        """Store numbers, which the file holds in big-endian order."""
        letter = {DataKind.DEFB: "B", DataKind.DEFW: "i", DataKind.DEFF: "d", DataKind.DEFL: "q"}
        native = struct.pack(f"={len(item.values)}{letter[item.kind]}", *item.values)
        at = self._at(item.offset, len(native))
        self._heap.view(at, len(native))[:] = native

    def _enter(self, array: int, index: int) -> None:
        """Make an element of an array, and those after it, what offsets refer to until DAPOP."""
        heap = self._heap
        if array == NIL or heap.type_of(array) != ARRAY:
            raise self._wrong("ind not array")
        length = heap.array_length(array)
        if not 0 <= index <= length:
            raise self._wrong("array init range")
        size = heap.types[heap.word(array + 4)].size
        self._bases.append((heap.array_data(array) + index * size, (length - index) * size))

    def _at(self, offset: int, size: int) -> int:
        """Return the address of an offset from the current base."""
        base, room = self._bases[-1]
        if not 0 <= offset <= room - size:
            raise self._wrong("bad data item")
        return base + offset

    def _wrong(self, why: str) -> DisFormatError:
        return DisFormatError(self._loaded.path, 0, why)
