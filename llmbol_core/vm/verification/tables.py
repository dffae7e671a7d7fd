"""Tables in the module data that instructions jump through: cases and gotos.

A jump table has the number of its entries in the word before it, as the Limbo compiler makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.isa import WORD_SIZE, Effect, Mode
from llmbol_core.vm.module import DataKind

if TYPE_CHECKING:
    from llmbol_core.vm.verification.structure import Structure

_MOST_TAGS = 64


class TableShape(NamedTuple):
    """Bytes before the entries, of an entry, up to its label, of the default's label at the end."""

    header: int
    stride: int
    label: int
    tail: int


TABLE_SHAPES = {
    "G": TableShape(0, 4, 0, 0),
    "S": TableShape(4, 12, 8, 4),
    "V": TableShape(8, 24, 16, 4),
    "U": TableShape(4, 12, 8, 4),
}
"""The tables of goto, case, casel and casec, by the letters of their operands."""


def find_tables(found: Structure) -> Iterator[tuple[int, int]]:
    """Yield start and end of the tables that a module's instructions name."""
    for pc, instruction in enumerate(found.module.instructions):
        if instruction.op.effect is Effect.JUMP and instruction.op.mnemonic != "jmp":
            extent = _extent(found, pc)
            if extent:
                yield extent


def table_targets(found: Structure, pc: int) -> tuple[int, ...]:
    """Return where the case or jump table of an instruction leads; raises VerifyError."""
    at, extent = found.module.instructions[pc].destination, _extent(found, pc)
    if at.mode is not Mode.MP:
        raise found.fail(pc, "the table should lie in the module data")
    if extent is None:
        raise found.fail(pc, f"there is no table at {at.value}(mp)")
    shape = _shape(found, pc)
    entries = range(at.value + shape.header, extent[1] - shape.tail, shape.stride)
    if extent[1] > found.data.size or len(entries) > len(found.words):
        why = f"the table of {len(entries)} entries at {at.value}(mp) reaches beyond the data"
        raise found.fail(pc, why)
    if shape is TABLE_SHAPES["U"]:
        _check_strings(found, pc, entries)
    targets = [found.words.get(entry + shape.label) for entry in entries]
    if shape.tail:
        targets.append(found.words.get(extent[1] - shape.tail))
    return tuple(_target(found, pc, target) for target in targets if target != -1)


def _check_strings(found: Structure, pc: int, entries: Iterable[int]) -> None:
    """Check that a table of strings has strings where they should be."""
    arrays, depth = set[int](), 0
    for item in found.module.data:
        if item.kind is DataKind.DEFA and not depth:
            arrays.add(item.offset)
        depth += {DataKind.DIND: 1, DataKind.DAPOP: -1}.get(item.kind, 0)
    for at in (place for entry in entries for place in (entry, entry + WORD_SIZE)):
        if at not in found.data.pointers or at in arrays:
            raise found.fail(pc, f"the table has no string at {at}(mp)")


def table_ranges(found: Structure, pc: int) -> dict[int, frozenset[int] | None]:
    """Return for each target of a case which words lead there; None if they are too many."""
    start = found.module.instructions[pc].destination.value
    word = found.words.get
    count = word(start) or 0
    values: dict[int, frozenset[int] | None] = {}
    for at in range(start + 4, start + 4 + 12 * count, 12):
        low, high, target = word(at) or 0, word(at + 4) or 0, word(at + 8) or 0
        before = values.get(target, frozenset())
        if before is not None:
            values[target] = before | frozenset(range(low, min(high, low + _MOST_TAGS)))
        if high - low > _MOST_TAGS:
            values[target] = None
    values[word(start + 4 + 12 * count) or 0] = None
    return values


def _shape(found: Structure, pc: int) -> TableShape:
    return TABLE_SHAPES[found.module.instructions[pc].op.operands[-1].type]


def _extent(found: Structure, pc: int) -> tuple[int, int] | None:
    """Return start and end of an instruction's table, counts included, if it has one."""
    operand, shape = found.module.instructions[pc].destination, _shape(found, pc)
    first = operand.value - (0 if shape.header else WORD_SIZE)
    count = found.words.get(first)
    if operand.mode is not Mode.MP or count is None or count < 0:
        return None
    return first, operand.value + shape.header + shape.stride * count + shape.tail


def _target(found: Structure, pc: int, target: int | None) -> int:
    if target is None or not 0 <= target < len(found.module.instructions):
        raise found.fail(pc, f"the table leads to {'nowhere' if target is None else target}")
    return target
