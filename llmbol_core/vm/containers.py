"""What is known behind instructions on arrays, lists and channels."""

from __future__ import annotations

from collections.abc import Callable

from llmbol_core.vm.isa import ELEMENT_SIZES, TYPES, WORD_SIZE, Mode
from llmbol_core.vm.keeping import keep, keep_result, keep_value, learn, made
from llmbol_core.vm.origins import Use
from llmbol_core.vm.results import is_result
from llmbol_core.vm.slots import UNKNOWN_POINTER, Kind, State, Value, overwritten
from llmbol_core.vm.structure import Layout
from llmbol_core.vm.typeflow import Place, Step

_ALT_CHANNELS = frozenset({Kind.COPY, Kind.WORD, Kind.ORIGIN, Kind.OBJECT})
_ALT_ENTRY = 8
_ALT_ADDRESSES = frozenset(
    {Kind.SLOT, Kind.DATA, Kind.ELEMENT, Kind.ELSEWHERE, Kind.RESULT, Kind.CONSTANT}
)


# Arrays


def _learn_element(step: Step, state: State) -> State:
    """Note the address of an element."""
    usage = step.usage
    origin = step.origin(step.operand("s"))
    if origin < 0:
        return learn(step, state, "m", Value(Kind.ELSEWHERE))
    element = usage.behind(origin, "element")
    if step.instruction.op.mnemonic != "indx":
        usage.access(element, 0, ELEMENT_SIZES[step.instruction.op.mnemonic], Use.WHOLE, step.pc)
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
    """Note a list with one more value, and what that is."""
    usage, source = step.usage, step.operand("s")
    value, old = made(step, "I"), step.pointer(step.operand("d"))
    if old and old.origin >= 0:
        usage.flow(value.origin, old.origin)
    head = usage.behind(value.origin, "head")
    usage.bring(head, _head_layout(step), None, "a head", step.pc)
    if step.instruction.op.mnemonic in ("consp", "consmp"):
        place = Place(None, 0, origin=head)
        if step.instruction.op.mnemonic == "consmp":
            state = keep_value(step, state, step.place(source), place)
        else:
            state = keep(step, state, place, step.pointer(source))
    return keep_result(step, state, value)


def _head_layout(step: Step) -> Layout:
    """Return the layout of the values in the list that an instruction makes or reads."""
    role = step.instruction.op.role("d" if step.instruction.op.mnemonic[0] == "h" else "s")
    assert role is not None
    if role.type == "Y":
        return step.found.layouts[step.operand("m").value]
    size = step.operand("m").value if role.type == "X" else TYPES[role.type].size
    return Layout(size, frozenset({0} if role.type == "P" else ()))


def _learn_head(step: Step, state: State) -> State:
    """Note what is read from the head of a list."""
    origin = step.origin(step.operand("s"))
    if origin < 0:
        return state
    usage, layout = step.usage, _head_layout(step)
    place = Place(None, 0, origin=usage.behind(origin, "head"))
    usage.access(place.origin, 0, layout.size, Use.READ, step.pc)
    usage.value(place.origin, 0, layout, step.pc)
    if step.instruction.op.mnemonic == "headmp":
        return keep_value(step, state, place, step.place(step.operand("d")))
    return keep_result(step, state, step.held(place)) if layout.pointers else state


# Channels


def _learn_channel(step: Step, state: State) -> State:
    """Note a channel and what it carries."""
    value, op = made(step, "N"), step.instruction.op
    if op.mnemonic == "newcmp":
        layout = step.found.layouts[step.operand("s").value]
    elif op.mnemonic == "newcm":
        size = step.operand("s")
        if size.mode is not Mode.IMMEDIATE or size.value < 0:
            raise step.fail("the number of bytes should be immediate")
        layout = Layout(size.value, frozenset())
    else:
        letter = op.mnemonic[-1].upper()
        layout = Layout(TYPES[letter].size, frozenset({0} if letter == "P" else ()))
    content = step.usage.behind(value.origin, "content")
    step.usage.bring(content, layout, None, "a value", step.pc)
    return keep_result(step, state, value)


def _learn_transfer(step: Step, state: State) -> State:
    """Note where a channel's values go to or come from."""
    sends = step.instruction.op.mnemonic == "send"
    channel = step.origin(step.operand("d" if sends else "s"))
    operand = step.operand("s" if sends else "d")
    if channel < 0:
        return state
    content = step.usage.behind(channel, "content")
    if operand.mode is Mode.IMMEDIATE:
        place = Place(Layout(WORD_SIZE, frozenset()), 0)
    else:
        place = step.place(operand)
    if is_result(operand) and not sends:
        step.usage.receive_result(content, place.origin, place.offset, step.pc)
    return _transferred(step, state, content, place, sends)


def _transferred(step: Step, state: State, content: int, place: Place, sends: bool) -> State:
    """Note that a place is where values of a channel come from or go to."""
    if place.layout is None:
        return state
    if place.layout is step.found.data and not sends:
        step.usage.variables.write(place.offset)
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
    """Note what an alt table may transfer, and forget what other processes may have written."""
    table = step.operand("s")
    if table.mode is not Mode.FP:
        raise step.fail("the alt table should lie in the frame")
    counts = [step.state.get(table.value + at) for at in (0, WORD_SIZE)]
    known = [c.number for c in counts if c and c.kind is Kind.NUMBER]
    if len(known) < 2 or min(known) < 0:
        raise step.fail("the table is not known to begin with two counts")
    first = table.value + _ALT_ENTRY
    entries = range(first, first + _ALT_ENTRY * sum(known), _ALT_ENTRY)
    slots = [
        to.number
        for at in entries[known[0] :]
        if (to := state.get(at + WORD_SIZE)) and to.kind is Kind.SLOT
    ]
    for slot in slots:
        state = overwritten(state, slot)
    for index, at in enumerate(entries):
        state = _learn_entry(step, state, at, index < known[0])
    # Of a slot for values of several channels the index tells what it holds.
    for slot in set(slots):
        if slots.count(slot) > 1:
            state = overwritten(state, slot)
    return state


def _learn_entry(step: Step, state: State, at: int, sends: bool) -> State:
    """Note what an entry of an alt table may transfer."""
    channel, to = (step.state.get(place) for place in (at, at + WORD_SIZE))
    if channel is None and at in step.layout.pointers:
        channel = Value(Kind.ORIGIN)
    if channel is None or channel.kind not in _ALT_CHANNELS:
        raise step.fail(f"{at}(fp) is not known to hold a channel")
    if to is None or to.kind not in _ALT_ADDRESSES or (to.kind is Kind.CONSTANT and not sends):
        raise step.fail(f"{at + WORD_SIZE}(fp) is not known to hold an address")
    origin = channel.origin
    if channel.kind is Kind.WORD and origin >= 0:
        step.usage.access(origin, channel.number, WORD_SIZE, Use.POINTER, step.pc, channel.tags)
        origin = step.usage.behind(origin, "at", channel.number, channel.tags)
    if origin < 0:
        return state
    match to.kind:
        case Kind.SLOT:
            place = Place(step.layout, to.number, own=True)
        case Kind.DATA:
            place = Place(step.found.data, to.number)
        case Kind.CONSTANT:
            place = Place(Layout(WORD_SIZE, frozenset()), 0)
        case _:
            return state
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
