"""All that an instruction may change, and what it needs, given what its frame holds.

To what the operands name (``effects.py``) this adds where it lies, and what no operand names: the
places in alt tables, the places of results, elements that are copied, and whatever other processes
do while an instruction lets them run.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmbol_core.vm.isa import WORD_SIZE, Effect, Mode
from llmbol_core.vm.verification.copying import ALT_ENTRY
from llmbol_core.vm.verification.effects import (
    BEHIND,
    BY_OTHERS,
    DATA,
    FRAME,
    MADE,
    RESULT_PLACE,
    UNKNOWN,
    Change,
    Spot,
    change_of,
)
from llmbol_core.vm.verification.slots import POINTERS, Value
from llmbol_core.vm.verification.structure import Structure
from llmbol_core.vm.verification.typeflow import Place, Step
from llmbol_core.vm.verification.whole import address_place, alt_entries

CALLS = ("call", "mcall", "spawn", "mspawn")
ALTS = ("alt", "nbalt")
_BEYOND_OPERANDS = frozenset({*CALLS, *ALTS, "slicela", "load", "send", "recv"})
"""Instructions that change more than their operands, or let other processes do so."""


_BEHIND = Spot(BEHIND)


def spot_of(found: Structure, place: Place) -> Spot:
    """Return where a place is."""
    if place.own:
        return Spot(FRAME, place.offset)
    if place.frame >= 0:
        return Spot(MADE, place.frame)
    return Spot(DATA, place.offset) if place.layout is found.data else _BEHIND


def changes(step: Step) -> tuple[Change, ...]:
    """Return all that may be written between an instruction and the function's next one."""
    named = step.effects.changes
    is_all = step.op.mnemonic not in _BEYOND_OPERANDS
    if is_all and not step.effects.written_behind:
        return named
    behind = (
        change_of(touch, spot_of(step.found, step.place(touch.operand)))
        for touch in step.effects.written_behind
    )
    return (*named, *behind, *(() if is_all else _unnamed(step)))


def _unnamed(step: Step) -> Iterator[Change]:
    """Yield what an instruction changes besides its operands, or lets others change."""
    op, frame = step.op, step.operand("s").value
    if op.mnemonic == "slicela":
        yield Change(_BEHIND, UNKNOWN)
    elif op.mnemonic in ALTS:
        sends = step.state[frame].number
        for at in alt_entries(step)[sends:]:
            yield _at_address(step, step.state[at + WORD_SIZE], UNKNOWN)
    elif op.mnemonic in CALLS:
        yield Change(Spot(MADE, frame), UNKNOWN)
        size = step.written(step.label()) if op.mnemonic == "call" else UNKNOWN
        if size and -frame in step.state:
            yield _at_address(step, step.state[-frame], size)
    if op.effect in (Effect.CALL, Effect.WAIT) or op.mnemonic in ("load", "nbalt"):
        yield from BY_OTHERS


def _at_address(step: Step, to: Value, size: int) -> Change:
    """Return the change of something being stored where an address leads."""
    place = address_place(step, to)
    return Change(spot_of(step.found, place) if place else _BEHIND, size)


def needed(step: Step) -> Iterator[int]:
    """Yield the words of the frame that an instruction uses as more than numbers or pointers."""
    for operand, role, _ in step.effects.touches:
        if not role.place and operand.mode is Mode.FP and operand.value != RESULT_PLACE:
            known = step.state.get(operand.value)
            if known is not None and known.kind not in POINTERS:
                yield operand.value
    op = step.op
    if op.mnemonic in CALLS:
        yield step.operand("s").value
    if op.has_label and step.operand("d").mode is Mode.FP:
        yield step.operand("d").value
    if op.mnemonic in ALTS:
        table = step.operand("s").value
        yield from range(table, table + ALT_ENTRY * (len(alt_entries(step)) + 1), WORD_SIZE)
