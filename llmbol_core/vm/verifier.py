"""Verification: proof, before a program runs, that it keeps to its types and its memory.

The files named here are those of ``verification/``, and of this folder.

First the structure is checked (``structure.py``), then every way through the code from the places
where other modules, processes and exceptions can enter it. On each way the verifier knows the
frame's type descriptor, which tells pointers from numbers, and what the program keeps in words that
are neither:

- frames made and not yet called, and for which function;
- addresses, made by ``lea`` and ``indx`` or read from a module handle;
- code addresses, made by ``movpc``.

So it refuses numbers written over pointers and pointers taken from numbers, in the frame, in the
module data, and in frames and objects whose type it has seen; operands outside of them; words used
as addresses that are none; alt tables of anything but channels and addresses; calls with the frame
of another function; jumps to anything but known labels, and writes over tables of labels.

What pointers from elsewhere point to (parameters, fields, elements, results, values of channels) no
object file states. There the module must agree with itself, across all its functions: what it does
with a pointer must fit every object that it makes and that can be there (``usage.py``,
``origins.py``; ``containers.py`` for arrays, lists and channels). After a test of an object's first
word, as for the variants of a pick, this is required only of objects made with such a word.

When modules are linked it is checked that frames made for a function of another module fit it, and
that its result fits the place for it (``needs.py``).

What pointers from other modules point to is not known, and even where a module agrees with itself
that cannot always be proved. If what an instruction does does not fit all objects that the module
itself makes for it (``evidence.py``), the type of the actual object is compared with it before the
instruction runs (``leftover.py``, ``guards.py``).

While the program runs these are checked as well: bounds of arrays and jump tables, nil, that frames
of other modules are those of the function called, that what is raised is a string or has a name.

Addresses of elements and fields, and copies of channels in alt tables, keep nothing alive. What
they point to might be gone when they are used: then the use is refused, or the memory is not reused
until no process has the address any more (``lifetimes.py``, ``remains.py``). Other processes run
only at certain instructions (``pauses.py``). What a function returns for another one, which passed
on the address for its result, is compared once both are known (``returns.py``).

What each instruction reads and writes, when, and how much, is listed once (``effects.py``,
``changes.py``); everything else is derived from those lists.

So a program can write no number where a pointer is kept. It can read pointers as numbers.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from llmbol_core.errors import VerifyError
from llmbol_core.vm.isa import Effect
from llmbol_core.vm.module import Handler, Module
from llmbol_core.vm.verification.evidence import Evidence
from llmbol_core.vm.verification.learning import after, narrowed
from llmbol_core.vm.verification.leftover import Leftover
from llmbol_core.vm.verification.lifetimes import Lifetimes
from llmbol_core.vm.verification.livein import Arguments
from llmbol_core.vm.verification.proofs import Proof
from llmbol_core.vm.verification.reach import Reach
from llmbol_core.vm.verification.slots import (
    COPIES,
    FRAMES,
    POINTERS,
    RESULT,
    SEVERAL,
    UNKNOWN_POINTER,
    Kind,
    State,
    Value,
)
from llmbol_core.vm.verification.structure import Structure, check_frame, check_structure
from llmbol_core.vm.verification.tables import table_targets
from llmbol_core.vm.verification.typeflow import Step
from llmbol_core.vm.verification.usage import Usage
from llmbol_core.vm.verification.variables import Written


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
    """Prove what can be proved from a module alone, or raise VerifyError."""
    flow = _flow(module)
    flow.weigh()
    return Verified(
        module.name,
        len(module.instructions),
        len(flow.frames),
        len(flow.entries),
        len(module.types),
        module.data_size,
    )


def prove_module(module: Module) -> Proof:
    """Verify a module, and return what is to be compared when it is linked or runs."""
    flow = _flow(module)
    evidence, leftover = flow.weigh()
    proof = flow.usage.proof(flow.entries, evidence.linked_by)
    return proof._replace(
        guards=leftover.guards,
        tables=flow.found.tables,
        wanted=leftover.wanted,
    )


def _flow(module: Module) -> _Flow:
    """Follow a module, and again whenever a pointer turns out to be a variable."""
    found, received = check_structure(module), frozenset[int]()
    while True:
        flow = _Flow(found, received)
        try:
            flow.run()
        except Written as written:
            received |= {written.offset}
        else:
            return flow


_WORDS = COPIES | {Kind.COPY}
_ADDRESSES = {Kind.ELEMENT, Kind.ELSEWHERE}


class _Flow:
    """Every way through the code: the frame and what is known of its slots at each instruction."""

    def __init__(self, found: Structure, received: frozenset[int]) -> None:
        self.found = found
        self.usage = Usage(found, received)
        self.module = found.module
        self.code = found.module.instructions
        self.frames: dict[int, int] = {}
        self.states: dict[int, State] = {}
        self.ways: dict[int, int] = {}
        """The only instruction that leads to another one, if there is just one."""
        self.entries: dict[int, int] = {}
        self.work: list[int] = []
        self._leads: dict[int, list[int]] = {}
        self._caught: dict[int, Value] = {}
        """The origin of the result in handlers that were entered, by their index."""

    def run(self) -> None:
        """Follow the program from wherever it can be entered."""
        if self.module.has_entry:
            self._enter(self.module.entry_pc, self.module.entry_type, -1)
        for export in self.module.exports:
            if export.pc >= 0:
                self._enter(export.pc, export.type, -1)
        pending = list(enumerate(self.module.handlers))
        while self.work:
            while self.work:
                self._step(heapq.heappop(self.work))
            pending = self._enter_handlers(pending)
        self._link_handlers()
        self.usage.settle()

    def weigh(self) -> tuple[Evidence, Leftover]:
        """Return what is proved from the module itself, and what is left to guards."""
        steps = [
            Step(self.found, self.usage, pc, number, self.states[pc])
            for pc, number in sorted(self.frames.items())
        ]
        arguments = Arguments(self.found, self._follow, self.states)
        for entry, number in self.entries.items():
            arguments.enter(entry, self.found.layouts[number].pointers)
        by_pc = {step.pc: step for step in steps}
        reach = Reach(by_pc, self._follow)
        evidence = Evidence(self.found, self.usage, arguments, reach)
        evidence.run(steps)
        leftover = Leftover(evidence)
        leftover.run(steps)
        lifetimes = Lifetimes(by_pc, self._follow, leftover.unsure)
        lifetimes.run(self._entered())
        for pc, guards in lifetimes.guards.items():
            leftover.guards[pc] += guards
        return evidence, leftover

    def _entered(self) -> list[int]:
        """Return where functions begin, and where they continue after exceptions."""
        landings = [
            pc
            for handler in self.module.handlers
            for pc in (*(label for _, label in handler.labels), handler.default_pc)
        ]
        return [*self.entries, *(pc for pc in landings if pc in self.frames)]

    def _follow(self, pc: int) -> list[int]:
        """Return where an instruction leads in its function, once all is known."""
        if (known := self._leads.get(pc)) is not None:
            return known
        op = self.code[pc].op
        targets = self._leads[pc] = list[int]()
        if op.effect not in (Effect.JUMP, Effect.RETURN, Effect.END):
            targets.append(pc + 1)
        if pc in self.frames and op.effect in (Effect.JUMP, Effect.BRANCH):
            step = Step(self.found, self.usage, pc, self.frames[pc], self.states[pc])
            targets += self._targets(step)
        return targets

    def _fail(self, pc: int, why: str) -> VerifyError:
        return self.found.fail(pc, why)

    def _enter(self, pc: int, number: int, origin: int) -> None:
        """Enter a function with a new frame of a type."""
        check_frame(self.found, origin, number)
        self.entries.setdefault(pc, number)
        origins = self.usage.origin
        state = {
            slot: Value(Kind.ORIGIN, origin=origins("parameter", pc, slot))
            for slot in self.found.layouts[number].pointers
        }
        state[RESULT] = Value(Kind.ORIGIN, origin=origins("result", pc))
        self._reach(pc, number, state, origin, is_way=False)

    def _reach(self, pc: int, number: int, state: State, origin: int, is_way: bool = True) -> None:
        """Reach an instruction; look at it again if less is known than before.

        Entering a function is not a way from another instruction.
        """
        way = origin if is_way else -1
        known = self.frames.get(pc)
        if known is None:
            if pc >= len(self.code):
                raise self._fail(origin, "the program runs beyond its last instruction")
            self.frames[pc], self.states[pc], self.ways[pc] = number, state, way
            heapq.heappush(self.work, pc)
            return
        layouts = self.found.layouts
        if known != number and layouts[known] != layouts[number]:
            raise self._fail(
                origin, f"pc {pc} is reached with frames of types {known} and {number}"
            )
        before = self.states[pc]
        if before and before is not state:
            kept = state
            if self.ways[pc] != way or way < 0:
                self.ways[pc] = -2
                kept = self._joined(pc, layouts[number].pointers, before, state)
            if kept != before:
                self.states[pc] = kept
                if pc not in self.work:
                    heapq.heappush(self.work, pc)

    def _joined(self, pc: int, pointers: frozenset[int], before: State, state: State) -> State:
        """Return what is known where two ways meet."""
        kept = self._frames_joined(pc, before, state) | self._frames_joined(pc, state, before)
        for slot, value in before.items():
            other = state.get(slot)
            if other is None:
                continue
            if other is value or other == value:
                kept[slot] = value
            elif slot in pointers or slot >= RESULT:
                kept[slot] = self._met(pc, slot, value, other)
            elif {other.kind, value.kind} <= _ADDRESSES:
                kept[slot] = self._met(pc, slot, value, other)._replace(kind=Kind.ELSEWHERE)
            elif value.kind is other.kind and value.kind in _WORDS and value.number == other.number:
                met = self._met(pc, slot, value, other)
                kept[slot] = met._replace(kind=value.kind, number=value.number)
            elif slot < 0:
                kept[slot] = SEVERAL
        return kept

    def _frames_joined(self, pc: int, state: State, other: State) -> State:
        """Return what is known of frames made if it is known on one way only."""
        kept: State = {}
        for slot in state.keys() - other.keys():
            if slot < 0:
                kept[slot] = SEVERAL
            elif slot >= FRAMES:
                kept[slot] = self._met(pc, slot, state[slot], UNKNOWN_POINTER)
            else:
                self.usage.lose(pc, slot, state[slot])
        return kept

    def _met(self, pc: int, slot: int, value: Value, other: Value) -> Value:
        """Return what is known of a pointer that is one of two."""
        origin = self.usage.origin("join", pc, slot)
        for one in (value, other):
            if one.origin >= 0:
                shift = one.number if one.kind is Kind.ELSEWHERE else 0
                self.usage.flow(origin, one.origin, one.flowing, shift=shift)
            else:
                self.usage.unknown.add(origin)
        both = None if value.tags is None or other.tags is None else value.tags | other.tags
        return Value(Kind.ORIGIN, 0, origin, both)

    def _enter_handlers(self, pending: list[tuple[int, Handler]]) -> list[tuple[int, Handler]]:
        """Enter the handlers whose range was reached; return the others."""
        reached = sorted(self.frames)
        waiting = []
        for index, handler in pending:
            first = bisect.bisect_left(reached, handler.pc1)
            if first == len(reached) or reached[first] >= handler.pc2:
                waiting.append((index, handler))
                continue
            number = self.frames[reached[first]]
            self._check_handler(handler, number)
            origin = self.usage.origin
            state = {
                slot: Value(Kind.ORIGIN, origin=origin("caught", index, slot))
                for slot in self.found.layouts[number].pointers
            }
            self._caught[index] = state[RESULT] = self.states[reached[first]][RESULT]
            text = Value(Kind.ORIGIN, origin=origin("text", index))
            self.usage.make(text.origin, "C")
            for at, (_, pc) in enumerate(handler.labels):
                what = (
                    text
                    if at >= handler.typed
                    else Value(Kind.ORIGIN, origin=origin("exception", index, at))
                )
                self._reach(pc, number, {**state, handler.offset: what}, -1)
            if handler.default_pc >= 0:
                del state[handler.offset]
                self._reach(handler.default_pc, number, state, -1)
        return waiting

    def _link_handlers(self) -> None:
        """Link the frame's pointers in handlers to all that they may be at that moment."""
        for index, handler in enumerate(self.module.handlers):
            reached = [pc for pc in range(handler.pc1, handler.pc2) if pc in self.states]
            states = [self.states[pc] for pc in reached]
            layouts = {self.found.layouts[self.frames[pc]] for pc in reached}
            results = {state[RESULT] for state in states} | {self._caught.get(index)} - {None}
            if len(layouts) > 1 or len(results) > 1:
                where = f"the handler for pc {handler.pc1} to {handler.pc2}"
                raise self._fail(-1, f"{where} is one for several functions")
            for slot in {slot for layout in layouts for slot in layout.pointers - {handler.offset}}:
                origin = self.usage.origin("caught", index, slot)
                for value in {state.get(slot, UNKNOWN_POINTER) for state in states}:
                    if value.origin >= 0 and value.kind in POINTERS:
                        self.usage.flow(origin, value.origin, value.flowing)
                    else:
                        self.usage.unknown.add(origin)

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
        state, op = after(step), step.op
        if step.entered:
            self._enter(*step.entered, pc)
        if op.effect not in (Effect.JUMP, Effect.RETURN, Effect.END):
            self._reach(pc + 1, number, narrowed(step, state, pc + 1), pc)
        for target in self._targets(step):
            self._reach(target, number, narrowed(step, state, target), pc)

    def _targets(self, step: Step) -> Iterable[int]:
        """Return where in the same function an instruction leads besides the next."""
        op = step.op
        if op.effect is Effect.BRANCH or op.mnemonic == "jmp":
            return (step.label(),)
        return table_targets(self.found, step.pc) if op.effect is Effect.JUMP else ()
