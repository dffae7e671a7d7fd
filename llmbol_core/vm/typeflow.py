"""What one instruction does to what is known of a frame: the step that verification repeats.

``verifier.py`` tells what is proved and what is not. The frame's type descriptor says which slots
are pointers; a ``State`` adds what the program keeps in others (frames that it made, addresses,
code addresses), the types of objects that it made, and where pointers to others come from, for
``usage.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.structure import Layout, Structure, place_fault
from llmbol_core.vm.usage import KINDS, Usage


class Kind(Enum):
    """What a slot is known to hold besides what its type descriptor says."""

    FRAME = "a frame of type"
    FOREIGN_FRAME = "a frame for link"
    SLOT = "the address of a slot of this frame, at"
    DATA = "the address of module data, at"
    ELSEWHERE = "an address"
    CODE = "the code address of pc"
    OBJECT = "an object of type"
    HANDLE = "a module handle"
    ORIGIN = "a pointer that comes from"


class Value(NamedTuple):
    """Something known of a slot; the number is the type, offset, pc or origin, or -1 for none."""

    kind: Kind
    number: int = -1


State = dict[int, Value]
"""What is known of the slots of the frame, by offset.

A negative key is the offset of a frame that was made: the address its result goes to. Keys beyond
``argument_key`` are pointers stored in such a frame, and ``RESULT`` is what this function's own
result is written to.
"""

RESULT = 1 << 31

_RESULT = 16
_ARGUMENTS = 32
_POINTERS_KEPT = frozenset({Kind.OBJECT, Kind.HANDLE, Kind.ORIGIN})


def argument_key(frame: int, offset: int) -> int:
    """Return the key of a State for a pointer in the frame made that is kept at an offset."""
    return (1 << 32) + (frame << 16) + offset


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

    ``check`` refuses what is wrong, ``after`` tells what is known behind it; a call notes the
    function it enters, as pc and type of frame, in ``entered``.
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
        if operand.base == _RESULT:
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
                if operand.value != _RESULT and operand.value < _ARGUMENTS:
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
        if known.kind is Kind.FOREIGN_FRAME and known.number != _link(middle):
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

    # What is known afterwards.

    def after(self) -> State:
        """Return what is known of the frame's slots behind the instruction."""
        state = self.state
        op = self.instruction.op
        for role in op.operands:
            if role.writes:
                state = self._forget(state, role)
                if TYPES[role.type].kind == "pointer" and self.operand(role.place).mode is Mode.FP:
                    state = self.learn(state, role.place, self._made(role.type))
        learned = _LEARN.get(op.mnemonic)
        if learned:
            state = learned(self, state)
        return state

    def _forget(self, state: State, role: OperandRole) -> State:
        """Drop what was known of slots that an operand overwrites."""
        if not state:
            return state
        place = self.place(self.operand(role.place))
        if not place.own:
            return state
        size = TYPES[role.type].size
        if role.is_storage:
            if self.instruction.op.role("m") is None:
                return _overwritten(state, place.offset)
            size = self._copied()
        return _without(state, place.offset, size)

    def _copied(self) -> int:
        """Return how many bytes the instruction copies; for a channel a word is assumed."""
        middle, role = self.operand("m"), self.instruction.op.role("m")
        if role is None or middle.mode is not Mode.IMMEDIATE:
            return WORD_SIZE
        return middle.value if role.type == "W" else self.found.layouts[middle.value].size

    def _made(self, letter: str) -> Value:
        """Return what is known of a pointer that this instruction makes or reads."""
        origin = self.usage.origin("made", self.pc)
        if letter in KINDS:
            self.usage.use(origin, letter, self.pc)
        return Value(Kind.ORIGIN, origin)

    def learn(self, state: State, place: str, value: Value) -> State:
        """Note what a slot of the frame now holds."""
        target = self.operand(place)
        return {**state, target.value: value} if target.mode is Mode.FP else state

    def learn_frame(self, state: State) -> State:
        """Note a frame of a type."""
        state = _without_frame(state, self.operand("d").value)
        return self.learn(state, "d", Value(Kind.FRAME, self.operand("s").value))

    def learn_foreign_frame(self, state: State) -> State:
        """Note a frame for a function of another module."""
        state = _without_frame(state, self.operand("d").value)
        return self.learn(state, "d", Value(Kind.FOREIGN_FRAME, _link(self.operand("m"))))

    def learn_address(self, state: State) -> State:
        """Note what address ``lea`` made; a result's address is noted with the frame it is for."""
        place, target = self.place(self.operand("s")), self.operand("d")
        if place.own:
            value = Value(Kind.SLOT, place.offset)
        elif place.layout is self.found.data:
            value = Value(Kind.DATA, place.offset)
        else:
            value = Value(Kind.ELSEWHERE)
        if target.mode is Mode.FP_INDIRECT and target.value == _RESULT:
            return {**state, -target.base: value}
        return self.learn(state, "d", value)

    def learn_element(self, state: State) -> State:
        """Note the address of an element."""
        origin = self.origin(self.operand("s"))
        type_ = self.usage.elements.get(origin)
        if type_ is not None:
            return self.learn(state, "m", Value(Kind.OBJECT, type_))
        element = self.usage.origin("element", origin) if origin >= 0 else -1
        return self.learn(state, "m", Value(Kind.ELSEWHERE, element))

    def learn_array(self, state: State) -> State:
        """Note the type of the elements of a new array."""
        if self.operand("d").mode is Mode.FP:
            origin = self.usage.origin("made", self.pc)
            self.usage.elements[origin] = self.operand("m").value
        return state

    def learn_head(self, state: State) -> State:
        """Note that a pointer is the head of a list."""
        origin = self.origin(self.operand("s"))
        if origin < 0:
            return state
        return self.learn(state, "d", Value(Kind.ORIGIN, self.usage.origin("head", origin)))

    def learn_object(self, state: State) -> State:
        """Note an object of a type."""
        return self.learn(state, "d", Value(Kind.OBJECT, self.operand("s").value))

    def learn_handle(self, state: State) -> State:
        """Note a module handle."""
        return self.learn(state, "d", Value(Kind.HANDLE))

    def learn_code(self, state: State) -> State:
        """Note a code address."""
        source, code = self.operand("s"), self.found.module.instructions
        if source.mode is not Mode.IMMEDIATE or not 0 <= source.value < len(code):
            raise self.fail("the source should be the number of an instruction")
        return self.learn(state, "d", Value(Kind.CODE, source.value))

    def learn_copy(self, state: State) -> State:
        """Note a copied reference, or the address of the data of a module behind its handle."""
        source = self.operand("s")
        if self.instruction.op.mnemonic == "movp":
            return self._learn_pointer(state, source)
        if self.instruction.op.mnemonic == "movw" and self._may_be_handle(source):
            return self.learn(state, "d", Value(Kind.ELSEWHERE))
        return state

    def _learn_pointer(self, state: State, source: Operand) -> State:
        """Note a copied reference, in the frame or in one that was made."""
        known = self.state.get(source.value) if source.mode is Mode.FP else None
        if known is None or known.kind not in _POINTERS_KEPT:
            origin = -1 if source.mode is Mode.IMMEDIATE else self.origin(source)
            known = Value(Kind.ORIGIN, origin) if origin >= 0 else None
        target = self.operand("d")
        if known is None:
            return state
        if target.mode is not Mode.FP_INDIRECT:
            return self.learn(state, "d", known)
        made = self.state.get(target.base)
        if made is None or made.kind is not Kind.FRAME:
            return state
        return {**state, argument_key(target.base, target.value): known}

    def _may_be_handle(self, operand: Operand) -> bool:
        """Whether the word read may be the first of a module handle, the address of its data."""
        if operand.value != 0 or operand.mode not in (Mode.MP_INDIRECT, Mode.FP_INDIRECT):
            return False
        if operand.mode is Mode.MP_INDIRECT:
            return True
        known = self.state.get(operand.base)
        pointer = operand.base in self.layout.pointers
        return pointer and (known is None or known.kind in (Kind.HANDLE, Kind.ORIGIN))

    def learn_call(self, state: State) -> State:
        """Forget the frame, which is gone, and what the function may have written."""
        frame = self.operand("s").value
        result = state.get(-frame)
        state = _without_frame(_without(state, frame, 4), frame)
        if result and result.kind is Kind.SLOT:
            state = _overwritten(state, result.number)
        return state

    def learn_communication(self, state: State) -> State:
        """Forget what other processes may have written through an alt table."""
        for value in list(state.values()):
            if value.kind is Kind.SLOT:
                state = _overwritten(state, value.number)
        return state


def _link(middle: Operand) -> int:
    """Return the link number that a middle operand gives, or one that no link has."""
    return middle.value if middle.mode is Mode.IMMEDIATE else 1 << 20


def _without_frame(state: State, frame: int) -> State:
    """Return a state that knows nothing of what is in a frame that was made."""
    first = argument_key(frame, 0)
    if -frame in state or any(first <= at < first + (1 << 16) for at in state):
        return {
            at: v for at, v in state.items() if at != -frame and not first <= at < first + (1 << 16)
        }
    return state


def _overwritten(state: State, offset: int) -> State:
    """Return a state behind something of unknown size, a word at least, that came to an offset."""
    return {
        at: v
        for at, v in _without(state, offset, WORD_SIZE).items()
        if not offset <= at < RESULT or v.kind is not Kind.ORIGIN
    }


def _without(state: State, offset: int, size: int) -> State:
    """Return a state that knows nothing of some bytes."""
    if size <= 8:
        if not any(at in state for at in range(offset - 3, offset + size)):
            return state
    elif not state:
        return state
    return {at: v for at, v in state.items() if not offset - 4 < at < offset + size}


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
_LEARN: dict[str, Callable[[Step, State], State]] = {
    "frame": Step.learn_frame,
    "mframe": Step.learn_foreign_frame,
    "lea": Step.learn_address,
    **dict.fromkeys(("indx", "indb", "indw", "indf", "indl"), Step.learn_element),
    "new": Step.learn_object,
    "newz": Step.learn_object,
    "load": Step.learn_handle,
    "self": Step.learn_handle,
    "movpc": Step.learn_code,
    "headp": Step.learn_head,
    **dict.fromkeys(("newa", "newaz"), Step.learn_array),
    "movp": Step.learn_copy,
    "movw": Step.learn_copy,
    **dict.fromkeys(("call", "mcall", "spawn", "mspawn"), Step.learn_call),
    "alt": Step.learn_communication,
    "nbalt": Step.learn_communication,
}
