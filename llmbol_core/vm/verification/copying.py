"""Checks of instructions that copy bytes or whole values, and of alt tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.vm.isa import WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.verification.fitting import ALIGNED
from llmbol_core.vm.verification.guards import value_pieces
from llmbol_core.vm.verification.origins import Use
from llmbol_core.vm.verification.slots import ADDRESSES, COPIES, Kind
from llmbol_core.vm.verification.structure import Layout

if TYPE_CHECKING:
    from llmbol_core.vm.verification.effects import Touch
    from llmbol_core.vm.verification.typeflow import Place, Step

ALT_ENTRY = 8
_ALT_CHANNELS = COPIES | {Kind.COPY, Kind.ORIGIN, Kind.OBJECT}


def check_bytes(step: Step) -> None:
    """Refuse to copy bytes from beyond an object, or onto pointers."""
    operand = step.operand("m")
    if operand.mode is not Mode.IMMEDIATE or operand.value < 0:
        raise step.fail("the number of bytes should be immediate")
    if step.operand("s").mode is Mode.IMMEDIATE:
        raise step.fail("the source of bytes should not be immediate")
    for touch in step.effects.touches:
        if touch.role.type == "X":
            place, size = _checked(step, touch), touch.size
            if size:
                _note_bytes(step, place, size, Use.WRITE if touch.role.writes else Use.READ)
            if place.layout and touch.role.writes and place.layout.overlaps(place.offset, size):
                raise step.fail(f"{size} bytes would be written over a pointer")


def check_value(step: Step) -> None:
    """Refuse a value whose pointers are not where its source and destination have them."""
    value = step.found.layouts[step.operand("m").value]
    for touch in step.effects.touches:
        if touch.role.type == "Y":
            place = _checked(step, touch)
            _check_pointers(step, place, value, touch.role)
            _note_value(step, place, value, touch.role)


def _checked(step: Step, touch: Touch) -> Place:
    """Return where an operand lies; it must have room, and may not be a table if it is written."""
    place, size = step.place(touch.operand), touch.size
    if place.layout and not 0 <= place.offset <= place.layout.size - size:
        why = f"{size} bytes at {place.offset} reach beyond the {place.layout.size} there"
        raise step.fail(why)
    if touch.role.writes:
        step.check_tables(place, size)
    return place


def _note_value(step: Step, place: Place, value: Layout, role: OperandRole) -> None:
    """Note that a whole value behind a pointer is read or written."""
    for piece in value_pieces(value, place.offset, Use.WRITE if role.writes else Use.READ):
        there = place._replace(offset=piece.offset)
        if piece.use is Use.POINTER:
            step.access(there, WORD_SIZE, Use.POINTER)
        else:
            _note_bytes(step, there, piece.size, piece.use)


def _note_bytes(step: Step, place: Place, size: int, use: Use) -> None:
    """Note that bytes are copied: not as a number, which would have to be aligned."""
    if size in ALIGNED and place.offset % WORD_SIZE:
        step.access(place, 1, use)
        place, size = place._replace(offset=place.offset + 1), size - 1
    step.access(place, size, use)


def _check_pointers(step: Step, place: Place, value: Layout, role: OperandRole) -> None:
    if value.pointers and place.offset % WORD_SIZE:
        raise step.fail(f"{place.offset} is not aligned")
    if place.layout is None:
        return
    there = {
        p - place.offset
        for p in place.layout.pointers
        if place.offset - WORD_SIZE < p < place.offset + value.size
    }
    missing = value.pointers - there
    if role.writes:
        missing |= there - value.pointers
    if missing:
        what = "the value and the place disagree about the pointer"
        raise step.fail(f"{what} at {min(missing)} behind {place.offset}")


def check_table(step: Step) -> None:
    """Refuse an alt table that does not hold two counts, then channels and addresses."""
    table = step.operand("s")
    if table.mode is not Mode.FP:
        raise step.fail("the alt table should lie in the frame")
    counts = [step.state.get(table.value + at) for at in (0, WORD_SIZE)]
    known = [c.number for c in counts if c and c.kind is Kind.NUMBER]
    if len(known) < 2 or min(known) < 0:
        raise step.fail("the table is not known to begin with two counts")
    for index in range(sum(known)):
        _check_entry(step, table.value + ALT_ENTRY * (index + 1), index < known[0])


def _check_entry(step: Step, at: int, sends: bool) -> None:
    channel, to = (step.state.get(place) for place in (at, at + WORD_SIZE))
    is_channel = channel.kind in _ALT_CHANNELS if channel else at in step.layout.pointers
    if not is_channel:
        raise step.fail(f"{at}(fp) is not known to hold a channel")
    other = Kind.CONSTANT if sends else Kind.RESULT
    if to is None or to.kind not in ADDRESSES | {other}:
        raise step.fail(f"{at + WORD_SIZE}(fp) is not known to hold an address")


def check_size(step: Step) -> None:
    """Refuse a channel of values whose size is not known."""
    size = step.operand("s")
    if size.mode is not Mode.IMMEDIATE or size.value < 0:
        raise step.fail("the number of bytes should be immediate")
