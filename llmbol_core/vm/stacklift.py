"""Stack code to Dis: every place of the stack becomes a slot of a frame.

    32 ...     parameters, 8 bytes each, then the other locals that the function uses
    ...        the places of the stack, bottom first, and one more to exchange values
    last       the frame of a function about to be called

Constants that no immediate operand can hold lie in the module data.
"""

from __future__ import annotations

import struct

from llmbol_core.vm.isa import OPCODES, Mode
from llmbol_core.vm.limbo import signature
from llmbol_core.vm.magic import OP_LIMIT
from llmbol_core.vm.module import (
    DataKind,
    Datum,
    Export,
    Instruction,
    Module,
    Operand,
    TypeDescriptor,
)
from llmbol_core.vm.stackflow import StackFunction
from llmbol_core.vm.stackops import StackInstruction

RESULT_TYPES = {"W": "int", "L": "big", "F": "real"}
_FRAME = 32
_RESULT = Operand(Mode.FP_INDIRECT, 0, 16)
_PACKING = {"W": (DataKind.DEFW, ">i"), "L": (DataKind.DEFL, ">q"), "F": (DataKind.DEFF, ">d")}
_PUSHED = {"PUSH": "W", "PUSH16": "W", "PUSH32": "W", "PUSH64": "L", "PUSHF": "F"}


def make_module(code: dict[int, StackInstruction], functions: list[StackFunction]) -> Module:
    """Return the module of a program whose stacks are known; its first function is ``main``."""
    return _Lifter(code, functions).module()


class _Lifter:
    def __init__(self, code: dict[int, StackInstruction], functions: list[StackFunction]) -> None:
        self.code = code
        self.functions = {function.entry: function for function in functions}
        self.numbers = {f.entry: number for number, f in enumerate(functions, 1)}
        self.out: list[Instruction] = []
        self.pcs: dict[int, int] = {}
        self.entries: dict[int, int] = {}
        self.labels: dict[int, tuple[dict[int, int], int]] = {}
        self.constants: dict[tuple[DataKind, bytes], Datum] = {}
        self.locals: dict[int, str] = {}
        self.slots: dict[int, int] = {}
        self.base = 0
        self.frame = Operand(Mode.FP)

    def module(self) -> Module:
        sizes = [self._function(function) for function in self.functions.values()]
        for at, (where, offset) in self.labels.items():
            made = self.out[at]
            target = Operand(Mode.IMMEDIATE, where[offset])
            self.out[at] = Instruction(made.opcode, made.source, made.middle, target)
        data_size = 8 * len(self.constants)
        types = [TypeDescriptor(n, size) for n, size in enumerate([data_size, *sizes])]
        declared = signature(f"fn(): {RESULT_TYPES[self.functions[0].result]}")
        return Module(
            "StackCode",
            instructions=tuple(self.out),
            types=tuple(types),
            data_size=data_size,
            data=tuple(self.constants.values()),
            exports=(Export(0, 1, declared, "main"),),
            stack_extent=max(1024, *sizes),
        )

    def _function(self, function: StackFunction) -> int:
        """Emit a function and return the size of its frame."""
        others = sorted(set(function.locals) - set(range(len(function.parameters))))
        numbers = [*range(len(function.parameters)), *others]
        self.locals = function.locals
        self.slots = {number: _FRAME + 8 * n for n, number in enumerate(numbers)}
        self.base = _FRAME + 8 * len(numbers)
        depth = max(len(stack) for stack in function.before.values()) + 2
        self.frame = Operand(Mode.FP, self.base + 8 * depth)
        self.entries[function.entry] = len(self.out)
        for number in others:
            # Frames begin with anything in them.
            zero = self._constant(function.locals[number], 0)
            self._move(function.locals[number], zero, self._local(number))
        for offset in sorted(function.before):
            self.pcs[offset] = len(self.out)
            self._instruction(self.code[offset], function.before[offset])
        return self.base + 8 * depth + 8

    def _instruction(self, made: StackInstruction, stack: str) -> None:
        op = made.op
        if op.mnemonic in _PUSHED:
            letter = _PUSHED[op.mnemonic]
            self._move(letter, self._constant(letter, made.operands[0]), self._slot(len(stack)))
        elif op.mnemonic in _SPECIAL:
            _SPECIAL[op.mnemonic](self, made, stack)
        elif op.dis == "cvt":
            self._convert(stack, op.stack[-1])
        elif op.dis.startswith("b"):
            self._compare(op.dis, stack)
        elif op.dis:
            # The destination stands in for the middle operand.
            top = len(stack) - 1
            self._emit(op.dis + stack[-2].lower(), self._slot(top), self._slot(top - 1))

    def _slot(self, depth: int) -> Operand:
        """Return the slot of a place of the stack, counted from the bottom."""
        return Operand(Mode.FP, self.base + 8 * depth)

    def _local(self, number: int) -> Operand:
        return Operand(Mode.FP, self.slots[number])

    def _constant(self, letter: str, value: int | float) -> Operand:
        """Return an operand that holds a number."""
        if letter == "W" and -OP_LIMIT <= value < OP_LIMIT:
            return Operand(Mode.IMMEDIATE, int(value))
        kind, code = _PACKING[letter]
        payload = struct.pack(code, value)
        fresh = Datum(kind, 8 * len(self.constants), 1, payload)
        return Operand(Mode.MP, self.constants.setdefault((kind, payload), fresh).offset)

    def _emit(self, mnemonic: str, source: Operand, destination: Operand) -> None:
        self.out.append(Instruction(OPCODES[mnemonic], source, destination=destination))

    def _emit_to(
        self, mnemonic: str, where: dict[int, int], label: int, *operands: Operand
    ) -> None:
        """Emit an instruction whose destination is a label that may not be placed yet."""
        self.labels[len(self.out)] = (where, label)
        self.out.append(Instruction(OPCODES[mnemonic], *operands))

    def _move(self, letter: str, source: Operand, destination: Operand) -> None:
        self._emit(f"mov{letter.lower()}", source, destination)

    def _compare(self, stem: str, stack: str) -> None:
        first, second = self._slot(len(stack) - 2), self._slot(len(stack) - 1)
        at = len(self.out)
        yes, end = (Operand(Mode.IMMEDIATE, pc) for pc in (at + 3, at + 4))
        self.out.append(Instruction(OPCODES[stem + stack[-1].lower()], first, second, yes))
        self._move("W", Operand(Mode.IMMEDIATE, 0), first)
        self.out.append(Instruction(OPCODES["jmp"], destination=end))
        self._move("W", Operand(Mode.IMMEDIATE, 1), first)

    def _convert(self, stack: str, wanted: str) -> None:
        top = self._slot(len(stack) - 1)
        if stack[-1] != wanted:
            self._emit(f"cvt{stack[-1].lower()}{wanted.lower()}", top, top)

    def _nothing(self, made: StackInstruction, stack: str) -> None:
        """NOP and POP move nothing."""

    def _duplicate(self, made: StackInstruction, stack: str) -> None:
        self._move(stack[-1], self._slot(len(stack) - 1), self._slot(len(stack)))

    def _swap(self, made: StackInstruction, stack: str) -> None:
        low, high, spare = (self._slot(len(stack) + n) for n in (-2, -1, 0))
        self._move(stack[-1], high, spare)
        self._move(stack[-2], low, high)
        self._move(stack[-1], spare, low)

    def _negate(self, made: StackInstruction, stack: str) -> None:
        top, letter = self._slot(len(stack) - 1), stack[-1]
        if letter == "F":
            self._emit("negf", top, top)
        else:
            zero = self._constant(letter, 0)
            self.out.append(Instruction(OPCODES[f"sub{letter.lower()}"], top, zero, top))

    def _load(self, made: StackInstruction, stack: str) -> None:
        number = int(made.operands[0])
        self._move(self.locals[number], self._local(number), self._slot(len(stack)))

    def _store(self, made: StackInstruction, stack: str) -> None:
        self._move(stack[-1], self._slot(len(stack) - 1), self._local(int(made.operands[0])))

    def _jump(self, made: StackInstruction, stack: str) -> None:
        label = int(made.operands[0])
        if made.op.dis:
            zero, top = Operand(Mode.IMMEDIATE, 0), self._slot(len(stack) - 1)
            self._emit_to(f"{made.op.dis}w", self.pcs, label, top, zero)
        else:
            self._emit_to("jmp", self.pcs, label)

    def _call(self, made: StackInstruction, stack: str) -> None:
        entry, count = map(int, made.operands)
        first = len(stack) - count
        self._emit("frame", Operand(Mode.IMMEDIATE, self.numbers[entry]), self.frame)
        for n in range(count):
            argument = Operand(Mode.FP_INDIRECT, _FRAME + 8 * n, self.frame.value)
            self._move(stack[first + n], self._slot(first + n), argument)
        result = Operand(Mode.FP_INDIRECT, 16, self.frame.value)
        self._emit("lea", self._slot(first), result)
        self._emit_to("call", self.entries, entry, self.frame)

    def _return(self, made: StackInstruction, stack: str) -> None:
        self._move(stack[-1], self._slot(len(stack) - 1), _RESULT)
        self.out.append(Instruction(OPCODES["ret"]))


_SPECIAL = {
    "NOP": _Lifter._nothing,
    "POP": _Lifter._nothing,
    "DUP": _Lifter._duplicate,
    "SWAP": _Lifter._swap,
    "NEG": _Lifter._negate,
    "LOAD": _Lifter._load,
    "STORE": _Lifter._store,
    "JMP": _Lifter._jump,
    "JZ": _Lifter._jump,
    "JNZ": _Lifter._jump,
    "CALL": _Lifter._call,
    "RET": _Lifter._return,
    "HALT": _Lifter._return,
}
