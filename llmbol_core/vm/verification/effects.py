"""What each instruction reads and writes, operand by operand, as far as its text says.

The list here follows from the rows of the instruction table; ``changes.py`` adds what no operand
names. There are no other such lists: whatever depends on what an instruction may read or change
is derived from these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.isa import PARAMETERS, TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand

if TYPE_CHECKING:
    from llmbol_core.vm.verification.structure import Structure

UNKNOWN = 1 << 31
"""A size that the text does not tell: larger than any object."""
RESULT_PLACE = 16
"""Offset in a frame of the address for the result."""
_NONES = (Mode.NONE, Mode.NONE6, Mode.NONE7)
NO_PLACE = (Mode.IMMEDIATE, *_NONES)
INDIRECT = (Mode.FP_INDIRECT, Mode.MP_INDIRECT)
_PARAMETERS = {place: Operand(Mode.FP, at) for place, at in PARAMETERS.items()}
_SIZES = {letter: 0 if kind.kind == "storage" else kind.size for letter, kind in TYPES.items()}
_BASE = OperandRole("", "E", reads=True, writes=False)


class Touch(NamedTuple):
    """Some bytes that an instruction reads or writes in one of its roles.

    In a role of type O only the address is taken; nothing is read. A role without a place stands
    for the pointer, or the address, that an indirect operand begins with.
    """

    operand: Operand
    role: OperandRole
    size: int

    @property
    def has_pointers(self) -> bool:
        """Whether pointers may be among the bytes."""
        kind = TYPES[self.role.type].kind
        return kind == "pointer" or self.role.type == "Y" or self.size >= UNKNOWN


FRAME, MADE, DATA, BEHIND = range(4)
"""Regions that share no words: the function's own frame, a frame that was
made and not yet called, the module data, and whatever pointers and addresses lead to. Only words of
the module data can also lie behind a pointer."""


class Spot(NamedTuple):
    """Where something lies: a region, and an offset in it or, in MADE, the slot of the frame."""

    region: int
    offset: int = 0


class Change(NamedTuple):
    """Bytes that an instruction writes, or may write unless ``is_sure``."""

    spot: Spot
    size: int
    has_pointers: bool = True
    is_sure: bool = False

    def may_reach(self, word: Spot) -> bool:
        """Whether a word may be among the bytes."""
        (region, start), (other, at) = self.spot, word
        if region != other or region == BEHIND:
            return region >= DATA <= other
        return start == at if region == MADE else start - WORD_SIZE < at < start + self.size


BY_OTHERS = (Change(Spot(DATA), UNKNOWN), Change(Spot(BEHIND), UNKNOWN))
"""What may change while other processes run: everything outside of frames."""


class Effects(NamedTuple):
    """What an instruction touches; what lies behind a pointer comes before the pointer.

    ``changes`` are the writes whose place the text tells, ``written_behind`` the others.
    """

    touches: tuple[Touch, ...]
    changes: tuple[Change, ...]
    written_behind: tuple[Touch, ...]


def effects(found: Structure, pc: int) -> Effects:
    """Return what an instruction reads and writes."""
    known = found.effects.get(pc)
    if known is None:
        known = found.effects[pc] = _effects(found, found.module.instructions[pc])
    return known


def _effects(found: Structure, instruction: Instruction) -> Effects:
    touches, bases, named, behind = [], [], list[Change](), list[Touch]()
    op, is_given = instruction.op, instruction.middle.mode not in _NONES
    for role in op.operands if is_given else op.operands_without_middle:
        is_named = role.place in "smd"
        operand = instruction.operand(role.place) if is_named else _PARAMETERS[role.place]
        mode = operand.mode
        if mode in NO_PLACE:
            continue
        touch = Touch(operand, role, _SIZES[role.type] or _size(found, instruction, role))
        touches.append(touch)
        if mode in INDIRECT:
            bases.append(Touch(base_of(operand), _BASE, WORD_SIZE))
        if role.writes and mode in INDIRECT:
            behind.append(touch)
        elif role.writes:
            named.append(change_of(touch, Spot(FRAME if mode is Mode.FP else DATA, operand.value)))
    return Effects((*touches, *bases), tuple(named), tuple(behind))


def change_of(touch: Touch, spot: Spot) -> Change:
    """Return the change that a write to an operand makes, given where that lies."""
    return Change(spot, touch.size, touch.has_pointers, touch.size < UNKNOWN)


def _size(found: Structure, instruction: Instruction, role: OperandRole) -> int:
    """Return how many bytes an operand has whose type does not tell."""
    middle = instruction.operand("m")
    if role.type == "X" and instruction.op.role("m") and middle.mode is Mode.IMMEDIATE:
        return max(middle.value, 0)
    if role.type == "Y" and middle.value in found.layouts:
        return found.layouts[middle.value].size
    return UNKNOWN


def base_of(operand: Operand) -> Operand:
    """Return the slot of the pointer that an indirect operand begins with."""
    is_frame = operand.mode is Mode.FP_INDIRECT
    return Operand(Mode.FP if is_frame else Mode.MP, operand.base)


def is_result(operand: Operand) -> bool:
    """Whether an operand lies where the function's own result goes."""
    return operand.mode is Mode.FP_INDIRECT and operand.base == RESULT_PLACE
