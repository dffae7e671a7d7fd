"""Evaluating guards: what an engine does before an instruction that is not proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.errors import Trap
from llmbol_core.vm import process, traps
from llmbol_core.vm.arena import MANY, NIL
from llmbol_core.vm.guards import Guard, Of, Piece
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.needs import Need, Shape
from llmbol_core.vm.objects import ARRAY, CHANNEL, LIST, MODULE, STACK, STRING, Heap
from llmbol_core.vm.offers import misfit as misfit_of
from llmbol_core.vm.origins import Use
from llmbol_core.vm.results import RESULT_PLACE

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter

KINDS = {"C": STRING, "A": ARRAY, "I": LIST, "N": CHANNEL, "Z": MODULE}
"""Kinds of objects by the letters of operands."""
ELEMENT_TYPE = {Of.ELEMENT: 4, Of.HEAD: 4, Of.SENT: 0, Of.RECEIVED: 0}
"""Where in an object the number of the type of its values is."""
_RESULT = Operand(Mode.FP, RESULT_PLACE)

Step = Callable[[int, int], int]


def guarded(engine: Interpreter, guards: Iterable[Guard], step: Step) -> Step:
    """Return a step that evaluates guards first."""
    known, heap = tuple(guards), engine.heap

    def checked(fp: int, mp: int) -> int:
        for guard in known:
            if guard.of is Of.RESULT:
                why = _misfit_of_result(engine, guard, fp << 2, mp << 2)
            elif guard.of is Of.PLACE:
                why = _misplaced(heap, guard, fp << 2, mp << 2)
            elif guard.of is Of.RECEIVED and guard.link == _RESULT:
                why = _misfit_of_received(engine, guard, fp << 2, mp << 2)
            elif guard.of is Of.LINK:
                why = _misfit_of_link(engine, guard, fp << 2, mp << 2)
            else:
                why = misfit(heap, guard, fp << 2, mp << 2)
            if why:
                raise Trap(f"{traps.TYPE_CHECK}: {why}")
        return step(fp, mp)

    return checked


def _misfit_of_link(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Say why a function cannot be called as it is, or nothing."""
    handle, number = _pointer(engine.heap, guard.where, fp, mp), guard.link.value
    if handle == NIL:
        return ""
    if engine.heap.type_of(handle) != MODULE:
        return f"the object is no {TYPES['Z'].name}"
    if guard.link.mode is not Mode.IMMEDIATE:
        number = engine.heap.word((fp if guard.link.mode is Mode.FP else mp) + number)
    link = engine.link(handle, number)
    assert guard.need is not None
    why = misfit_of(engine.heap, engine.linked_of(handle).module, link, guard.need)
    if not why:
        engine.passed(guard, handle, number)
    return why


def _misfit_of_result(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Say why the result of a function does not fit an object, or nothing."""
    heap = engine.heap
    ref, handle = (_pointer(heap, where, fp, mp) for where in (guard.where, guard.link))
    if NIL in (ref, handle):
        return ""
    kind, number = heap.type_of(ref), int(guard.kind)
    if kind <= STACK:
        return "the object is no record"
    size, pointers = heap.offered(kind)
    inside = tuple(p - guard.size for p in pointers if p >= guard.size)
    need = Need(results={Shape(max(size - guard.size, 0), inside)})
    link = engine.link(handle, number)
    return misfit_of(heap, engine.linked_of(handle).module, link, need)


def _misfit_of_received(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Say why a channel's values do not fit where the function's result goes, or nothing."""
    heap, channel = engine.heap, _pointer(engine.heap, guard.where, fp, mp)
    address = heap.pointer(fp + RESULT_PLACE)
    if NIL in (channel, address):
        return ""
    if heap.type_of(channel) != CHANNEL:
        return f"the object is no {TYPES['N'].name}"
    size, pointers = _room_at(engine, fp, address + guard.size)
    there = tuple(Piece(p, WORD_SIZE, Use.POINTER) for p in pointers)
    room = guard._replace(pieces=there, size=size)
    return room.misfit(*heap.types[heap.word(channel)])


class _Area(NamedTuple):
    """Values of one type, one behind the other."""

    start: int
    type: HeapType
    length: int = 1


def _room_at(engine: Interpreter, fp: int, address: int) -> HeapType:
    """Return what lies at an address that a caller has given: from there on to the end of it.

    It is in a caller's frame, in the data of its module, or in an object that one of them names.
    """
    areas = list(_areas(engine, fp))
    for start, (size, pointers), length in chain(areas, _objects(engine.heap, areas)):
        if 0 <= address - start < size * length:
            at = (address - start) % size
            return HeapType(size - at, tuple(p - at for p in pointers if p >= at))
    return HeapType(0, ())


def _areas(engine: Interpreter, fp: int) -> Iterator[_Area]:
    """Yield the frames of a process and the data of their modules, the innermost first."""
    heap, handle, count = engine.heap, engine.process.handle, 0
    while fp:
        if not (count := count + 1) % MANY:
            heap.pause()
        yield _Area(fp, heap.types[heap.word(fp + process.TYPE)])
        mp = heap.pointer(handle)
        if mp != NIL:
            yield _Area(mp, heap.types[heap.type_of(mp)])
        handle = heap.pointer(fp + process.MODULE) or handle
        fp = heap.pointer(fp + process.CALLER)


def _objects(heap: Heap, areas: Iterable[_Area]) -> Iterator[_Area]:
    """Yield the records, and the elements of the arrays, that pointers in some places name."""
    for start, (_, pointers), _ in areas:
        for ref in (heap.pointer(start + at) for at in pointers):
            kind = heap.type_of(ref) if ref != NIL else STACK
            if kind > STACK:
                yield _Area(ref, heap.offered(kind))
            elif kind == ARRAY:
                element = heap.types[heap.word(ref + 4)]
                yield _Area(heap.array_data(ref), element, heap.array_length(ref))


def _misplaced(heap: Heap, guard: Guard, fp: int, mp: int) -> str:
    """Say why an address does not lead to an element of an array, or nothing."""
    array, address = _pointer(heap, guard.where, fp, mp), heap.pointer(fp + guard.link.value)
    if array != NIL and guard.kind == "Z":
        same = heap.type_of(array) == MODULE and heap.pointer(array) == address
        return "" if same else "the module whose data the address leads to is not there any more"
    if array != NIL and heap.type_of(array) == ARRAY:
        size = heap.types[heap.word(array + 4)].size * heap.array_length(array)
        if 0 <= address - heap.array_data(array) < size:
            return ""
    return "the array that the address leads into is not there any more"


def misfit(heap: Heap, guard: Guard, fp: int, mp: int) -> str:
    """Say why an object is not what an instruction takes it for, or nothing."""
    ref = _pointer(heap, guard.where, fp, mp)
    if ref == NIL:
        return ""
    kind = heap.type_of(ref)
    if guard.of in (Of.SENT, Of.RECEIVED) and kind == ARRAY:
        return _misfit_of_channels(heap, guard, ref)
    if guard.link.mode is not Mode.NONE:
        return _misfit_behind(heap, guard, ref, _pointer(heap, guard.link, fp, mp))
    if guard.of is Of.RECORD:
        if kind <= STACK and kind != MODULE:
            return "the object is no record"
        return guard.misfit(*heap.offered(kind), heap.locked(kind))
    if kind != KINDS[guard.kind]:
        return f"the object is no {TYPES[guard.kind].name}"
    if guard.of is Of.KIND:
        return ""
    return guard.misfit(*heap.types[heap.word(ref + ELEMENT_TYPE[guard.of])])


def _misfit_of_channels(heap: Heap, guard: Guard, array: int) -> str:
    """Say why values of the channels of an array do not fit behind their number, or nothing."""
    pieces = tuple(p._replace(offset=p.offset - 4) for p in guard.pieces if p.offset >= 4)
    behind = guard._replace(pieces=pieces, size=guard.size - 4)
    if heap.types[heap.word(array + 4)] != (4, (0,)):
        return "the array has no channels"
    data, fitting = heap.array_data(array), set[int]()
    for position in range(heap.array_length(array)):
        if not position % MANY:
            heap.pause()
        channel = heap.pointer(data + 4 * position)
        if channel == NIL:
            continue
        if heap.type_of(channel) != CHANNEL:
            return f"the object is no {TYPES['N'].name}"
        number = heap.word(channel)
        if number not in fitting and (why := behind.misfit(*heap.types[number])):
            return why
        fitting.add(number)
    return ""


def _misfit_behind(heap: Heap, guard: Guard, channel: int, ref: int) -> str:
    """Say why a channel's values do not fit where they are in an object, or nothing."""
    if ref == NIL:
        return ""
    if heap.type_of(channel) != CHANNEL:
        return f"the object is no {TYPES['N'].name}"
    size, pointers = heap.offered(heap.type_of(ref))
    there = tuple(
        Piece(p - guard.size, WORD_SIZE, Use.POINTER) for p in pointers if p >= guard.size
    )
    room = guard._replace(pieces=there, size=size - guard.size)
    return room.misfit(*heap.types[heap.word(channel)])


def _pointer(heap: Heap, where: Operand, fp: int, mp: int) -> int:
    """Return the pointer that a guard is about."""
    start = fp if where.mode in (Mode.FP, Mode.FP_INDIRECT) else mp
    if where.mode in (Mode.FP, Mode.MP):
        return heap.pointer(start + where.value)
    base = heap.pointer(start + where.base)
    return NIL if base == NIL else heap.pointer(base + where.value)
