"""What is known of a frame's slots behind an instruction."""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Operand
from llmbol_core.vm.slots import (
    Kind,
    State,
    Value,
    argument_key,
    overwritten,
    without,
    without_frame,
)
from llmbol_core.vm.typeflow import RESULT_PLACE, Step, link_number
from llmbol_core.vm.usage import KINDS

_POINTERS_KEPT = frozenset({Kind.OBJECT, Kind.HANDLE, Kind.ORIGIN})


def after(step: Step) -> State:
    """Return what is known of the frame's slots behind the instruction."""
    state = step.state
    op = step.instruction.op
    for role in op.operands:
        if role.writes:
            state = _forget(step, state, role)
            if TYPES[role.type].kind == "pointer" and step.operand(role.place).mode is Mode.FP:
                state = _learn(step, state, role.place, _made(step, role.type))
    learned = _LEARN.get(op.mnemonic)
    if learned:
        state = learned(step, state)
    return state


def _forget(step: Step, state: State, role: OperandRole) -> State:
    """Drop what was known of slots that an operand overwrites."""
    if not state:
        return state
    place = step.place(step.operand(role.place))
    if not place.own:
        return state
    size = TYPES[role.type].size
    if role.is_storage:
        if step.instruction.op.role("m") is None:
            return overwritten(state, place.offset)
        size = _copied(step)
    return without(state, place.offset, size)


def _copied(step: Step) -> int:
    """Return how many bytes the instruction copies; for a channel a word is assumed."""
    middle, role = step.operand("m"), step.instruction.op.role("m")
    if role is None or middle.mode is not Mode.IMMEDIATE:
        return WORD_SIZE
    return middle.value if role.type == "W" else step.found.layouts[middle.value].size


def _made(step: Step, letter: str) -> Value:
    """Return what is known of a pointer that this instruction makes or reads."""
    origin = step.usage.origin("made", step.pc)
    if letter in KINDS:
        step.usage.use(origin, letter, step.pc)
    return Value(Kind.ORIGIN, origin)


def _learn(step: Step, state: State, place: str, value: Value) -> State:
    """Note what a slot of the frame now holds."""
    target = step.operand(place)
    return {**state, target.value: value} if target.mode is Mode.FP else state


def _learn_frame(step: Step, state: State) -> State:
    """Note a frame of a type."""
    state = without_frame(state, step.operand("d").value)
    return _learn(step, state, "d", Value(Kind.FRAME, step.operand("s").value))


def _learn_foreign_frame(step: Step, state: State) -> State:
    """Note a frame for a function of another module."""
    state = without_frame(state, step.operand("d").value)
    return _learn(step, state, "d", Value(Kind.FOREIGN_FRAME, link_number(step.operand("m"))))


def _learn_address(step: Step, state: State) -> State:
    """Note what address ``lea`` made; a result's address is noted with the frame it is for."""
    place, target = step.place(step.operand("s")), step.operand("d")
    if place.own:
        value = Value(Kind.SLOT, place.offset)
    elif place.layout is step.found.data:
        value = Value(Kind.DATA, place.offset)
    else:
        value = Value(Kind.ELSEWHERE)
    if target.mode is Mode.FP_INDIRECT and target.value == RESULT_PLACE:
        return {**state, -target.base: value}
    return _learn(step, state, "d", value)


def _learn_element(step: Step, state: State) -> State:
    """Note the address of an element."""
    origin = step.origin(step.operand("s"))
    type_ = step.usage.elements.get(origin)
    if type_ is not None:
        return _learn(step, state, "m", Value(Kind.OBJECT, type_))
    element = step.usage.origin("element", origin) if origin >= 0 else -1
    return _learn(step, state, "m", Value(Kind.ELSEWHERE, element))


def _learn_array(step: Step, state: State) -> State:
    """Note the type of the elements of a new array."""
    if step.operand("d").mode is Mode.FP:
        origin = step.usage.origin("made", step.pc)
        step.usage.elements[origin] = step.operand("m").value
    return state


def _learn_head(step: Step, state: State) -> State:
    """Note that a pointer is the head of a list."""
    origin = step.origin(step.operand("s"))
    if origin < 0:
        return state
    return _learn(step, state, "d", Value(Kind.ORIGIN, step.usage.origin("head", origin)))


def _learn_object(step: Step, state: State) -> State:
    """Note an object of a type."""
    return _learn(step, state, "d", Value(Kind.OBJECT, step.operand("s").value))


def _learn_handle(step: Step, state: State) -> State:
    """Note a module handle."""
    return _learn(step, state, "d", Value(Kind.HANDLE))


def _learn_code(step: Step, state: State) -> State:
    """Note a code address."""
    source, code = step.operand("s"), step.found.module.instructions
    if source.mode is not Mode.IMMEDIATE or not 0 <= source.value < len(code):
        raise step.fail("the source should be the number of an instruction")
    return _learn(step, state, "d", Value(Kind.CODE, source.value))


def _learn_copy(step: Step, state: State) -> State:
    """Note a copied reference, or the address of the data of a module behind its handle."""
    source = step.operand("s")
    if step.instruction.op.mnemonic == "movp":
        return _learn_pointer(step, state, source)
    if step.instruction.op.mnemonic == "movw" and _may_be_handle(step, source):
        return _learn(step, state, "d", Value(Kind.ELSEWHERE))
    return state


def _learn_pointer(step: Step, state: State, source: Operand) -> State:
    """Note a copied reference, in the frame or in one that was made."""
    known = step.state.get(source.value) if source.mode is Mode.FP else None
    if known is None or known.kind not in _POINTERS_KEPT:
        origin = -1 if source.mode is Mode.IMMEDIATE else step.origin(source)
        known = Value(Kind.ORIGIN, origin) if origin >= 0 else None
    target = step.operand("d")
    if known is None:
        return state
    if target.mode is not Mode.FP_INDIRECT:
        return _learn(step, state, "d", known)
    made = step.state.get(target.base)
    if made is None or made.kind is not Kind.FRAME:
        return state
    return {**state, argument_key(target.base, target.value): known}


def _may_be_handle(step: Step, operand: Operand) -> bool:
    """Whether the word read may be the first of a module handle, the address of its data."""
    if operand.value != 0 or operand.mode not in (Mode.MP_INDIRECT, Mode.FP_INDIRECT):
        return False
    if operand.mode is Mode.MP_INDIRECT:
        return True
    known = step.state.get(operand.base)
    pointer = operand.base in step.layout.pointers
    return pointer and (known is None or known.kind in (Kind.HANDLE, Kind.ORIGIN))


def _learn_call(step: Step, state: State) -> State:
    """Forget the frame, which is gone, and what the function may have written."""
    frame = step.operand("s").value
    result = state.get(-frame)
    state = without_frame(without(state, frame, 4), frame)
    if result and result.kind is Kind.SLOT:
        state = overwritten(state, result.number)
    return state


def _learn_communication(step: Step, state: State) -> State:
    """Forget what other processes may have written through an alt table."""
    for value in list(state.values()):
        if value.kind is Kind.SLOT:
            state = overwritten(state, value.number)
    return state


_LEARN: dict[str, Callable[[Step, State], State]] = {
    "frame": _learn_frame,
    "mframe": _learn_foreign_frame,
    "lea": _learn_address,
    **dict.fromkeys(("indx", "indb", "indw", "indf", "indl"), _learn_element),
    "new": _learn_object,
    "newz": _learn_object,
    "load": _learn_handle,
    "self": _learn_handle,
    "movpc": _learn_code,
    "headp": _learn_head,
    **dict.fromkeys(("newa", "newaz"), _learn_array),
    "movp": _learn_copy,
    "movw": _learn_copy,
    **dict.fromkeys(("call", "mcall", "spawn", "mspawn"), _learn_call),
    "alt": _learn_communication,
    "nbalt": _learn_communication,
}
