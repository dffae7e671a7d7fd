"""The room at an address: the layout of the memory from there to the end of the object.

If the object is known, its type says so. For a bare address the object is searched for in the
frames of the process, in the objects that these name, and in the end in the whole heap. In module
data there is room up to the next table that the module jumps through, if it exports its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm import process
from llmbol_core.vm.arena import MANY, NIL
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.objects import ARRAY, STACK, Heap
from llmbol_core.vm.verification.needs import Shape

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter


class _Area(NamedTuple):
    """Values of one type, one after the other; some words may be closed to others."""

    start: int
    type: HeapType
    length: int = 1
    closed: frozenset[int] = frozenset()

    def behind(self, distance: int) -> Shape:
        """Return the rest of a value from an offset on, up to the first word that is closed."""
        size, pointers = self.type
        end = min((at for at in self.closed if at > distance - WORD_SIZE), default=size)
        return Shape(end, tuple(p for p in pointers if p < end)).behind(distance)


def room_in(heap: Heap, ref: int, distance: int) -> Shape | None:
    """Return the rest of a record or an element from an offset on; None if it is neither."""
    for area in _of_object(heap, ref):
        return area.behind(distance)
    return None


def room_at(engine: Interpreter, fp: int, address: int) -> Shape | None:
    """Return what lies at an address in the process whose frame is given."""
    heap, areas = engine.heap, list(_frames(engine, fp))
    named = (heap.pointer(area.start + at) for area in areas for at in area.type.pointers)
    for area in chain(areas, _objects(heap, named), _objects(heap, heap.blocks())):
        if 0 <= address - area.start < area.type.size * area.length:
            return area.behind((address - area.start) % area.type.size)
    return None


def _frames(engine: Interpreter, fp: int) -> Iterator[_Area]:
    """Yield the frames of a process, the innermost first."""
    heap, count = engine.heap, 0
    while fp:
        if not (count := count + 1) % MANY:
            heap.pause()
        yield _Area(fp, heap.types[heap.word(fp + process.TYPE)])
        fp = heap.pointer(fp + process.CALLER)


def _objects(heap: Heap, refs: Iterable[int]) -> Iterator[_Area]:
    for ref in refs:
        yield from _of_object(heap, ref)


def _of_object(heap: Heap, ref: int) -> Iterator[_Area]:
    """Yield a record, or the elements of an array."""
    kind = heap.type_of(ref) if ref != NIL else STACK
    if kind > STACK:
        offered = heap.offered(kind)
        yield _Area(ref, offered, closed=frozenset(heap.locked(kind)).difference(offered.pointers))
    elif kind == ARRAY:
        element = heap.types[heap.word(ref + 4)]
        yield _Area(heap.array_data(ref), element, heap.array_length(ref))
