"""The instructions of stack code, one row each, and how bytes are split into them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from llmbol_core.errors import LlmbolError

MAX_CODE = 1 << 16


@dataclass(frozen=True)
class StackOp:
    """One instruction: number, mnemonic, struct codes of its operands, and what it does.

    ``stack`` tells what it takes from and leaves on the stack, the top last: W word, L big, F real,
    T and U any of ``types``. ``dis`` is the stem of the Dis instruction that does the work.
    """

    number: int
    mnemonic: str
    operands: str
    stack: str
    types: str
    dis: str
    summary: str

    @property
    def size(self) -> int:
        """Bytes that the instruction takes."""
        return 1 + struct.calcsize(">" + self.operands)


# fmt: off
_TABLE = (
    #        no.  mnemonic  operands  stack      types   dis    summary
    StackOp(0x00, "NOP",    "",       "->",      "",     "",    "does nothing"),
    StackOp(0x01, "PUSH",   "B",      "-> W",    "",     "",    "push a word, 0 to 255"),
    StackOp(0x02, "PUSH16", "h",      "-> W",    "",     "",    "push a word of 16 bits"),
    StackOp(0x03, "PUSH32", "i",      "-> W",    "",     "",    "push a word"),
    StackOp(0x04, "PUSH64", "q",      "-> L",    "",     "",    "push a big"),
    StackOp(0x05, "PUSHF",  "d",      "-> F",    "",     "",    "push a real"),
    StackOp(0x08, "POP",    "",       "T ->",    "WLF",  "",    "drop the top"),
    StackOp(0x09, "DUP",    "",       "T -> TT", "WLF",  "",    "push the top again"),
    StackOp(0x0A, "SWAP",   "",       "TU -> UT", "WLF", "",    "exchange the two topmost"),
    StackOp(0x10, "ADD",    "",       "TT -> T", "WLF",  "add", "sum"),
    StackOp(0x11, "SUB",    "",       "TT -> T", "WLF",  "sub", "difference"),
    StackOp(0x12, "MUL",    "",       "TT -> T", "WLF",  "mul", "product"),
    StackOp(0x13, "DIV",    "",       "TT -> T", "WLF",  "div", "quotient, of integers truncated"),
    StackOp(0x14, "MOD",    "",       "TT -> T", "WL",   "mod", "remainder"),
    StackOp(0x15, "NEG",    "",       "T -> T",  "WLF",  "neg", "negative"),
    StackOp(0x16, "AND",    "",       "TT -> T", "WL",   "and", "bitwise and"),
    StackOp(0x17, "OR",     "",       "TT -> T", "WL",   "or",  "bitwise or"),
    StackOp(0x18, "XOR",    "",       "TT -> T", "WL",   "xor", "bitwise exclusive or"),
    StackOp(0x19, "SHL",    "",       "TW -> T", "WL",   "shl", "shift left"),
    StackOp(0x1A, "SHR",    "",       "TW -> T", "WL",   "shr", "shift right, keeping the sign"),
    StackOp(0x20, "EQ",     "",       "TT -> W", "WLF",  "beq", "1 if equal, else 0"),
    StackOp(0x21, "NE",     "",       "TT -> W", "WLF",  "bne", "1 if not equal, else 0"),
    StackOp(0x22, "LT",     "",       "TT -> W", "WLF",  "blt", "1 if less, else 0"),
    StackOp(0x23, "LE",     "",       "TT -> W", "WLF",  "ble", "1 if less or equal, else 0"),
    StackOp(0x24, "GT",     "",       "TT -> W", "WLF",  "bgt", "1 if greater, else 0"),
    StackOp(0x25, "GE",     "",       "TT -> W", "WLF",  "bge", "1 if greater or equal, else 0"),
    StackOp(0x28, "WORD",   "",       "T -> W",  "WLF",  "cvt", "convert to a word"),
    StackOp(0x29, "BIG",    "",       "T -> L",  "WLF",  "cvt", "convert to a big"),
    StackOp(0x2A, "REAL",   "",       "T -> F",  "WLF",  "cvt", "convert to a real"),
    StackOp(0x30, "JMP",    "H",      "->",      "",     "",    "go to a label"),
    StackOp(0x31, "JZ",     "H",      "W ->",    "",     "beq", "go to a label if zero"),
    StackOp(0x32, "JNZ",    "H",      "W ->",    "",     "bne", "go to a label unless zero"),
    StackOp(0x38, "LOAD",   "B",      "-> T",    "WLF",  "",    "push a local"),
    StackOp(0x39, "STORE",  "B",      "T ->",    "WLF",  "",    "take the top into a local"),
    StackOp(0x40, "CALL",   "HB",     "-> T",    "WLF",  "",    "call with so many values"),
    StackOp(0x41, "RET",    "",       "T ->",    "WLF",  "",    "return the top to the caller"),
    # 80 to EF are kept for the operations on tensors.
    StackOp(0xFF, "HALT",   "",       "T ->",    "WLF",  "",    "end the program with the top"),
)
# fmt: on
STACK_OPS: dict[int, StackOp] = {op.number: op for op in _TABLE}
STACK_MNEMONICS = {op.mnemonic: op for op in _TABLE}


@dataclass(frozen=True)
class StackInstruction:
    """An instruction at its offset in the code, with the values of its operands."""

    offset: int
    op: StackOp
    operands: tuple[int | float, ...]

    @property
    def end(self) -> int:
        """The offset of what follows."""
        return self.offset + self.op.size


Fail = Callable[[int, str], LlmbolError]
"""Makes an error about the instruction at an offset."""


def decode(code: bytes, fail: Fail) -> dict[int, StackInstruction]:
    """Return the instructions by offset, in order."""
    if not code:
        raise fail(0, "there is no code")
    if len(code) > MAX_CODE:
        raise fail(MAX_CODE, f"{len(code)} bytes of code are too many: labels reach {MAX_CODE - 1}")
    instructions: dict[int, StackInstruction] = {}
    at = 0
    while at < len(code):
        op = STACK_OPS.get(code[at])
        if op is None:
            raise fail(at, f"there is no instruction {code[at]:#04x}")
        if at + op.size > len(code):
            raise fail(at, f"the code ends inside the operand of {op.mnemonic}")
        values = struct.unpack_from(">" + op.operands, code, at + 1)
        instructions[at] = StackInstruction(at, op, values)
        at += op.size
    return instructions
