"""How one instruction is written: which operands its text shows, and how each looks.

Both directions share this: ``assembly.py`` reads it, ``disassembly.py`` and error texts write it.
"""

from __future__ import annotations

from llmbol_core.vm.isa import MODES, Mode, Op
from llmbol_core.vm.module import Instruction, Operand

PLACES = {"s": "source", "m": "middle", "d": "destination"}


def usual_places(op: Op, count: int) -> str:
    """Return which operands a mnemonic and so many of them mean, as letters of s, m and d.

    One is the destination and two are source and destination, unless the instruction has no such
    operand: ``raise`` has only a source, ``newcw`` middle and destination.
    """
    if count == 1:
        return "d" if op.role("d") or not op.role("s") else "s"
    if count == 2:
        return "sd" if op.role("s") or not op.role("m") else "md"
    return "smd"[:count]


def is_usual(op: Op, places: str) -> bool:
    """Whether operands at just these places make sense, so that none needs to be marked absent."""
    if len(places) == 3:
        return True
    wanted = {role.place for role in op.operands if role.place in PLACES and not role.optional}
    return (
        places == usual_places(op, len(places))
        and wanted <= set(places)
        and all(op.role(place) for place in places)
    )


def spell_operands(op: Op) -> str:
    """Say in words which operands an instruction takes."""
    roles = (op.role(place) for place in PLACES)
    words = [f"{PLACES[r.place]}{' (optional)' * r.optional}" for r in roles if r]
    return ", ".join(words) or "no operands"


def format_instruction(instruction: Instruction) -> str:
    """Return one instruction's text, mnemonic and operands with a blank between."""
    op = instruction.op
    present = [p for p in "smd" if instruction.operand(p).mode is not Mode.NONE]
    shown = present if is_usual(op, "".join(present)) else "smd"
    operands = ",".join(format_operand(instruction.operand(place)) for place in shown)
    return f"{op.mnemonic} {operands}".rstrip()


def format_operand(operand: Operand) -> str:
    """Return one operand's text.

    >>> format_operand(Operand(Mode.FP_INDIRECT, 4, 36))
    '4(36(fp))'
    """
    return MODES[operand.mode].text.format(value=operand.value, base=operand.base)
