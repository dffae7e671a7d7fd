"""Whether a call of another module surely uses the handle that its frame was made for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.module import Module
from llmbol_core.vm.verification.changes import changes, spot_of
from llmbol_core.vm.verification.effects import INDIRECT, NO_PLACE, base_of
from llmbol_core.vm.verification.tables import table_targets
from llmbol_core.vm.verification.typeflow import Step


def landings(module: Module) -> set[int]:
    """Return where functions and handlers begin."""
    found = {module.entry_pc, *(export.pc for export in module.exports)}
    for handler in module.handlers:
        found |= {handler.default_pc, *(pc for _, pc in handler.labels)}
    return found


def targets(step: Step) -> Iterable[int]:
    """Return where an instruction may lead, now or later, besides the next one."""
    op, instruction = step.op, step.instruction
    if op.has_label and instruction.destination.mode is Mode.IMMEDIATE:
        return (instruction.destination.value,)
    if op.mnemonic == "movpc":
        return (instruction.source.value,)
    is_table = op.effect is Effect.JUMP and op.mnemonic != "jmp"
    return table_targets(step.found, step.pc) if is_table else ()


def made_just_before(call: Step, steps: Mapping[int, Step], known: set[int]) -> bool:
    """Whether nothing between the making of a call's frame and the call can change the handle.

    ``known`` are the instructions that others lead to.
    """
    found, handle, frame, link = call.found, *(call.operand(place) for place in "dsm")
    words = [handle, frame, link, *([base_of(handle)] if handle.mode in INDIRECT else [])]
    spots = [spot_of(found, call.place(word)) for word in words if word.mode not in NO_PLACE]
    for pc in range(call.pc - 1, -1, -1):
        if pc + 1 in known or pc + 1 in found.pauses or pc not in steps:
            return False
        step = steps[pc]
        if step.op.mnemonic == "mframe" and step.operand("d") == frame:
            return step.operand("m") == link and step.operand("s") == handle
        if step.op.effect is not Effect.NEXT:
            return False
        if any(change.may_reach(spot) for change in changes(step) for spot in spots):
            return False
    return False
