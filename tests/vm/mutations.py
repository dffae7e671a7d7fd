"""Damage to object files: to their bytes, and to the modules that they hold.

Most files whose bytes are damaged are not even read. Modules that are damaged in one instruction,
type, item or handler are: they reach the verifier, and what it accepts runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from llmbol_core.errors import LlmbolError
from llmbol_core.vm.isa import OPS, Mode
from llmbol_core.vm.module import HASEXCEPT, Datum, Instruction, Module, Operand, TypeDescriptor
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.objectwriter import write_module

_EDGES = (0x00, 0x01, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF)
_STEPS = (-8, -4, -1, 1, 4, 8)
_NUMBERS = (-(1 << 31), -1, 0, 1, 2, 16, 32, 255, 4096, 65535, 1 << 20, (1 << 31) - 1)
_PLACES = ("source", "middle", "destination")


def mutated(files: list[bytes], seed: int) -> bytes:
    """Return one of the files, damaged: for odd seeds in what it says, for even ones in its bytes.

    >>> mutated([b"abcdefgh"], 1) == mutated([b"abcdefgh"], 1)
    True
    """
    chance = random.Random(seed)
    data = chance.choice(files)
    module = _module(data) if seed % 2 else None
    if module is None:
        return _mutated_bytes(files, bytearray(data), chance)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        module = chance.choice(_WAYS)(module, chance)
    try:
        return write_module(module)
    except ValueError:
        return data[: chance.randrange(len(data))]


@lru_cache(maxsize=2000)
def _module(data: bytes) -> Module | None:
    try:
        return read_module(data, "original")
    except LlmbolError:
        return None


def _mutated_bytes(files: list[bytes], data: bytearray, chance: random.Random) -> bytes:
    """Change a few bytes, double them, take them out or take them from another file."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(data)) if data else 0
        kind = chance.randrange(7)
        if kind == 0:
            data[at : at + 1] = bytes([chance.choice(_EDGES)])
        elif kind == 1:
            data[at : at + 1] = bytes([data[at] ^ 1 << chance.randrange(8)]) if data else b""
        elif kind == 2:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif kind == 3:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = data[at : at + chance.randrange(1, 9)]
        elif kind == 5:
            other = chance.choice(files)
            start = chance.randrange(len(other))
            piece = other[start : start + chance.randrange(1, 17)]
            data[at : at + len(piece)] = piece
        else:
            del data[at:]
    return bytes(data)


def _instruction(module: Module, chance: random.Random) -> Module:
    """Give an instruction another opcode or operand, or put another in its place."""
    code = list(module.instructions)
    at = chance.randrange(len(code)) if code else 0
    if not code:
        return module
    kind = chance.randrange(6)
    if kind == 0:
        code[at] = code[at]._replace(opcode=chance.randrange(len(OPS)))
    elif kind == 1:
        alike = [op.number for op in OPS if len(op.operands) == len(code[at].op.operands)]
        code[at] = code[at]._replace(opcode=chance.choice(alike))
    elif kind == 2:
        code[at] = chance.choice(code)
    elif kind == 3:
        del code[at]
    else:
        code[at] = _operand(code[at], chance.choice(code), chance)
    return replace(module, instructions=tuple(code))


def _operand(instruction: Instruction, other: Instruction, chance: random.Random) -> Instruction:
    """Change one operand, or take one of another instruction."""
    place = chance.choice(_PLACES)
    before: Operand = getattr(instruction, place)
    kind = chance.randrange(5)
    if kind == 0:
        after = before._replace(value=max(before.value + chance.choice(_STEPS), -(1 << 15)))
    elif kind == 1:
        after = before._replace(value=chance.choice(_NUMBERS[1:-1]))
    elif kind == 2 and before.mode in (Mode.FP_INDIRECT, Mode.MP_INDIRECT):
        after = before._replace(base=max(before.base + chance.choice(_STEPS), 0))
    elif kind == 3:
        after = before._replace(mode=chance.choice(list(Mode)))
    else:
        after = getattr(other, chance.choice(_PLACES))
    return Instruction(
        instruction.opcode,
        *(after if name == place else getattr(instruction, name) for name in _PLACES),
    )


def _type(module: Module, chance: random.Random) -> Module:
    """Change the size of a type, or flip a bit of its map."""
    types = list(module.types)
    if not types:
        return module
    at = chance.randrange(len(types))
    known = types[at]
    if chance.randrange(2) and known.size >= 4:
        bit = chance.randrange(known.size // 4)
        pointers = bytearray(known.pointer_map.ljust(bit // 8 + 1, b"\0"))
        pointers[bit // 8] ^= 0x80 >> bit % 8
        types[at] = TypeDescriptor(known.id, known.size, bytes(pointers))
    else:
        size = max(known.size + chance.choice(_STEPS), 0)
        types[at] = TypeDescriptor(known.id, size, known.pointer_map)
    return replace(module, types=tuple(types))


def _datum(module: Module, chance: random.Random) -> Module:
    """Move an item of the module data, or change a word of it."""
    data = list(module.data)
    if not data:
        return module
    at = chance.randrange(len(data))
    item = data[at]
    if chance.randrange(3) and len(item.payload) >= 4:
        start = 4 * chance.randrange(len(item.payload) // 4)
        word = chance.choice((chance.choice(_NUMBERS), chance.randrange(200)))
        payload = bytearray(item.payload)
        payload[start : start + 4] = (word & 0xFFFFFFFF).to_bytes(4, "big")
        data[at] = Datum(item.kind, item.offset, item.count, bytes(payload))
    else:
        data[at] = replace(item, offset=max(item.offset + chance.choice(_STEPS), 0))
    return replace(module, data=tuple(data))


def _link(module: Module, chance: random.Random) -> Module:
    """Change where a function begins, what its frame is, or how it is called."""
    exports = list(module.exports)
    if not exports:
        return module
    at = chance.randrange(len(exports))
    known, value = exports[at], chance.randrange(2 + len(module.instructions))
    exports[at] = chance.choice(
        (known._replace(pc=value), known._replace(type=value), known._replace(signature=value))
    )
    return replace(module, exports=tuple(exports))


def _handler(module: Module, chance: random.Random) -> Module:
    """Change a number of an exception handler."""
    handlers = list(module.handlers)
    if not handlers or not module.flags & HASEXCEPT:
        return _instruction(module, chance)
    at = chance.randrange(len(handlers))
    field = chance.choice(("offset", "pc1", "pc2", "type", "typed", "default_pc"))
    value = max(getattr(handlers[at], field) + chance.choice(_STEPS), 0)
    handlers[at] = handlers[at]._replace(**{field: value})
    return replace(module, handlers=tuple(handlers))


_WAYS: tuple[Callable[[Module, random.Random], Module], ...] = (
    *([_instruction] * 6),
    *([_type] * 2),
    *([_datum] * 2),
    _link,
    _handler,
)
