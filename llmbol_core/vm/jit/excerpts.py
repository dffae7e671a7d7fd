"""Loops of long functions, which are compiled without what surrounds them.

A function of a thousand instructions takes LLVM a second, and more than a thousand times as long as
one of ten. What is hot in it are loops, each of which is compiled by itself: where control leaves
it, the interpreter goes on.

What the rest of the function does matters to a loop in two ways. A frame that waits for its call
while the loop runs would be in its way; such a loop is left where it is. And slots whose address is
taken anywhere stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.jit.calls import RESULT, pending_frames
from llmbol_core.vm.jit.modulecode import Code
from llmbol_core.vm.module import Operand

_LONG, _MOST = 250, 200
"""Instructions above which loops are compiled by themselves, and up to which one of them is that
holds others."""
_PART = 2
"""How many times as long as such a loop the function is at least."""


class Excerpt(Code):
    """A module of which only some instructions are looked at; where control leaves them it ends."""

    def __init__(self, code: Code, inside: frozenset[int], exposed: tuple[int, ...]) -> None:
        for name, value in vars(Code).items():
            if isinstance(value, cached_property):
                getattr(code, name)
        self.__dict__.update(code.__dict__)
        self._whole, self._inside, self.exposed = code, inside, exposed

    @property
    def whole(self) -> Code:
        """The module of which all instructions are looked at."""
        return self._whole

    def targets(self, pc: int) -> list[int]:
        """Return where in the same function an instruction leads, the next one first."""
        return super().targets(pc) if pc in self._inside else []

    def handlers(self, pc: int) -> set[int]:
        """Return where the function may go on if the instruction raises an exception."""
        return super().handlers(pc) if pc in self._inside else set()

    def is_native(self, pc: int) -> bool:
        """Whether there is machine code for an instruction."""
        return pc in self._inside and super().is_native(pc)


class Excerpts:
    """The loops of one function that can be compiled by themselves: none unless it is long."""

    def __init__(self, code: Code, start: int) -> None:
        self._code, self._pcs = code, code.reachable(start)
        self._start = start

    @cached_property
    def _is_known(self) -> dict[int, bool]:
        """For each instruction, whether no frame waits there."""
        landings = set[int]().union(*(self._code.handlers(pc) for pc in self._pcs))
        before = pending_frames(self._code, self._pcs, {self._start, *landings})
        return {pc: not waiting for pc, waiting in (before or {}).items()}

    @cached_property
    def _origins(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for pc in self._pcs:
            for target in self._code.targets(pc):
                found.setdefault(target, []).append(pc)
        return found

    def around(self, pc: int) -> Iterator[tuple[int, Excerpt]]:
        """Yield the loops that an instruction is in, the longest first, with their heads."""
        if len(self._pcs) <= _LONG:
            return
        bodies = [(head, self._body(head)) for head in self._heads(pc)]
        bodies = [(head, body) for head, body in bodies if pc in body and min(body) == head]
        bodies.sort(key=lambda found: -len(found[1]))
        for head, body in bodies:
            is_short = len(body) <= _MOST or body == bodies[-1][1]
            if is_short and len(body) * _PART <= len(self._pcs) and self._is_known.get(head):
                yield head, Excerpt(self._code, body, self._exposed(body))

    def _heads(self, pc: int) -> list[int]:
        """Return where code goes back to from behind an instruction, up to where that is."""
        return [
            head
            for head in sorted(self._origins)
            if self._start < head <= pc and max(self._origins[head]) >= pc
        ]

    def _body(self, head: int) -> frozenset[int]:
        """Return the instructions from which control comes back to the head of a loop."""
        work = [pc for pc in self._origins[head] if pc >= head]
        body = {head, *work}
        while work:
            for origin in self._origins.get(work.pop(), ()):
                if origin not in body:
                    body.add(origin)
                    work.append(origin)
        return frozenset(body)

    def _exposed(self, body: frozenset[int]) -> tuple[int, ...]:
        """Return the slots whose addresses are taken elsewhere, but for results of calls there."""
        found = set[int]()
        for pc in self._pcs:
            instruction = self._code.instructions[pc]
            is_address = instruction.op.mnemonic == "lea" and instruction.source.mode is Mode.FP
            if pc not in body and is_address and not self._is_for_call(pc):
                found.add(instruction.source.value)
        return tuple(sorted(found))

    def _is_for_call(self, pc: int) -> bool:
        """Whether an address goes to the frame of a call to which straight code leads."""
        target = self._code.instructions[pc].destination
        if target.mode is not Mode.FP_INDIRECT or target.value != RESULT:
            return False
        while pc + 1 < len(self._code.instructions):
            pc += 1
            instruction = self._code.instructions[pc]
            if instruction.op.effect is Effect.CALL:
                return instruction.source == Operand(Mode.FP, target.base)
            if instruction.op.effect is not Effect.NEXT:
                return False
        return False
