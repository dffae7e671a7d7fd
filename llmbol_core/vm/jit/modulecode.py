"""What the regions of a module share: its functions, its constants, its case tables.

A word of the module data that no instruction of the module can change is a constant. This assumes
that other modules change only what a module exports, as compilers guarantee; if data
is exported, nothing counts as constant. Labels in tables may change, but only to labels in the
same table, which the verifier assumes too.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.isa import OPCODES, TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.jit import careful
from llmbol_core.vm.jit.bodies import Bodies
from llmbol_core.vm.jit.guarding import wanted
from llmbol_core.vm.module import DATA_EXPORT, DataKind, Instruction, Module, TypeDescriptor
from llmbol_core.vm.verification.guards import Guard
from llmbol_core.vm.verification.keptguards import guards_to_bytes
from llmbol_core.vm.verification.tables import TABLE_SHAPES

UNKNOWN = 1 << 20
"""An unknown size: as large as can be."""
_MOST_CASES = 4096
_CONSM = OPCODES["consm"]

NATIVE = frozenset({
    "jmp", "case", "ret", "call", "frame", "mframe", "mcall", "movp", "movpc", "lea", "runt",
    "new", "newz", "newa", "newaz", "slicea", "lena", "indx", "indw", "indf", "indb", "indl",
    "headb", "headw", "headf", "headl", "headp", "tail", "eclr",
    "consb", "consw", "consf", "consl", "consp", "lenc", "indc", "insc",
    "addc", "slicec", "cvtca", "cvtac", "cvtwc", "cvtlc", "cvtcw", "cvtcl", "cvtfc", "cvtcf",
    "goto", "casel", "casec", "movm", "movmp", "headm", "headmp", "consm", "consmp",
    "send", "recv", "alt", "nbalt", "newcb", "newcw", "newcl", "newcf", "newcp", "newcmp",
    "lenl", "slicela", "tcmp", "self",
})  # fmt: skip
"""Instructions without a meaning in the table for which there is machine code."""

_LAYOUTS = {"B": "B", "W": "<i", "L": "<q", "F": "<d", "H": "<h"}


Content: TypeAlias = "bytes | memoryview"
Guards: TypeAlias = "Mapping[int, Sequence[Guard]]"
_NONE: Guards = {}


class Code:
    """A module as the compiler sees it; ``content`` are its object's bytes, if they identify it.

    ``guards`` are the checks before instructions; ``is_careful`` tells whether the code is for
    processes that are careful of how their reals are rounded.
    """

    def __init__(
        self,
        module: Module,
        data: HeapType,
        content: Content = b"",
        guards: Guards = _NONE,
        is_careful: bool = False,
    ) -> None:
        self.is_careful = is_careful
        self.module, self.data, self.guards = module, data, guards
        self.instructions = module.instructions
        self._content = content

    @property
    def whole(self) -> Code:
        """The module with all of its instructions; an excerpt of it has only some."""
        return self

    @cached_property
    def identity(self) -> str:
        """A text that distinguishes this module from all others."""
        from llmbol_core.vm.objectwriter import write_module

        found = hashlib.sha256(self._content or write_module(self.module))
        found.update(guards_to_bytes(self.guards))
        if self.is_careful:
            found.update(b"careful")
        return found.hexdigest()

    def function(self, pc: int) -> int:
        """Return the start of the function that an instruction may be part of."""
        at = bisect.bisect(self._functions, pc)
        return self._functions[at - 1] if at else pc

    def body(self, pc: int) -> Sequence[int]:
        """Return the instructions that may run in the same call of a function as another one."""
        return self._bodies.of(pc)

    def exposing(self, pc: int) -> Sequence[tuple[int, int]]:
        """Return those of them that take addresses of slots, not for a result, and the slots."""
        return self._bodies.exposing(pc)

    @cached_property
    def _bodies(self) -> Bodies:
        return Bodies(self)

    @cached_property
    def starts(self) -> list[int]:
        """Where functions begin, unless they are called by an address."""
        found = {*self._functions, self.module.entry_pc}
        return sorted(pc for pc in found if 0 <= pc < len(self.instructions))

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
        """The initial module data, and for each byte whether it is known."""
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
                    size = TYPES[role.type].size or self.storage_size(instruction, role)
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
        """Return the value that module data has at an offset for good, or None if it may change.

        None too for reals that arithmetic may make NaN of: folded it would have another sign than
        the processor gives it, which printing shows.
        """
        value = None if self._exports_data else self._fixed(offset, letter)
        is_risky = letter == "F" and value is not None and (value == 0 or not math.isfinite(value))
        return None if is_risky else value

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

    @cached_property
    def _labels(self) -> dict[int, tuple[int, ...]]:
        """Where jumps lead whose labels are in tables, by the instruction."""
        found = {}
        for pc, instruction in enumerate(self.instructions):
            if instruction.op.effect is Effect.JUMP and instruction.op.mnemonic != "jmp":
                labels = self._labels_in_table(instruction)
                if labels is not None:
                    found[pc] = labels
        return found

    def _labels_in_table(self, instruction: Instruction) -> tuple[int, ...] | None:
        """Return what a table leads to, None if that is not certain; the verifier asks for it."""
        operand, kind = instruction.destination, instruction.op.operands[-1].type
        if operand.mode is not Mode.MP:
            return None
        header, stride, label, tail = TABLE_SHAPES[kind]
        count = self._loaded(operand.value - 4 if kind == "G" else operand.value)
        if count is None or not 0 <= count <= len(self._image[0]) // stride:
            return None
        start = operand.value + header
        places = [start + stride * number + label for number in range(count)]
        words = [self._loaded(at) for at in (*places, *[start + stride * count][: tail // 4])]
        labels = {word for word in words if word != -1}
        if not all(label is not None and 0 <= label < len(self.instructions) for label in labels):
            return None
        return tuple(sorted(label for label in labels if label is not None))

    def _loaded(self, offset: int) -> int | None:
        """Return the word that the module data begins with at an offset."""
        image, known = self._image
        if not 0 <= offset <= len(image) - 4 or not all(known[offset : offset + 4]):
            return None
        return int.from_bytes(image[offset : offset + 4], "little", signed=True)

    def labels(self, pc: int) -> tuple[int, ...] | None:
        """Return where a jump through a table leads unless the program changes its labels."""
        return self._labels.get(pc)

    def _word(self, offset: int) -> int | None:
        value = self._fixed(offset, "W")
        return None if value is None else int(value)

    # Instructions

    def is_native(self, pc: int) -> bool:
        """Whether there is machine code for an instruction."""
        if any(wanted(guard) is None for guard in self.guards.get(pc, ())):
            return False
        instruction = self.instructions[pc]
        op = instruction.op
        if self.is_careful and not careful.is_native(op):
            return False
        if op.meaning is not None:
            return op.effect is not Effect.BRANCH or label_of(instruction) is not None
        if op.mnemonic not in NATIVE:
            return False
        if op.mnemonic in ("jmp", "call"):
            return label_of(instruction) is not None
        if op.effect is Effect.JUMP:
            return self.labels(pc) is not None
        return op.effect is Effect.WAIT or all(
            self.storage_size(instruction, role) < UNKNOWN
            for role in op.operands
            if role.type in "XY"
        )

    def storage_size(self, instruction: Instruction, role: OperandRole) -> int:
        """Return how many bytes an instruction works on behind an operand that is storage."""
        number = instruction.middle
        if role.type not in "XY" or number.mode is not Mode.IMMEDIATE or number.value < 0:
            return UNKNOWN
        if role.type == "X":
            return number.value
        types = self.module.types
        return types[number.value].size if number.value < len(types) else UNKNOWN

    def references(self, number: int | None) -> list[tuple[int, int]]:
        """Return functions that the module may call through a handle of itself, and their frames.

        ``number`` is that of the link, if known.
        """
        wanted = {
            (link.name, link.signature)
            for links in self.module.imports
            for at, link in enumerate(links)
            if number in (None, at)
        }
        exports = (e for e in self.module.exports if (e.name, e.signature) in wanted)
        types = len(self.module.types)
        return [(e.pc, e.type) for e in exports if e.pc >= 0 and 0 <= e.type < types]

    @cached_property
    def plain_sizes(self) -> list[int]:
        """The sizes of values without pointers that the module puts into lists."""
        consed = (i for i in self.instructions if i.opcode == _CONSM)
        return sorted({i.middle.value for i in consed if i.middle.mode is Mode.IMMEDIATE})

    def handlers(self, pc: int) -> set[int]:
        """Return where the function may go on if the instruction raises an exception."""
        return set(self._handlers.get(pc, ()))

    @cached_property
    def _handlers(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for handler in self.module.handlers:
            labels = [*(label for _, label in handler.labels), handler.default_pc]
            labels = [at for at in dict.fromkeys(labels) if 0 <= at < len(self.instructions)]
            for pc in range(max(handler.pc1, 0), min(handler.pc2, len(self.instructions))):
                found.setdefault(pc, []).extend(labels)
        return found

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
        elif effect is Effect.JUMP:
            found += self.labels(pc) or ()
        return [target for target in found if 0 <= target < len(self.instructions)]

    def reachable(self, start: int) -> list[int]:
        """Return the instructions that a function at a pc can run, ascending."""
        found, work = {start}, [start]
        while work:
            pc = work.pop()
            for target in (*self.targets(pc), *self.handlers(pc)):
                if target not in found:
                    found.add(target)
                    work.append(target)
        return sorted(found)

    def origins(self, pcs: Iterable[int]) -> dict[int, list[int]]:
        """Return for instructions which of the given ones lead to them."""
        found: dict[int, list[int]] = {}
        for pc in pcs:
            for target in self.targets(pc):
                found.setdefault(target, []).append(pc)
        return found


def loop_body(head: int, origins: Mapping[int, Sequence[int]]) -> frozenset[int]:
    """Return the instructions from which control comes back to the head of a loop."""
    work = [pc for pc in origins.get(head, ()) if pc >= head]
    body = {head, *work}
    while work:
        for origin in origins.get(work.pop(), ()):
            if origin not in body:
                body.add(origin)
                work.append(origin)
    return frozenset(body)


def code_of(
    module: Module, content: Content = b"", guards: Guards = _NONE, is_careful: bool = False
) -> Code:
    """Return a module as regions see it."""
    data = heap_type(module.types[0]) if module.types else HeapType(module.data_size, ())
    return Code(module, data, content, guards, is_careful)


def heap_type(descriptor: TypeDescriptor) -> HeapType:
    """Return a type of a module as the heap knows it."""
    return HeapType(descriptor.size, descriptor.pointers)


def label_of(instruction: Instruction) -> int | None:
    """Return the instruction that an immediate destination names."""
    operand = instruction.destination
    return operand.value if operand.mode is Mode.IMMEDIATE else None
