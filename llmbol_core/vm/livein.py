"""Which pointers of its frame a function reads before it writes them: its arguments, in effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.structure import Structure

_RESULT_PLACE = 16
_FARTHEST = 1 << 32
"""Beyond all frames."""


class Live(NamedTuple):
    """Pointers of a frame that are read before the function itself writes them.

    What calls may write as their results counts as written in the one and not in the other.
    """

    surely: frozenset[int]
    perhaps: frozenset[int]


class _Slots:
    """Some slots of a frame as bits of a number, which are quicker to join than sets."""

    def __init__(self, slots: Iterable[int]) -> None:
        self._bits = {slot: 1 << number for number, slot in enumerate(slots)}
        self._masks: dict[tuple[int, int], int] = {}
        self._sets: dict[int, frozenset[int]] = {}

    def within(self, start: int, end: int) -> int:
        """Return the slots from a byte of the frame up to another one."""
        mask = self._masks.get((start, end))
        if mask is None:
            mask = sum(bit for slot, bit in self._bits.items() if start <= slot < end)
            self._masks[start, end] = mask
        return mask

    def of(self, mask: int) -> frozenset[int]:
        """Return the slots whose bits are set."""
        found = self._sets.get(mask)
        if found is None:
            found = frozenset(slot for slot, bit in self._bits.items() if mask & bit)
            self._sets[mask] = found
        return found


class Arguments:
    """Live pointers of frames; ``follow`` returns where an instruction leads in its function."""

    def __init__(self, found: Structure, follow: Callable[[int], Iterable[int]]) -> None:
        self._found, self._follow = found, follow
        self._landing: dict[int, list[int]] = {}
        self._leaving: dict[int, list[int]] = {}
        self.live: dict[int, frozenset[int]] = {}
        """Pointers and addresses in the frame that may yet be read, by instruction."""
        self._slots: dict[int, frozenset[int]] = {}
        """Slots of which it is known whether they are read: by their names, not by addresses."""

    def enter(self, entry: int, pointers: frozenset[int]) -> None:
        """Look at a function, of which the frame has pointers in these slots."""
        pcs, before = self._reached(entry)
        code = [self._found.module.instructions[pc] for pc in pcs]
        slots = pointers.union(*(_addresses(instruction) for instruction in code))
        start = min(map(_exposed, code))
        mortal = frozenset(slot for slot in slots if slot < start)
        for pc, live in self._live(pcs, before, slots, counts_results=False).items():
            self.live[pc] = self.live.get(pc, frozenset()) | live
            self._slots[pc] = self._slots.get(pc, mortal) & mortal

    def is_dead(self, pc: int, slot: int) -> bool:
        """Whether what a slot holds at an instruction is not read any more."""
        return slot in self._slots.get(pc, ()) and slot not in self.live[pc]

    def of(self, entry: int, slots: frozenset[int]) -> Live:
        """Return what a function reads of the pointers in its frame before it writes them."""
        pcs, before = self._reached(entry)
        surely = self._live(pcs, before, slots, counts_results=True)[entry]
        return Live(surely, self.live[entry])

    def leaving(self, entry: int) -> list[int]:
        """Return the instructions by which a function returns."""
        if entry not in self._leaving:
            code, (pcs, _) = self._found.module.instructions, self._reached(entry)
            self._leaving[entry] = [pc for pc in pcs if code[pc].op.effect is Effect.RETURN]
        return self._leaving[entry]

    def _live(
        self,
        pcs: list[int],
        before: dict[int, list[int]],
        slots: frozenset[int],
        counts_results: bool,
    ) -> dict[int, frozenset[int]]:
        code, names = self._found.module.instructions, _Slots(slots)
        used = {pc: _used(code[pc], names, counts_results) for pc in pcs}
        out, ins = dict.fromkeys(pcs, 0), dict[int, int]()
        work = list(pcs)
        while work:
            pc = work.pop()
            read, written = used[pc]
            new = read | (out[pc] & ~written)
            for target in self._landings(pc):
                new |= ins.get(target, 0)
            if ins.get(pc) == new:
                continue
            ins[pc] = new
            for origin in before[pc]:
                if pc not in self._landings(origin):
                    out[origin] |= new
                work.append(origin)
        return {pc: names.of(mask) for pc, mask in ins.items()}

    def _landings(self, pc: int) -> list[int]:
        """Return where exceptions lead from an instruction."""
        if (known := self._landing.get(pc)) is not None:
            return known
        found = self._landing[pc] = list[int]()
        for handler in self._found.module.handlers:
            if handler.pc1 <= pc < handler.pc2:
                found += [target for _, target in handler.labels]
                found += [handler.default_pc] * (handler.default_pc >= 0)
        return found

    def _reached(self, entry: int) -> tuple[list[int], dict[int, list[int]]]:
        before: dict[int, list[int]] = defaultdict(list)
        seen, order = {entry}, [entry]
        for pc in order:
            for target in (*self._follow(pc), *self._landings(pc)):
                before[target].append(pc)
                if target not in seen:
                    seen.add(target)
                    order.append(target)
        return order, before


def _addresses(instruction: Instruction) -> Iterable[int]:
    """Yield the slots to which an instruction writes addresses."""
    for role in instruction.op.operands:
        if role.type == "E" and role.writes:
            operand = instruction.operand(role.place)
            if operand.mode is Mode.FP:
                yield operand.value


def _exposed(instruction: Instruction) -> int:
    """Return from where on an instruction lets slots be read by their addresses."""
    source, target = instruction.source, instruction.destination
    if instruction.op.mnemonic != "lea" or source.mode is not Mode.FP:
        return _FARTHEST
    is_result = target.mode is Mode.FP_INDIRECT and target.value == _RESULT_PLACE
    return _FARTHEST if is_result else source.value


def _used(instruction: Instruction, slots: _Slots, counts_results: bool) -> tuple[int, int]:
    """Return what an instruction reads of the pointers, and what it surely writes."""
    read = written = 0
    target, op = instruction.destination, instruction.op
    is_result = (
        op.mnemonic == "lea" and target.mode is Mode.FP_INDIRECT and target.value == _RESULT_PLACE
    )
    for role in op.operands:
        if role.place not in "smd":
            continue
        operand = instruction.operand(role.place)
        if operand.mode is Mode.FP_INDIRECT:
            read |= slots.within(operand.base, operand.base + 1)
        if operand.mode is not Mode.FP:
            continue
        at, size = operand.value, TYPES[role.type].size
        if is_result:
            written |= slots.within(at, at + 1) if counts_results else 0
        elif role.is_storage:
            read |= 0 if role.writes else slots.within(at - WORD_SIZE + 1, _FARTHEST)
        elif role.reads:
            read |= slots.within(at - WORD_SIZE + 1, at + size)
        else:
            written |= slots.within(at, at + size - WORD_SIZE + 1)
    return read, 0 if op.effect is Effect.END else written
