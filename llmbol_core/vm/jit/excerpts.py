"""Loops of long functions, which are compiled without what surrounds them.

A function of a thousand instructions takes LLVM a second: more than a thousand times as long as one
of ten. What is hot in it are loops, so each of them is compiled by itself; where control leaves the
loop, the interpreter continues.

The rest of the function matters to a loop in two ways. If a frame waits for its call while the loop
runs, it would be in the way; such a loop is not compiled by itself. And slots whose addresses are
taken anywhere in the function stay in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from llmbol_core.vm.jit.calls import pending_frames
from llmbol_core.vm.jit.modulecode import Code, loop_body

_LONG, _MOST = 250, 200
"""The function has more instructions than this if its loops are compiled by themselves, and a loop
that holds others has at most so many."""
_PART = 2
"""The function is at least this many times as long as such a loop."""


class Excerpt(Code):
    """Some instructions of a module: where control leaves them, the compiled code ends."""

    def __init__(self, code: Code, inside: frozenset[int]) -> None:
        for name, value in vars(Code).items():
            if isinstance(value, cached_property):
                getattr(code, name)
        self.__dict__.update(code.__dict__)
        self._whole, self._inside = code, inside

    @property
    def whole(self) -> Code:
        """The module with all of its instructions."""
        return self._whole

    def targets(self, pc: int) -> list[int]:
        """Return where in the same function an instruction leads, the next one first."""
        return super().targets(pc) if pc in self._inside else []

    def handlers(self, pc: int) -> set[int]:
        """Return where the function may continue if the instruction raises an exception."""
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
        return self._code.origins(self._pcs)

    def around(self, pc: int) -> Iterator[tuple[int, Excerpt]]:
        """Yield the loops that an instruction is in, the longest first: their heads and code."""
        if len(self._pcs) <= _LONG:
            return
        bodies = [(head, loop_body(head, self._origins)) for head in self._heads(pc)]
        bodies = [(head, body) for head, body in bodies if pc in body and min(body) == head]
        bodies.sort(key=lambda found: -len(found[1]))
        for head, body in bodies:
            is_short = len(body) <= _MOST or body == bodies[-1][1]
            if is_short and len(body) * _PART <= len(self._pcs) and self._is_known.get(head):
                yield head, Excerpt(self._code, body)

    def _heads(self, pc: int) -> list[int]:
        """Return the instructions, up to a given one, to which it or later code jumps back."""
        return [
            head
            for head in sorted(self._origins)
            if self._start < head <= pc and max(self._origins[head]) >= pc
        ]
