"""Verification: proof, before a program runs, that it keeps to its types and its memory.

First the structure (``structure.py``), then every way through the code from the places where other
modules, processes and exceptions can enter it. On the way the verifier knows the frame's type
descriptor, which tells pointers from numbers, and what the program keeps in words that are neither:

- frames made and not yet called, and whose they are;
- addresses, made by ``lea`` and ``indx`` or read from a module handle;
- code addresses, made by ``movpc``.

So it refuses numbers written over pointers and pointers taken from numbers, in the frame, in the
module data and in frames and objects whose type it saw made; operands outside of them; words used
as addresses that are none; calls whose frame is not the one of the function; and jumps to anywhere
but known labels.

What is behind pointers that come from elsewhere (parameters, fields, results) no object file tells;
there the module must agree with itself, across all its functions (``usage.py``).

What it does not prove: what other modules pass and take; the variants of picks, so that the first
word of any object may pass for a tag, or for the address in a module handle; how many bytes a
function of another module writes as its result or a channel brings; that an address outlives what
it points to; that the frame for a function of another module is the right one, which the linker
must check. An engine must stay inside its memory without these.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import Effect
from llmbol_core.vm.learning import after
from llmbol_core.vm.module import Handler, Module
from llmbol_core.vm.slots import RESULT, Kind, State, Value
from llmbol_core.vm.structure import Structure, check_frame, check_structure, table_targets
from llmbol_core.vm.typeflow import Step
from llmbol_core.vm.usage import Usage


@dataclass(frozen=True)
class Verified:
    """What was verified: the module, its instructions, how many of them can be reached."""

    module: str
    instructions: int
    reached: int
    functions: int
    types: int
    data_size: int


def verify_module(module: Module) -> Verified:
    """Prove what the module's text says of a program, or raise VerifyError."""
    flow = _Flow(check_structure(module))
    flow.run()
    return Verified(
        module.name,
        len(module.instructions),
        len(flow.frames),
        len(flow.entries),
        len(module.types),
        module.data_size,
    )


_OBJECTS = {Kind.OBJECT, Kind.ORIGIN}
_ADDRESSES = {Kind.OBJECT, Kind.ELSEWHERE}


class _Flow:
    """Every way through the code: the frame and what is known of its slots at each instruction."""

    def __init__(self, found: Structure) -> None:
        self.found = found
        self.usage = Usage(found)
        self.module = found.module
        self.code = found.module.instructions
        self.frames: dict[int, int] = {}
        self.states: dict[int, State] = {}
        self.entries: dict[int, int] = {}
        self.work: list[int] = []

    def run(self) -> None:
        """Follow the program from wherever it can be entered."""
        if self.module.has_entry:
            self._enter(self.module.entry_pc, self.module.entry_type, -1)
        for export in self.module.exports:
            if export.pc >= 0:
                self._enter(export.pc, export.type, -1)
        pending = list(self.module.handlers)
        while self.work:
            while self.work:
                self._step(heapq.heappop(self.work))
            pending = self._enter_handlers(pending)
        self.usage.settle()

    def _fail(self, pc: int, why: str) -> VerifyError:
        return self.found.fail(pc, why)

    def _enter(self, pc: int, number: int, origin: int) -> None:
        """Come to a function with a new frame of a type."""
        check_frame(self.found, origin, number)
        self.entries.setdefault(pc, number)
        origins = self.usage.origin
        state = {
            slot: Value(Kind.ORIGIN, origins("parameter", pc, slot))
            for slot in self.found.layouts[number].pointers
        }
        state[RESULT] = Value(Kind.ORIGIN, origins("result", pc))
        self._reach(pc, number, state, origin)

    def _reach(self, pc: int, number: int, state: State, origin: int) -> None:
        """Come to an instruction; look at it again if less is known than before."""
        known = self.frames.get(pc)
        if known is None:
            if pc >= len(self.code):
                raise self._fail(origin, "the program runs beyond its last instruction")
            self.frames[pc], self.states[pc] = number, state
            heapq.heappush(self.work, pc)
            return
        layouts = self.found.layouts
        if known != number and layouts[known] != layouts[number]:
            raise self._fail(
                origin, f"pc {pc} is reached with frames of types {known} and {number}"
            )
        before = self.states[pc]
        if before and before is not state:
            kept = self._joined(pc, layouts[number].pointers, before, state)
            if kept != before:
                self.states[pc] = kept
                if pc not in self.work:
                    heapq.heappush(self.work, pc)

    def _joined(self, pc: int, pointers: frozenset[int], before: State, state: State) -> State:
        """Return what is known where two ways meet."""
        kept: State = {}
        for slot, value in before.items():
            other = state.get(slot)
            if other is value or other == value:
                kept[slot] = value
            elif other and slot in pointers:
                if {other.kind, value.kind} <= _OBJECTS:
                    kept[slot] = Value(Kind.ORIGIN, self.usage.origin("join", pc, slot))
            elif other and {other.kind, value.kind} <= _ADDRESSES:
                kept[slot] = Value(Kind.ELSEWHERE)
        return kept

    def _enter_handlers(self, pending: list[Handler]) -> list[Handler]:
        """Enter the handlers whose range was reached; return the others."""
        reached = sorted(self.frames)
        waiting = []
        for handler in pending:
            first = bisect.bisect_left(reached, handler.pc1)
            if first == len(reached) or reached[first] >= handler.pc2:
                waiting.append(handler)
                continue
            number = self.frames[reached[first]]
            self._check_handler(handler, number)
            for _, pc in handler.labels:
                self._reach(pc, number, {}, -1)
            if handler.default_pc >= 0:
                self._reach(handler.default_pc, number, {}, -1)
        return waiting

    def _check_handler(self, handler: Handler, number: int) -> None:
        layout = self.found.layouts[number]
        where = f"the handler for pc {handler.pc1} to {handler.pc2}"
        if handler.offset not in layout.pointers:
            raise self._fail(-1, f"{where}: {handler.offset}(fp) is no pointer")
        if handler.type >= 0 and not self.found.layouts[handler.type].pointers <= layout.pointers:
            raise self._fail(
                -1, f"{where}: type {handler.type} has pointers that the frame has not"
            )

    # One instruction.

    def _step(self, pc: int) -> None:
        number = self.frames[pc]
        step = Step(self.found, self.usage, pc, number, self.states[pc])
        step.check()
        state, op = after(step), step.instruction.op
        if step.entered:
            self._enter(*step.entered, pc)
        if op.effect not in (Effect.JUMP, Effect.RETURN, Effect.END):
            self._reach(pc + 1, number, state, pc)
        for target in self._targets(step):
            self._reach(target, number, state, pc)

    def _targets(self, step: Step) -> Iterable[int]:
        """Return where in the same function an instruction leads besides the next."""
        op = step.instruction.op
        if op.effect is Effect.BRANCH or op.mnemonic == "jmp":
            return (step.label(),)
        return table_targets(self.found, step.pc) if op.effect is Effect.JUMP else ()
