"""Layouts and places of the values in lists, channels and alt tables."""

from __future__ import annotations

from llmbol_core.vm.isa import TYPES, WORD_SIZE
from llmbol_core.vm.verification.copying import ALT_ENTRY
from llmbol_core.vm.verification.slots import Kind, Value
from llmbol_core.vm.verification.structure import Layout
from llmbol_core.vm.verification.typeflow import Place, Step


def value_layout(step: Step) -> Layout:
    """Return the layout of the values in the list or channel that an instruction makes or reads."""
    op = step.op
    if op.mnemonic.startswith("newc"):
        if op.mnemonic == "newcmp":
            return step.found.layouts[step.operand("s").value]
        if op.mnemonic == "newcm":
            return Layout(step.operand("s").value, frozenset())
        letter = op.mnemonic[-1].upper()
        return Layout(TYPES[letter].size, frozenset({0} if letter == "P" else ()))
    role = op.role("d" if op.mnemonic[0] == "h" else "s")
    assert role is not None
    if role.type == "Y":
        return step.found.layouts[step.operand("m").value]
    size = step.operand("m").value if role.type == "X" else TYPES[role.type].size
    return Layout(size, frozenset({0} if role.type == "P" else ()))


CONSTANT = Place(Layout(WORD_SIZE, frozenset()), 0)
"""The place of a constant that is sent."""


def alt_entries(step: Step) -> list[int]:
    """Return where in the frame the entries of an alt table are."""
    table = step.operand("s").value
    counts = [step.state[table + at].number for at in (0, WORD_SIZE)]
    first = table + ALT_ENTRY
    return list(range(first, first + ALT_ENTRY * sum(counts), ALT_ENTRY))


def entry_place(step: Step, at: int) -> Place | None:
    """Return where the value of an entry of an alt table lies; None for a constant."""
    return address_place(step, step.state[at + WORD_SIZE])


def address_place(step: Step, to: Value) -> Place | None:
    """Return where an address leads; None for that of a constant."""
    match to.kind:
        case Kind.SLOT:
            return Place(step.layout, to.number, own=True)
        case Kind.DATA:
            return Place(step.found.data, to.number)
        case Kind.ELEMENT:
            return Place(step.found.layouts[to.number], 0, origin=to.origin)
        case Kind.ELSEWHERE | Kind.RESULT:
            return Place(None, to.number, origin=to.origin, tags=to.tags)
    return None
