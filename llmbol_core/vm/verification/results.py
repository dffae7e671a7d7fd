"""How much a function writes as its result, found from its text before its types are known."""

from __future__ import annotations

from collections.abc import Iterable

from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.verification.effects import UNKNOWN, effects, is_result
from llmbol_core.vm.verification.structure import Structure
from llmbol_core.vm.verification.tables import table_targets


def result_size(found: Structure, entry: int) -> int:
    """Return how many bytes the function at an entry may write at its result's address."""
    code = found.module.instructions
    size, seen, work = 0, set[int](), [entry]
    while work:
        pc = work.pop()
        while pc not in seen and pc < len(code):
            seen.add(pc)
            instruction = code[pc]
            size = max(size, _written(found, pc))
            work.extend(_targets(found, pc, instruction))
            if instruction.op.effect in (Effect.JUMP, Effect.RETURN, Effect.END):
                break
            pc += 1
        # A handler can follow any instruction that it protects.
    for handler in found.module.handlers:
        if any(handler.pc1 <= pc < handler.pc2 for pc in seen):
            new = {pc for _, pc in handler.labels} | {handler.default_pc}
            if not new - {-1} <= seen:
                return UNKNOWN
    return size


def _written(found: Structure, pc: int) -> int:
    """Return the end, in the result, of what an instruction writes."""
    ends = [
        touch.operand.value + touch.size
        for touch in effects(found, pc).touches
        if (touch.role.writes or touch.role.type == "O") and is_result(touch.operand)
    ]
    return min(max(ends, default=0), UNKNOWN)


def _targets(found: Structure, pc: int, instruction: Instruction) -> Iterable[int]:
    op, label = instruction.op, instruction.destination
    if op.mnemonic == "movpc":
        # Any jump to an address may then go there.
        return (instruction.source.value,)
    if op.effect is Effect.BRANCH or op.mnemonic == "jmp":
        return (label.value,) if label.mode is Mode.IMMEDIATE else ()
    return table_targets(found, pc) if op.effect is Effect.JUMP else ()
