"""Evaluating guards: what an engine does before an instruction that is not proved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.guards import Guard, Of
from llmbol_core.vm.isa import TYPES, Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.objects import ARRAY, CHANNEL, LIST, MODULE, STACK, STRING, Heap
from llmbol_core.vm.offers import misfit as misfit_of

if TYPE_CHECKING:
    from llmbol_core.vm.interpreter import Interpreter

KINDS = {"C": STRING, "A": ARRAY, "I": LIST, "N": CHANNEL, "Z": MODULE}
"""Kinds of objects by the letters of operands."""
ELEMENT_TYPE = {Of.ELEMENT: 4, Of.HEAD: 4, Of.SENT: 0, Of.RECEIVED: 0}
"""Where in an object the number of the type of its values is."""

Step = Callable[[int, int], int]


def guarded(engine: Interpreter, guards: Iterable[Guard], step: Step) -> Step:
    """Return a step that evaluates guards first."""
    known, heap = tuple(guards), engine.heap

    def checked(fp: int, mp: int) -> int:
        for guard in known:
            if guard.of is Of.LINK:
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


def misfit(heap: Heap, guard: Guard, fp: int, mp: int) -> str:
    """Say why an object is not what an instruction takes it for, or nothing."""
    ref = _pointer(heap, guard.where, fp, mp)
    if ref == NIL:
        return ""
    kind = heap.type_of(ref)
    if guard.of is Of.RECORD:
        if kind <= STACK and kind != MODULE:
            return "the object is no record"
        return guard.misfit(*heap.offered(kind), heap.locked(kind))
    if kind != KINDS[guard.kind]:
        return f"the object is no {TYPES[guard.kind].name}"
    if guard.of is Of.KIND:
        return ""
    return guard.misfit(*heap.types[heap.word(ref + ELEMENT_TYPE[guard.of])])


def _pointer(heap: Heap, where: Operand, fp: int, mp: int) -> int:
    """Return the pointer that a guard is about."""
    start = fp if where.mode in (Mode.FP, Mode.FP_INDIRECT) else mp
    if where.mode in (Mode.FP, Mode.MP):
        return heap.pointer(start + where.value)
    base = heap.pointer(start + where.base)
    return NIL if base == NIL else heap.pointer(base + where.value)
