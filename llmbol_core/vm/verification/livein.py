"""Which pointers of its frame a function reads before it writes them: its arguments, in effect."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from llmbol_core.vm.isa import ELEMENT_SIZES, WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.verification.effects import RESULT_PLACE, UNKNOWN, Touch, effects
from llmbol_core.vm.verification.slots import FRAMES, RETURNED, Kind, State
from llmbol_core.vm.verification.structure import Structure

_TAKING = frozenset({"lea", "indx", *ELEMENT_SIZES})
"""Instructions that take addresses."""


class _Slots:
    """Some slots of a frame as bits of a number, which are faster to join than sets."""

    def __init__(self, slots: Iterable[int]) -> None:
        self._bits = {slot: 1 << number for number, slot in enumerate(slots)}
        self._masks: dict[tuple[int, int], int] = {}
        self._sets: dict[int, frozenset[int]] = {}

    def within(self, start: int, end: int) -> int:
        """Return the slots between two offsets of the frame."""
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
    """Live pointers of frames.

    ``follow`` returns where an instruction leads in its function; ``states`` are what is known of
    the frame before each.
    """

    def __init__(
        self,
        found: Structure,
        follow: Callable[[int], Iterable[int]],
        states: Mapping[int, State],
    ) -> None:
        self._found, self._follow, self._states = found, follow, states
        self._returned: dict[int, frozenset[int]] = {}
        self._hubs: dict[int, list[int]] = {}
        self.live: dict[int, frozenset[int]] = {}
        """Pointers and addresses in the frame that may yet be read, by instruction."""
        self._slots: dict[int, frozenset[int]] = {}
        """Slots whose reads are all known: they are accessed by name, not by address."""

    def enter(self, entry: int, pointers: frozenset[int]) -> None:
        """Analyse a function whose frame has pointers in these slots."""
        pcs, before = self._reached(entry)
        slots, start = set(pointers), UNKNOWN
        for pc in pcs:
            instruction = self._found.module.instructions[pc]
            if instruction.op.mnemonic in _TAKING:
                slots.update(_taken(effects(self._found, pc).touches))
                start = min(start, _exposed(instruction))
        mortal = frozenset(slot for slot in slots if slot < start)
        for pc, live in self._live(pcs, before, slots).items():
            self.live[pc] = self.live.get(pc, frozenset()) | live
            self._slots[pc] = self._slots.get(pc, mortal) & mortal

    def is_dead(self, pc: int, slot: int) -> bool:
        """Whether the value of a slot at an instruction is surely not read any more."""
        return slot in self._slots.get(pc, ()) and slot not in self.live[pc]

    def returned(self, entry: int) -> frozenset[int]:
        """Return where in its result a function has written pointers whenever it returns."""
        if entry not in self._returned:
            code, (pcs, _) = self._found.module.instructions, self._reached(entry)
            ends = [
                frozenset(at - RETURNED for at in self._states[pc] if RETURNED <= at < FRAMES)
                for pc in pcs
                if code[pc].op.effect is Effect.RETURN
            ]
            self._returned[entry] = frozenset[int].intersection(*ends) if ends else frozenset()
        return self._returned[entry]

    def _filled(self, pc: int, instruction: Instruction) -> Iterable[int]:
        """Return the slots that a call fills with the pointers of its result, if it returns."""
        if instruction.op.mnemonic != "call":
            return ()
        label, state = instruction.destination, self._states[pc]
        to = state.get(-instruction.source.value)
        if to is None or to.kind is not Kind.SLOT:
            return ()
        entry = label.value if label.mode is Mode.IMMEDIATE else state[label.value].number
        return [to.number + at for at in self.returned(entry)]

    def _live(
        self,
        pcs: list[int],
        before: dict[int, list[int]],
        slots: Iterable[int],
    ) -> dict[int, frozenset[int]]:
        found, names = self._found, _Slots(slots)
        code = found.module.instructions
        used = {}
        for pc in pcs:
            read, written = _used(code[pc], effects(found, pc).touches, names)
            for slot in self._filled(pc, code[pc]):
                written |= names.within(slot, slot + 1)
            used[pc] = read, written
        out, ins = defaultdict[int, int](int), dict[int, int]()
        work = list(pcs)
        while work:
            at = work.pop()
            read, written = used.get(at, (0, 0))
            new = read | (out[at] & ~written)
            for hub in self._hubs_at(at):
                new |= ins.get(hub, 0)
            if ins.get(at) == new:
                continue
            ins[at] = new
            for origin in before[at]:
                if not _is_thrown(origin, at):
                    out[origin] |= new
                work.append(origin)
        return {pc: names.of(ins[pc]) for pc in pcs}

    def _hubs_at(self, at: int) -> Sequence[int]:
        """Return the hubs to which exceptions lead from an instruction; none from a hub.

        A *hub* stands for a handler, between the instructions that it protects and its labels:
        there may be thousands of both. Its number is negative.
        """
        if (known := self._hubs.get(at)) is None:
            handlers = enumerate(self._found.module.handlers)
            known = [~number for number, handler in handlers if handler.pc1 <= at < handler.pc2]
            self._hubs[at] = known
        return known

    def _after(self, at: int) -> Iterator[int]:
        """Yield where an instruction or a hub leads."""
        if at >= 0:
            yield from self._follow(at)
            yield from self._hubs_at(at)
            return
        handler = self._found.module.handlers[~at]
        yield from dict.fromkeys(target for _, target in handler.labels)
        if handler.default_pc >= 0:
            yield handler.default_pc

    def _reached(self, entry: int) -> tuple[list[int], dict[int, list[int]]]:
        """Return a function's instructions, and what leads to each and to the hubs."""
        before: dict[int, list[int]] = defaultdict(list)
        seen, order = {entry}, [entry]
        for at in order:
            for target in self._after(at):
                before[target].append(at)
                if target not in seen:
                    seen.add(target)
                    order.append(target)
        return [at for at in order if at >= 0], before


def _is_thrown(origin: int, at: int) -> bool:
    """Whether this is the way from an instruction to a hub: it may have written nothing then."""
    return origin >= 0 > at


def _taken(touches: Iterable[Touch]) -> Iterable[int]:
    """Yield the slots to which an instruction writes addresses."""
    for operand, role, _ in touches:
        if role.type == "E" and role.writes and operand.mode is Mode.FP:
            yield operand.value


def _exposed(instruction: Instruction) -> int:
    """Return the offset from which on an instruction exposes slots by taking an address."""
    source = instruction.source
    is_exposing = instruction.op.mnemonic == "lea" and source.mode is Mode.FP
    return source.value if is_exposing and not _is_for_result(instruction) else UNKNOWN


def _is_for_result(instruction: Instruction) -> bool:
    """Whether an instruction stores the address that a result goes to."""
    target = instruction.destination
    is_address = instruction.op.mnemonic == "lea" and target.mode is Mode.FP_INDIRECT
    return is_address and target.value == RESULT_PLACE


def _used(instruction: Instruction, touches: Iterable[Touch], slots: _Slots) -> tuple[int, int]:
    """Return what an instruction reads of the pointers, and what it surely writes."""
    read = written = 0
    for operand, role, size in touches:
        if operand.mode is not Mode.FP or (role.type == "O" and _is_for_result(instruction)):
            continue
        at = operand.value
        if role.reads:
            read |= slots.within(at - WORD_SIZE + 1, at + size)
        elif size < UNKNOWN:
            written |= slots.within(at, at + size - WORD_SIZE + 1)
    return read, written
