"""One instruction against what is known of its frame: the step that verification repeats.

``verifier.py`` tells what is proved and what is not. The frame's type descriptor says which slots
are pointers; a ``State`` adds what the program keeps in others (frames that it made, addresses,
code addresses), the types of objects that it made, and where pointers to others come from, for
``usage.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import TYPES, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.slots import (
    RESULT,
    Kind,
    State,
    Value,
    argument_key,
)
from llmbol_core.vm.structure import Layout, Structure, place_fault
from llmbol_core.vm.usage import KINDS, Usage

RESULT_PLACE = 16
"""Offset in a frame of the address for the result."""
_ARGUMENTS = 32


class Place(NamedTuple):
    """Where an operand lies: in which object, if that is known, and at which offset."""

    layout: Layout | None
    offset: int
    own: bool = False
    """Whether the object is the current frame."""
    origin: int = -1
    """Where a pointer to an object of unknown type comes from."""


class Step:
    """One instruction with what is known of its frame.

    ``check`` refuses what is wrong; a call notes the function it enters, as pc and type of frame,
    in ``entered``. What is known behind the instruction, ``learning.py`` tells.
    """

    def __init__(self, found: Structure, usage: Usage, pc: int, frame: int, state: State) -> None:
        self.found, self.usage, self.frame = found, usage, frame
        self.pc = pc
        self.state = state
        self.instruction: Instruction = found.module.instructions[pc]
        self.operand = self.instruction.operand
        self.layout = found.layouts[frame]
        self.entered: tuple[int, int] | None = None

    def fail(self, why: str) -> VerifyError:
        """Return the error that this instruction is refused."""
        return self.found.fail(self.pc, why)

    def label(self) -> int:
        """Return the instruction that the destination names."""
        operand = self.operand("d")
        if operand.mode is Mode.IMMEDIATE:
            return operand.value
        known = self.state.get(operand.value) if operand.mode is Mode.FP else None
        if known is None or known.kind is not Kind.CODE:
            raise self.fail("the destination is not known to hold a code address")
        return known.number

    def place(self, operand: Operand) -> Place:
        """Return where an operand lies."""
        if operand.mode is Mode.FP:
            return Place(self.layout, operand.value, own=True)
        if operand.mode is Mode.MP:
            return Place(self.found.data, operand.value)
        if operand.mode is Mode.MP_INDIRECT:
            return Place(None, operand.value, origin=self.usage.of_data(operand.base))
        if operand.mode is not Mode.FP_INDIRECT:
            return Place(None, operand.value)
        if operand.base == RESULT_PLACE:
            result = self.state.get(RESULT)
            return Place(None, operand.value, origin=result.number if result else -1)
        known = self.state.get(operand.base)
        if known is None:
            if operand.base not in self.layout.pointers:
                raise self.fail(f"{operand.base}(fp) is not known to hold an address")
            return Place(None, operand.value)
        return self._behind(known, operand)

    def _behind(self, known: Value, operand: Operand) -> Place:
        """Return the place at an offset from what a slot is known to point to."""
        layouts = self.found.layouts
        match known.kind:
            case Kind.FRAME | Kind.FOREIGN_FRAME:
                if operand.value != RESULT_PLACE and operand.value < _ARGUMENTS:
                    raise self.fail(f"{operand.value} lies in the header of the frame made")
                own = known.kind is Kind.FRAME
                return Place(layouts[known.number] if own else None, operand.value)
            case Kind.OBJECT:
                return Place(layouts[known.number], operand.value)
            case Kind.SLOT:
                return Place(self.layout, known.number + operand.value, own=True)
            case Kind.DATA:
                return Place(self.found.data, known.number + operand.value)
            case Kind.CODE:
                raise self.fail(f"{operand.base}(fp) holds a code address")
            case Kind.ORIGIN:
                return Place(None, operand.value, origin=known.number)
            case Kind.ELSEWHERE:
                return Place(None, operand.value, origin=known.number)
        return Place(None, operand.value)

    def check(self) -> None:
        """Check the operands by their roles, then what concerns several of them."""
        for role in self.instruction.op.operands:
            if role.place in "smd":
                operand = self.operand(role.place)
                if operand.mode not in (Mode.IMMEDIATE, Mode.NONE, Mode.NONE6, Mode.NONE7):
                    self._check_role(operand, role)
        special = _CHECKS.get(self.instruction.op.mnemonic)
        if special:
            special(self)

    def _check_role(self, operand: Operand, role: OperandRole) -> None:
        if role.type == "D":
            raise self.fail("a type number should be immediate")
        place = self.place(operand)
        if place.layout is None:
            size = min(TYPES[role.type].size, 4)
            why = f"{place.offset} is not aligned" if size and place.offset % size else ""
        elif place.own and place.offset < 20:
            why = f"{place.offset}(fp) lies in the header of the frame"
        else:
            why = place_fault(place.layout, place.offset, role)
        if why:
            raise self.fail(why)
        kind = TYPES[role.type]
        is_pointer = kind.kind == "pointer"
        if place.origin >= 0 and (is_pointer or (role.writes and kind.kind != "storage")):
            self.usage.access(place.origin, place.offset, kind.size, is_pointer, self.pc)
        if role.type == "W" and role.reads and place.origin >= 0 and not place.offset:
            self.usage.tag(place.origin)
        if role.type in KINDS:
            origin = self.origin(operand) if role.reads else self._kept(operand, place)
            if origin >= 0:
                self.usage.use(origin, role.type, self.pc)

    def origin(self, operand: Operand) -> int:
        """Return where the pointer that an operand reads comes from, or -1 if that is unknown."""
        if operand.mode is Mode.FP:
            known = self.state.get(operand.value)
            return known.number if known and known.kind is Kind.ORIGIN else -1
        return self._kept(operand, self.place(operand))

    def _kept(self, operand: Operand, place: Place) -> int:
        """Return the origin of pointers that are kept in module data or behind an origin."""
        if operand.mode is Mode.MP:
            return self.usage.of_data(operand.value)
        return self.usage.origin("at", place.origin, place.offset) if place.origin >= 0 else -1

    # Checks that concern several operands.

    def check_call(self) -> None:
        """Refuse a frame that is not the one that the function expects."""
        known = self._frame()
        if known.kind is not Kind.FRAME:
            raise self.fail("the frame was made for a function of another module")
        self.entered = pc, number = self.label(), known.number
        frame, usage = self.operand("s").value, self.usage
        for slot in self.found.layouts[number].pointers:
            passed = self.state.get(argument_key(frame, slot))
            parameter = usage.origin("parameter", pc, slot)
            if passed and passed.kind is Kind.ORIGIN:
                usage.passed(parameter, passed.number)
            elif passed and passed.kind is Kind.OBJECT:
                usage.passed_object(parameter, passed.number, self.pc)
        result = self.state.get(-frame)
        if result and result.kind is Kind.SLOT:
            origin = usage.origin("result", pc)
            usage.wanted_result(origin, self.frame, result.number, self.pc)

    def check_module_call(self) -> None:
        """Refuse a frame that was made for another link."""
        known, middle = self._frame(), self.operand("m")
        if known.kind is Kind.FOREIGN_FRAME and known.number != link_number(middle):
            raise self.fail(f"the frame was made for link {known.number}")

    def _frame(self) -> Value:
        operand = self.operand("s")
        known = self.state.get(operand.value) if operand.mode is Mode.FP else None
        if known is None or known.kind not in (Kind.FRAME, Kind.FOREIGN_FRAME):
            raise self.fail("the source is not known to hold a frame")
        return known

    def check_bytes(self) -> None:
        """Refuse to copy bytes from beyond an object, or onto pointers."""
        size = self._size()
        for role in self.instruction.op.operands:
            if role.type == "X":
                place = self.place(self.operand(role.place))
                self._check_extent(place, size)
                if place.origin >= 0 and size and role.writes:
                    self.usage.access(place.origin, place.offset, size, False, self.pc)
                if place.layout and role.writes and place.layout.overlaps(place.offset, size):
                    raise self.fail(f"{size} bytes would be written over a pointer")

    def _size(self) -> int:
        operand = self.operand("m")
        if operand.mode is not Mode.IMMEDIATE or operand.value < 0:
            raise self.fail("the number of bytes should be immediate")
        return operand.value

    def check_value(self) -> None:
        """Refuse a value whose pointers are not where the places it is copied between have them."""
        value = self.found.layouts[self.operand("m").value]
        for role in self.instruction.op.operands:
            if role.type == "Y":
                place = self.place(self.operand(role.place))
                self._check_extent(place, value.size)
                self._check_pointers(place, value, role)
                if place.origin >= 0:
                    self.usage.value(place.origin, place.offset, value, self.pc)

    def _check_pointers(self, place: Place, value: Layout, role: OperandRole) -> None:
        if place.layout is None:
            return
        there = {
            p - place.offset
            for p in place.layout.pointers
            if place.offset <= p < place.offset + value.size
        }
        missing = value.pointers - there
        if role.writes:
            missing |= there - value.pointers
        if missing:
            what = "the value and the place disagree about the pointer"
            raise self.fail(f"{what} at {min(missing)} behind {place.offset}")

    def _check_extent(self, place: Place, size: int) -> None:
        if place.layout and not 0 <= place.offset <= place.layout.size - size:
            why = f"{size} bytes at {place.offset} reach beyond the {place.layout.size} there"
            raise self.fail(why)


def link_number(middle: Operand) -> int:
    """Return the link number that a middle operand gives, or one that no link has."""
    return middle.value if middle.mode is Mode.IMMEDIATE else 1 << 20


_CHECKS: dict[str, Callable[[Step], None]] = {
    "call": Step.check_call,
    "spawn": Step.check_call,
    "mcall": Step.check_module_call,
    "mspawn": Step.check_module_call,
    "movm": Step.check_bytes,
    "consm": Step.check_bytes,
    "headm": Step.check_bytes,
    "movmp": Step.check_value,
    "consmp": Step.check_value,
    "headmp": Step.check_value,
}
