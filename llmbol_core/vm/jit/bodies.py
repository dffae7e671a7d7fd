"""Which instructions one call of a function may run, wherever they stand.

Compilers put a function's code in one piece. A module may be made otherwise: functions share code,
and jump to addresses. What holds in a frame at an instruction, and which of its slots can be
reached by their addresses, depends on all that may have run in the same call before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmbol_core.vm.host import RESULT
from llmbol_core.vm.isa import Mode

if TYPE_CHECKING:
    from llmbol_core.vm.jit.modulecode import Code

_NOBODY = -1


class Bodies:
    """The instructions of one module; functions that share some have one body."""

    def __init__(self, code: Code) -> None:
        self._code, self._parents = code, list[int]()
        self._owners = [_NOBODY] * len(code.instructions)
        for start in code.starts:
            self._follow(start)
        self._members: dict[int, list[int]] = defaultdict(list)
        self._exposing: dict[int, list[tuple[int, int]]] = {}
        for pc, owner in enumerate(self._owners):
            if owner != _NOBODY:
                self._members[self._root(owner)].append(pc)

    def of(self, pc: int) -> Sequence[int]:
        """Return all that may run in a call that runs an instruction; everything if unknown."""
        owner = self._owners[pc]
        return range(len(self._owners)) if owner == _NOBODY else self._members[self._root(owner)]

    def exposing(self, pc: int) -> list[tuple[int, int]]:
        """Return which of these take addresses of slots, but for results of calls, and the slots.

        A frame for which the address for a result is stored is called before any other one.
        """
        owner = self._owners[pc]
        key = owner if owner == _NOBODY else self._root(owner)
        if key not in self._exposing:
            self._exposing[key] = [*self._addresses(self.of(pc))]
        return self._exposing[key]

    def _addresses(self, pcs: Sequence[int]) -> Iterator[tuple[int, int]]:
        for pc in pcs:
            instruction = self._code.instructions[pc]
            source, target = instruction.source, instruction.destination
            is_for_result = target.mode is Mode.FP_INDIRECT and target.value == RESULT
            if instruction.op.mnemonic == "lea" and source.mode is Mode.FP and not is_for_result:
                yield pc, source.value

    def _follow(self, start: int) -> None:
        """Take what can be reached; what was reached before belongs to the same body."""
        number, work = len(self._parents), [start]
        self._parents.append(number)
        while work:
            pc = work.pop()
            if self._owners[pc] != _NOBODY:
                self._parents[self._root(self._owners[pc])] = self._root(number)
                continue
            self._owners[pc] = number
            work += self._targets(pc)

    def _root(self, number: int) -> int:
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def _targets(self, pc: int) -> Iterator[int]:
        yield from self._code.targets(pc)
        yield from self._code.handlers(pc)
        instruction = self._code.instructions[pc]
        if instruction.op.mnemonic == "movpc" and instruction.source.mode is Mode.IMMEDIATE:
            label = instruction.source.value
            yield from [label] if 0 <= label < len(self._owners) else ()
