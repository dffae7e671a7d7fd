"""Text of one function in LLVM's assembly language, line by line."""

from __future__ import annotations

import struct

from llmbol_core.vm.isa import TYPES

LLVM_TYPES = {"B": "i8", "H": "i16", "W": "i32", "L": "i64", "R": "float", "F": "double"}
"""LLVM's types for values of the types of operands; all others are references or numbers."""


def llvm_type(letter: str) -> str:
    """Return the LLVM type for values of an operand's type."""
    return LLVM_TYPES.get(letter, "i32")


def constant(value: float, letter: str) -> str:
    """Return a constant of a type as LLVM writes it; reals are given by their bits."""
    if letter in "FR":
        return f"0x{struct.unpack('>Q', struct.pack('>d', float(value)))[0]:016X}"
    bits = 8 * (TYPES[letter].size or 4)
    wrapped = int(value) & ((1 << bits) - 1)
    return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)


class Emitter:
    """Collects lines; names values and blocks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._names = 0
        self.block = "start"
        """The label of the block that is being written."""

    def emit(self, text: str) -> None:
        """Add an instruction."""
        self.lines.append(f" {text}")

    def value(self, text: str) -> str:
        """Add an instruction and return the name of its value."""
        self._names += 1
        self.lines.append(f" %v{self._names} = {text}")
        return f"%v{self._names}"

    def label(self) -> str:
        """Return a new name for a block."""
        self._names += 1
        return f"l{self._names}"

    def begin(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.block = label

    def branch(self, condition: str, yes: str, no: str, rare: bool = False) -> None:
        """Branch on a condition; ``rare`` tells that it seldom holds."""
        weight = ", !prof !0" if rare else ""
        self.emit(f"br i1 {condition}, label %{yes}, label %{no}{weight}")

    def jump(self, label: str) -> None:
        """Go to a block."""
        self.emit(f"br label %{label}")

    def call(self, name: str, *arguments: str, result: str = "i32") -> str:
        """Return the result of a function of the runtime that is called with words."""
        passed = "".join(f", i32 {argument}" for argument in arguments)
        return self.value(f"call {result} @{name}(ptr %m, ptr %s{passed})")

    def must(self, result: str) -> str:
        """Leave for the interpreter if a function of the runtime says so by 0."""
        self.guard(self.value(f"icmp eq i32 {result}, 0"))
        return result

    def guard(self, condition: str, trap: str = "") -> None:
        """Leave for the interpreter, which runs this instruction, if a condition holds.

        ``trap`` is the exception that it then raises, if that is sure.
        """
        raise NotImplementedError

    def trap_if(self, condition: str, trap: str) -> None:
        """Tell which exception the interpreter raises where other guards leave for it."""
