"""One instruction, checked against what is known of its frame: the step that verification repeats.

``verifier.py`` states what is proved and what is not. The frame's type descriptor says which slots
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
from llmbol_core.vm.verification.copying import check_bytes, check_size, check_table, check_value
from llmbol_core.vm.verification.effects import RESULT_PLACE, UNKNOWN, Touch, effects, is_result
from llmbol_core.vm.verification.needs import Part, link_number, shape
from llmbol_core.vm.verification.origins import How, Use
from llmbol_core.vm.verification.results import result_size
from llmbol_core.vm.verification.slots import (
    ADDRESSES,
    RESULT,
    RETURNED,
    STORED,
    Kind,
    State,
    Tags,
    Value,
    argument_key,
)
from llmbol_core.vm.verification.structure import Layout, Structure, check_frame, place_fault
from llmbol_core.vm.verification.usage import KINDS, Usage

_ARGUMENTS = 32
_FRAME_ADDRESS = "lea stores the address for a result in a frame made, and does nothing else there"
_UNSURE = "it is not sure where the result goes"
_NOBODY = "a function in a process of its own has nobody to give a result to"


class Place(NamedTuple):
    """Where an operand lies: in which object, if that is known, and at which offset."""

    layout: Layout | None
    offset: int
    own: bool = False
    """Whether the object is the current frame."""
    origin: int = -1
    """Where a pointer to the object comes from."""
    tags: Tags = None
    frame: int = -1
    """The slot of the frame that the place lies in, if that was made and not yet called."""


class Step:
    """One instruction with what is known of its frame.

    ``check`` refuses what is wrong; a call notes the function it enters, as pc and type of frame,
    in ``entered``. ``learning.py`` tells what is known after the instruction.
    """

    def __init__(self, found: Structure, usage: Usage, pc: int, frame: int, state: State) -> None:
        self.found, self.usage, self.frame = found, usage, frame
        self.pc = pc
        self.state = state
        self.instruction: Instruction = found.module.instructions[pc]
        self.op, self.operand = self.instruction.op, self.instruction.operand
        self.layout = found.layouts[frame]
        self.effects = effects(found, pc)
        self.entered: tuple[int, int] | None = None

    def fail(self, why: str) -> VerifyError:
        """Return the error that refuses this instruction."""
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
            return Place(None, operand.value, origin=self._of_data(operand.base))
        if operand.mode is not Mode.FP_INDIRECT:
            return Place(None, operand.value)
        if operand.base == RESULT_PLACE:
            result = self.state.get(RESULT)
            return Place(None, operand.value, origin=result.origin if result else -1)
        known = self.state.get(operand.base)
        if known is None:
            if operand.base not in self.layout.pointers:
                raise self.fail(f"{operand.base}(fp) is not known to hold an address")
            origin = self.usage.origin("unknown", self.pc, operand.base)
            return Place(None, operand.value, origin=origin)
        return self._behind(known, operand)

    def _behind(self, known: Value, operand: Operand) -> Place:
        """Return the place at an offset from what a slot is known to point to."""
        layouts, offset = self.found.layouts, operand.value
        match known.kind:
            case Kind.FRAME | Kind.FOREIGN_FRAME:
                if offset != RESULT_PLACE and offset < _ARGUMENTS:
                    raise self.fail(f"{offset} lies in the header of the frame made")
                own = known.kind is Kind.FRAME
                layout = layouts[known.number] if own else None
                return Place(layout, offset, frame=operand.base, origin=known.origin)
            case Kind.OBJECT | Kind.ELEMENT:
                return Place(layouts[known.number], offset, origin=known.origin)
            case Kind.SLOT:
                return Place(self.layout, known.number + offset, own=True)
            case Kind.DATA:
                return Place(self.found.data, known.number + offset)
            case Kind.ORIGIN | Kind.HANDLE:
                return Place(None, offset, origin=known.origin, tags=known.tags)
            case Kind.ELSEWHERE:
                return Place(None, known.number + offset, origin=known.origin, tags=known.tags)
            case Kind.WORD if not known.number:
                return Place(None, offset, origin=self._data_of(known.origin))
        raise self.fail(f"{operand.base}(fp) holds {known.kind.value} {known.number}, no address")

    def _of_data(self, offset: int) -> int:
        """Return where a pointer in the module data comes from."""
        origin = self.usage.of_data(offset)
        # The nil that all types share: what is done with it here concerns no other use.
        return origin if origin >= 0 else self.usage.origin("nil", self.pc, offset)

    def _data_of(self, handle: int) -> int:
        """Return the origin of a module's data, whose address is the first word of its handle."""
        if handle < 0:
            return -1
        self.usage.use(handle, "Z", self.pc)
        return self.usage.behind(handle, "data")

    def check(self) -> None:
        """Check the operands by their roles, then what concerns several of them."""
        for touch in self.effects.touches:
            if touch.role.place:
                self._check_touch(touch)
        special = _CHECKS.get(self.op.mnemonic)
        if special:
            special(self)

    def _check_touch(self, touch: Touch) -> None:
        operand, role, _ = touch
        if role.type in "DJ":
            raise self.fail(f"the {TYPES[role.type].name} should be immediate")
        place = self.place(operand)
        if place.layout is None:
            size = min(TYPES[role.type].size, 4)
            why = f"{place.offset} is not aligned" if size and place.offset % size else ""
        elif place.own and place.offset < 20:
            why = f"{place.offset}(fp) lies in the header of the frame"
        else:
            why = place_fault(place.layout, place.offset, role)
        if place.frame >= 0 and not self._is_for_frame(place, role):
            why = _FRAME_ADDRESS
        if why:
            raise self.fail(why)
        if role.reads and is_result(operand):
            self._check_returned(touch)
        if role.writes and place.layout is self.found.data:
            self.check_tables(place, TYPES[role.type].size)
        self._note_access(place, role)
        if role.type in KINDS and (role.reads or not (place.own or place.frame >= 0)):
            held = self.held(place)
            if held and held.origin >= 0:
                self.usage.use(held.origin, role.type, self.pc)

    def _is_for_frame(self, place: Place, role: OperandRole) -> bool:
        """Whether an operand may lie in a frame made: an argument, or the result's address."""
        if self.op.mnemonic == "lea":
            return role.writes and place.offset == RESULT_PLACE
        return place.offset >= _ARGUMENTS

    def _check_returned(self, touch: Touch) -> None:
        """Refuse to read pointers from the place of the result before they were written there."""
        at, is_value = touch.operand.value, touch.role.type == "Y"
        inside = self.found.layouts[self.operand("m").value].pointers if is_value else {0}
        if touch.role.type == "X" and touch.size >= UNKNOWN:
            raise self.fail("what is sent lies where the result goes")
        if touch.role.type != "O" and touch.has_pointers:
            for place in sorted(at + p for p in inside if RETURNED + at + p not in self.state):
                raise self.fail(f"the result has no pointer at {place} yet")

    def check_tables(self, place: Place, size: int) -> None:
        """Refuse to write over a table that instructions jump through."""
        if place.layout is self.found.data and self.found.writes_table(place.offset, size):
            raise self.fail(f"a table that is jumped through would be written at {place.offset}")

    def _note_access(self, place: Place, role: OperandRole) -> None:
        """Note what is done behind a pointer to an object of unknown type."""
        kind = TYPES[role.type]
        if place.origin < 0 or place.layout is not None:
            return
        if place.frame >= 0:
            if kind.kind != "storage" and place.offset >= _ARGUMENTS:
                use = Use.POINTER if kind.kind == "pointer" else Use.WRITE
                self._note_part(place, kind.size, use)
            return
        if kind.kind == "pointer":
            self.access(place, kind.size, Use.POINTER)
        elif kind.kind != "storage":
            self.access(place, kind.size, Use.WRITE if role.writes else Use.READ)
        if role.type == "W" and role.reads and not place.offset:
            self.usage.look_at_tag(place.origin)

    def _note_part(self, place: Place, size: int, use: Use) -> None:
        """Note what must be in a frame for a function of another module."""
        number = self.state[place.frame].number
        self.usage.need(place.origin, number).stores.add(Part(place.offset, size, use))

    def access(self, place: Place, size: int, use: Use) -> None:
        """Note what is done with some bytes behind a pointer."""
        if place.frame >= 0:
            if place.layout is None and place.origin >= 0:
                self._note_part(place, size, use)
            return
        if place.origin >= 0 and place.layout is None:
            self.usage.access(place.origin, place.offset, size, use, self.pc, place.tags)

    # Pointers

    def held(self, place: Place, offset: int = 0) -> Value | None:
        """Return what is known of the pointer at a place, or behind one."""
        at = place.offset + offset
        if place.own:
            return self.state.get(at)
        if place.frame >= 0:
            return self.state.get(argument_key(place.frame, at))
        if place.layout is self.found.data:
            origin = self._of_data(at) if at in place.layout.pointers else -1
        elif place.origin >= 0:
            origin = self.usage.behind(place.origin, "at", at, place.tags)
        else:
            return None
        return Value(Kind.ORIGIN, origin=origin) if origin >= 0 else None

    def pointer(self, operand: Operand) -> Value | None:
        """Return what is known of the pointer that an operand reads."""
        stored = self.state.get(STORED)
        if stored and operand.mode is Mode.FP_INDIRECT and operand == self._stored_at():
            return stored
        return None if operand.mode is Mode.IMMEDIATE else self.held(self.place(operand))

    def clears_slot(self) -> bool:
        """Whether the instruction only clears a pointer of the frame.

        The compiler does so between storing a pointer and reading it again.
        """
        source, target = self.instruction.source, self.instruction.destination
        is_clearing = self.op.mnemonic == "movp" and source.mode is Mode.MP
        before = self.found.module.instructions[self.pc - 1].destination
        return is_clearing and target.mode is Mode.FP and target.value != before.base

    def _stored_at(self) -> Operand:
        """Return where the last pointer was stored, if that is known after the instruction."""
        code = self.found.module.instructions
        before = code[self.pc - 1].destination
        return code[self.pc - 2].destination if before.mode is Mode.FP else before

    def origin(self, operand: Operand) -> int:
        """Return where the pointer that an operand reads comes from, -1 for no pointer."""
        if operand.mode is Mode.IMMEDIATE:
            return -1
        known = self.pointer(operand)
        if known and known.origin >= 0:
            return known.origin
        return self.usage.origin("unknown", self.pc, operand)

    def written(self, entry: int) -> int:
        """Return how many bytes a function may write as its result."""
        if entry not in self.usage.extents:
            self.usage.extents[entry] = result_size(self.found, entry)
        return self.usage.extents[entry]

    # Checks that concern several operands.

    def check_frame_made(self) -> None:
        """Refuse an object that is no frame."""
        check_frame(self.found, self.pc, self.operand("s").value)

    def check_call(self) -> None:
        """Refuse a frame that is not the one that the function expects."""
        known = self._frame()
        if known.kind is not Kind.FRAME:
            raise self.fail("the frame was made for a function of another module")
        self.entered = pc, number = self.label(), known.number
        frame, usage = self.operand("s").value, self.usage
        for slot in self.found.layouts[number].pointers:
            passed = self.state.get(argument_key(frame, slot))
            if passed and passed.origin >= 0:
                parameter = usage.origin("parameter", pc, slot)
                usage.flow(parameter, passed.origin, passed.flowing, How.PASSED)
        if to := self._place_of_result():
            self._note_result(usage.origin("result", pc), to)

    def _place_of_result(self) -> Value | None:
        """Return the address for the result of the function called; refuse what is none."""
        to = self.state.get(-self.operand("s").value)
        if to is not None and self.op.mnemonic in ("spawn", "mspawn"):
            raise self.fail(_NOBODY)
        if to is not None and to.kind not in ADDRESSES:
            raise self.fail(_UNSURE)
        return to

    def _note_result(self, result: int, to: Value) -> None:
        """Note where the result of a function is wanted."""
        match to.kind:
            case Kind.SLOT:
                self.usage.want_result(result, self.layout, to.number, self.pc)
            case Kind.DATA:
                self.usage.want_result(result, self.found.data, to.number, self.pc)
            case Kind.ELEMENT:
                self.usage.want_result(result, self.found.layouts[to.number], 0, self.pc)
            case Kind.ELSEWHERE:
                self.usage.want_result_behind(result, to)

    def check_module_call(self) -> None:
        """Refuse a frame that was made for another link."""
        known, middle = self._frame(), self.operand("m")
        if known.kind is Kind.FOREIGN_FRAME and known.number != link_number(middle):
            raise self.fail(f"the frame was made for link {known.number}")
        self._place_of_result()
        handle = self.origin(self.operand("d"))
        if handle < 0 or middle.mode is not Mode.IMMEDIATE:
            return
        need = self.usage.need(handle, middle.value)
        if known.kind is Kind.FRAME:
            layout = self.found.layouts[known.number]
            need.frames.add(shape(layout, 0))
        elif known.origin != handle:
            self.usage.share_needs(known.origin, handle, middle.value)

    def _frame(self) -> Value:
        operand = self.operand("s")
        known = self.state.get(operand.value) if operand.mode is Mode.FP else None
        if known is None or known.kind not in (Kind.FRAME, Kind.FOREIGN_FRAME):
            raise self.fail("the source is not known to hold a frame")
        return known


_CHECKS: dict[str, Callable[[Step], None]] = {
    **dict.fromkeys(("call", "spawn"), Step.check_call),
    **dict.fromkeys(("mcall", "mspawn"), Step.check_module_call),
    "frame": Step.check_frame_made,
    **dict.fromkeys(("movm", "consm", "headm"), check_bytes),
    **dict.fromkeys(("movmp", "consmp", "headmp"), check_value),
    **dict.fromkeys(("alt", "nbalt"), check_table),
    "newcm": check_size,
}
