"""What is compiled together: the instructions of one function, and what is known of its frame.

A region begins at a function's first instruction (or, for code that only an exception handler
leads to, anywhere) and holds all that can be reached without leaving the function. It can be
entered at its start, at loop heads and behind instructions that the interpreter runs.

Assumptions, which the verifier proves or asks the program to keep: all ways to an instruction come
with the same layout of the frame; a label is an instruction of the module; tables of labels lie in
module data. That nothing writes to those tables is checked here.
"""

from __future__ import annotations

import bisect
import itertools
import struct
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import PARAMETERS, TYPES, Effect, Mode
from llmbol_core.vm.jit.emitter import llvm_type
from llmbol_core.vm.module import ABSENT, DataKind, Instruction, Module, Operand
from llmbol_core.vm.process import LEAST_FRAME

RESULT = 16
"""Where a frame has the address for the result."""
UNKNOWN = 1 << 20
_SIZES = {"i8": 1, "i16": 2, "i32": 4, "float": 4, "i64": 8, "double": 8}

NATIVE = frozenset({
    "jmp", "case", "ret", "call", "frame", "mframe", "mcall", "movp", "movpc", "lea", "runt",
    "new", "newz", "newa", "newaz", "slicea", "lena", "indx", "indw", "indf", "indb", "indl",
    "headb", "headw", "headf", "headl", "headp", "tail", "eclr",
    "consb", "consw", "consf", "consl", "consp", "lenc", "indc", "insc",
    "addc", "slicec", "cvtca", "cvtac", "cvtwc", "cvtlc", "cvtcw", "cvtcl",
})  # fmt: skip
"""Instructions without a meaning in the table for which there is machine code."""


class Code:
    """What several regions of one module share: label tables, what writes to module data."""

    def __init__(self, module: Module, data: HeapType) -> None:
        self.module, self.data = module, data
        self.instructions = module.instructions
        self._result_sizes: dict[int, int] = {}

    def function(self, pc: int) -> int:
        """Return where the function begins that an instruction may be part of."""
        at = bisect.bisect(self._functions, pc)
        return self._functions[at - 1] if at else pc

    @cached_property
    def _functions(self) -> list[int]:
        found = {e.pc for e in self.module.exports}
        for instruction in self.instructions:
            if instruction.op.mnemonic in ("call", "spawn"):
                found.add(_label(instruction) or 0)
        return sorted(pc for pc in found if 0 <= pc < len(self.instructions))

    @cached_property
    def _words(self) -> dict[int, int]:
        """The words of the module data as loaded, by offset."""
        words: dict[int, int] = {}
        depth = 0
        for item in self.module.data:
            if item.kind is DataKind.DIND:
                depth += 1
            elif item.kind is DataKind.DAPOP:
                depth -= 1
            elif item.kind is DataKind.DEFW and not depth:
                for at, value in enumerate(struct.unpack(f">{item.count}i", item.payload)):
                    words[item.offset + 4 * at] = value
        return words

    @cached_property
    def _written(self) -> list[tuple[int, int]]:
        """Ranges of the module data that instructions write to or take the address of."""
        ranges = []
        for instruction in self.instructions:
            for role in instruction.op.operands:
                if role.place not in "smd":
                    continue
                operand = instruction.operand(role.place)
                if operand.mode is Mode.MP and (role.writes or role.type in "OXY"):
                    size = TYPES[role.type].size or UNKNOWN
                    ranges.append((operand.value, operand.value + size))
        return ranges

    def table(self, pc: int) -> list[tuple[int, int, int]] | None:
        """Return a case's (low, high, label), the default last; None if that is not certain.

        A default that is no instruction makes the case trap.
        """
        operand = self.instructions[pc].destination
        if operand.mode is not Mode.MP:
            return None
        start = operand.value
        count = self._words.get(start, -1)
        end = start + 8 + 12 * count
        if count < 0 or any(low < end and high > start for low, high in self._written):
            return None
        at = range(start + 4, end - 4, 12)
        words = self._words
        try:
            rows = [(words[i], words[i + 4], words[i + 8]) for i in at]
            rows.append((0, 0, words[end - 4]))
        except KeyError:
            return None
        ranges = rows[:-1]
        in_code = all(0 <= row[2] < len(self.instructions) for row in ranges)
        is_sorted = all(low < high for low, high, _ in ranges) and all(
            before[1] <= behind[0] for before, behind in itertools.pairwise(ranges)
        )
        small = sum(max(0, high - low) for low, high, _ in rows[:-1]) <= 4096
        return rows if in_code and is_sorted and small else None

    def is_native(self, pc: int) -> bool:
        """Whether there is machine code for an instruction."""
        instruction = self.instructions[pc]
        op = instruction.op
        if op.meaning is not None:
            return op.effect is not Effect.BRANCH or _label(instruction) is not None
        if op.mnemonic not in NATIVE:
            return False
        if op.mnemonic in ("jmp", "call"):
            return _label(instruction) is not None
        if op.mnemonic == "case":
            return self.table(pc) is not None
        return True

    def result_size(self, start: int) -> int:
        """Return how many bytes a function may write at the address for its result."""
        if start not in self._result_sizes:
            self._result_sizes[start] = self._find_result_size(start)
        return self._result_sizes[start]

    def _find_result_size(self, start: int) -> int:
        size = 0
        for pc in reachable(self, start):
            instruction = self.instructions[pc]
            for role in instruction.op.operands:
                operand = instruction.operand(role.place) if role.place in "smd" else ABSENT
                if operand.mode is Mode.FP and operand.value == RESULT:
                    return UNKNOWN
                if operand.mode is Mode.FP_INDIRECT and operand.base == RESULT:
                    known = TYPES[role.type].size
                    if not known or instruction.op.mnemonic == "lea":
                        return UNKNOWN
                    size = max(size, operand.value + known)
        return size

    def targets(self, pc: int) -> list[int]:
        """Return where in the same function an instruction leads, the next one first."""
        instruction = self.instructions[pc]
        effect = instruction.op.effect
        found = []
        if effect not in (Effect.JUMP, Effect.RETURN, Effect.END):
            found.append(pc + 1)
        if effect is Effect.BRANCH or instruction.op.mnemonic == "jmp":
            label = _label(instruction)
            found += [label] if label is not None else []
        elif instruction.op.mnemonic == "case":
            found += sorted({row[2] for row in self.table(pc) or ()})
        return [target for target in found if 0 <= target < len(self.instructions)]


def _label(instruction: Instruction) -> int | None:
    operand = instruction.destination
    return operand.value if operand.mode is Mode.IMMEDIATE else None


class Region:
    """One function: its instructions in order, its entries, the slots kept in registers."""

    def __init__(self, code: Code, start: int, frame: HeapType) -> None:
        self.code, self.start, self.frame = code, start, frame
        self.pcs = self._reachable()
        self._made = self._frames_made()
        self.native = {pc for pc in self.pcs if self._is_native(pc)}
        self.heads = {t for pc in self.pcs for t in code.targets(pc) if t <= pc}
        self.entries = self._entries()
        self._exposed = [self._exposure(pc) for pc in self.native if self._is_exposing(pc)]
        self._elements = self._element_slots()
        self.slots = self._promoted()

    @property
    def size(self) -> int:
        """Bytes that the frame takes on the stack."""
        return frame_size(self.frame.size)

    def _reachable(self) -> list[int]:
        return reachable(self.code, self.start)

    def _is_native(self, pc: int) -> bool:
        if not self.code.is_native(pc):
            return False
        instruction = self.code.instructions[pc]
        if instruction.op.mnemonic != "call":
            return True
        made = self._made.get(instruction.source, set())
        return len(made) == 1 and 0 <= min(made) < len(self.code.module.types)

    def _entries(self) -> dict[int, int]:
        """Return the instructions at which the region can be entered, numbered."""
        behind = {
            pc + 1
            for pc in self.pcs
            if pc not in self.native or self.code.instructions[pc].op.effect is Effect.CALL
        }
        others = (self.heads | behind) & self.native - {self.start}
        return {pc: number for number, pc in enumerate([self.start, *sorted(others)])}

    # Frames that the function makes for those it calls

    def _frames_made(self) -> dict[Operand, set[int]]:
        """Return the types of the frames that the function makes, by the slots they are in."""
        found: dict[Operand, set[int]] = defaultdict(set)
        for pc in self.pcs:
            instruction = self.code.instructions[pc]
            if instruction.op.mnemonic == "frame":
                found[instruction.destination].add(instruction.source.value)
        return found

    def frame_made(self, pc: int) -> int:
        """Return the type of the frame that a native call enters."""
        return min(self._made[self.code.instructions[pc].source])

    def callees(self) -> Iterator[tuple[int, int]]:
        """Yield pc and type number of the frame of the functions that native calls enter."""
        for pc in sorted(self.native):
            if self.code.instructions[pc].op.mnemonic == "call":
                yield self.code.instructions[pc].destination.value, self.frame_made(pc)

    # Slots of the frame whose address the function takes

    def _is_exposing(self, pc: int) -> bool:
        return any(
            role.is_storage and self.code.instructions[pc].operand(role.place).mode is Mode.FP
            for role in self.code.instructions[pc].op.operands
        )

    def _exposure(self, pc: int) -> tuple[int, int]:
        """Return the range of the frame that can be reached by the address that is taken."""
        instruction = self.code.instructions[pc]
        start, target = instruction.source.value, instruction.destination
        if target.mode is Mode.FP_INDIRECT and target.value == RESULT:
            slot = Operand(Mode.FP, target.base)
            for at in self.pcs[bisect.bisect(self.pcs, pc) :]:
                following = self.code.instructions[at]
                if following.op.effect is Effect.CALL and following.source == slot:
                    if at not in self.native or following.op.mnemonic == "mcall":
                        # Slots in registers go to memory and come back: see results_of.
                        return start, start
                    return start, start + self.code.result_size(following.destination.value)
        return start, self.frame.size

    def results_of(self, pc: int) -> list[int]:
        """Return the slots that what is called through a handle may find by its result's address.

        How much it writes there is not known, so that these are all slots from there on.
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
        return [
            offset for offset in self.slots if offset + _SIZES[self.slots[offset]] > min(starts)
        ]

    def is_exposed(self, offset: int) -> bool:
        """Whether a slot may be reached by its address."""
        return any(start <= offset + 7 and offset < end for start, end in self._exposed)

    # What indirect operands lead to

    def _element_slots(self) -> set[int]:
        """Return the slots that only hold addresses of elements of arrays."""
        written: dict[int, bool] = {}
        for pc in self.pcs:
            instruction = self.code.instructions[pc]
            for role in instruction.op.operands:
                operand = operand_for(instruction, role.place) if role.place in "smd" else None
                if role.writes and operand is not None and operand.mode is Mode.FP:
                    is_element = role.type == "E" and instruction.op.mnemonic != "lea"
                    for at in range(operand.value, operand.value + (TYPES[role.type].size or 4), 4):
                        written[at] = written.get(at, True) and is_element
        return {slot for slot, is_element in written.items() if is_element}

    def is_element(self, operand: Operand) -> bool:
        """Whether an indirect operand begins with the address of an element."""
        return operand.mode is Mode.FP_INDIRECT and operand.base in self._elements

    def is_object(self, operand: Operand) -> bool:
        """Whether an indirect operand leads into an object of the heap."""
        if operand.mode is Mode.FP_INDIRECT:
            return operand.base in self.frame.pointers or operand.base in self._elements
        return operand.base in self.code.data.pointers

    # Slots in registers

    def _promoted(self) -> dict[int, str]:
        """Return the slots whose values native code keeps in registers, with their LLVM types.

        Only slots that are always used as the same type, that overlap no other and whose address
        is not taken. Instructions that the interpreter runs find them in memory and do not count.
        """
        uses: dict[int, set[str]] = defaultdict(set)
        for pc in self.native:
            instruction = self.code.instructions[pc]
            for role in instruction.op.operands:
                if role.place in PARAMETERS:
                    uses[PARAMETERS[role.place]].add("i32")
                    continue
                operand = operand_for(instruction, role.place)
                if operand.mode is Mode.FP_INDIRECT:
                    uses[operand.base].add("i32")
                elif operand.mode is Mode.FP and not role.is_storage:
                    uses[operand.value].add(llvm_type(role.type))
        for offset in self.frame.pointers:
            uses[offset].add("i32")
        return self._without_overlaps(uses)

    def _without_overlaps(self, uses: dict[int, set[str]]) -> dict[int, str]:
        spans = [(at, at + max(_SIZES[t] for t in types)) for at, types in sorted(uses.items())]
        found = {}
        reach = 0
        for number, (start, end) in enumerate(spans):
            following = spans[number + 1][0] if number + 1 < len(spans) else 1 << 30
            is_hidden = all(high <= start or low >= end for low, high in self._exposed)
            if len(uses[start]) == 1 and reach <= start and end <= following and is_hidden:
                found[start] = min(uses[start])
            reach = max(reach, end)
        return found


def reachable(code: Code, start: int) -> list[int]:
    """Return the instructions that a function at a pc can run, ascending."""
    found, work = {start}, [start]
    while work:
        for target in code.targets(work.pop()):
            if target not in found:
                found.add(target)
                work.append(target)
    return sorted(found)


def frame_size(size: int) -> int:
    """Return the bytes that a frame of a type with this size takes on a stack."""
    return (max(size, LEAST_FRAME) + 7) & ~7


def operand_for(instruction: Instruction, place: str) -> Operand:
    """Return an operand; the destination stands in for an absent middle one."""
    operand = instruction.operand(place)
    if place == "m" and operand.mode is Mode.NONE:
        role = instruction.op.role("m")
        return instruction.destination if role is not None and role.optional else operand
    return operand
