"""Dis object files: bytes to Module and back.

    magic       op 819248, or op 923426 (signed): op n, then n bytes of signature
    header      ops: flags, stack extent, instructions, data size, types, exports, entry pc and type
    code        opcode byte, addressing byte, then middle, source and destination operands
    types       op number, op size, op n, n bytes of pointer map
    data        items (kind and count, op offset, payload) up to a zero byte
    name        of the module, NUL behind it, as behind every name
    exports     op pc, op type, word signature, name
    imports     if flag HASLDT: op lists, each op n, then n times word signature, name; op 0
    handlers    if flag HASEXCEPT: op n, then the handlers; op 0
    source      path of the source file; may be missing

An "op" is a signed number of 7, 14 or 30 bits in 1, 2 or 4 bytes, big-endian; the two top bits of
the first byte tell how many. Writers use the shortest form, and so does this one: reading and
writing gives back the bytes of any file made so. What follows the source path is no part of the
object (``read_object`` tells where it ends): loaders ignore it, and ``payload.py`` uses it.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from llmbol_core.errors import DisFormatError
from llmbol_core.vm.isa import MIDDLE_MODES, MODES, OPS, Mode
from llmbol_core.vm.magic import OP_LIMIT, SMAGIC, XMAGIC, encode_op, is_object
from llmbol_core.vm.module import (
    HASEXCEPT,
    HASLDT,
    HASLDT0,
    NAMES,
    DataKind,
    Datum,
    Export,
    Handler,
    Import,
    Instruction,
    Module,
    Operand,
    TypeDescriptor,
)
from llmbol_core.vm.objectwriter import write_module

__all__ = [
    "DATA",
    "SMAGIC",
    "XMAGIC",
    "DataRow",
    "encode_op",
    "is_object",
    "operand",
    "read_module",
    "read_object",
    "write_module",
]

_MAX_MAP = 128 * 1024
_MAX_NAME = 4096
_LONGEST = 2 + 4 * 5
"""Bytes that an instruction takes at most."""
_UNSIGNED = struct.Struct(">I")


@dataclass(frozen=True)
class DataRow:
    """How one kind of data item is laid out: bytes of payload, each or in all, and its name."""

    kind: DataKind
    directive: str
    width: int
    per_count: bool


# fmt: off
DATA: dict[int, DataRow] = {row.kind: row for row in (
    #       kind            directive  width  of each of the count, or of the item
    DataRow(DataKind.DEFB,  "byte",    1,     True),
    DataRow(DataKind.DEFW,  "word",    4,     True),
    DataRow(DataKind.DEFS,  "string",  1,     True),
    DataRow(DataKind.DEFF,  "real",    8,     True),
    DataRow(DataKind.DEFA,  "array",   8,     False),
    DataRow(DataKind.DIND,  "indir",   4,     False),
    DataRow(DataKind.DAPOP, "apop",    0,     False),
    DataRow(DataKind.DEFL,  "long",    8,     True),
)}
# fmt: on

_SHAPES = tuple(
    tuple(
        (mode, MODES[mode].values)
        for mode in (MIDDLE_MODES[modes >> 6], Mode(modes >> 3 & 7), Mode(modes & 7))
    )
    for modes in range(256)
)
"""The middle, source and destination modes that an addressing byte stands for, and how many numbers
the file has for each."""

_EMPTY = tuple(map(Operand, Mode))
"""Operands that have no numbers, by their modes."""
_NUMBERS = tuple(range(sum(values for _, values in shape)) for shape in _SHAPES)
"""How many numbers the file has for an addressing byte, to count through."""
_LENGTHS = bytes([1] * 0x80 + [2] * 0x40 + [4] * 0x40)
"""How many bytes a number takes, by the first of them."""


class _Reader:
    """A place in the bytes of a file; every method moves it on or raises DisFormatError."""

    def __init__(self, data: bytes | memoryview, path: str) -> None:
        self.data = memoryview(data).cast("B")
        self.path = path
        self.at = 0

    def fail(self, why: str, at: int | None = None) -> DisFormatError:
        return DisFormatError(self.path, self.at if at is None else at, why)

    def ends(self, what: str) -> DisFormatError:
        return self.fail(f"the file ends inside {what}", len(self.data))

    def op(self, what: str) -> int:
        try:
            value, self.at = _op(self.data, self.at)
        except IndexError:
            raise self.ends(what) from None
        return value

    def count(self, what: str, least: int) -> int:
        """Read how many of something follow, each of at least so many bytes."""
        at = self.at
        value = self.op(f"the number of {what}")
        if value < 0 or value * least > len(self.data) - self.at:
            left = len(self.data) - self.at
            raise self.fail(f"implausible Dis file: {value} {what} in {left} bytes", at)
        return value

    def number(self, what: str) -> int:
        """Read an op that cannot be negative."""
        at = self.at
        value = self.op(what)
        if value < 0:
            raise self.fail(f"implausible Dis file: {what} is {value}", at)
        return value

    def bytes(self, size: int, what: str) -> bytes:
        if size > len(self.data) - self.at:
            raise self.ends(what)
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def word(self, what: str) -> int:
        return int(_UNSIGNED.unpack(self.bytes(4, what))[0])

    def name(self, what: str, otherwise: str = "") -> str:
        """Read text up to a NUL."""
        text = bytes(self.data[self.at : self.at + _MAX_NAME])
        end = text.find(0)
        if end < 0:
            raise self.fail(otherwise or f"{what} has no end")
        self.at += end + 1
        return text[:end].decode(*NAMES)

    def zero(self, what: str) -> None:
        """Read the zero byte that ends a section."""
        at = self.at
        if self.bytes(1, what) != b"\0":
            raise self.fail(f"{what} should end with a zero byte", at)


def read_module(data: bytes | memoryview, path: str = "<bytes>") -> Module:
    """Return the module that the bytes of an object file hold; raises DisFormatError."""
    return read_object(data, path)[0]


def read_object(data: bytes | memoryview, path: str = "<bytes>") -> tuple[Module, int]:
    """Return the module and how many bytes of the file it takes; what follows is no part of it."""
    reader = _Reader(data, path)
    signature = _magic(reader)
    at = reader.at
    flags = reader.op("the runtime flags")
    if flags & HASLDT0:
        raise reader.fail("obsolete dis", at)
    stack_extent = reader.op("the stack extent")
    instructions = reader.count("instructions", 2)
    data_size = reader.number("the size of the module data")
    types = reader.count("types", 3)
    exports = reader.count("exports", 7)
    entry_pc = reader.op("the entry pc")
    entry_type = reader.op("the entry type")
    module = Module(
        signature=signature,
        flags=flags,
        stack_extent=stack_extent,
        data_size=data_size,
        entry_pc=entry_pc,
        entry_type=entry_type,
        instructions=_code(reader, instructions),
        types=_types(reader, types, data_size),
        data=_data(reader, types),
        name=reader.name("the module name", "bad module name"),
        exports=tuple(_export(reader, types) for _ in range(exports)),
        imports=_imports(reader) if flags & HASLDT else (),
        handlers=_handlers(reader, types) if flags & HASEXCEPT else (),
        source_path=_source(reader),
    )
    return module, reader.at


def _magic(reader: _Reader) -> bytes | None:
    """Read the magic number and, of a signed file, the signature."""
    if not is_object(reader.data):
        found = bytes(reader.data[:4]).hex(" ") or "an empty file"
        raise reader.fail(f"bad magic: not a Dis object file ({found})")
    if reader.op("the magic number") == XMAGIC:
        return None
    at = reader.at
    size = reader.op("the size of the signature")
    if not 0 <= size <= len(reader.data) - reader.at:
        raise reader.fail("corrupt signature", at)
    return reader.bytes(size, "the signature")


operand = functools.lru_cache(maxsize=1 << 14)(Operand)
"""Make an operand, or give back an equal one: programs use few different operands."""


def _code(reader: _Reader, count: int) -> tuple[Instruction, ...]:
    """Read the instructions, and check immediate labels as Inferno's loader does.

    Programs repeat themselves: each sequence of bytes is made an instruction of only once.
    """
    first, code, at = reader.at, list[Instruction](), 0
    data = bytes(reader.data[first : first + _LONGEST * count])
    known: dict[bytes, Instruction] = {}
    try:
        for _ in range(count):
            start, at = at, at + 2
            for _ in _NUMBERS[data[start + 1]]:
                at += _LENGTHS[data[at]]
            content = data[start:at]
            instruction = known.get(content)
            if instruction is None:
                instruction = known[content] = _instruction(content)
                if why := _refused(instruction, count):
                    raise reader.fail(why, first + start)
            code.append(instruction)
    except IndexError:
        raise reader.ends("the code") from None
    reader.at = first + at
    return tuple(code)


def _instruction(content: bytes) -> Instruction:
    """Return the instruction of some bytes; raises IndexError."""
    at, operands = 2, []
    for mode, values in _SHAPES[content[1]]:
        if not values:
            operands.append(_EMPTY[mode])
            continue
        base, at = _op(content, at) if values == 2 else (0, at)
        value, at = _op(content, at)
        operands.append(operand(mode, value, base))
    middle, source, target = operands
    return Instruction(content[0], source, middle, target)


def _refused(instruction: Instruction, count: int) -> str:
    """Return why Inferno's loader would refuse an instruction of so many; empty if it would not."""
    opcode, target = instruction.opcode, instruction.destination
    if opcode >= len(OPS):
        return f"there is no opcode {opcode}"
    is_label = target.mode is Mode.IMMEDIATE and OPS[opcode].has_label
    if is_label and not 0 <= target.value < count:
        return f"bad branch addr: {target.value} in a program of {count} instructions"
    return ""


def _op(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Read an op, and return where the next one begins; raises IndexError."""
    first = data[at]
    if first < 0x80:
        return (first ^ 0x40) - 0x40, at + 1
    if first < 0xC0:
        return (((first & 0x3F) << 8 | data[at + 1]) ^ 0x2000) - 0x2000, at + 2
    value = (first & 0x3F) << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
    return (value ^ OP_LIMIT) - OP_LIMIT, at + 4


def _types(reader: _Reader, count: int, data_size: int) -> tuple[TypeDescriptor, ...]:
    types: dict[int, TypeDescriptor] = {}
    for _ in range(count):
        at = reader.at
        number = reader.op("the type descriptors")
        if not 0 <= number < count or number in types:
            why = "comes twice" if number in types else f"is none of {count}"
            raise reader.fail(f"heap id range: type {number} {why}", at)
        size = reader.number("the size of a type")
        at = reader.at
        length = reader.number("the size of a pointer map")
        if length > _MAX_MAP:
            raise reader.fail(f"implausible Dis file: a pointer map of {length} bytes", at)
        types[number] = TypeDescriptor(number, size, reader.bytes(length, "a pointer map"))
    if data_size and (0 not in types or types[0].size != data_size):
        found = f"type 0 has {types[0].size}" if 0 in types else "there is no type 0"
        raise reader.fail(f"bad desc for mp: the module data has {data_size} bytes, {found}")
    return tuple(types[number] for number in range(count))


def _data(reader: _Reader, types: int) -> tuple[Datum, ...]:
    """Read the data items; whether they fit the module data is for the verifier and the loader."""
    items: list[Datum] = []
    depth = 0
    while True:
        at = reader.at
        head = reader.bytes(1, "the module data")[0]
        if not head:
            return tuple(items)
        row = DATA.get(head >> 4)
        if row is None:
            raise reader.fail(f"bad data item: there is no kind {head >> 4}", at)
        count = head & 15 or reader.number("the size of a data item")
        offset = reader.op("a data item")
        size = row.width * count if row.per_count else row.width
        item = Datum(row.kind, offset, count, reader.bytes(size, "a data item"))
        depth += (row.kind is DataKind.DIND) - (row.kind is DataKind.DAPOP)
        if depth not in range(5):
            raise reader.fail("pop range" if depth < 0 else "array init range: depth over 4", at)
        if row.kind is DataKind.DEFA and not 0 <= item.values[0] < types:
            raise reader.fail(f"bad array type: {item.values[0]} of {types}", at)
        items.append(item)


def _export(reader: _Reader, types: int) -> Export:
    at = reader.at
    pc, frame = reader.op("the exports"), _type_or_none(reader, types)
    export = Export(pc, frame, reader.word("the exports"), reader.name("the name of an export"))
    if pc < -1:
        raise reader.fail(f"implausible Dis file: export {export.name!r} at pc {pc}", at)
    return export


def _type_or_none(reader: _Reader, types: int) -> int:
    at = reader.at
    number = reader.op("a type number")
    if not -1 <= number < types:
        raise reader.fail(f"heap id range: type {number} is none of {types}", at)
    return number


def _imports(reader: _Reader) -> tuple[tuple[Import, ...], ...]:
    lists = []
    for _ in range(reader.count("import lists", 1)):
        wanted = reader.count("imports", 5)
        lists.append(
            tuple(
                Import(reader.word("the imports"), reader.name("the name of an import"))
                for _ in range(wanted)
            )
        )
    reader.zero("the import section")
    return tuple(lists)


def _handlers(reader: _Reader, types: int) -> tuple[Handler, ...]:
    handlers = []
    for _ in range(reader.count("exception handlers", 6)):
        offset, pc1, pc2 = (reader.op("an exception handler") for _ in range(3))
        frame = _type_or_none(reader, types)
        at = reader.at
        both = reader.number("the number of exception labels")
        count, typed = both & 0xFFFF, both >> 16
        if typed > count:
            raise reader.fail(f"implausible Dis file: {typed} of {count} labels are typed", at)
        labels = tuple(
            (reader.name("an exception label"), reader.op("an exception label"))
            for _ in range(count)
        )
        default = reader.op("an exception handler")
        handlers.append(Handler(offset, pc1, pc2, frame, labels, typed, default))
    reader.zero("the handler section")
    return tuple(handlers)


def _source(reader: _Reader) -> str | None:
    """Read the source path, which some files lack; without an end it is none."""
    text = bytes(reader.data[reader.at : reader.at + _MAX_NAME])
    return reader.name("the source path") if 0 in text else None
