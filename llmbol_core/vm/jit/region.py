"""A region: the instructions of one function, compiled together, and its frame.

A region begins at a function's first instruction (or, for code that only an exception handler
leads to, anywhere) and holds all that can be reached without leaving the function. It can be
entered at its start, at loop heads and after instructions that the interpreter runs.

Assumptions, which the verifier proves or guards: all ways to an instruction come
with the same layout of the frame; a label is an instruction of the module; tables of labels lie in
module data. That nothing writes to those tables is checked here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import ELEMENT_SIZES, PARAMETERS, TYPES, Effect, Mode
from llmbol_core.vm.jit.calls import (
    RESULT,
    Pending,
    Results,
    Site,
    Sites,
    operand_for,
    pending_frames,
    written_through,
)
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.jit.liveness import live_at_start, live_before
from llmbol_core.vm.jit.modulecode import Code
from llmbol_core.vm.module import Operand
from llmbol_core.vm.process import frame_size

SIZES = {"i8": 1, "i16": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}
_INDEXED = frozenset({*ELEMENT_SIZES, "lena", "indx"})


_MOST_GUESSES = 3
"""The most functions that a call through a handle is compared with."""
_SMALL = 100
"""Functions of at most so many instructions get calls through handles compiled outside of loops."""


class Region:
    """One function: its instructions in order, its entries, the slots kept in registers."""

    def __init__(self, code: Code, start: int, frame: HeapType, results: Results) -> None:
        self.code, self.start, self.frame, self.results = code, start, frame, results
        self.pcs = code.reachable(start)
        usual = {pc for pc in self.pcs if code.is_native(pc) and self._is_worth_it(pc)}
        self.landings = set[int]().union(*(code.handlers(pc) for pc in self.pcs))
        """Where the function goes on after exceptions."""
        before = pending_frames(code, self.pcs, {start, *self.landings})
        self.sites = Sites(code, before or {}, usual)
        self.pending: dict[int, Pending] = before or dict.fromkeys(self.pcs, ())
        self._made = self._frames_made()
        self.native = {pc for pc in usual if self._is_native(pc)}
        self.heads = {t for pc in self.pcs for t in code.targets(pc) if t <= pc}
        self.entries = self._entries()
        self._exposed = [
            (at, frame.size) for pc, at in code.exposing(start) if pc not in self.native
        ]
        self._exposed += [self._exposure(pc) for pc in self.native if self._is_exposing(pc)]
        self.slots = self._promoted()

    @property
    def size(self) -> int:
        """Bytes that the frame takes on the stack."""
        return frame_size(self.frame.size)

    @cached_property
    def pointers_handled(self) -> int:
        """How many pointers of whole frames its code names: of its own at each end, of others."""
        ends = sum(self.code.instructions[pc].op.effect is Effect.RETURN for pc in self.pcs)
        types = self.code.module.types
        others = (len(types[number].pointers) for _, number in self.callees())
        return len(self.frame.pointers) * (1 + ends) + sum(others)

    @property
    def is_fragment(self) -> bool:
        """Whether this begins in the middle of a function, where slots have their values."""
        return self.code.function(self.start) != self.start

    @property
    def result(self) -> str:
        """Type letter of the result if it is returned in a register, else nothing."""
        return self.results.letter(self.start)

    @cached_property
    def _loops(self) -> list[tuple[int, int]]:
        """Where the code jumps back to, and from where."""
        return [(target, pc) for pc in self.pcs for target in self.code.targets(pc) if target <= pc]

    def _is_worth_it(self, pc: int) -> bool:
        if self.code.instructions[pc].op.mnemonic in ("mframe", "mcall"):
            return len(self.pcs) <= _SMALL or any(head <= pc <= end for head, end in self._loops)
        return True

    def _is_native(self, pc: int) -> bool:
        instruction = self.code.instructions[pc]
        if instruction.op.mnemonic != "call" or pc in self.sites.by_call:
            return True
        made = self._made.get(instruction.source, set())
        return len(made) == 1 and 0 <= min(made) < len(self.code.module.types)

    def _entries(self) -> dict[int, int]:
        """Return the instructions at which the region can be entered, numbered.

        At none of them does a frame wait that is never made.
        """
        behind = {
            pc + 1
            for pc in self.pcs
            if pc not in self.native
            or self.code.instructions[pc].op.effect in (Effect.CALL, Effect.WAIT)
        }
        others = (self.heads | behind | self.landings) & self.native - {self.start}
        others = {pc for pc in others if not self.unmade(pc)}
        return {pc: number for number, pc in enumerate([self.start, *sorted(others)])}

    @cached_property
    def leaders(self) -> set[int]:
        """The instructions that control comes to from elsewhere than the one before."""
        found = set(self.entries)
        for pc in self.pcs:
            goes_on = self.code.instructions[pc].op.effect is Effect.NEXT
            if pc not in self.native or not goes_on:
                found.update(self.code.targets(pc))
        return found & set(self.pcs)

    # Frames that the function makes for those it calls

    def _frames_made(self) -> dict[Operand, set[int]]:
        """Return the types of the frames that the function makes, by the slots they are in.

        What begins in the middle of a function may call with frames that were made before; where an
        excerpt begins none waits.
        """
        found: dict[Operand, set[int]] = defaultdict(set)
        is_excerpt = self.code.whole is not self.code
        for pc in self.pcs if is_excerpt else self.code.body(self.start):
            instruction = self.code.instructions[pc]
            if instruction.op.mnemonic == "frame":
                found[instruction.destination].add(instruction.source.value)
        return found

    def frame_made(self, pc: int) -> int:
        """Return the type of the frame that a native call enters."""
        if pc in self.sites.by_call:
            return self.sites.by_call[pc].type
        return min(self._made[self.code.instructions[pc].source])

    def unmade(self, pc: int) -> list[Site]:
        """Return the calls whose frames wait at an instruction without being in memory."""
        by_frame = self.sites.by_frame
        return [by_frame[made] for made in self.pending[pc] if made in by_frame]

    def site_of(self, pc: int, operand: Operand) -> Site | None:
        """Return the call in whose unmade frame an operand lies."""
        if operand.mode is not Mode.FP_INDIRECT:
            return None
        for site in self.unmade(pc):
            if site.slot.value == operand.base:
                return site
        return None

    def callees(self) -> Iterator[tuple[int, int]]:
        """Yield pc and type number of the frame of the functions that native calls enter."""
        for pc in sorted(self.native):
            if self.code.instructions[pc].op.mnemonic == "call":
                yield self.code.instructions[pc].destination.value, self.frame_made(pc)
            elif pc in self.sites.by_call:
                yield from self.guesses(self.sites.by_call[pc])

    def guesses(self, site: Site) -> list[tuple[int, int]]:
        """Return what a call through a handle may enter in this module, as ``callees`` does."""
        number = self.code.instructions[site.call].middle
        known = number.value if number.mode is Mode.IMMEDIATE else None
        found = [
            (pc, kind)
            for pc, kind in self.code.references(known)
            if self.gets_result(site, self.results.letter(pc))
            and all(self._has_slot(kind, *argument) for argument in site.arguments.items())
        ]
        return found[:_MOST_GUESSES]

    def gets_result(self, site: Site, letter: str) -> bool:
        """Whether a call through a handle expects a result of a type, if that is one."""
        if site.address is None or not letter:
            return site.address is None and not letter
        kind = llvm_type(letter)
        return site.address.mode is not Mode.FP or self.slots.get(site.address.value, kind) == kind

    def _has_slot(self, kind: int, offset: int, letter: str) -> bool:
        """Whether a frame of a type has room for an argument."""
        type_ = self.code.module.types[kind]
        is_pointer = offset in type_.pointers
        return offset + TYPES[letter].size <= type_.size and is_pointer == (letter == "P")

    # Slots of the frame whose address the function takes

    def _is_exposing(self, pc: int) -> bool:
        instruction = self.code.instructions[pc]
        if instruction.op.mnemonic == "lea":
            site = self.site_of(pc, instruction.destination)
            if site is not None and not site.is_linked and self.results.letter(site.target):
                return False
        return instruction.op.mnemonic == "lea" and instruction.source.mode is Mode.FP

    def _exposure(self, pc: int) -> tuple[int, int]:
        """Return the range of the frame that can be reached by the address that is taken."""
        instruction = self.code.instructions[pc]
        start, target = instruction.source.value, instruction.destination
        calls = set[int]()
        if target.mode is Mode.FP_INDIRECT and target.value == RESULT:
            calls = self._calls_behind(pc, Operand(Mode.FP, target.base))
        if not calls:
            return start, self.frame.size
        # For other calls, slots in registers go to memory and come back: see results_of.
        inside = [
            written_through(self.code.whole, self.code.instructions[at].destination.value)
            for at in calls & self.native
            if self.code.instructions[at].op.mnemonic == "call"
        ]
        return start, start + max(inside, default=0)

    def _calls_behind(self, pc: int, frame: Operand) -> set[int]:
        """Return the calls with a frame that lies in a slot at an instruction."""
        found, seen, work = set[int](), {pc}, [pc]
        while work:
            for at in self.code.targets(work.pop()):
                instruction = self.code.instructions[at]
                if instruction.op.effect is Effect.CALL and instruction.source == frame:
                    found.add(at)
                elif at not in seen:
                    seen.add(at)
                    work.append(at)
        return found

    def results_of(self, pc: int) -> list[int]:
        """Return the slots that what is called through a handle may reach by its result's address.

        How much it writes there is not known, so these are all slots from there on.
        """
        frame = self.code.instructions[pc].source
        starts = [self.frame.size]
        for at in self.native:
            instruction = self.code.instructions[at]
            target = instruction.destination
            is_for_call = target.mode is Mode.FP_INDIRECT and target.base == frame.value
            is_own = instruction.source.mode is Mode.FP
            if instruction.op.mnemonic == "lea" and is_for_call and is_own:
                starts.append(instruction.source.value)
        return [offset for offset in self.slots if offset + SIZES[self.slots[offset]] > min(starts)]

    def is_exposed(self, offset: int) -> bool:
        """Whether a slot may be reached by its address."""
        return any(start <= offset + 7 and offset < end for start, end in self._exposed)

    # What indirect operands lead to

    @cached_property
    def _elements(self) -> dict[int, frozenset[int]]:
        """The slots that hold the address of an element, before each instruction."""
        everything = frozenset(
            operand.value
            for pc in self.pcs
            for operand, _, is_element in self._addresses_written(pc)
            if is_element
        )
        before = dict.fromkeys(self.pcs, everything)
        before |= dict.fromkeys((self.start, *self.landings), frozenset())
        work = [self.start, *self.pcs]
        while work:
            pc = work.pop()
            after = self._elements_after(pc, before[pc])
            for target in self.code.targets(pc):
                if not before[target] <= after:
                    before[target] &= after
                    work.append(target)
        return before

    def _addresses_written(self, pc: int) -> Iterator[tuple[Operand, int, bool]]:
        """Yield the slots that an instruction writes, their size, and if an element's address."""
        instruction = self.code.instructions[pc]
        for role in instruction.op.operands:
            operand = operand_for(instruction, role.place)
            if role.writes and operand.mode is Mode.FP:
                size = TYPES[role.type].size or self.code.storage_size(instruction, role)
                yield operand, size, role.type == "E" and instruction.op.mnemonic != "lea"

    def _elements_after(self, pc: int, before: frozenset[int]) -> frozenset[int]:
        for operand, size, is_element in self._addresses_written(pc):
            if is_element:
                before |= {operand.value}
            else:
                before -= {slot for slot in before if -4 < slot - operand.value < size}
        return before

    def is_element(self, pc: int, operand: Operand) -> bool:
        """Whether an indirect operand begins with the address of an element."""
        return operand.mode is Mode.FP_INDIRECT and operand.base in self._elements[pc]

    def is_object(self, pc: int, operand: Operand) -> bool:
        """Whether an indirect operand leads into an object of the heap."""
        if operand.mode is Mode.FP_INDIRECT:
            return operand.base in self.frame.pointers or operand.base in self._elements[pc]
        return operand.base in self.code.data.pointers

    # Slots in registers

    def slots_in(self, start: int, size: int) -> list[int]:
        """Return the slots in registers that lie in a part of the frame, if only partly."""
        return [at for at in self.slots if at < start + size and start < at + SIZES[self.slots[at]]]

    def _promoted(self) -> dict[int, str]:
        """Return the slots whose values native code keeps in registers, with their LLVM types.

        Only slots that are always used as the same type, that overlap no other and whose address
        is not taken. Instructions that the interpreter runs find them in memory and do not count.
        """
        uses: dict[int, set[str]] = defaultdict(set)
        for pc in self.native:
            for offset, type_ in self._slots_used(pc):
                uses[offset].add(type_)
        for offset in self.frame.pointers if self.code.whole is self.code else ():
            uses[offset].add("i32")
        return self._without_overlaps(uses)

    def _slots_used(self, pc: int) -> Iterator[tuple[int, str]]:
        instruction = self.code.instructions[pc]
        for role in instruction.op.operands:
            if role.place in PARAMETERS:
                yield PARAMETERS[role.place], "i32"
                continue
            operand = operand_for(instruction, role.place)
            if operand.mode is Mode.FP_INDIRECT:
                if self.site_of(pc, operand) is None:
                    yield operand.base, "i32"
            elif operand.mode is Mode.FP and not role.is_storage:
                yield operand.value, llvm_type(role.type)
        site = self.sites.by_call.get(pc)
        if site is None or site.is_linked:
            return
        if site.address is not None and site.address.mode is Mode.FP:
            letter = self.results.letter(site.target)
            if letter:
                yield site.address.value, llvm_type(letter)

    def _without_overlaps(self, uses: dict[int, set[str]]) -> dict[int, str]:
        spans = [(at, at + max(SIZES[t] for t in types)) for at, types in sorted(uses.items())]
        found = {}
        reach = 0
        for number, (start, end) in enumerate(spans):
            following = spans[number + 1][0] if number + 1 < len(spans) else 1 << 30
            is_hidden = all(high <= start or low >= end for low, high in self._exposed)
            if len(uses[start]) == 1 and reach <= start and end <= following and is_hidden:
                found[start] = min(uses[start])
            reach = max(reach, end)
        return found

    @cached_property
    def arrays(self) -> set[int]:
        """The slots in registers beside which length and data of their array are kept."""
        found = set()
        for pc in self.native:
            instruction = self.code.instructions[pc]
            source = instruction.source
            if instruction.op.mnemonic in _INDEXED and source.mode is Mode.FP:
                found.add(source.value)
        return found & set(self.slots) & set(self.frame.pointers)

    @cached_property
    def places(self) -> set[int]:
        """The slots in registers that hold addresses of elements, as 64-bit numbers too."""
        found: set[int] = set().union(*self._elements.values())
        return found & set(self.slots) - set(self.frame.pointers)

    # What the function takes over from its caller

    @cached_property
    def live(self) -> dict[int, set[int]]:
        """The slots in registers whose values matter before each instruction."""
        return live_before(self)

    @cached_property
    def parameters(self) -> tuple[int, ...]:
        """The slots in registers that can be read before they are written, ascending."""
        return tuple(sorted(live_at_start(self)))
