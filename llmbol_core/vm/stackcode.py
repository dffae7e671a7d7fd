"""Stack code: a small notation of one-byte instructions, lifted to Dis.

    00 01 05 FF                      NOP
                                     PUSH 5
                                     HALT

A program is bytes or text: mnemonics with their numbers, ``label:``, ``name = expression`` and
``# comments``; ``stackops.py`` lists the instructions. It works on a stack of words, bigs and
reals. ``stackflow.py`` proves that the stack at each instruction has the same depth and types
however the program got there. So every place of the stack becomes a slot of a Dis frame
(``stacklift.py``), and the module that ``lift`` returns runs like any other. It exports ``main``,
which returns what HALT found on top of the stack: ``fn(): int``, ``fn(): big`` or ``fn(): real``.

Numbers after an opcode are big-endian, labels are offsets from the start of the code. CALL takes as
many values from the stack as its second operand says; they become the function's locals 0, 1, and
so on. A function has a stack of its own, of which RET returns the top, and up to 256 locals, each
of one type; locals that are not parameters start as zero.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from operator import index
from typing import SupportsIndex

from llmbol_core.errors import DisFormatError, LlmbolError, UsageError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.directives import Lookup, no_built_ins
from llmbol_core.vm.module import Module
from llmbol_core.vm.stackflow import find_functions
from llmbol_core.vm.stacklift import make_module
from llmbol_core.vm.stackops import STACK_MNEMONICS, Fail, StackOp, decode
from llmbol_core.vm.tokens import Token, TokenStream, unknown


class BytecodeLoader:
    """Makes modules from stack code given as bytes."""

    @staticmethod
    def create_module(code: bytes | Sequence[int]) -> Module:
        """Return the Dis module for stack code: bytes, or numbers from 0 to 255.

        Raises DisFormatError, with the offset of the instruction that is wrong, and UsageError for
        what is neither bytes nor a sequence.

        >>> BytecodeLoader.create_module([0x00, 0x01, 0x05, 0xFF]).exports[0].name
        'main'
        """
        given: object = code
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise UsageError(f"stack code should be bytes or numbers, not {given!r}")
        try:
            data = bytes(code)
        except (TypeError, ValueError):
            bad = next(n for n, value in enumerate(code) if not _is_byte(value))
            why = f"{code[bad]!r} is no byte: expected 0 to 255"
            raise DisFormatError("<stack code>", bad, why) from None
        return lift(data)


def _is_byte(value: object) -> bool:
    return isinstance(value, SupportsIndex) and 0 <= index(value) < 256


def lift(code: bytes, path: str = "<stack code>") -> Module:
    """Return the Dis module that does what stack code says; raises DisFormatError."""

    def fail(offset: int, why: str) -> LlmbolError:
        return DisFormatError(path, offset, why)

    return _lift(code, fail)


def parse_stackcode(text: str, path: str = "<text>") -> Module:
    """Return the Dis module that a text of stack code describes; raises AssemblyError.

    >>> parse_stackcode("PUSH 2 PUSH 3 ADD HALT").types[1].size
    72
    """
    stream = TokenStream(text, path)
    code, tokens = _assemble(stream)

    def fail(offset: int, why: str) -> LlmbolError:
        return stream.error(why, tokens.get(offset))

    return _lift(code, fail)


def assemble_stackcode(text: str, path: str = "<text>") -> bytes:
    """Return the bytes of a text of stack code; only words and labels are checked."""
    return _assemble(TokenStream(text, path))[0]


def object_path(source: str) -> str:
    """Return the path of the object file that belongs to a source file.

    >>> object_path("specs/hello.s"), object_path("-")
    ('specs/hello.dis', '-')
    """
    return source if source == "-" else os.path.splitext(source)[0] + ".dis"


def parse_source(text: str, path: str, built_ins: Lookup = no_built_ins) -> Module:
    """Return the module of an assembly source in either dialect.

    It is stack code if the path ends in ``.stack`` or the first mnemonic is one of stack code.
    """
    if path.endswith(".stack") or _begins_as_stackcode(text, path):
        return parse_stackcode(text, path)
    return parse_assembly(text, path, built_ins)


def _begins_as_stackcode(text: str, path: str) -> bool:
    stream = TokenStream(text, path)
    while stream.peek().kind == "name" and stream.peek(1).text == ":":
        stream.take(), stream.take()
    return stream.peek().text in STACK_MNEMONICS


def _lift(code: bytes, fail: Fail) -> Module:
    instructions = decode(code, fail)
    return make_module(instructions, find_functions(instructions, fail))


def _assemble(stream: TokenStream) -> tuple[bytes, dict[int, Token]]:
    """Return the code and where in the text each instruction stands."""
    _collect_labels(stream)
    code = bytearray()
    tokens: dict[int, Token] = {}
    while (token := stream.take()).kind != "end":
        if stream.skip(":"):
            continue
        if stream.skip("="):
            stream.expression()
            continue
        op = STACK_MNEMONICS.get(token.text)
        if op is None:
            raise unknown(stream, "mnemonic", token, STACK_MNEMONICS)
        tokens[len(code)] = token
        code.append(op.number)
        for number, letter in enumerate(op.operands):
            if number:
                stream.need(",")
            code += _operand(stream, op, letter)
    tokens[len(code)] = token
    return bytes(code), tokens


def _collect_labels(stream: TokenStream) -> None:
    """Give every label the offset of what follows it; note symbols defined by ``=``."""
    at = 0
    while (token := stream.take()).kind != "end":
        if token.text in STACK_MNEMONICS:
            at += STACK_MNEMONICS[token.text].size
        elif token.kind == "name" and stream.skip(":"):
            stream.define(token, at)
        elif token.kind == "name" and stream.skip("="):
            stream.defer(token)
    stream.rewind()


def _operand(stream: TokenStream, op: StackOp, letter: str) -> bytes:
    """Take one operand and return its bytes."""
    token = stream.peek()
    if letter == "d":
        return struct.pack(">d", _real(stream))
    value = stream.expression()
    try:
        return struct.pack(f">{letter}", value)
    except struct.error:
        bits = 8 * struct.calcsize(letter)
        least, most = (
            (-(1 << bits - 1), (1 << bits - 1) - 1) if letter in "hiq" else (0, (1 << bits) - 1)
        )
        why = f"{value} does not fit {op.mnemonic}, which takes {least} to {most}"
        hint = "; PUSH16, PUSH32 and PUSH64 take more" if op.mnemonic.startswith("PUSH") else ""
        raise stream.error(why + hint, token) from None


def _real(stream: TokenStream) -> float:
    sign = -1.0 if stream.skip("-") else 1.0
    token = stream.take()
    try:
        return sign * float(token.text)
    except ValueError:
        raise stream.error("expected a real number", token) from None
