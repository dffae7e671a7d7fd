"""How much a function writes as its result: told from its text, before its types are known."""

from __future__ import annotations

from collections.abc import Iterable

from llmbol_core.vm.isa import TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.structure import Structure
from llmbol_core.vm.tables import table_targets

RESULT_PLACE = 16
"""Offset in a frame of the address for the result."""
UNKNOWN = 1 << 16


def is_result(operand: Operand) -> bool:
    """Whether an operand lies where the function's own result goes."""
    return operand.mode is Mode.FP_INDIRECT and operand.base == RESULT_PLACE


def result_size(found: Structure, entry: int) -> int:
    """Return how many bytes the function at an entry may write where its frame says."""
    code = found.module.instructions
    size, seen, work = 0, set[int](), [entry]
    while work:
        pc = work.pop()
        while pc not in seen and pc < len(code):
            seen.add(pc)
            instruction = code[pc]
            size = max(size, _written(found, instruction))
            work.extend(_targets(found, pc, instruction))
            if instruction.op.effect in (Effect.JUMP, Effect.RETURN, Effect.END):
                break
            pc += 1
        # Handlers lead on from wherever they protect.
    for handler in found.module.handlers:
        if any(handler.pc1 <= pc < handler.pc2 for pc in seen):
            new = {pc for _, pc in handler.labels} | {handler.default_pc}
            if not new - {-1} <= seen:
                return UNKNOWN
    return size


def _written(found: Structure, instruction: Instruction) -> int:
    """Return where in the result an instruction's writing ends."""
    size = 0
    for role in instruction.op.operands:
        if role.place in "smd" and (role.writes or role.type == "O"):
            operand = instruction.operand(role.place)
            if is_result(operand):
                size = max(size, operand.value + _size(found, instruction, role))
    return size


def _size(found: Structure, instruction: Instruction, role: OperandRole) -> int:
    middle = instruction.operand("m")
    if not role.is_storage:
        return TYPES[role.type].size
    if role.type == "X" and instruction.op.role("m") and middle.mode is Mode.IMMEDIATE:
        return middle.value
    if role.type == "Y" and middle.value in found.layouts:
        return found.layouts[middle.value].size
    return UNKNOWN


def _targets(found: Structure, pc: int, instruction: Instruction) -> Iterable[int]:
    op, label = instruction.op, instruction.destination
    if op.mnemonic == "movpc":
        # Any jump to an address may then lead there.
        return (instruction.source.value,)
    if op.effect is Effect.BRANCH or op.mnemonic == "jmp":
        return (label.value,) if label.mode is Mode.IMMEDIATE else ()
    return table_targets(found, pc) if op.effect is Effect.JUMP else ()
