"""Where the operands of a region's instructions lie, and how they are read and written.

A slot of the frame is in a register if the region says so, otherwise in memory. The arguments
of calls whose frames do not exist are in registers too, and so is the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from llmbol_core.vm.isa import TYPES, Mode, OperandRole
from llmbol_core.vm.jit.calls import RESULT, operand_for
from llmbol_core.vm.jit.emitter import Emitter, constant, llvm_type
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.runtime import State, tag
from llmbol_core.vm.module import Instruction, Operand


class Place(NamedTuple):
    """Where a value lies: a pointer, and the tag of the memory if it can be in one kind only."""

    pointer: str
    kind: str
    slot: int = -1
    """The offset of a slot of the frame that is in a register."""


class Array(NamedTuple):
    """An array: a pointer to its header, its length, the address of its elements."""

    header: str
    length: str
    data: str


def array_at(out: Emitter, header: str) -> Array:
    """Return an array, given the pointer to its header; nil has length 0."""
    where = out.value(f"getelementptr i8, ptr {header}, i64 12")
    length = out.value(f"load i32, ptr {header}, align 1{tag('header')}")
    return Array(header, length, out.value(f"load i32, ptr {where}, align 1{tag('header')}"))


class Operands(Emitter):
    """Emits accesses to what the instruction at ``pc`` of a region names."""

    def __init__(self, region: Region, result: str) -> None:
        super().__init__()
        self.region, self.result = region, result
        self.pc = region.start
        self.instruction: Instruction = region.code.instructions[self.pc]

    # Slots

    def spill(self, slots: Iterable[int]) -> None:
        """Store slots in the frame."""
        for offset in slots:
            type_ = self.region.slots[offset]
            value = self.value(f"load {type_}, ptr %s{offset}")
            self.emit(f"store {type_} {value}, ptr {self.frame(offset)}, align 1{tag('frame')}")

    def reload(self, slots: Iterable[int]) -> None:
        """Load slots from the frame."""
        for offset in slots:
            type_ = self.region.slots[offset]
            value = self.value(f"load {type_}, ptr {self.frame(offset)}, align 1{tag('frame')}")
            self.set_slot(offset, value)

    def set_slot(self, offset: int, value: str) -> None:
        """Store a value in a slot, and for an array what is known of it."""
        self.emit(f"store {self.region.slots[offset]} {value}, ptr %s{offset}")
        if offset in self.region.places:
            self.emit(f"store i64 {self.value(f'zext i32 {value} to i64')}, ptr %w{offset}")
        if offset not in self.region.arrays:
            return
        array = Array("", "0", "0") if value == "-1" else array_at(self, self.at(value))
        self.emit(f"store i32 {array.length}, ptr %n{offset}")
        self.emit(f"store i32 {array.data}, ptr %d{offset}")

    # State

    def state_word(self, word: State) -> str:
        """Return a pointer to a word of the state."""
        return self.value(f"getelementptr i64, ptr %s, i64 {word:d}")

    # Operands

    def frame(self, offset: int) -> str:
        """Return a pointer into the frame."""
        return self.value(f"getelementptr i8, ptr %f, i64 {offset}")

    def at(self, address: str, offset: int = 0) -> str:
        """Return the pointer for an address in the arena, and what is added to it."""
        pointer = self.value(f"call ptr @at(ptr %m, i32 {address})")
        return self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}") if offset else pointer

    def operand(self, role: OperandRole) -> Operand:
        """Return the operand of a role; the destination stands in for an absent middle one."""
        return operand_for(self.instruction, role.place)

    def place(self, operand: Operand, letter: str) -> Place:
        """Return where an operand lies; an indirect one leaves if its base is nil."""
        offset = operand.value
        if operand.mode is Mode.FP:
            if offset in self.region.slots:
                return Place(f"%s{offset}", "slot", offset)
            kind = "" if self.region.is_exposed(offset) else "frame"
            return Place(self.frame(offset), kind)
        if operand.mode is Mode.MP:
            return Place(self.value(f"getelementptr i8, ptr %d, i64 {offset}"), "data")
        site = self.region.site_of(self.pc, operand)
        if site is not None:
            return Place(f"%a{site.made}.{offset}", "slot")
        if self.result and operand == Operand(Mode.FP_INDIRECT, 0, RESULT):
            return Place("%res", "slot")
        if self.region.is_element(self.pc, operand) and operand.base in self.region.places:
            at = self.value(f"load i64, ptr %w{operand.base}")
            pointer = self.value(f"getelementptr i8, ptr %m, i64 {at}")
            if offset:
                pointer = self.value(f"getelementptr i8, ptr {pointer}, i64 {offset}")
            return Place(pointer, llvm_type(letter))
        base = self._known_base(operand)
        kind = llvm_type(letter) if self.region.is_object(self.pc, operand) else ""
        return Place(self.at(base, offset), kind)

    def address(self, operand: Operand) -> str:
        """Return the address of an operand that is no immediate; leave if its pointer is nil."""
        start = {Mode.FP: "%fp", Mode.MP: "%mp"}.get(operand.mode) or self._known_base(operand)
        return self.value(f"add i32 {start}, {operand.value}")

    def _known_base(self, operand: Operand) -> str:
        """Return the pointer that an indirect operand begins with; leave if it is nil."""
        base = self.base(operand)
        if not self.region.is_element(self.pc, operand):
            self.guard(self.value(f"icmp eq i32 {base}, -1"))
        return base

    def base(self, operand: Operand) -> str:
        """Return the pointer that an indirect operand begins with."""
        in_frame = operand.mode is Mode.FP_INDIRECT
        slot = Operand(Mode.FP if in_frame else Mode.MP, operand.base)
        return self.load(self.place(slot, "P"), "P")

    def load(self, place: Place, letter: str) -> str:
        """Return the value at a place."""
        type_ = llvm_type(letter)
        if place.kind == "slot":
            return self.value(f"load {type_}, ptr {place.pointer}")
        return self.value(f"load {type_}, ptr {place.pointer}, align 1{tag(place.kind)}")

    def store(self, place: Place, letter: str, value: str) -> None:
        """Store a value at a place, without counting references."""
        type_ = llvm_type(letter)
        if place.slot >= 0:
            self.set_slot(place.slot, value)
            return
        how = "" if place.kind == "slot" else f", align 1{tag(place.kind)}"
        self.emit(f"store {type_} {value}, ptr {place.pointer}{how}")

    def read(self, name: str) -> str:
        """Return the value of the operand at a place s, m or d."""
        role = self.instruction.op.role(name)
        assert role is not None
        operand = self.operand(role)
        if operand.mode is Mode.IMMEDIATE:
            return constant(operand.value, role.type if TYPES[role.type].size else "W")
        if operand.mode is Mode.MP:
            known = self.region.code.constant(operand.value, role.type)
            if known is not None:
                return constant(known, role.type)
        return self.load(self.place(operand, role.type), role.type)

    def note_element(self, place: Place, at: str) -> None:
        """Note where an element lies whose address was stored in a slot that is in a register."""
        if place.slot in self.region.places:
            self.emit(f"store i64 {at}, ptr %w{place.slot}")

    def array(self, name: str) -> Array:
        """Return the array that is read at a place; it may be known from before."""
        role = self.instruction.op.role(name)
        assert role is not None
        operand, ref = self.operand(role), self.at(self.read(name))
        if operand.mode is not Mode.FP or operand.value not in self.region.arrays:
            return array_at(self, ref)
        at = operand.value
        length = self.value(f"load i32, ptr %n{at}")
        return Array(ref, length, self.value(f"load i32, ptr %d{at}"))

    def target(self, name: str) -> Place:
        """Return where the operand that is written lies."""
        role = self.instruction.op.role(name)
        assert role is not None
        return self.place(self.operand(role), role.type)

    def give(self, place: Place, ref: str) -> None:
        """Store a reference that is counted already, and release the one that was there."""
        old = self.load(place, "P")
        self.store(place, "P", ref)
        self.emit(f"call void @release(ptr %m, ptr %s, i32 {old})")


def nothing(kind: str) -> str:
    """Return LLVM's placeholder for no value of a type, given by its letter or in LLVM's words."""
    if kind == "P":
        return "-1"
    return "0.0" if kind in ("F", "R", "double", "float") else "0"
