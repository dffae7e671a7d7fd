"""How an instruction's stores change what is known of a frame's slots."""

from __future__ import annotations

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.verification.slots import (
    POINTERS,
    UNKNOWN_POINTER,
    Kind,
    State,
    Value,
    argument_key,
)
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.usage import KINDS


def made(step: Step, letter: str) -> Value:
    """Return what is known of a pointer that this instruction makes or reads."""
    origin = step.usage.origin("made", step.pc)
    if letter in KINDS:
        step.usage.make(origin, letter)
    return Value(Kind.ORIGIN, origin=origin)


def learn(step: Step, state: State, place: str, value: Value) -> State:
    """Note what a slot of the frame now holds."""
    target = step.operand(place)
    return {**state, target.value: value} if target.mode is Mode.FP else state


def keep(step: Step, state: State, place: Place, value: Value | None) -> State:
    """Note that a pointer is stored at a place."""
    if place.own or place.frame >= 0:
        if value is None or value.origin < 0:
            value = None if place.own else UNKNOWN_POINTER
        at = place.offset if place.own else argument_key(place.frame, place.offset)
        if value is not None:
            return {**state, at: value}
        return {key: known for key, known in state.items() if key != at}
    usage = step.usage
    if value is None or value.origin < 0:
        return state
    if place.layout is step.found.data:
        to = usage.of_data(place.offset)
        if to >= 0:
            usage.flow(to, value.origin, value.flowing)
    elif place.origin >= 0:
        to = usage.behind(place.origin, "at", place.offset, place.tags)
        usage.flow(to, value.origin, value.flowing)
    return state


def keep_result(step: Step, state: State, value: Value | None) -> State:
    """Note that a pointer is stored where the destination is."""
    return keep(step, state, step.place(step.operand("d")), value)


def keep_value(step: Step, state: State, source: Place, target: Place) -> State:
    """Note that the pointers of a value of the type in the middle are copied."""
    for at in step.found.layouts[step.operand("m").value].pointers:
        to = target._replace(offset=target.offset + at)
        state = keep(step, state, to, step.held(source, at))
    return state


def unknown(step: Step, state: State, at: int) -> State:
    """Note that the pointers from an offset on may have been overwritten by anything.

    If a record may have been overwritten, but need not, its tag still says which fields are used.
    """
    for slot in step.layout.pointers:
        if slot >= at:
            if slot in step.state:
                step.usage.lose(step.pc + 1, slot, step.state[slot])
            before = step.state.get(slot) if slot > at else None
            tags = before.tags if before and before.kind in POINTERS else None
            origin = step.usage.origin("unknown", step.pc, slot)
            state = {**state, slot: Value(Kind.ORIGIN, origin=origin, tags=tags)}
    return state
