"""A Dis module as plain data: what an object file, a listing and stack code all say.

Everything is frozen and complete: a reader makes a ``Module`` from bytes or text, the writers turn
it back into the same bytes or an equal text, and loader, verifier and engines only read it. Offsets
are bytes, program counters are instruction numbers, and -1 means no type or no program counter.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import NamedTuple

from llmbol_core.vm.isa import OPS, Mode, Op

NAMES = ("utf-8", "surrogateescape")
"""How names and texts are held as ``str``: bytes that are no UTF-8 survive as lone surrogates."""

# Runtime flags of the object format.
MUSTCOMPILE = 0x01
DONTCOMPILE = 0x02
SHAREMP = 0x04
DYNMOD = 0x08
HASLDT0 = 0x10
HASEXCEPT = 0x20
HASLDT = 0x40


class Operand(NamedTuple):
    """One operand: ``value`` is an immediate or an offset, ``base`` the slot of an indirect mode.

    ``Operand(Mode.FP_INDIRECT, 4, 36)`` is ``4(36(fp))``: the slot at 36 of the frame holds a
    pointer, the operand lies 4 bytes behind what it points to.
    """

    mode: Mode
    value: int = 0
    base: int = 0


ABSENT = Operand(Mode.NONE)
DATA_EXPORT = ".mp"
"""The name of the export that stands for the module data."""


PLACES = {"s": 1, "m": 2, "d": 3}
"""Which fields of an instruction its operands are."""


class Instruction(NamedTuple):
    """An opcode and its three operands, of which each may be ``ABSENT``."""

    opcode: int
    source: Operand = ABSENT
    middle: Operand = ABSENT
    destination: Operand = ABSENT

    @property
    def op(self) -> Op:
        """The opcode's row in the instruction table."""
        return OPS[self.opcode]

    def operand(self, place: str) -> Operand:
        """Return the operand at a place: s, m or d."""
        return self[PLACES[place]]  # type: ignore[return-value]


@dataclass(frozen=True)
class TypeDescriptor:
    """The shape of a frame, an object or the module data: its size and where its pointers lie.

    Bit 7 of the map's first byte stands for the word at offset 0, bit 6 for the one at 4 and so on.
    """

    id: int
    size: int
    pointer_map: bytes = b""

    @cached_property
    def pointers(self) -> tuple[int, ...]:
        """Offsets of the pointers, ascending; bits beyond the object are left out."""
        return tuple(
            offset
            for at, byte in enumerate(self.pointer_map)
            if byte
            for bit in range(8)
            if byte & 0x80 >> bit and (offset := 32 * at + 4 * bit) + 4 <= self.size
        )


class DataKind(IntEnum):
    """Kinds of data items, named and numbered as in the object format."""

    DEFB = 1
    DEFW = 2
    DEFS = 3
    DEFF = 4
    DEFA = 5
    DIND = 6
    DAPOP = 7
    DEFL = 8


@dataclass(frozen=True)
class Datum:
    """One item of the module data as the file holds it; the payload is big-endian.

    ``offset`` counts from the module data or, between DIND and DAPOP, from an array's element.
    """

    kind: DataKind
    offset: int
    count: int
    payload: bytes

    @property
    def values(self) -> tuple[int, ...] | tuple[float, ...]:
        """The numbers of a DEFB, DEFW, DEFL or DEFF, type and length of a DEFA, index of a DIND."""
        letter = {DataKind.DEFB: "B", DataKind.DEFF: "d", DataKind.DEFL: "q"}.get(self.kind, "i")
        count = len(self.payload) // struct.calcsize(f">{letter}")
        return struct.unpack(f">{count}{letter}", self.payload)

    @property
    def text(self) -> str:
        """The string of a DEFS, for people: bytes that are no UTF-8 become lone surrogates."""
        return self.payload.decode(*NAMES)


class Export(NamedTuple):
    """A function that other modules can link to; ``.mp`` with pc -1 stands for exported data."""

    pc: int
    type: int
    signature: int
    name: str


class Import(NamedTuple):
    """A function wanted from a module that ``load`` will name."""

    signature: int
    name: str


class Handler(NamedTuple):
    """An exception handler for pc1 <= pc < pc2.

    ``labels`` are (pattern, pc) pairs: the first ``typed`` of them are names of exceptions, the
    others patterns of strings. The value goes to ``offset`` in the frame. ``type`` describes the
    locals that are released, ``default_pc`` takes what no label matches.
    """

    offset: int
    pc1: int
    pc2: int
    type: int
    labels: tuple[tuple[str, int], ...]
    typed: int
    default_pc: int


@dataclass(frozen=True)
class Module:
    """A whole Dis module.

    ``types`` are in the order of their numbers, 0 first, whatever their order in a file.
    ``signature`` holds the bytes of a signed file, ``source_path`` is None where the file ends
    before it. ``imports`` are the lists that ``load`` selects by number; they need the flag HASLDT,
    as ``handlers`` need HASEXCEPT.
    """

    name: str
    instructions: tuple[Instruction, ...] = ()
    types: tuple[TypeDescriptor, ...] = ()
    data_size: int = 0
    data: tuple[Datum, ...] = ()
    exports: tuple[Export, ...] = ()
    imports: tuple[tuple[Import, ...], ...] = ()
    handlers: tuple[Handler, ...] = ()
    entry_pc: int = -1
    entry_type: int = -1
    flags: int = HASLDT
    stack_extent: int = 0
    source_path: str | None = None
    signature: bytes | None = None

    @property
    def has_entry(self) -> bool:
        """Whether the entry point means something: both its pc and its type exist."""
        in_code = 0 <= self.entry_pc < len(self.instructions)
        return in_code and 0 <= self.entry_type < len(self.types)
