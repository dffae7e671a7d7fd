"""Which slots of a frame a function reads before it writes them.

Callers must give it those that it reads at its start; what leaves it keeps those that it reads
from there on.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from llmbol_core.vm.isa import PARAMETERS, TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.jit.calls import RESULT, operand_for

if TYPE_CHECKING:
    from llmbol_core.vm.jit.region import Region


def live_before(region: Region) -> dict[int, set[int]]:
    """Return the slots in registers whose values matter before each instruction.

    If a jump's targets are not known, or a part of a function is compiled without the rest, all
    slots count as live.
    """
    slots = list(region.slots)
    if region.code.whole is not region.code or _may_go_astray(region):
        return {pc: set(slots) for pc in region.pcs}
    bits = {offset: 1 << number for number, offset in enumerate(slots)}
    uses, kills = {}, {}
    for pc in region.pcs:
        uses[pc], kills[pc] = _effects(region, pc, bits)
    live = _flow(region, uses, kills)
    return {pc: {offset for offset in slots if live[pc] & bits[offset]} for pc in region.pcs}


def live_at_start(region: Region) -> set[int]:
    """Return the slots in registers that callers must give."""
    found = set(region.live[region.start])
    if region.result:
        found.discard(RESULT)
        if RESULT in region.slots and region.results.has_tails(region.start):
            found.add(RESULT)
    return found


def _may_go_astray(region: Region) -> bool:
    instructions = region.code.instructions
    return any(
        pc not in region.native and instructions[pc].op.effect in (Effect.JUMP, Effect.BRANCH)
        for pc in region.pcs
    )


def _flow(region: Region, uses: dict[int, int], kills: dict[int, int]) -> dict[int, int]:
    """Return the slots that are live before each instruction, as bits."""
    origins: dict[int, list[int]] = defaultdict(list)
    code = region.code
    for pc in region.pcs:
        for target in (*code.targets(pc), *code.handlers(pc)):
            origins[target].append(pc)
    live = dict.fromkeys(region.pcs, 0)
    work = list(region.pcs)
    while work:
        pc = work.pop()
        after, before = 0, uses[pc]
        for target in code.targets(pc):
            after |= live[target]
        for target in code.handlers(pc):
            before |= live[target]
        before |= after & ~kills[pc]
        if before != live[pc]:
            live[pc] = before
            work += origins[pc]
    return live


def _effects(region: Region, pc: int, bits: dict[int, int]) -> tuple[int, int]:
    """Return the slots that an instruction reads, and those that it writes, as bits."""
    instruction = region.code.instructions[pc]
    use = kill = 0
    for role in instruction.op.operands:
        if role.place in PARAMETERS:
            use |= bits.get(PARAMETERS[role.place], 0)
            continue
        operand = operand_for(instruction, role.place)
        if operand.mode is Mode.FP_INDIRECT:
            if region.site_of(pc, operand) is None:
                use |= bits.get(operand.base, 0)
        elif operand.mode is Mode.FP and not role.is_storage:
            own = bits.get(operand.value, 0)
            kill |= 0 if role.reads else own
            if role.reads and pc in region.native:
                use |= own
            elif role.reads:
                use |= _touched(bits, operand.value, TYPES[role.type].size or 4)
        elif operand.mode is Mode.FP:
            use |= _storage_use(region, pc, role, bits)
    return use, kill | bits.get(_result(region, pc), 0)


def _result(region: Region, pc: int) -> int:
    """Return the slot that gets the result of a call, -1 if that is not certain."""
    site = region.sites.by_call.get(pc)
    if site is None or site.is_linked or site.address is None:
        return -1
    return site.address.value if site.address.mode is Mode.FP else -1


def _storage_use(region: Region, pc: int, role: OperandRole, bits: dict[int, int]) -> int:
    """Return the slots that an instruction reads in a part of the frame."""
    instruction, size = region.code.instructions[pc], region.frame.size
    if pc in region.native:
        # All but ``lea``, which only takes the address, look at what is there.
        size = min(size, region.code.storage_size(instruction, role)) if role.type != "O" else 0
    elif not role.reads:
        size = 0
    return _touched(bits, instruction.operand(role.place).value, size) if size else 0


def _touched(bits: dict[int, int], start: int, size: int) -> int:
    found = 0
    for offset, bit in bits.items():
        if start - 8 < offset < start + size:
            found |= bit
    return found
