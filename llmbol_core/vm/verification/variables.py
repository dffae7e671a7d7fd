"""The pointers in a module's data: variables, and those that stay nil; and how far each reaches."""

from __future__ import annotations

import bisect
from collections import Counter

from llmbol_core.vm.isa import WORD_SIZE, Mode
from llmbol_core.vm.module import DataKind
from llmbol_core.vm.verification.effects import UNKNOWN, Touch, effects
from llmbol_core.vm.verification.structure import Structure


class Written(Exception):
    """A pointer is written that was taken to stay nil."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


class Variables:
    """The pointers of the module data.

    ``constants`` are those that initially are strings or arrays, by offset, with the letter of
    their kind. The compiler uses one pointer that is never written as the nil of all types. A
    pointer whose address is taken to send it, as for alt, can be that one too; ``received`` are
    those that turned out to be written by that address.
    """

    def __init__(self, found: Structure, received: frozenset[int] = frozenset()) -> None:
        self.constants = _constants(found)
        self._found, self._data = found, found.data
        self._words, self._places = set[int](), set[int]()
        """Words that instructions write singly, and places where values of unknown size go.

        A word that is written singly may also be a field of such a value.
        """
        written = set(received)
        for pc in range(len(found.module.instructions)):
            for touch in effects(found, pc).touches:
                if touch.operand.mode is Mode.MP and (touch.role.writes or touch.role.type == "O"):
                    written |= self._written(pc, touch)
        self._nils = sorted(found.data.pointers - written - self.constants.keys())
        self.exposed = self._exposed()
        """Pointers that are written only if they are part of a value stored at a place before them.

        The text does not tell the size of results of other modules and of values of channels.
        """

    def _written(self, pc: int, touch: Touch) -> set[int]:
        """Note what is written, or may be by its address; return the pointers surely written."""
        at, size = touch.operand.value, touch.size
        target = self._found.module.instructions[pc].destination
        if size >= UNKNOWN:
            self._places.add(at)
            if touch.role.type == "O" and target.mode is not Mode.FP_INDIRECT:
                return set()
            size = WORD_SIZE
        elif not touch.role.is_storage:
            self._words.update(range(at & -WORD_SIZE, at + size, WORD_SIZE))
        return {p for p in self._data.pointers if at <= p < at + size}

    def _exposed(self) -> set[int]:
        kept = self._words | self.constants.keys() | {start for start, _ in self._found.tables}
        first = min(self._places, default=self._data.size)
        found = set(self._nils[bisect.bisect(self._nils, first) :]) - self._nil_of_all_types()
        for start in self._places:
            for at in range(start + WORD_SIZE, self._data.size, WORD_SIZE):
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
        """Whether a pointer stays nil: results that calls write end before it."""
        at = bisect.bisect_left(self._nils, offset)
        return at < len(self._nils) and self._nils[at] == offset

    def write(self, start: int, size: int) -> None:
        """Note written pointers, at least the first; raises Written for one taken as nil."""
        at = bisect.bisect_left(self._nils, start)
        end = start + (size if size < UNKNOWN else WORD_SIZE)
        if at < len(self._nils) and self._nils[at] < end:
            raise Written(self._nils[at])

    def end(self, offset: int) -> int:
        """Return how far a result, or a channel's value, that begins at an offset may reach."""
        at = bisect.bisect_right(self._nils, offset)
        nils = [nil for nil in self._nils[at:] if nil not in self.exposed][:1]
        tables = [max(start, offset) for start, last in self._found.tables if offset < last]
        return min([self._data.size, *nils, *tables])


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
