"""Which pointers of its frame a function reads before it writes them: its arguments, in effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.structure import Structure

_RESULT_PLACE = 16


class Live(NamedTuple):
    """Pointers of a frame that are read before the function itself writes them.

    What calls may write as their results counts as written in the one and not in the other.
    """

    surely: frozenset[int]
    perhaps: frozenset[int]


class Arguments:
    """Live pointers of frames; ``follow`` returns where an instruction leads in its function."""

    def __init__(self, found: Structure, follow: Callable[[int], Iterable[int]]) -> None:
        self._found, self._follow = found, follow
        self._landing: dict[int, list[int]] = {}
        self.live: dict[int, frozenset[int]] = {}
        """Pointers and addresses in the frame that may yet be read, by instruction."""
        self._slots: dict[int, frozenset[int]] = {}

    def enter(self, entry: int, pointers: frozenset[int]) -> None:
        """Look at a function, of which the frame has pointers in these slots."""
        pcs, before = self._reached(entry)
        slots = pointers.union(*(_addresses(self._found.module.instructions[pc]) for pc in pcs))
        for pc, live in self._live(pcs, before, slots, counts_results=False).items():
            self.live[pc] = self.live.get(pc, frozenset()) | live
            self._slots[pc] = slots

    def is_dead(self, pc: int, slot: int) -> bool:
        """Whether what a slot holds at an instruction is not read any more."""
        return slot in self._slots.get(pc, ()) and slot not in self.live[pc]

    def of(self, entry: int, slots: frozenset[int]) -> Live:
        """Return what a function reads of the pointers in its frame before it writes them."""
        pcs, before = self._reached(entry)
        surely = self._live(pcs, before, slots, counts_results=True)[entry]
        return Live(surely, self.live[entry])

    def _live(
        self,
        pcs: list[int],
        before: dict[int, list[int]],
        slots: frozenset[int],
        counts_results: bool,
    ) -> dict[int, frozenset[int]]:
        code = self._found.module.instructions
        used = {pc: _used(code[pc], slots, counts_results) for pc in pcs}
        out: dict[int, frozenset[int]] = dict.fromkeys(pcs, frozenset())
        ins: dict[int, frozenset[int]] = {}
        work = list(pcs)
        while work:
            pc = work.pop()
            read, written = used[pc]
            landed = frozenset[int]().union(*(ins.get(t, frozenset()) for t in self._landings(pc)))
            new = read | (out[pc] - written) | landed
            if pc in ins and new == ins[pc]:
                continue
            ins[pc] = new
            for origin in before[pc]:
                if pc not in self._landings(origin):
                    out[origin] |= new
                work.append(origin)
        return ins

    def _landings(self, pc: int) -> list[int]:
        """Return where exceptions lead from an instruction."""
        if pc in self._landing:
            return self._landing[pc]
        found = self._landing[pc] = []
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


def _used(
    instruction: Instruction, slots: frozenset[int], counts_results: bool
) -> tuple[frozenset[int], frozenset[int]]:
    """Return what an instruction reads of the pointers, and what it surely writes."""
    read, written = set[int](), set[int]()
    target = instruction.destination
    is_result = (
        instruction.op.mnemonic == "lea"
        and target.mode is Mode.FP_INDIRECT
        and target.value == _RESULT_PLACE
    )
    for role in instruction.op.operands:
        operand = instruction.operand(role.place) if role.place in "smd" else None
        if operand is None:
            continue
        if operand.mode is Mode.FP_INDIRECT:
            read |= {operand.base} & slots
        if operand.mode is not Mode.FP:
            continue
        at, size = operand.value, TYPES[role.type].size
        if is_result:
            written |= {at} if counts_results else set()
        elif role.is_storage:
            read |= set() if role.writes else {slot for slot in slots if slot > at - WORD_SIZE}
        elif role.reads:
            read |= {slot for slot in slots if at - WORD_SIZE < slot < at + size}
        else:
            written |= {slot for slot in slots if at <= slot <= at + size - WORD_SIZE}
    if instruction.op.effect is Effect.END:
        written = set()
    return frozenset(read), frozenset(written)
