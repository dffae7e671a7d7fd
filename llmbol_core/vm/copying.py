"""Checks of instructions that copy bytes or whole values: both places must have room for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.vm.isa import WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.origins import Use
from llmbol_core.vm.structure import Layout

if TYPE_CHECKING:
    from llmbol_core.vm.typeflow import Place, Step


def check_bytes(step: Step) -> None:
    """Refuse to copy bytes from beyond an object, or onto pointers."""
    size = _size(step)
    for role in step.instruction.op.operands:
        if role.type == "X":
            place = step.place(step.operand(role.place))
            _check_extent(step, place, size)
            if role.writes:
                step.check_tables(place, size)
            if size:
                step.access(place, size, Use.WRITE if role.writes else Use.READ)
            if place.layout and role.writes and place.layout.overlaps(place.offset, size):
                raise step.fail(f"{size} bytes would be written over a pointer")


def _size(step: Step) -> int:
    operand = step.operand("m")
    if operand.mode is not Mode.IMMEDIATE or operand.value < 0:
        raise step.fail("the number of bytes should be immediate")
    return operand.value


def check_value(step: Step) -> None:
    """Refuse a value whose pointers are not where the places it is copied between have them."""
    value = step.found.layouts[step.operand("m").value]
    for role in step.instruction.op.operands:
        if role.type == "Y":
            place = step.place(step.operand(role.place))
            _check_extent(step, place, value.size)
            _check_pointers(step, place, value, role)
            if role.writes:
                step.check_tables(place, value.size)
            _note_value(step, place, value, role)


def _note_value(step: Step, place: Place, value: Layout, role: OperandRole) -> None:
    """Note that a whole value behind a pointer is read or written."""
    if place.frame < 0:
        step.access(place, value.size, Use.READ)
    words = range(0, value.size - WORD_SIZE + 1, WORD_SIZE)
    for at in words if role.writes else value.pointers:
        use = Use.POINTER if at in value.pointers else Use.WRITE
        step.access(place._replace(offset=place.offset + at), WORD_SIZE, use)


def _check_pointers(step: Step, place: Place, value: Layout, role: OperandRole) -> None:
    if place.layout is None:
        return
    there = {
        p - place.offset
        for p in place.layout.pointers
        if place.offset <= p < place.offset + value.size
    }
    missing = value.pointers - there
    if role.writes:
        missing |= there - value.pointers
    if missing:
        what = "the value and the place disagree about the pointer"
        raise step.fail(f"{what} at {min(missing)} behind {place.offset}")


def _check_extent(step: Step, place: Place, size: int) -> None:
    if place.layout and not 0 <= place.offset <= place.layout.size - size:
        why = f"{size} bytes at {place.offset} reach beyond the {place.layout.size} there"
        raise step.fail(why)
