"""Every instruction with operands of every mode, for programs that try all (``smallscope.py``).

Each operand in turn is all that it can be: in the frame and in the module data, pointers and
numbers; behind pointers to objects, behind words that may be addresses, in frames made, where the
result goes; a number. The others are then what the instruction usually takes.
"""

from __future__ import annotations

from collections.abc import Iterator

from llmbol_core.vm.isa import OPS, TYPES, Effect, Mode, Op, OperandRole
from llmbol_core.vm.module import ABSENT, Instruction, Operand

FP, MP, NUMBER = Mode.FP, Mode.MP, Mode.IMMEDIATE
_BEHIND = tuple(
    Operand(Mode.FP_INDIRECT, at, base)
    for base, offsets in ((32, (0, 4, 8)), (44, (0, 4)), (16, (0, 4)), (48, (16, 32, 44)))
    for at in offsets
) + tuple(Operand(Mode.MP_INDIRECT, at, 4) for at in (4, 8))
_DIRECT = (
    *(Operand(FP, at) for at in (16, 28, 32, 36, 44, 60)),
    *(Operand(MP, at) for at in (4, 12, 16, 20, 24)),
)
_PLACES = (*_DIRECT, *_BEHIND)
_NUMBERS = {"D": (3, 4, 6, 8), "M": (0, -1), "J": (0,), "Q": (0,)}
_USUAL = {"pointer": Operand(FP, 32), "address": Operand(FP, 48), "storage": Operand(FP, 60)}
_TABLES = {"G": 24, "S": 36, "V": 36, "U": 36}
_WORDS = ("address", "storage", "label")
_SIZES = (0, 4, 8, 40)


def forms(skip: int) -> Iterator[Instruction]:
    """Yield the instructions, with labels that lead to an instruction, one of each alike."""
    seen = set[object]()
    for op in OPS:
        alike = op.number if op.expression is None else (op.operands, op.effect)
        if alike in seen or op.mnemonic in ("nop", "exit", "ret"):
            continue
        seen.add(alike)
        usual = Instruction(op.number, *(_usual(op, place, skip) for place in "smd"))
        yield usual
        for role in op.operands:
            for operand in _possible(op, role, skip) if role.place in "smd" else ():
                if operand != usual.operand(role.place):
                    yield placed(usual, role.place, operand)


def depends(form: Instruction) -> bool:
    """Whether it depends on what a frame's words hold, and not on its type alone, if it is sound.

    Otherwise what is refused once is refused everywhere.
    """
    ends = [(role, form.operand(role.place)) for role in form.op.operands if role.place in "smd"]
    return any(
        operand.mode is Mode.FP_INDIRECT or (role.reads and TYPES[role.type].kind in _WORDS)
        for role, operand in ends
    )


def placed(instruction: Instruction, place: str, operand: Operand) -> Instruction:
    """Return an instruction with another operand."""
    opcode, *ends = instruction
    ends["smd".index(place)] = operand
    return Instruction(opcode, *ends)


def _usual(op: Op, place: str, skip: int) -> Operand:
    role = op.role(place)
    if role is None:
        return ABSENT
    if role.type == "Q" and role.reads:
        return Operand(NUMBER, skip)
    if role.type in _NUMBERS and role.reads:
        return Operand(NUMBER, _NUMBERS[role.type][0])
    if role.type in _TABLES:
        return Operand(MP, _TABLES[role.type])
    if place == "m" and any(other.type == "X" for other in op.operands):
        return Operand(NUMBER, 4)
    if role.type == "W" and role.reads and not role.writes:
        return Operand(NUMBER, 1)
    usual = _USUAL.get(TYPES[role.type].kind, Operand(FP, 60))
    is_target = place == "d" and usual.value == 32 and op.effect is Effect.NEXT
    return Operand(FP, 36) if is_target and not role.reads else usual


def _possible(op: Op, role: OperandRole, skip: int) -> Iterator[Operand]:
    is_middle = role.place == "m"
    yield from _DIRECT if is_middle else _PLACES
    for number in _NUMBERS.get(role.type, _SIZES if is_middle else (1,)):
        yield Operand(NUMBER, skip if role.type == "Q" and op.has_label else number)
