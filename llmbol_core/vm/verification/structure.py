"""The first half of verification: everything that can be checked without following the program.

Numbers within their ranges, operands of kinds that their instruction takes, pointer maps inside
their objects, data items that fit the module data and its pointers, well-formed case tables,
exports and handlers. ``verifier.py`` follows the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import (
    HASLDT,
    DataKind,
    Datum,
    Instruction,
    Module,
    Operand,
    TypeDescriptor,
)
from llmbol_core.vm.notation import PLACES, format_instruction
from llmbol_core.vm.pauses import pauses
from llmbol_core.vm.verification.tables import find_tables

if TYPE_CHECKING:
    from llmbol_core.vm.verification.effects import Effects

IMMEDIATES = frozenset("WDMJQ")
"""Operand types that an immediate operand can give; ``send`` and ``lea`` also take a word so."""

_NONES = frozenset({Mode.NONE, Mode.NONE6, Mode.NONE7})
_INDIRECT = frozenset({Mode.MP_INDIRECT, Mode.FP_INDIRECT})
_FRAME_HEADER = 32


@dataclass(frozen=True)
class Layout:
    """The size of an object and the offsets of its pointers."""

    size: int
    pointers: frozenset[int]

    @classmethod
    def of(cls, descriptor: TypeDescriptor) -> Layout:
        """Return the layout that a type descriptor states."""
        return cls(descriptor.size, frozenset(descriptor.pointers))

    def overlaps(self, offset: int, size: int) -> bool:
        """Whether bytes from offset on touch a pointer."""
        if size <= 2 * WORD_SIZE:
            first = offset & -WORD_SIZE
            return any(p in self.pointers for p in range(first, offset + size, WORD_SIZE))
        return any(offset - WORD_SIZE < p < offset + size for p in self.pointers)


@dataclass(frozen=True)
class Structure:
    """A module whose structure is sound, and what was found while checking it."""

    module: Module
    layouts: dict[int, Layout]
    words: dict[int, int]
    """Initial words of the module data, by offset, as far as they are given."""
    tables: list[tuple[int, int]] = field(default_factory=list)
    """Start and end of the tables in the module data that instructions jump through."""
    effects: dict[int, Effects] = field(default_factory=dict)
    """What instructions read and write, as far as that is known (``effects.py``)."""

    @cached_property
    def data(self) -> Layout:
        """The layout of the module data, an object of its own; others can be of type 0 too."""
        size = self.module.data_size
        return Layout(size, self.layouts[0].pointers if size else frozenset())

    @cached_property
    def pauses(self) -> frozenset[int]:
        """The instructions before which other processes may run."""
        return pauses(self.module)

    def writes_table(self, offset: int, size: int) -> bool:
        """Whether bytes of the module data touch a table that instructions jump through."""
        return any(start < offset + size and offset < end for start, end in self.tables)

    def fail(self, pc: int, why: str) -> VerifyError:
        """Return the error that refuses an instruction."""
        if 0 <= pc < len(self.module.instructions):
            why = f"{format_instruction(self.module.instructions[pc])}: {why}"
        return VerifyError(self.module.name, pc, why)


def check_structure(module: Module) -> Structure:
    """Return what is known of a module without following it; raises VerifyError."""
    found = Structure(module, {}, {})
    for number, descriptor in enumerate(module.types):
        if descriptor.id != number:
            raise found.fail(-1, f"type {number} has the number {descriptor.id}")
        found.layouts[descriptor.id] = _layout(found, descriptor)
    if module.data_size and (not module.types or module.types[0].size != module.data_size):
        raise found.fail(-1, f"type 0 does not describe the {module.data_size} bytes of the data")
    _check_data(found)
    _check_links(found)
    _check_handlers(found)
    for pc, instruction in enumerate(module.instructions):
        why = _instruction_fault(found, instruction)
        if why:
            raise found.fail(pc, why)
    found.tables.extend(find_tables(found))
    return found


def _layout(found: Structure, descriptor: TypeDescriptor) -> Layout:
    """Return a type's layout; its map must lie inside it."""
    bits = int.from_bytes(descriptor.pointer_map, "big").bit_count()
    if bits != len(descriptor.pointers):
        why = f"the pointer map of type {descriptor.id} reaches beyond its {descriptor.size} bytes"
        raise found.fail(-1, why)
    if descriptor.pointers and descriptor.size % WORD_SIZE:
        why = f"type {descriptor.id} has pointers, but {descriptor.size} bytes are no whole words"
        raise found.fail(-1, why)
    return Layout.of(descriptor)


# Module data.


@dataclass(frozen=True)
class _Region:
    """What data items are placed in: the module data, or the elements of an array."""

    what: str
    size: int
    element: Layout
    arrays: dict[int, tuple[int, int]]
    taken: list[tuple[int, int]]

    def place(self, item: Datum, start: int) -> None:
        """Note an item whose offset counts from start; raises ValueError if it does not fit."""
        pointer = item.kind in (DataKind.DEFS, DataKind.DEFA, DataKind.DIND)
        size = WORD_SIZE if pointer else len(item.payload)
        at = start + item.offset
        if item.offset < 0 or at + size > self.size:
            raise ValueError(f"lies outside {self.what}, which has {self.size} bytes")
        stride = self.element.size
        if pointer and (not stride or at % stride not in self.element.pointers):
            raise ValueError(f"makes a pointer where {self.what} has none")
        if not pointer and self._touches_pointer(at, size):
            raise ValueError(f"puts numbers where {self.what} has a pointer")
        if item.kind is DataKind.DEFA:
            element, length = map(int, item.values)
            if length < 0:
                raise ValueError(f"an array cannot have {length} elements")
            self.arrays[at] = element, length
        if item.kind is not DataKind.DIND:
            self.taken.append((at, at + size))

    def _touches_pointer(self, at: int, size: int) -> bool:
        stride = self.element.size
        if not self.element.pointers or not size or not stride:
            return False
        if size >= stride:
            return True
        first = at % stride
        wrapped = first + size - stride
        return self.element.overlaps(first, size) or (
            wrapped > 0 and self.element.overlaps(0, wrapped)
        )

    def overlap(self) -> int:
        """Return where two items overlap, or -1."""
        ordered = sorted(self.taken)
        for (_, end), (start, _) in pairwise(ordered):
            if start < end:
                return start
        return -1


def _check_data(found: Structure) -> None:
    """Place every data item; keep the words of the module data for the tables in it."""
    whole = region = _Region("the module data", found.module.data_size, found.data, {}, [])
    regions = [region]
    outer: list[tuple[_Region, int]] = []
    start = 0
    for number, item in enumerate(found.module.data):
        if item.kind is DataKind.DAPOP:
            if not outer:
                raise found.fail(-1, f"data item {number}, DAPOP: pop range")
            region, start = outer.pop()
            continue
        try:
            if item.kind is DataKind.DEFA and int(item.values[0]) not in found.layouts:
                raise ValueError("bad array type")
            region.place(item, start)
            if item.kind is DataKind.DIND:
                outer.append((region, start))
                region, start = _elements(found, item, region.arrays.get(start + item.offset))
                regions.append(region)
        except ValueError as error:
            where = f"data item {number}, {item.kind.name} at {item.offset}"
            raise found.fail(-1, f"{where}: {error}") from None
        if region is whole:
            found.words.update(_words(item))
    for region in regions:
        if region.overlap() >= 0:
            raise found.fail(-1, f"data items overlap at {region.overlap()} of {region.what}")


def _elements(found: Structure, item: Datum, array: tuple[int, int] | None) -> tuple[_Region, int]:
    """Return the elements of an array, and where among them the index leads."""
    if array is None:
        raise ValueError("ind not array")
    element, length = array
    index = int(item.values[0])
    if not 0 <= index <= length:
        raise ValueError(f"array init range: element {index} of {length}")
    layout = found.layouts[element]
    return _Region("the array", length * layout.size, layout, {}, []), index * layout.size


def _words(item: Datum) -> Iterator[tuple[int, int]]:
    """Yield offset and value of each word that an item of words or bigs makes."""
    if item.kind is DataKind.DEFW:
        for n, value in enumerate(item.values):
            yield item.offset + 4 * n, int(value)
    elif item.kind is DataKind.DEFL:
        for n, value in enumerate(item.values):
            low, high = int(value) & 0xFFFFFFFF, int(value) >> 32
            yield item.offset + 8 * n, (low ^ 1 << 31) - (1 << 31)
            yield item.offset + 8 * n + 4, high


# Exports, entry and handlers.


def _check_links(found: Structure) -> None:
    """Check that entry and exports name code and frames."""
    module = found.module
    code = len(module.instructions)
    # An export called .mp stands for the module data and leads to no code.
    functions = [e for e in module.exports if (e.name, e.pc) != (".mp", -1)]
    entries = [(f"export {e.name!r}", e.pc, e.type) for e in functions]
    if (module.entry_pc, module.entry_type) != (-1, -1):
        entries.append(("the entry", module.entry_pc, module.entry_type))
    for what, pc, number in entries:
        if not 0 <= pc < code:
            raise found.fail(-1, f"{what} is at pc {pc} of {code}")
        if number not in found.layouts:
            raise found.fail(-1, f"{what} has no frame: there is no type {number}")
        check_frame(found, pc, number)


def check_frame(found: Structure, pc: int, number: int) -> Layout:
    """Return the layout of a frame; its header must be there and hold no counted pointer."""
    layout = found.layouts[number]
    if layout.size < _FRAME_HEADER or layout.overlaps(0, _FRAME_HEADER):
        raise found.fail(pc, f"type {number} is no frame: frames begin with 32 bytes of their own")
    return layout


def _check_handlers(found: Structure) -> None:
    code = len(found.module.instructions)
    for number, h in enumerate(found.module.handlers):
        targets = [pc for _, pc in h.labels] + ([h.default_pc] if h.default_pc != -1 else [])
        if not 0 <= h.pc1 <= h.pc2 <= code:
            raise found.fail(-1, f"handler {number} covers pc {h.pc1} to {h.pc2} of {code}")
        if any(not 0 <= pc < code for pc in targets):
            raise found.fail(-1, f"handler {number} leads outside the code")
        if not 0 <= h.typed <= len(h.labels) or not -1 <= h.type < len(found.layouts):
            raise found.fail(
                -1, f"handler {number} has more typed labels, or types, than there are"
            )


# Instructions.


def _instruction_fault(found: Structure, instruction: Instruction) -> str:
    """Return what is wrong with an instruction by itself; empty if nothing is."""
    op = instruction.op
    if op.mnemonic == "load" and not found.module.flags & HASLDT:
        return "obsolete dis"
    for place, operand in zip("smd", _operands(instruction), strict=True):
        role = op.role(place)
        if operand.mode in _NONES:
            if role and not role.optional:
                return f"needs a {PLACES[place]} operand"
        elif role is None:
            return f"has no {PLACES[place]} operand"
        else:
            why = _operand_fault(found, operand, role)
            if why:
                return why
    return ""


def _operands(instruction: Instruction) -> tuple[Operand, Operand, Operand]:
    return instruction.source, instruction.middle, instruction.destination


def _operand_fault(found: Structure, operand: Operand, role: OperandRole) -> str:
    if operand.mode is Mode.IMMEDIATE:
        return _immediate_fault(found, operand.value, role)
    if operand.mode in _INDIRECT:
        if not (0 <= operand.value < 1 << 16 and 0 <= operand.base < 1 << 16):
            return "an offset of an indirect operand does not fit 16 bits"
        if operand.base % WORD_SIZE:
            return f"the slot at {operand.base} is not aligned"
        if operand.mode is Mode.MP_INDIRECT and operand.base not in found.data.pointers:
            return f"{operand.base}(mp) is no pointer"
    elif role.place == "m" and not 0 <= operand.value < 1 << 16:
        return "the offset of a middle operand does not fit 16 bits"
    return place_fault(found.data, operand.value, role) if operand.mode is Mode.MP else ""


def _immediate_fault(found: Structure, value: int, role: OperandRole) -> str:
    """Return why an immediate operand is not possible; empty if it is."""
    if role.type not in IMMEDIATES and not (role.place == "s" and role.type in "XO"):
        return f"the {PLACES[role.place]} is no {TYPES[role.type].name} if it is immediate"
    if role.writes:
        return f"the {PLACES[role.place]} is written: it cannot be immediate"
    if role.place == "m" and not -(1 << 15) <= value < 1 << 15:
        return f"{value} does not fit a middle operand"
    if role.type == "D" and value not in found.layouts:
        return f"there is no type {value}"
    if role.type == "J" and not 0 <= value < len(found.module.imports):
        return f"there is no import list {value}"
    if role.type == "Q" and not 0 <= value < len(found.module.instructions):
        return f"there is no instruction {value}"
    return ""


def place_fault(layout: Layout, offset: int, role: OperandRole) -> str:
    """Return why an operand cannot lie at an offset of an object; empty if it can."""
    kind = TYPES[role.type]
    size = max(kind.size, 1)
    what = f"{'an' if kind.name[0] in 'aeiou' else 'a'} {kind.name}"
    if not 0 <= offset <= layout.size - size:
        return f"{what} at {offset} lies outside the {layout.size} bytes there"
    if offset % min(size, 4):
        return f"{what} at {offset} is not aligned"
    if kind.kind == "pointer":
        return "" if offset in layout.pointers else f"there is no pointer at {offset}"
    if role.writes and kind.kind != "storage" and layout.overlaps(offset, size):
        return f"{what} would be written over the pointer at {offset & -WORD_SIZE}"
    return ""
