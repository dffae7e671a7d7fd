"""Instructions as the native interpreter reads them: 64 bytes each, decoded when first reached.

::

    0 its handler         what the interpreter calls; one of the special ones, or as below
    8 its own handler     what does the instruction's work
    16 machine code       where the instruction is an entry to a region, 24 the entry's number, and
    56 bytes of the frame if the entry is the region's start, else 0
    28 modes of s, m, d   one byte each; absent operands have none
    32 s   40 m   48 d    offset and base, 4 bytes each, or an immediate of 8 bytes
    60 a counter          how often the instruction may still run before it is worth compiling

The 64 bytes before the first one begin with the number of instructions and what is at
``STACK_BYTES``, ``HANDLED`` and ``GUARDS``. Immediate labels are addresses of instructions,
immediate types numbers of the heap, and so are sizes of what is put into lists; what is sent is
the address of a constant. Of modules that are not verified Python runs every instruction.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmbol_core.vm.isa import TYPES, Effect, Mode, Op, OperandRole
from llmbol_core.vm.jit.guarding import GuardTable, KnownLinks
from llmbol_core.vm.module import Handler, Instruction, Operand
from llmbol_core.vm.process import first_extent

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule

SIZE = 64
STACK_BYTES, HANDLED, GUARDS = 8 - SIZE, 16 - SIZE, 24 - SIZE
"""Where, from the first instruction, it is noted how many bytes stacks begin with, where a table is
that says which instructions have handlers of exceptions (count, then rows of two pcs and where the
handler is described), and where that of guards is."""
HANDLER_WORDS, LABEL_WORDS = 6, 4
"""Words of a handler: 0, where in the frame the value goes, type of what is released or -1, pc of
the default or -1, how many labels are typed and how many there are; then those, each four words:
where its text is, how long that is, whether only the beginning counts, pc."""
HANDLER, OWN, ENTRY, NUMBER, MODES, OPERANDS, FRAME, COUNT = 0, 8, 16, 24, 28, 32, 56, 60
"""Offsets of what an instruction holds."""
_WORDS = SIZE // 8
_OPERANDS = struct.Struct("=BBBxQQQ")
_PLAIN = (("consm", "m"), ("newcm", "s"))
"""Operands that are sizes of values without pointers."""
_NO_MODE = (Mode.NONE, Mode.NONE6, Mode.NONE7)


class DecodedCode:
    """The instructions of one module; ``handlers`` are addresses by mnemonic and special name."""

    def __init__(
        self,
        loaded: LoadedModule,
        handlers: Mapping[str, int],
        threshold: int,
        plain_type: Callable[[int], int],
        constant: Callable[[int], int],
        links: KnownLinks,
    ) -> None:
        self._plain_type, self._constant = plain_type, constant
        self._loaded, self._handlers, self._threshold = loaded, handlers, threshold
        self._instructions = loaded.module.instructions
        first = handlers["undecoded"]
        blank = array("Q", [first, first, *[0] * (_WORDS - 2)])
        stack, handlers_of = first_extent(loaded.module.stack_extent), loaded.module.handlers
        self._kept: list[array[int]] = []
        self._ranges = array("q", [len(handlers_of)])
        for handler in handlers_of:
            self._ranges.extend([handler.pc1, handler.pc2, self._described(handler)])
        self._guards = GuardTable(len(self._instructions), loaded.proof.guards, links)
        header = [len(self._instructions), stack, self._ranges.buffer_info()[0], self._guards.place]
        self._words = array("Q", [*header, *[0] * (_WORDS - len(header))])
        self._words.extend(blank * len(self._instructions))
        self.address = self._words.buffer_info()[0] + SIZE
        """Where the first instruction is."""
        self._bytes = memoryview(self._words).cast("B")[SIZE:]
        self._watched: set[int] = set()
        self._longer: dict[int, int] = {}
        for export in loaded.module.exports:
            self._watch(export.pc)

    def _described(self, handler: Handler) -> int:
        """Return where it is described what a handler takes."""
        kind = self._loaded.types[handler.type] if handler.type >= 0 else -1
        counts = [handler.typed, len(handler.labels)]
        words = array("q", [0, handler.offset, kind, handler.default_pc, *counts])
        for pattern, pc in handler.labels:
            text = array("I", map(ord, pattern.removesuffix("*")))
            self._kept.append(text)
            words.extend([text.buffer_info()[0], len(text), pattern.endswith("*"), pc])
        self._kept.append(words)
        return words.buffer_info()[0]

    def decode(self, pc: int) -> None:
        """Decode the instructions from one to where control surely goes elsewhere."""
        while pc < len(self._instructions):
            if self._word(pc, OWN) != self._handlers["undecoded"]:
                return
            self._decode(pc)
            if self._instructions[pc].op.effect in (Effect.JUMP, Effect.RETURN, Effect.END):
                return
            pc += 1

    def enter(self, pc: int, function: int, number: int, frame: int) -> None:
        """Let an instruction be an entry to machine code."""
        self._put(pc, HANDLER, self._handlers["enter"])
        self._put(pc, ENTRY, function)
        struct.pack_into("=i", self._bytes, pc * SIZE + NUMBER, number)
        struct.pack_into("=i", self._bytes, pc * SIZE + FRAME, frame)

    def unwatch(self, pc: int) -> None:
        """Let an instruction be interpreted from now on, however often it runs."""
        self._put(pc, HANDLER, self._word(pc, OWN))

    def watch_longer(self, pc: int, times: int) -> None:
        """Count an instruction that has run often for so many times as long."""
        longer = min(max(self._longer.get(pc, self._threshold), 1) * times, 1 << 30)
        self._longer[pc] = longer
        struct.pack_into("=i", self._bytes, pc * SIZE + COUNT, longer)

    def is_entry(self, pc: int) -> bool:
        """Whether an instruction is an entry to machine code."""
        return self._word(pc, HANDLER) == self._handlers["enter"]

    def _word(self, pc: int, at: int) -> int:
        return self._words[_WORDS * (pc + 1) + at // 8]

    def _put(self, pc: int, at: int, value: int) -> None:
        self._words[_WORDS * (pc + 1) + at // 8] = value

    def _watch(self, pc: int) -> None:
        """Count how often an instruction runs."""
        is_one = 0 <= pc < len(self._instructions) and self._loaded.is_verified
        if not is_one or pc in self._watched:
            return
        self._watched.add(pc)
        struct.pack_into("=i", self._bytes, pc * SIZE + COUNT, self._threshold)
        plain = (self._handlers["undecoded"], self._word(pc, OWN))
        if self._word(pc, HANDLER) in plain:
            self._put(pc, HANDLER, self._handlers["count"])

    def _decode(self, pc: int) -> None:
        instruction = self._instructions[pc]
        op = instruction.op
        own = self._handlers["python"]
        is_known = op.mnemonic in self._handlers and self._loaded.is_verified
        if is_known and self._is_usual(instruction):
            own = self._handlers[op.mnemonic]
            operands = [self._operand(op, instruction, place) for place in "smd"]
            modes, values = zip(*operands, strict=True)
            _OPERANDS.pack_into(self._bytes, pc * SIZE + MODES, *modes, *values)
            own = self._guards.enter(pc, own, self._handlers)
        if self._word(pc, HANDLER) == self._handlers["undecoded"]:
            self._put(pc, HANDLER, own)
        self._put(pc, OWN, own)
        target = _watched(instruction, pc)
        if target is not None:
            self._watch(target)

    def _operand(self, op: Op, instruction: Instruction, place: str) -> tuple[int, int]:
        """Return the mode and the 8 bytes of an operand."""
        role, operand = op.role(place), instruction.operand(place)
        if role is None:
            return Mode.IMMEDIATE, 0
        if operand.mode in _NO_MODE:
            other = op.role("d")
            stands_in = other is not None and other.type == role.type
            operand = instruction.destination if stands_in else Operand(Mode.IMMEDIATE, 0)
        if (op.mnemonic, place) in _PLAIN:
            return Mode.IMMEDIATE, self._plain_type(operand.value)
        if operand.mode is Mode.IMMEDIATE:
            return Mode.IMMEDIATE, self._immediate(role, operand.value) & ((1 << 64) - 1)
        return operand.mode, (operand.value & 0xFFFF) | (operand.base & 0xFFFF) << 32

    def _immediate(self, role: OperandRole, value: int) -> int:
        if role.is_storage:
            return self._constant(value)
        if role.type == "D":
            return self._loaded.types[value]
        if role.type == "Q":
            return self.address + SIZE * value
        if TYPES[role.type].kind == "float":
            layout = "d" if role.type == "F" else "f"
            return int.from_bytes(struct.pack(f"={layout}", float(value)), "little")
        return value

    def _is_usual(self, instruction: Instruction) -> bool:
        """Whether the operands are such as the native interpreter's handlers expect."""
        plain = [instruction.operand(p) for name, p in _PLAIN if name == instruction.op.mnemonic]
        if any(size.mode is not Mode.IMMEDIATE or size.value < 0 for size in plain):
            return False
        limits = {"D": len(self._loaded.types), "Q": len(self._instructions)}
        for role in instruction.op.operands:
            if role.place not in "smd":
                continue
            operand = instruction.operand(role.place)
            if operand.mode in _NO_MODE and not role.optional:
                return False
            is_immediate = operand.mode is Mode.IMMEDIATE
            is_sent = role.is_storage and instruction.op.mnemonic == "send"
            if is_immediate and (role.writes or (role.is_storage and not is_sent)):
                return False
            limit = limits.get(role.type) if role.reads else None
            if limit is not None and not (is_immediate and 0 <= operand.value < limit):
                return False
        return True


def _watched(instruction: Instruction, pc: int) -> int | None:
    """Return where an instruction leads that should be watched: back, or into a function."""
    label = instruction.destination
    if label.mode is not Mode.IMMEDIATE or not instruction.op.has_label:
        return None
    calls = instruction.op.effect is Effect.CALL or instruction.op.mnemonic == "spawn"
    return label.value if calls or label.value <= pc else None
