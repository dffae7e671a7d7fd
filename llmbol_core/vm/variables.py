"""The pointers in a module's data: which are variables, which are nil for good, where each ends."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator

from llmbol_core.vm.isa import TYPES, WORD_SIZE, Mode
from llmbol_core.vm.module import ABSENT, DataKind, Instruction
from llmbol_core.vm.structure import Structure


class Written(Exception):
    """A pointer is written that was thought to be nil for good."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Variables:
    """The pointers of the module data.

    ``constants`` are those that begin as strings or arrays, by offset with the letter of their
    kind. The compiler uses one pointer that nobody writes as the nil of all types. One whose
    address is taken to send it, as alt does, can be that too; ``received`` are those of which it
    turned out that they are written there.
    """

    def __init__(self, found: Structure, received: frozenset[int] = frozenset()) -> None:
        self.constants = _constants(found)
        self._found, self._data = found, found.data
        written = set(received)
        for instruction in found.module.instructions:
            written |= _written(found, instruction)
        self._nils = sorted(found.data.pointers - written - self.constants.keys())
        self.exposed = self._exposed()
        """Pointers that nobody writes unless they are parts of what comes to a place before them.

        Of what others return, and of what channels bring, no text tells how long it is.
        """

    def _exposed(self) -> set[int]:
        code, data = self._found.module.instructions, self._data
        kept = {word for instruction in code for word in _words(instruction)}
        kept |= self.constants.keys() | {start for start, _ in self._found.tables}
        places = {place for instruction in code for place in _places(instruction)}
        # A word that is written by itself may be a field of such a value, too.
        found = set(self._nils[bisect.bisect(self._nils, min(places, default=data.size)) :])
        found -= self._nil_of_all_types()
        for start in places:
            for at in range(start + WORD_SIZE, data.size, WORD_SIZE):
                if at in kept:
                    break
                found |= {at} & set(self._nils)
        return found

    def _nil_of_all_types(self) -> set[int]:
        """Return the pointer that the compiler seems to use as nil: the one most often moved."""
        moved = Counter(
            instruction.source.value
            for instruction in self._found.module.instructions
            if instruction.op.mnemonic == "movp" and instruction.source.mode is Mode.MP
        )
        return set(sorted(self._nils, key=lambda nil: moved[nil])[-1:])

    def is_nil(self, offset: int) -> bool:
        """Whether a pointer is nil for good: calls that write results end before it."""
        at = bisect.bisect_left(self._nils, offset)
        return at < len(self._nils) and self._nils[at] == offset

    def write(self, offset: int) -> None:
        """Note that a pointer is written by its address; raises Written if it was not known."""
        if self.is_nil(offset):
            raise Written(offset)

    def end(self, offset: int) -> int:
        """Return how far a result or a value of a channel may reach that begins at an offset."""
        at = bisect.bisect_right(self._nils, offset)
        nils = [nil for nil in self._nils[at:] if nil not in self.exposed][:1]
        tables = [max(start, offset) for start, last in self._found.tables if offset < last]
        return min([self._data.size, *nils, *tables])


def _written(found: Structure, instruction: Instruction) -> set[int]:
    """Return the offsets of pointers in the module data that an instruction may write."""
    written: set[int] = set()
    for role in instruction.op.operands:
        operand = instruction.operand(role.place) if role.place in "smd" else ABSENT
        target = instruction.destination
        is_result = role.type == "O" and target.mode is Mode.FP_INDIRECT
        if operand.mode is not Mode.MP or not (role.writes or is_result):
            continue
        at, size = operand.value, TYPES[role.type].size
        if role.type == "Y":
            size = found.layouts[instruction.middle.value].size
        written |= {p for p in found.data.pointers if at <= p < at + max(size, WORD_SIZE)}
    return written


def _words(instruction: Instruction) -> Iterator[int]:
    """Yield the words of the module data that an instruction writes by itself."""
    for role in instruction.op.operands:
        operand = instruction.operand(role.place) if role.place in "smd" else ABSENT
        if operand.mode is Mode.MP and role.writes and not role.is_storage:
            yield from range(operand.value & -WORD_SIZE, operand.value + TYPES[role.type].size, 4)


def _places(instruction: Instruction) -> Iterator[int]:
    """Yield the places in the module data to which something of unknown size may come."""
    op, source, target = instruction.op, instruction.source, instruction.destination
    if op.mnemonic == "lea" and source.mode is Mode.MP:
        yield source.value
    elif op.mnemonic == "recv" and target.mode is Mode.MP:
        yield target.value


def _constants(found: Structure) -> dict[int, str]:
    """Return the offsets of strings and arrays that the module data begins with, and the kind."""
    kinds = {DataKind.DEFS: "C", DataKind.DEFA: "A"}
    constants: dict[int, str] = {}
    depth = 0
    for item in found.module.data:
        if item.kind in kinds and not depth:
            constants[item.offset] = kinds[item.kind]
        depth += {DataKind.DIND: 1, DataKind.DAPOP: -1}.get(item.kind, 0)
    return constants
