"""What instructions read and write, operand by operand, as far as their text tells it.

This list, which follows from the rows of the instruction table, and that of ``changes.py``, which
adds what no operand names, are the only ones: whoever asks what an instruction may change, or may
look at, asks here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.isa import PARAMETERS, TYPES, WORD_SIZE, Mode, OperandRole
from llmbol_core.vm.module import Instruction, Operand

if TYPE_CHECKING:
    from llmbol_core.vm.structure import Structure

UNKNOWN = 1 << 31
"""The size of what no text tells, beyond that of all objects."""
RESULT_PLACE = 16
"""Offset in a frame of the address for the result."""
_NONES = (Mode.NONE, Mode.NONE6, Mode.NONE7)
NO_PLACE = (Mode.IMMEDIATE, *_NONES)
INDIRECT = (Mode.FP_INDIRECT, Mode.MP_INDIRECT)
_PARAMETERS = {place: Operand(Mode.FP, at) for place, at in PARAMETERS.items()}
_SIZES = {letter: 0 if kind.kind == "storage" else kind.size for letter, kind in TYPES.items()}
_BASE = OperandRole("", "E", reads=True, writes=False)


class Touch(NamedTuple):
    """Some bytes that an instruction reads or writes as a role of it says.

    The address of a role of type O is taken, and nothing read. A role without a place is that of
    the pointer, or the address, that an indirect operand begins with.
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
"""Regions, in which no word is one of another region: the function's own frame, a frame that was
made and not yet called, the module data, and whatever pointers and addresses lead to. Only words of
the module data can lie behind a pointer, too."""


class Spot(NamedTuple):
    """Where something lies: at which offset, in which frame that was made, or just where."""

    region: int
    offset: int = 0


class Change(NamedTuple):
    """Bytes that an instruction writes: surely, or else perhaps."""

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
"""What may change while others run: all that is in no frame."""


class Effects(NamedTuple):
    """What an instruction does: all that it touches, what is behind pointers before the pointers.

    Of what it writes, ``changes`` are those of which the text tells where they lie.
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
    """Return what an operand changes that lies somewhere."""
    return Change(spot, touch.size, touch.has_pointers, touch.size < UNKNOWN)


def _size(found: Structure, instruction: Instruction, role: OperandRole) -> int:
    """Return how many bytes a place has that an instruction works on."""
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
