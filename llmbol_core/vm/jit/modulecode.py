"""What the regions of one module share: its functions, its constants, the tables of its cases.

A word of the module data that no instruction of the module can change is a constant. This assumes
that other modules change what a module exports and nothing else, as compilers keep it; where data
is exported nothing is taken for constant.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import struct
from functools import cached_property

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import TYPES, Effect, Mode
from llmbol_core.vm.module import DataKind, Instruction, Module

UNKNOWN = 1 << 20
"""A size that is not known: as much as there may be."""
DATA_EXPORT = ".mp"
_MOST_CASES = 4096

NATIVE = frozenset({
    "jmp", "case", "ret", "call", "frame", "mframe", "mcall", "movp", "movpc", "lea", "runt",
    "new", "newz", "newa", "newaz", "slicea", "lena", "indx", "indw", "indf", "indb", "indl",
    "headb", "headw", "headf", "headl", "headp", "tail", "eclr",
    "consb", "consw", "consf", "consl", "consp", "lenc", "indc", "insc",
    "addc", "slicec", "cvtca", "cvtac", "cvtwc", "cvtlc", "cvtcw", "cvtcl",
})  # fmt: skip
"""Instructions without a meaning in the table for which there is machine code."""

_LAYOUTS = {"B": "B", "W": "<i", "L": "<q", "F": "<d", "H": "<h"}


class Code:
    """A module as the compiler sees it."""

    def __init__(self, module: Module, data: HeapType) -> None:
        self.module, self.data = module, data
        self.instructions = module.instructions

    @cached_property
    def identity(self) -> str:
        """What tells this module from all others."""
        from llmbol_core.vm.objectwriter import write_module

        return hashlib.sha256(write_module(self.module)).hexdigest()

    def function(self, pc: int) -> int:
        """Return where the function begins that an instruction may be part of."""
        at = bisect.bisect(self._functions, pc)
        return self._functions[at - 1] if at else pc

    @cached_property
    def _functions(self) -> list[int]:
        found = {e.pc for e in self.module.exports}
        for instruction in self.instructions:
            if instruction.op.mnemonic in ("call", "spawn"):
                found.add(label_of(instruction) or 0)
        return sorted(pc for pc in found if 0 <= pc < len(self.instructions))

    # Module data

    @cached_property
    def _image(self) -> tuple[bytearray, bytearray]:
        """The module data as loaded, and for each byte whether it is known."""
        image, known = bytearray(self.module.data_size), bytearray(b"\1" * self.module.data_size)
        for offset in self.data.pointers:
            image[offset : offset + 4] = b"\xff" * 4
        depth = 0
        letters = {DataKind.DEFB: "B", DataKind.DEFW: "i", DataKind.DEFF: "d", DataKind.DEFL: "q"}
        for item in self.module.data:
            depth += {DataKind.DIND: 1, DataKind.DAPOP: -1}.get(item.kind, 0)
            if depth or item.kind is DataKind.DAPOP:
                continue
            if item.kind in letters:
                values = struct.pack(f"<{len(item.values)}{letters[item.kind]}", *item.values)
                image[item.offset : item.offset + len(values)] = values
            else:
                known[item.offset : item.offset + 4] = bytes(4)
        return image, known

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

    @cached_property
    def _changing(self) -> bytearray:
        """For each byte of the module data, whether it may change."""
        size = self.module.data_size
        changing = bytearray(size)
        for start, end in self._written:
            start, end = max(start, 0), min(end, size)
            changing[start:end] = b"\1" * (end - start)
        return changing

    def constant(self, offset: int, letter: str) -> float | None:
        """Return the value that module data has at an offset for good, or None if it may change."""
        return None if self._exports_data else self._fixed(offset, letter)

    @cached_property
    def _exports_data(self) -> bool:
        return any(export.name == DATA_EXPORT for export in self.module.exports)

    def _fixed(self, offset: int, letter: str) -> float | None:
        """Return what this module never changes at an offset of its data."""
        image, known = self._image
        layout = _LAYOUTS.get(letter, "<i")
        end = offset + struct.calcsize(layout)
        if offset < 0 or end > len(image) or letter == "R":
            return None
        if not all(known[offset:end]) or any(self._changing[offset:end]):
            return None
        value: float = struct.unpack(layout, image[offset:end])[0]
        return value

    def table(self, pc: int) -> list[tuple[int, int, int]] | None:
        """Return a case's (low, high, label), the default last; None if that is not certain.

        A default that is no instruction makes the case trap.
        """
        operand = self.instructions[pc].destination
        if operand.mode is not Mode.MP:
            return None
        start = operand.value
        count = self._word(start)
        if count is None or not 0 <= count <= len(self._image[0]) // 12:
            return None
        words = [self._word(at) for at in range(start + 4, start + 8 + 12 * count, 4)]
        values = [word for word in words if word is not None]
        if len(values) < len(words):
            return None
        ranges = list(zip(values[0:-1:3], values[1:-1:3], values[2:-1:3], strict=True))
        in_code = all(0 <= row[2] < len(self.instructions) for row in ranges)
        is_sorted = all(low < high for low, high, _ in ranges) and all(
            before[1] <= behind[0] for before, behind in itertools.pairwise(ranges)
        )
        is_small = sum(high - low for low, high, _ in ranges) <= _MOST_CASES
        return [*ranges, (0, 0, values[-1])] if in_code and is_sorted and is_small else None

    def _word(self, offset: int) -> int | None:
        value = self._fixed(offset, "W")
        return None if value is None else int(value)

    # Instructions

    def is_native(self, pc: int) -> bool:
        """Whether there is machine code for an instruction."""
        instruction = self.instructions[pc]
        op = instruction.op
        if op.meaning is not None:
            return op.effect is not Effect.BRANCH or label_of(instruction) is not None
        if op.mnemonic not in NATIVE:
            return False
        if op.mnemonic in ("jmp", "call"):
            return label_of(instruction) is not None
        if op.mnemonic == "case":
            return self.table(pc) is not None
        return True

    def targets(self, pc: int) -> list[int]:
        """Return where in the same function an instruction leads, the next one first."""
        instruction = self.instructions[pc]
        effect = instruction.op.effect
        found = []
        if effect not in (Effect.JUMP, Effect.RETURN, Effect.END):
            found.append(pc + 1)
        if effect is Effect.BRANCH or instruction.op.mnemonic == "jmp":
            label = label_of(instruction)
            found += [label] if label is not None else []
        elif instruction.op.mnemonic == "case":
            found += sorted({row[2] for row in self.table(pc) or ()})
        return [target for target in found if 0 <= target < len(self.instructions)]

    def reachable(self, start: int) -> list[int]:
        """Return the instructions that a function at a pc can run, ascending."""
        found, work = {start}, [start]
        while work:
            for target in self.targets(work.pop()):
                if target not in found:
                    found.add(target)
                    work.append(target)
        return sorted(found)


def label_of(instruction: Instruction) -> int | None:
    """Return the instruction that an immediate destination names."""
    operand = instruction.destination
    return operand.value if operand.mode is Mode.IMMEDIATE else None
