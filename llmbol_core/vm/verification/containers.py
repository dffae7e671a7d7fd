"""What is known after instructions on arrays, lists and channels."""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.isa import ELEMENT_SIZES, WORD_SIZE, Mode
from llmbol_core.vm.verification.effects import is_result
from llmbol_core.vm.verification.keeping import keep, keep_result, keep_value, learn, made
from llmbol_core.vm.verification.origins import Use
from llmbol_core.vm.verification.slots import (
    COPIES,
    UNKNOWN_POINTER,
    Kind,
    State,
    Value,
    overwritten,
)
from llmbol_core.vm.verification.structure import Layout
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.whole import CONSTANT, address_place, alt_entries, value_layout

# Arrays


def _learn_element(step: Step, state: State) -> State:
    """Note the address of an element."""
    usage = step.usage
    origin = step.origin(step.operand("s"))
    element = usage.behind(origin, "element")
    if step.op.mnemonic != "indx":
        usage.access(element, 0, ELEMENT_SIZES[step.op.mnemonic], Use.WHOLE, step.pc)
    type_ = usage.elements.get(origin)
    if type_ is not None:
        return learn(step, state, "m", Value(Kind.ELEMENT, type_, element))
    return learn(step, state, "m", Value(Kind.ELSEWHERE, 0, element))


def _learn_array(step: Step, state: State) -> State:
    """Note the type of the elements of a new array."""
    value, type_ = made(step, "A"), step.operand("m").value
    step.usage.elements[value.origin] = type_
    element = step.usage.behind(value.origin, "element")
    what = f"an element of type {type_}"
    step.usage.bring(element, step.found.layouts[type_], None, what, step.pc)
    return keep_result(step, state, value)


def _learn_bytes(step: Step, state: State) -> State:
    """Note an array of bytes."""
    value = made(step, "A")
    element = step.usage.behind(value.origin, "element")
    step.usage.bring(element, Layout(1, frozenset()), None, "a byte", step.pc)
    return keep_result(step, state, value)


def _learn_slice(step: Step, state: State) -> State:
    """Note that an array comes from another one."""
    value, old = made(step, "A"), step.pointer(step.operand("d"))
    if old and old.origin >= 0:
        step.usage.flow(value.origin, old.origin)
    return keep_result(step, state, value)


def _learn_elements(step: Step, state: State) -> State:
    """Note that the elements of an array are copied to another one."""
    source, target = step.origin(step.operand("s")), step.origin(step.operand("d"))
    if source >= 0 and target >= 0:
        step.usage.copy_elements(source, target, step.pc)
    return state


# Lists


def _learn_list(step: Step, state: State) -> State:
    """Note a list with one more value, and its type."""
    usage, source = step.usage, step.operand("s")
    value, old = made(step, "I"), step.pointer(step.operand("d"))
    if old and old.origin >= 0:
        usage.flow(value.origin, old.origin)
    head = usage.behind(value.origin, "head")
    usage.bring(head, value_layout(step), None, "a head", step.pc)
    if step.op.mnemonic in ("consp", "consmp"):
        place = Place(None, 0, origin=head)
        if step.op.mnemonic == "consmp":
            state = keep_value(step, state, step.place(source), place)
        else:
            state = keep(step, state, place, step.pointer(source))
    return keep_result(step, state, value)


def _learn_head(step: Step, state: State) -> State:
    """Note what is read from the head of a list."""
    origin = step.origin(step.operand("s"))
    if origin < 0:
        return state
    usage, layout = step.usage, value_layout(step)
    place = Place(None, 0, origin=usage.behind(origin, "head"))
    usage.access(place.origin, 0, layout.size, Use.READ, step.pc)
    usage.value(place.origin, 0, layout, step.pc)
    if step.op.mnemonic == "headmp":
        return keep_value(step, state, place, step.place(step.operand("d")))
    return keep_result(step, state, step.held(place)) if layout.pointers else state


# Channels


def _learn_channel(step: Step, state: State) -> State:
    """Note a channel and what it carries."""
    value = made(step, "N")
    content = step.usage.behind(value.origin, "content")
    step.usage.bring(content, value_layout(step), None, "a value", step.pc)
    return keep_result(step, state, value)


def _learn_transfer(step: Step, state: State) -> State:
    """Note where a channel's values go to or come from."""
    sends = step.op.mnemonic == "send"
    channel = step.origin(step.operand("d" if sends else "s"))
    operand = step.operand("s" if sends else "d")
    if channel < 0:
        return state
    content = step.usage.behind(channel, "content")
    place = CONSTANT if operand.mode is Mode.IMMEDIATE else step.place(operand)
    if is_result(operand) and not sends:
        step.usage.receive_result(content, place.origin, place.offset, step.pc)
    return _transferred(step, state, content, place, sends)


def _transferred(step: Step, state: State, content: int, place: Place, sends: bool) -> State:
    """Note that a place is where values of a channel come from or go to."""
    if place.layout is None:
        return state
    step.usage.want(content, place.layout, place.offset, not sends, step.pc)
    if place.frame >= 0 and not sends:
        for at in place.layout.pointers:
            state = keep(step, state, place._replace(offset=at), UNKNOWN_POINTER)
    if place.offset not in place.layout.pointers:
        return state
    inside = Place(None, 0, origin=content)
    if sends:
        return keep(step, state, inside, step.held(place))
    return keep(step, state, place, step.held(inside))


def _learn_table(step: Step, state: State) -> State:
    """Note what an alt table may transfer."""
    sends, slots = step.state[step.operand("s").value].number, []
    for index, at in enumerate(alt_entries(step)):
        to = step.state[at + WORD_SIZE]
        if index >= sends and to.kind is Kind.SLOT:
            slots.append(to.number)
        state = _learn_entry(step, state, at, index < sends)
    # What a slot for several channels holds depends on the index that alt returns.
    for slot in set(slots):
        if slots.count(slot) > 1:
            state = overwritten(state, slot)
    return state


def _learn_entry(step: Step, state: State, at: int, sends: bool) -> State:
    """Note what an entry of an alt table may transfer."""
    channel, to = step.state.get(at, UNKNOWN_POINTER), step.state[at + WORD_SIZE]
    origin = channel.origin
    if channel.kind in COPIES:
        step.usage.access(origin, channel.number, WORD_SIZE, Use.POINTER, step.pc, channel.tags)
        origin = step.usage.behind(origin, "at", channel.number, channel.tags)
    if origin < 0:
        return state
    if to.kind not in (Kind.SLOT, Kind.DATA, Kind.CONSTANT):
        return state
    place = address_place(step, to) or CONSTANT
    if step.usage.is_array(origin):
        element = step.usage.behind(origin, "element")
        origin = step.usage.behind(element, "at")
        place = place._replace(offset=place.offset + WORD_SIZE)
    content = step.usage.behind(origin, "content")
    return _transferred(step, state, content, place, sends)


ON_CONTAINERS: dict[str, Callable[[Step, State], State]] = {
    **dict.fromkeys(ELEMENT_SIZES, _learn_element),
    "indx": _learn_element,
    **dict.fromkeys(("newa", "newaz"), _learn_array),
    "cvtca": _learn_bytes,
    "slicea": _learn_slice,
    "slicela": _learn_elements,
    **dict.fromkeys((f"cons{t}" for t in ("b", "w", "l", "f", "p", "m", "mp")), _learn_list),
    **dict.fromkeys((f"head{t}" for t in ("b", "w", "l", "f", "p", "m", "mp")), _learn_head),
    **dict.fromkeys((f"newc{t}" for t in ("b", "w", "l", "f", "p", "m", "mp")), _learn_channel),
    **dict.fromkeys(("send", "recv"), _learn_transfer),
    **dict.fromkeys(("alt", "nbalt"), _learn_table),
}
