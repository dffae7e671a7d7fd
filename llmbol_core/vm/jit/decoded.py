"""Instructions as the native interpreter reads them: 64 bytes each, decoded when first reached.

::

    0 its handler         what the interpreter calls: a special one, or the instruction's own
    8 its own handler     which does the instruction's work
    16 machine code       if the instruction is an entry to a region; 24 the entry's number, and
    56 bytes of the frame if the entry is the region's start, else 0
    28 modes of s, m, d   one byte each; absent operands have none
    31 pause              whether other processes may run before the instruction
    32 s   40 m   48 d    offset and base, 4 bytes each, or an immediate of 8 bytes
    60 a counter          how often the instruction may still run before it is worth compiling

The 64 bytes before the first instruction hold the number of instructions, and the words at
``STACK_BYTES``, ``HANDLED`` and ``GUARDS``. Immediate labels are addresses of instructions,
immediate types are numbers of the heap, and so are sizes of values put into lists; a constant that
is sent or has its address taken is given by its address. In modules that are not verified, Python
runs every instruction.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.vm.isa import TYPES, Effect, Mode, OperandRole
from llmbol_core.vm.jit.guarding import GuardTable, KnownLinks
from llmbol_core.vm.module import PLACES, Handler, Instruction, Operand
from llmbol_core.vm.pauses import MOVING
from llmbol_core.vm.process import first_extent
from llmbol_core.vm.steps import takes

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule

SIZE = 64
STACK_BYTES, HANDLED, GUARDS = 8 - SIZE, 16 - SIZE, 24 - SIZE
"""Offsets, from the first instruction, of: how many bytes stacks begin with; the address of a table
of the ranges that exception handlers protect (count, then rows of two pcs and the address where the
handler is described); the address of the table of guards."""
HANDLER_WORDS, LABEL_WORDS = 6, 4
"""Words of a handler: 0, the frame offset for the value, the type of what is released or -1, the pc
of the default or -1, how many labels are typed, how many there are; then the labels, four words
each: address and length of the text, whether only the beginning counts, pc."""
HANDLER, OWN, ENTRY, NUMBER, MODES, PAUSE, OPERANDS, FRAME, COUNT = 0, 8, 16, 24, 28, 31, 32, 56, 60
"""Offsets of an instruction's fields."""
_WORDS = SIZE // 8
_MODES, _OPERANDS = struct.Struct("=BBB"), struct.Struct("=QQQ")
_PLAIN = (("consm", "m"), ("newcm", "s"))
"""Operands that are sizes of values without pointers."""
_NO_MODE = (Mode.NONE, Mode.NONE6, Mode.NONE7)
_UNUSUAL = -1
"""Stands for an operand that the native interpreter's handlers do not expect."""


class _Plan(NamedTuple):
    """How all instructions with an opcode and certain addressing modes are decoded.

    ``operands`` tells, for s, m and d, which field of the instruction the 8 bytes are made of,
    and how. It is empty if Python runs the instruction.
    """

    handler: int
    modes: tuple[int, ...] = ()
    operands: tuple[tuple[int, Callable[[Any], int]], ...] = ()
    ends: bool = False
    """Whether control never reaches the next instruction."""
    has_label: bool = False
    calls: bool = False
    """Whether the label is the start of a function."""
    pauses: bool = False
    """Whether other processes may run before it."""


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
        self._plans: dict[tuple[int, ...], _Plan] = {}
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
        """The address of the first instruction."""
        self._bytes = memoryview(self._words).cast("B")[SIZE:]
        self._watched: set[int] = set()
        self._longer: dict[int, int] = {}
        for export in loaded.module.exports:
            self._watch(export.pc)
        for handler in loaded.module.handlers:
            for label in (handler.default_pc, *(pc for _, pc in handler.labels)):
                self._pause(label)

    def _described(self, handler: Handler) -> int:
        """Return the address of a description of a handler."""
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
        """Decode instructions from one on, up to one that control never passes."""
        undecoded = self._handlers["undecoded"]
        while pc < len(self._instructions) and self._word(pc, OWN) == undecoded:
            if self._decode(pc):
                return
            pc += 1

    def renew(self, handlers: Mapping[str, int]) -> None:
        """Use handlers for instructions that Python runs for want of one."""
        python = self._handlers["python"]
        self._handlers = handlers
        self._plans.clear()
        for pc in range(len(self._instructions)):
            if self._word(pc, OWN) == python:
                self._decode(pc)

    def enter(self, pc: int, function: int, number: int, frame: int) -> None:
        """Make an instruction an entry to machine code."""
        self._put(pc, HANDLER, self._handlers["enter"])
        self._put(pc, ENTRY, function)
        struct.pack_into("=i", self._bytes, pc * SIZE + NUMBER, number)
        struct.pack_into("=i", self._bytes, pc * SIZE + FRAME, frame)

    def unwatch(self, pc: int) -> None:
        """Leave an instruction interpreted from now on, however often it runs."""
        self._put(pc, HANDLER, self._word(pc, OWN))

    def watch_longer(self, pc: int, times: int) -> None:
        """Count on for an instruction that has run often, so many times as long as before."""
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

    def _decode(self, pc: int) -> bool:
        """Decode an instruction; return whether control never reaches the next one."""
        instruction = self._instructions[pc]
        opcode, source, middle, destination = instruction
        key = opcode, source.mode, middle.mode, destination.mode
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._plan(instruction)
        own = plan.handler
        if plan.operands:
            values = [make(instruction[index]) for index, make in plan.operands]
            if _UNUSUAL in values:
                own = self._handlers["python"]
            else:
                _MODES.pack_into(self._bytes, pc * SIZE + MODES, *plan.modes)
                _OPERANDS.pack_into(self._bytes, pc * SIZE + OPERANDS, *values)
                own = self._guards.enter(pc, own, self._handlers)
        words, at = self._words, _WORDS * (pc + 1)
        if words[at] == words[at + OWN // 8]:
            words[at] = own
        words[at + OWN // 8] = own
        if plan.has_label and (plan.calls or destination.value <= pc):
            self._watch(destination.value)
            self._pause(destination.value)
        elif plan.pauses:
            self._pause(pc)
        return plan.ends

    def _pause(self, pc: int) -> None:
        """Let other processes run before an instruction: one of those in ``pauses.py``."""
        if 0 <= pc < len(self._instructions):
            self._bytes[pc * SIZE + PAUSE] = 1

    def _plan(self, instruction: Instruction) -> _Plan:
        op = instruction.op
        plan = _Plan(
            self._handlers["python"],
            ends=op.effect in (Effect.JUMP, Effect.RETURN, Effect.END),
            has_label=op.has_label and instruction.destination.mode is Mode.IMMEDIATE,
            calls=op.effect is Effect.CALL or op.mnemonic == "spawn",
            pauses=op.effect in MOVING and instruction.destination.mode is not Mode.IMMEDIATE,
        )
        if op.mnemonic not in self._handlers or not self._loaded.is_verified:
            return plan
        if not _is_usual(instruction):
            return plan
        modes, places, makers = zip(*self._operands(instruction), strict=True)
        found = tuple(zip(map(PLACES.__getitem__, places), makers, strict=True))
        return plan._replace(handler=self._handlers[op.mnemonic], modes=modes, operands=found)

    def _operands(
        self, instruction: Instruction
    ) -> Iterator[tuple[int, str, Callable[[Operand], int]]]:
        """Yield each operand's mode, its place, and the function that makes its 8 bytes."""
        op = instruction.op
        for place in "smd":
            role, mode = op.role(place), instruction.operand(place).mode
            if role is not None and mode in _NO_MODE:
                other = op.role("d")
                if other is None or other.type != role.type:
                    role = None
                place, mode = "d", instruction.destination.mode
            if role is None:
                yield Mode.IMMEDIATE, place, _nothing
            elif (op.mnemonic, place) in _PLAIN:
                yield Mode.IMMEDIATE, place, self._plain
            elif mode is Mode.IMMEDIATE:
                yield mode, place, self._immediate(role)
            else:
                yield mode, place, _place

    def _immediate(self, role: OperandRole) -> Callable[[Operand], int]:
        """Return the function that makes the 8 bytes of an immediate operand."""
        if role.is_storage:
            return lambda operand: self._constant(operand.value)
        if role.type == "D":
            return self._type
        if role.type == "Q":
            return self._label
        if TYPES[role.type].kind == "float":
            layout = "=d" if role.type == "F" else "=f"
            return lambda operand: int.from_bytes(
                struct.pack(layout, float(operand.value)), "little"
            )
        return _number

    def _plain(self, operand: Operand) -> int:
        return self._plain_type(operand.value) if operand.value >= 0 else _UNUSUAL

    def _type(self, operand: Operand) -> int:
        types = self._loaded.types
        return types[operand.value] if 0 <= operand.value < len(types) else _UNUSUAL

    def _label(self, operand: Operand) -> int:
        in_code = 0 <= operand.value < len(self._instructions)
        return self.address + SIZE * operand.value if in_code else _UNUSUAL


def _nothing(operand: Operand) -> int:
    return 0


def _number(operand: Operand) -> int:
    return operand.value & ((1 << 64) - 1)


def _place(operand: Operand) -> int:
    return (operand.value & 0xFFFFFFFF) | operand.base << 32


def _is_usual(instruction: Instruction) -> bool:
    """Whether the operands' modes are those that the native interpreter's handlers expect."""
    op = instruction.op
    plain = [place for mnemonic, place in _PLAIN if mnemonic == op.mnemonic]
    if any(instruction.operand(place).mode is not Mode.IMMEDIATE for place in plain):
        return False
    for role in op.operands:
        if role.place not in "smd":
            continue
        mode = instruction.operand(role.place).mode
        if not takes(op, role, mode):
            return False
        if role.type in "DQ" and role.reads and mode is not Mode.IMMEDIATE:
            return False
    return True
