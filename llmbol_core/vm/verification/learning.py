"""What is known of a frame's slots after an instruction."""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Operand
from llmbol_core.vm.verification.changes import changes
from llmbol_core.vm.verification.containers import ON_CONTAINERS
from llmbol_core.vm.verification.effects import (
    BY_OTHERS,
    DATA,
    FRAME,
    MADE,
    RESULT_PLACE,
    UNKNOWN,
    Change,
    is_result,
)
from llmbol_core.vm.verification.keeping import keep_result, keep_value, learn, made, unknown
from llmbol_core.vm.verification.needs import link_number
from llmbol_core.vm.verification.origins import How, meet
from llmbol_core.vm.verification.slots import (
    POINTERS,
    RETURNED,
    STORED,
    Kind,
    State,
    Tags,
    Value,
    argument_key,
    overwritten,
    without,
    without_frame,
)
from llmbol_core.vm.verification.tables import table_ranges
from llmbol_core.vm.verification.typeflow import Step


def after(step: Step) -> State:
    """Return what is known of the frame's slots after the instruction."""
    state = step.state
    op = step.op
    if STORED in state and not step.clears_slot():
        state = dict(state)
        del state[STORED]
    for change in changes(step):
        state = _forget(step, state, change)
    for operand, role, _ in step.effects.touches:
        if role.writes:
            state = _returned(step, state, operand, role)
            if TYPES[role.type].kind == "pointer":
                state = _learn_made(step, state, operand, role)
    learned = _LEARN.get(op.mnemonic)
    if learned:
        state = learned(step, state)
    if STORED in state and step.pc + 1 in step.found.pauses:
        state = {at: known for at, known in state.items() if at != STORED}
    return state


def _learn_made(step: Step, state: State, operand: Operand, role: OperandRole) -> State:
    """Note a pointer that an instruction stores in the frame, or in one that was made."""
    value = made(step, role.type)
    if operand.mode is Mode.FP_INDIRECT and (place := step.place(operand)).frame >= 0:
        return {**state, argument_key(place.frame, place.offset): value}
    return learn(step, state, role.place, value)


def narrowed(step: Step, state: State, target: int) -> State:
    """Return what is known at a target of a branch on an object's tag."""
    tested, tags, is_equal = _tested(step, target)
    if tags is None or tested.mode is not Mode.FP_INDIRECT or tested.value:
        return state
    known = state.get(tested.base)
    if known and known.kind is Kind.OBJECT and is_equal and not meet(known.tags, tags):
        # Code for records of other tags, as this one should not be: its layout says nothing there.
        origin = step.usage.origin("join", target, tested.base)
        step.usage.flow(origin, known.origin, known.flowing)
        return {**state, tested.base: Value(Kind.ORIGIN, origin=origin, tags=tags)}
    if known is None or known.kind is not Kind.ORIGIN:
        return state
    if is_equal:
        return {**state, tested.base: known._replace(tags=meet(known.tags, tags))}
    if known.tags is None:
        return state
    return {**state, tested.base: known._replace(tags=known.tags - tags)}


def _tested(step: Step, target: int) -> tuple[Operand, Tags, bool]:
    """Return the word that a branch tests, values, and whether it has one of them at a target."""
    op, instruction = step.op.mnemonic, step.instruction
    tested = instruction.source
    if op == "case":
        return tested, table_ranges(step.found, step.pc).get(target), True
    label = instruction.destination.value
    if op not in ("beqw", "bnew") or label == step.pc + 1:
        return tested, None, True
    value = instruction.operand("m")
    if tested.mode is Mode.IMMEDIATE:
        tested, value = value, tested
    tags = frozenset({value.value}) if value.mode is Mode.IMMEDIATE else None
    return tested, tags, (op == "beqw") == (target == label)


def _forget(step: Step, state: State, change: Change) -> State:
    """Drop what was known of slots that are written; note variables of the module data."""
    region, start = change.spot
    if region == DATA and change.has_pointers and change not in BY_OTHERS:
        step.usage.variables.write(start, change.size)
    if region == MADE and change.size >= UNKNOWN:
        return without_frame(state, start)
    if region != FRAME or not state:
        return state
    if change.size >= UNKNOWN:
        return overwritten(state, start)
    return without(state, start, change.size)


def _returned(step: Step, state: State, operand: Operand, role: OperandRole) -> State:
    """Note which pointers of the function's own result have been written."""
    if operand.mode is not Mode.FP_INDIRECT or operand.base != RESULT_PLACE:
        return state
    if TYPES[role.type].kind == "pointer":
        return {**state, RETURNED + operand.value: Value(Kind.ORIGIN)}
    if role.type == "Y":
        pointers = step.found.layouts[step.operand("m").value].pointers
        return state | {RETURNED + operand.value + at: Value(Kind.ORIGIN) for at in pointers}
    return state


def _learn_frame(step: Step, state: State) -> State:
    """Note a frame of a type."""
    state = without_frame(state, step.operand("d").value)
    return learn(step, state, "d", Value(Kind.FRAME, step.operand("s").value))


def _learn_foreign_frame(step: Step, state: State) -> State:
    """Note a frame for a function of another module."""
    state = without_frame(state, step.operand("d").value)
    link, handle = link_number(step.operand("m")), step.origin(step.operand("s"))
    return learn(step, state, "d", Value(Kind.FOREIGN_FRAME, link, handle))


def _learn_address(step: Step, state: State) -> State:
    """Note the address that ``lea`` takes; one for a result is noted with its frame."""
    source, target = step.operand("s"), step.operand("d")
    place = step.place(source)
    if source.mode is Mode.IMMEDIATE:
        value = Value(Kind.CONSTANT)
    elif place.own:
        value = Value(Kind.SLOT, place.offset)
    elif place.layout is step.found.data:
        value = Value(Kind.DATA, place.offset)
    else:
        value = Value(Kind.ELSEWHERE, place.offset, place.origin, place.tags)
    if target.mode is Mode.FP_INDIRECT and target.value == RESULT_PLACE:
        return {**state, -target.base: value}
    if is_result(source):
        value = value._replace(kind=Kind.RESULT)
    return learn(step, state, "d", value)


# Objects, handles, words


def _learn_object(step: Step, state: State) -> State:
    """Note an object of a type."""
    number = step.operand("s").value
    origin = step.usage.origin("made", step.pc)
    step.usage.bring(
        origin, step.found.layouts[number], None, f"an object of type {number}", step.pc
    )
    return keep_result(step, state, Value(Kind.OBJECT, number, origin))


def _learn_handle(step: Step, state: State) -> State:
    """Note a module handle."""
    return keep_result(step, state, Value(Kind.HANDLE, origin=made(step, "Z").origin))


def _learn_code(step: Step, state: State) -> State:
    """Note a code address."""
    source, code = step.operand("s"), step.found.module.instructions
    if source.mode is not Mode.IMMEDIATE or not 0 <= source.value < len(code):
        raise step.fail("the source should be the number of an instruction")
    return learn(step, state, "d", Value(Kind.CODE, source.value))


def _learn_pointer(step: Step, state: State) -> State:
    """Note a copied reference."""
    source = step.operand("s")
    value = step.pointer(source)
    if value is None and step.operand("d").mode is Mode.FP:
        return state
    state = keep_result(step, state, value)
    target = step.operand("d")
    if value and target.mode is Mode.FP_INDIRECT and not step.place(target).own:
        return {**state, STORED: value}
    return state


def _learn_words(step: Step, state: State) -> State:
    """Note a copied value."""
    source, target = step.place(step.operand("s")), step.operand("d")
    state = keep_value(step, state, source, step.place(target))
    known = state.get(target.base) if target.mode is Mode.FP_INDIRECT else None
    if known and known.kind is Kind.OBJECT and not target.value and not source.offset:
        step.usage.copy_tag(known.origin, source.tags)
        return {**state, target.base: known._replace(tags=source.tags)}
    return state


def _learn_word(step: Step, state: State) -> State:
    """Note a number, the tag of a new object, or a word that is the copy of a pointer."""
    source, target = step.operand("s"), step.operand("d")
    if source.mode is Mode.IMMEDIATE:
        known = step.state.get(target.base) if target.mode is Mode.FP_INDIRECT else None
        if known and known.kind is Kind.OBJECT and not target.value:
            tags = frozenset({source.value})
            step.usage.set_tag(known.origin, tags)
            return {**state, target.base: known._replace(tags=tags)}
        return learn(step, state, "d", Value(Kind.NUMBER, source.value))
    if target.mode is not Mode.FP:
        return state
    place = step.place(source)
    if place.own or place.layout is step.found.data:
        if place.layout and place.offset in place.layout.pointers:
            held = step.held(place) or Value(Kind.ORIGIN, origin=-1)
            return learn(step, state, "d", held._replace(kind=Kind.COPY, number=place.offset))
        return state
    is_pointer = place.layout is None or place.offset in place.layout.pointers
    if place.frame >= 0 or is_result(source) or not is_pointer:
        return state
    base = step.state.get(source.base) if source.mode is Mode.FP_INDIRECT else None
    kind = Kind.WORD if base is None or base.kind in POINTERS else Kind.BEHIND
    return learn(step, state, "d", Value(kind, place.offset, place.origin, place.tags))


def _learn_call(step: Step, state: State) -> State:
    """Forget the frame that was called, and note what the function may have written."""
    frame = step.operand("s").value
    result = step.state.get(-frame)
    state = without(state, frame, WORD_SIZE)
    if not result or result.kind is not Kind.SLOT:
        return state
    if not step.entered:
        return unknown(step, state, result.number)
    return _learn_result(step, state, result.number)


def _learn_result(step: Step, state: State, at: int) -> State:
    """Note the pointers that a function of this module may have returned to a slot."""
    assert step.entered
    entry, usage = step.entered[0], step.usage
    size = step.written(entry)
    frame = step.operand("s").value
    result = usage.origin("result", entry)
    if size >= UNKNOWN:
        return unknown(step, state, at)
    for slot in step.layout.pointers:
        if not at <= slot < at + size:
            continue
        origin = usage.origin("returned", step.pc, slot)
        usage.flow(origin, usage.behind(result, "at", slot - at), how=How.BORROWED)
        for parameter in step.found.layouts[step.entered[1]].pointers:
            passed = step.state.get(argument_key(frame, parameter))
            if passed and passed.origin >= 0:
                key = usage.origin("parameter", entry, parameter)
                usage.returns(origin, result, slot - at, key, passed)
        state = {**state, slot: Value(Kind.ORIGIN, origin=origin)}
    return state


_LEARN: dict[str, Callable[[Step, State], State]] = {
    **ON_CONTAINERS,
    "frame": _learn_frame,
    "mframe": _learn_foreign_frame,
    "lea": _learn_address,
    **dict.fromkeys(("new", "newz"), _learn_object),
    **dict.fromkeys(("load", "self"), _learn_handle),
    "movpc": _learn_code,
    **dict.fromkeys(("movp", "tail"), _learn_pointer),
    "movmp": _learn_words,
    "movw": _learn_word,
    **dict.fromkeys(("call", "mcall", "spawn", "mspawn"), _learn_call),
}
