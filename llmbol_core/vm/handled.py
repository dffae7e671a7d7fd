"""Whether a call of another module surely uses the handle that its frame was made for."""

from __future__ import annotations

from collections.abc import Iterable

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Effect, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Module, Operand
from llmbol_core.vm.returned import base_of
from llmbol_core.vm.tables import table_targets
from llmbol_core.vm.typeflow import Step

_INDIRECT = (Mode.FP_INDIRECT, Mode.MP_INDIRECT)


def landings(module: Module) -> set[int]:
    """Return where functions and handlers begin."""
    found = {module.entry_pc, *(export.pc for export in module.exports)}
    for handler in module.handlers:
        found |= {handler.default_pc, *(pc for _, pc in handler.labels)}
    return found


def targets(step: Step) -> Iterable[int]:
    """Return where an instruction may lead besides the next one, now or later."""
    op, instruction = step.instruction.op, step.instruction
    if op.has_label and instruction.destination.mode is Mode.IMMEDIATE:
        return (instruction.destination.value,)
    if op.mnemonic == "movpc":
        return (instruction.source.value,)
    is_table = op.effect is Effect.JUMP and op.mnemonic != "jmp"
    return table_targets(step.found, step.pc) if is_table else ()


def made_just_before(call: Step, known: set[int]) -> bool:
    """Whether nothing between the making of a call's frame and the call can change its handle.

    ``known`` is where instructions of the module lead.
    """
    code, handle, frame = call.found.module.instructions, call.operand("d"), call.operand("s")
    slots = [base_of(handle) if handle.mode in _INDIRECT else handle, call.operand("m")]
    for pc in range(call.pc - 1, -1, -1):
        instruction = code[pc]
        op = instruction.op
        if pc + 1 in known or op.effect is not Effect.NEXT or op.mnemonic == "nbalt":
            return False
        if op.mnemonic == "mframe" and instruction.destination == frame:
            is_same = instruction.middle == call.operand("m")
            return is_same and instruction.source == handle
        for role in op.operands:
            if role.writes and any(_may_write(instruction, role, s, frame) for s in slots):
                return False
    return False


def _may_write(instruction: Instruction, role: OperandRole, slot: Operand, frame: Operand) -> bool:
    """Whether an operand may be written over a slot, arguments in a frame being elsewhere."""
    operand = instruction.operand(role.place)
    if operand.mode is Mode.FP_INDIRECT and operand.base == frame.value:
        return False
    if operand.mode is not Mode.FP and operand.mode is not Mode.MP:
        return True
    if role.is_storage:
        return operand.mode is slot.mode
    end = operand.value + max(TYPES[role.type].size, WORD_SIZE)
    return operand.mode is slot.mode and operand.value - WORD_SIZE < slot.value < end
