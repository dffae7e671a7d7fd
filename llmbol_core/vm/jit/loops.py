"""Counted loops: innermost ones whose only end is the test of a slot that steps by a constant.

    #86  bgew  44(fp),32(fp),$93        while i < n:
         indf  60(fp),76(fp),44(fp)         out[i] += x * row[i]
         indf  64(fp),72(fp),44(fp)
         mulf  0(72(fp)),96(fp),80(fp)
         addf  80(fp),0(76(fp))
         addw  $1,44(fp)                    i += 1
         jmp   $86

Before such a loop begins, it can be computed how far the slot may go until the bound is reached, an
index would leave its array, or the instructions that may run are spent. Up to there a second copy
of the loop needs no checks at all, and LLVM makes vector code of it.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmbol_core.vm.isa import ELEMENT_SIZES, Effect, Mode
from llmbol_core.vm.jit.calls import operand_for
from llmbol_core.vm.jit.modulecode import label_of, loop_body
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.module import Instruction, Operand

_PLAIN = frozenset({"jmp", "lena", "movpc", *ELEMENT_SIZES})
_FLIPPED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
_OPPOSITE = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "le": "gt", "gt": "le"}


@dataclass(frozen=True)
class Access:
    """An element whose index is the loop's slot and a constant."""

    array: int
    """The slot of the array."""
    more: int
    """What is added to the value that the loop's slot has when an iteration begins."""
    size: int


@dataclass(frozen=True)
class Loop:
    """A counted loop: it goes on while ``relation`` holds between its slot and its bound."""

    head: int
    pcs: tuple[int, ...]
    slot: int
    step: int
    test: int
    """The instruction that ends the loop."""
    relation: str
    stepped: int
    """What the slot's value is at the test more than when the iteration begins."""
    bound: Operand
    length: bool
    """Whether the bound is the length of the array in the slot that it names."""
    accesses: dict[int, Access]
    """Elements by the instructions that look for them."""
    sums: dict[int, tuple[int, int]]
    """Instructions that add a constant to the slot: slot written, and constant."""


def counted_loops(region: Region) -> list[Loop]:
    """Return the counted loops of a region."""
    found, origins = [], region.code.origins(region.pcs)
    for head in sorted(region.heads):
        body = loop_body(head, origins)
        if head in region.entries and not (body & region.heads - {head}):
            loop = _Finder(region, head, body).loop()
            if loop is not None:
                found.append(loop)
    return found


class _Finder:
    """Looks for what makes one loop a counted one."""

    def __init__(self, region: Region, head: int, body: frozenset[int]) -> None:
        self._region, self._head, self._body = region, head, body
        self._code = region.code
        self._writes: dict[int, list[int]] = {}
        self._sums: dict[int, tuple[int, int]] = {}
        for pc in sorted(body):
            instruction = self._code.instructions[pc]
            for role in instruction.op.operands:
                operand = operand_for(instruction, role.place)
                if role.writes and operand.mode is Mode.FP:
                    self._writes.setdefault(operand.value, []).append(pc)

    def loop(self) -> Loop | None:
        """Return the loop if it is counted."""
        test = self._test()
        if test is None or not self._is_plain():
            return None
        instruction = self._code.instructions[test]
        relation = instruction.op.mnemonic[1:3]
        leaves = label_of(instruction) not in self._body
        relation = _OPPOSITE[relation] if leaves else relation
        sides = (instruction.source, instruction.middle, relation)
        flipped = (instruction.middle, instruction.source, _FLIPPED[relation])
        for slot, bound, how in (sides, flipped):
            step = self._step(slot)
            if step and how in (("lt", "le", "ne") if step > 0 else ("gt", "ge", "ne")):
                known = self._bound(bound, test)
                adder = self._writes[slot.value][0]
                stepped = self._more(test, slot.value, slot.value, adder, step)
                if known is not None and stepped is not None and (how != "ne" or abs(step) == 1):
                    self._sums = {adder: (slot.value, step)}
                    accesses = self._accesses(slot.value, step)
                    pcs = tuple(sorted(self._body))
                    at = (self._head, pcs, slot.value, step, test, how, stepped)
                    return Loop(*at, *known, accesses, self._sums)
        return None

    def _test(self) -> int | None:
        """Return the instruction that ends the loop, if it is the first branch and alone."""
        ends = [pc for pc in self._body if any(t not in self._body for t in self._code.targets(pc))]
        if len(ends) != 1:
            return None
        pc = self._head
        while self._code.instructions[pc].op.effect is Effect.NEXT and pc + 1 in self._body:
            pc += 1
        is_word = self._code.instructions[pc].op.mnemonic in (
            "beqw", "bnew", "bltw", "blew", "bgtw", "bgew",
        )  # fmt: skip
        return pc if is_word and ends == [pc] else None

    def _is_plain(self) -> bool:
        region = self._region
        others = region.entries.keys() & self._body - {self._head}
        return not others and all(
            pc in region.native
            and not region.pending[pc]
            and (
                self._code.instructions[pc].op.meaning is not None
                or self._code.instructions[pc].op.mnemonic in _PLAIN
            )
            for pc in self._body
        )

    def _step(self, operand: Operand) -> int:
        """Return what a slot is changed by in each iteration, 0 if that is not so."""
        writes = self._writes.get(operand.value, [])
        if operand.mode is not Mode.FP or len(writes) != 1 or not self._is_counter(operand.value):
            return 0
        step = _constant_step(self._code.instructions[writes[0]], operand)
        return step if abs(step) < 1 << 16 and not self._reaches_head(avoiding=writes[0]) else 0

    def _is_counter(self, offset: int) -> bool:
        return self._region.slots.get(offset) == "i32"

    def _reaches_head(self, avoiding: int) -> bool:
        """Whether an iteration can come to its end without an instruction."""
        return self._leads(self._head, self._head, avoiding)

    def _leads(self, start: int, end: int, avoiding: int = -1) -> bool:
        """Whether control can go from behind an instruction to another within an iteration."""
        if start == avoiding:
            return False
        seen: set[int] = set()
        work = [start]
        while work:
            for target in self._code.targets(work.pop()):
                if target == end:
                    return True
                is_way = target in self._body and target not in (avoiding, self._head)
                if is_way and target not in seen:
                    seen.add(target)
                    work.append(target)
        return False

    def _bound(self, operand: Operand, test: int) -> tuple[Operand, bool] | None:
        """Return the bound as an operand that does not change, and whether it is a length."""
        if operand.mode is Mode.IMMEDIATE:
            return operand, False
        if operand.mode is Mode.MP:
            known = self._code.constant(operand.value, "W")
            return None if known is None else (Operand(Mode.IMMEDIATE, int(known)), False)
        if operand.mode is not Mode.FP or not self._is_counter(operand.value):
            return None
        writes = self._writes.get(operand.value, [])
        if not writes:
            return operand, False
        setter = self._code.instructions[writes[0]]
        is_length = len(writes) == 1 and setter.op.mnemonic == "lena" and writes[0] < test
        source = setter.source
        if is_length and source.mode is Mode.FP and self._is_fixed_array(source.value):
            return source, True
        return None

    def _is_fixed_array(self, offset: int) -> bool:
        return offset in self._region.arrays and offset not in self._writes

    def _accesses(self, slot: int, step: int) -> dict[int, Access]:
        """Return the elements at indices that are known in each iteration."""
        found = {}
        stepped = self._writes[slot][0]
        for pc in self._body:
            instruction = self._code.instructions[pc]
            size = ELEMENT_SIZES.get(instruction.op.mnemonic)
            array, index = instruction.source, instruction.destination
            is_array = array.mode is Mode.FP and self._is_fixed_array(array.value)
            if size is None or not is_array or index.mode is not Mode.FP:
                continue
            more = self._more(pc, index.value, slot, stepped, step)
            if more is not None:
                found[pc] = Access(array.value, more, size)
        return found

    def _more(self, pc: int, index: int, slot: int, stepped: int, step: int) -> int | None:
        """Return an index's distance from what the loop's slot is when an iteration begins."""
        if index == slot:
            # Coming to the head again is another iteration.
            before = stepped != self._head and self._leads(pc, stepped)
            behind = pc != self._head and self._leads(stepped, pc)
            if before == behind:
                return None
            return step if behind else 0
        writes = self._writes.get(index, [])
        if len(writes) != 1 or not self._is_counter(index) or writes[0] == pc:
            return None
        own = _constant_sum(self._code.instructions[writes[0]], slot)
        first_made = not self._leads(self._head, pc, avoiding=writes[0])
        if own is None or not first_made or pc == self._head:
            return None
        base = self._more(writes[0], slot, slot, stepped, step)
        if base is None:
            return None
        self._sums[writes[0]] = index, own
        return base + own


def _constant_step(instruction: Instruction, slot: Operand) -> int:
    """Return what an instruction adds to a slot."""
    if instruction.destination != slot:
        return 0
    return _constant_sum(instruction, slot.value) or 0


def _constant_sum(instruction: Instruction, slot: int) -> int | None:
    """Return the constant whose sum with a slot an instruction computes."""
    own, mnemonic = Operand(Mode.FP, slot), instruction.op.mnemonic
    source, middle = instruction.source, operand_for(instruction, "m")
    if mnemonic == "addw" and source == own and middle.mode is Mode.IMMEDIATE:
        return _small(middle.value)
    if middle != own or source.mode is not Mode.IMMEDIATE or mnemonic not in ("addw", "subw"):
        return None
    return _small(source.value if mnemonic == "addw" else -source.value)


def _small(value: int) -> int | None:
    return value if abs(value) < 1 << 16 else None
