"""Evaluating guards, before instructions whose accesses are not proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import MANY, NIL
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.objects import ARRAY, CHANNEL, LIST, MODULE, STACK, STRING, Heap
from llmbol_core.vm.offers import misfit as misfit_of
from llmbol_core.vm.process import TYPE
from llmbol_core.vm.rooms import room_at, room_in
from llmbol_core.vm.verification.guards import Guard, Of, Piece
from llmbol_core.vm.verification.needs import Need, Shape, value_parts
from llmbol_core.vm.verification.origins import Use
from llmbol_core.vm.verification.pointees import RECORD

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter

KINDS = {"C": STRING, "A": ARRAY, "I": LIST, "N": CHANNEL, "Z": MODULE}
"""Kinds of objects by the letters of operands."""
ELEMENT_TYPE = {Of.ELEMENT: 4, Of.HEAD: 4, Of.SENT: 0, Of.RECEIVED: 0}
"""Offset in an object of the type number of its values."""
_TRANSFERS = (Of.SENT, Of.RECEIVED)
_NOTHING = Shape(0, ())
"""What lies behind nil: the instruction itself then traps."""
_NO_ROOM = "the address leads to no record and to no element"

Step = Callable[[int, int], int]


def guarded(engine: Interpreter, guards: Iterable[Guard], step: Step) -> Step:
    """Return a step that evaluates guards first."""
    known, heap = tuple(guards), engine.heap

    def checked(fp: int, mp: int) -> int:
        for guard in known:
            if guard.of is Of.RESULT:
                why = _misfit_of_result(engine, guard, fp << 2, mp << 2)
            elif guard.of is Of.MARKED:
                why = _mark(engine, guard, fp << 2, mp << 2)
            elif guard.of in _TRANSFERS and guard.link.mode is not Mode.NONE:
                why = _misfit_of_transfer(engine, guard, fp << 2, mp << 2)
            elif guard.of is Of.LINK:
                why = _misfit_of_link(engine, guard, fp << 2, mp << 2)
            else:
                why = misfit(heap, guard, fp << 2, mp << 2)
            if why:
                raise Trap(f"{traps.TYPE_CHECK}: {why}")
        return step(fp, mp)

    return checked


def _misfit_of_link(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Return why a function cannot be called as it is used; empty if it can."""
    handle = pointer_of(engine.heap, guard.where, fp, mp)
    if handle == NIL:
        return ""
    if engine.heap.type_of(handle) != MODULE:
        return f"the object is no {TYPES['Z'].name}"
    number = _number(engine.heap, guard.link, fp, mp)
    link = engine.link(handle, number)
    assert guard.need is not None
    target, caller = engine.linked_of(handle).module, engine.process.module
    why = misfit_of(engine.heap, target, link, guard.need, caller)
    if not why:
        engine.passed(guard, handle, number)
    return why


def _number(heap: Heap, where: Operand, fp: int, mp: int) -> int:
    """Return the number of a link."""
    if where.mode is Mode.IMMEDIATE:
        return where.value
    return heap.word((fp if where.mode is Mode.FP else mp) + where.value)


def _misfit_of_result(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Return why the result of a function does not fit an object; empty if it fits."""
    heap = engine.heap
    room = _room(engine, guard, pointer_of(heap, guard.where, fp, mp), fp)
    if room is None or room is _NOTHING:
        return "" if room else _NO_ROOM
    if guard.link.mode is Mode.NONE:
        return engine.process.module.returns_of(guard.number.value).want(room)
    if (handle := pointer_of(heap, guard.link, fp, mp)) == NIL:
        return ""
    link = engine.link(handle, _number(heap, guard.number, fp, mp))
    return misfit_of(heap, engine.linked_of(handle).module, link, Need(results={room}))


def _misfit_of_transfer(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Return why a channel's values do not fit an object; empty if they fit."""
    heap = engine.heap
    if guard.number.mode is not Mode.NONE:
        return _misfit_as_result(engine, guard, pointer_of(heap, guard.where, fp, mp))
    ref = pointer_of(heap, guard.link, fp, mp)
    if guard.kind == "K":
        room: Shape | None = Shape(*heap.types[heap.word(ref + TYPE)]).behind(guard.size)
    else:
        room = _room(engine, guard, ref, fp)
    if room is None:
        return _NO_ROOM
    there = tuple(Piece(at, WORD_SIZE, Use.POINTER) for at in room.pointers)
    guard = guard._replace(pieces=there, size=room.size, kind="N", link=ABSENT)
    return misfit(heap, guard, fp, mp)


def _misfit_as_result(engine: Interpreter, guard: Guard, channel: int) -> str:
    """Return why a channel's values do not fit the result of a function; empty if they fit."""
    heap = engine.heap
    if channel == NIL:
        return ""
    if heap.type_of(channel) != CHANNEL:
        return f"the object is no {TYPES['N'].name}"
    parts = value_parts(*heap.types[heap.word(channel)])
    return engine.process.module.returns_of(guard.number.value).write(parts, guard.size)


def _room(engine: Interpreter, guard: Guard, ref: int, fp: int) -> Shape | None:
    """Return the rest of an object from an offset or an address on; None if there is none.

    The guard says which: the offset is negative for an address.
    """
    if ref == NIL:
        return _NOTHING
    if guard.size < 0:
        return room_at(engine, fp, ref)
    is_record = engine.heap.type_of(ref) > STACK
    return room_in(engine.heap, ref, guard.size) if is_record or guard.kind != RECORD else None


def _mark(engine: Interpreter, guard: Guard, fp: int, mp: int) -> str:
    """Mark an object whose memory has to outlast it."""
    ref = pointer_of(engine.heap, guard.where, fp, mp)
    if ref != NIL:
        engine.remains.mark(ref)
    return ""


def misfit(heap: Heap, guard: Guard, fp: int, mp: int) -> str:
    """Return why an object is not what an instruction takes it for; empty if it is."""
    ref = pointer_of(heap, guard.where, fp, mp)
    if ref == NIL:
        return ""
    kind = heap.type_of(ref)
    if guard.of is Of.RECEIVED and kind == ARRAY:
        return misfit_of_channels(heap, guard, ref)
    if guard.of is Of.RECORD:
        if kind <= STACK and kind != MODULE:
            return "the object is no record"
        return guard.misfit(*heap.offered(kind), heap.locked(kind))
    if kind != KINDS[guard.kind]:
        return f"the object is no {TYPES[guard.kind].name}"
    if guard.of is Of.KIND:
        return ""
    return guard.misfit(*heap.types[heap.word(ref + ELEMENT_TYPE[guard.of])])


def misfit_of_channels(heap: Heap, guard: Guard, array: int) -> str:
    """Return why values of an array's channels do not fit after their index; empty if they fit."""
    if any(piece.offset < WORD_SIZE for piece in guard.pieces):
        return "the number of the channel in its array would be written over a pointer"
    pieces = tuple(p._replace(offset=p.offset - 4) for p in guard.pieces)
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


def pointer_of(heap: Heap, where: Operand, fp: int, mp: int) -> int:
    """Return the pointer that a guard checks."""
    start = fp if where.mode in (Mode.FP, Mode.FP_INDIRECT) else mp
    if where.mode in (Mode.FP, Mode.MP):
        return heap.pointer(start + where.value)
    base = heap.pointer(start + where.base)
    return NIL if base == NIL else heap.pointer(base + where.value)
