"""An interpreter that believes no proof: it looks at everything before an instruction uses it.

``Checking`` runs verified programs as the reference does, guards included, and compares what each
instruction is about to do with what is really there (``looks.py``): every operand lies in a frame,
in module data or in an object that lives; pointers are nil or lead to living objects of the kind
that the instruction takes them for; numbers lie over no pointer; values, channels, lists and arrays
are of the types that they are used as; frames are those of their functions. What the verifier says
of a slot must be so (``claims.py``). Memory is not used again, so that what leads to something gone
is found for sure and not by chance. Whatever is not as it should be raises ``Forgery``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from llmbol_core.vm import process as frames
from llmbol_core.vm.arena import ASTRAY, FREE, NIL
from llmbol_core.vm.checks import KINDS, guarded, pointer_of
from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.isa import TYPES, Mode
from llmbol_core.vm.loader import LoadedModule
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.objects import ARRAY, MODULE, STACK
from llmbol_core.vm.process import Process
from llmbol_core.vm.steps import Step
from llmbol_core.vm.verification.guards import Guard, Of
from tests.vm.areas import Area, Blocks, Forgery
from tests.vm.looks import Look


class Checking(Interpreter):
    """The reference engine with its eyes open."""

    def __init__(self, machine: Any, channels: Any) -> None:
        super().__init__(machine, channels)
        self.blocks = Blocks(self.heap)
        self.claims: Callable[[LoadedModule, int, Checking, int, int], None] = (
            lambda loaded, pc, engine, fp, mp: None
        )
        self.count = 0

    def steps(self, module: LoadedModule) -> list[Step]:
        """Return the steps of a module, each looked at before it runs."""
        made: list[Step] = []
        for pc, instruction in enumerate(module.module.instructions):
            step = self._looking(module, pc, instruction)
            for guard in reversed(module.proof.guards.get(pc, ())):
                step = self._looking_at(guard, guarded(self, [guard], step))
            made.append(step)
        return made

    def _looking_at(self, guard: Guard, step: Step) -> Step:
        """Return a guarded step that sees whether the guard looks at objects."""
        looked_at = []
        if guard.of is not Of.RESULT or guard.size >= 0:
            looked_at.append(guard.where)
        is_place = guard.of in (Of.SENT, Of.RECEIVED) and guard.number.mode is Mode.NONE
        if is_place and guard.size >= 0 and guard.kind != "K" and guard.link.mode is not Mode.NONE:
            looked_at.append(guard.link)

        def looking(fp: int, mp: int) -> int:
            for where in looked_at:
                self.check_reference(pointer_of(self.heap, where, fp << 2, mp << 2))
            return step(fp, mp)

        return looking

    def _looking(self, module: LoadedModule, pc: int, instruction: Instruction) -> Step:
        own: list[Step] = []

        def step(fp: int, mp: int) -> int:
            if not own:
                own.append(self._maker.step(instruction, module.types, pc + 1))
            self.count += 1
            try:
                self.claims(module, pc, self, fp << 2, mp << 2)
                Look(self, module, instruction, fp << 2, mp << 2).run()
            except (Forgery, *ASTRAY) as error:
                text = f"{module.module.name} pc {pc} {instruction.op.mnemonic}: {error}"
                raise Forgery(text) from None
            after = own[0](fp, mp)
            self.check_counts()
            return after

        return step

    # Where things are

    def frame_type(self, frame: int) -> HeapType:
        """Return the type of a frame."""
        number = self.heap.word(frame + frames.TYPE)
        if not 0 <= number < len(self.heap.types):
            raise Forgery(f"the frame at {frame:x} is damaged")
        return self.heap.types[number]

    def frames_made(self, process: Process) -> list[int]:
        """Return the frames that a process has made above the one it is in."""
        found, stack = list[int](), process.stack
        extents = [stack._extents[number] for number in range(stack.pieces)]
        pieces = [(e.base, e.limit, e.previous_top) for e in extents]
        at = next((i for i, (b, e, _) in enumerate(pieces) if b <= process.fp < e), None)
        if at is None:
            raise Forgery("the frame of the process is outside of its stack")
        start = process.fp
        for index in range(at, len(pieces)):
            end = pieces[index + 1][2] if index + 1 < len(pieces) else stack.top
            if not pieces[index][0] <= end <= pieces[index][1]:
                raise Forgery("the top of the stack is outside of its last piece")
            if index > at:
                start = pieces[index][0]
            while start < end:
                found.append(start)
                start += frames.frame_size(self.frame_type(start).size)
        return found[1:]

    def _in_frames(self, address: int) -> Area | None:
        frame = self.process.fp
        chain = [*reversed(self.frames_made(self.process))]
        for made in chain:
            if made <= address < made + self.frame_type(made).size:
                return Area(self.frame_type(made), address - made, "a frame made")
        while frame:
            if frame <= address < frame + self.frame_type(frame).size:
                return Area(self.frame_type(frame), address - frame, "a frame")
            frame = self.heap.pointer(frame + frames.CALLER)
        return None

    def area(self, address: int) -> Area:
        """Return what lies at an address; raises Forgery if that is nothing."""
        heap, ref = self.heap, self.blocks.at(address)
        if ref is None:
            raise Forgery(f"{address:x} is in no object")
        kind = heap.type_of(ref)
        if kind == STACK:
            if ref in self._maker._constants.values():
                return Area(HeapType(8, ()), address - ref, "a constant", locked=True)
            found = self._in_frames(address)
            if found is None:
                raise Forgery(f"{address:x} is in no frame of the process")
            return found
        if kind > STACK:
            return Area(heap.types[kind], address - ref, "a record")
        if kind == ARRAY and heap.pointer(ref + 8) == NIL:
            element, data = heap.types[heap.word(ref + 4)], heap.array_data(ref)
            length = heap.word(ref)
            if element.size and data <= address < data + length * element.size:
                return Area(element, (address - data) % element.size, "an element")
        if kind == MODULE:
            return Area(HeapType(4, ()), address - ref, "a module handle", locked=True)
        if ref in self.remains._refs:
            return Area(HeapType(1 << 30, ()), address - ref, "remains")
        raise Forgery(f"{address:x} is inside an object of kind {kind}")

    def check_reference(self, ref: int, letter: str = "P") -> None:
        """Raise Forgery unless a reference is nil or leads to a living object of a kind."""
        if ref == NIL:
            return
        if not self.blocks.lives(ref):
            raise Forgery(f"{ref:x} is no reference")
        kind = self.heap.type_of(ref)
        if kind in (FREE, STACK) or self.heap.pointers[(ref >> 2) - 4] == 0:
            raise Forgery(f"{ref:x} leads to no object")
        if letter in KINDS and kind != KINDS[letter]:
            raise Forgery(f"the {TYPES[letter].name} is of kind {kind}")

    def check_counts(self) -> None:
        """Raise Forgery unless all references are sound, and none is counted too little."""
        counts: dict[int, int] = {}
        for process in self.scheduler.processes.values():
            for words in self._chain(process):
                for slot in words:
                    counts[slot] = counts.get(slot, 0) + 1
        for ref in self.blocks.refs:
            if self.heap.type_of(ref) in (STACK, FREE):
                continue
            for slot in self.heap.slots(ref):
                child = self.heap.pointer(slot)
                self.check_reference(child)
                counts[child] = counts.get(child, 0) + 1
        for ref, count in counts.items():
            if ref != NIL and self.heap.pointers[(ref >> 2) - 4] < count:
                raise Forgery(f"{ref:x} has {count} references and counts fewer")

    def _chain(self, process: Process) -> Iterator[list[int]]:
        frame, handle = process.fp, process.handle
        if not frame:
            return
        for at in (*self.frames_made(process), *self._callers(frame)):
            found = [self.heap.pointer(at + p) for p in self.frame_type(at).pointers]
            for ref in found:
                self.check_reference(ref)
            yield found
        self.check_reference(handle, "Z")

    def _callers(self, frame: int) -> Iterator[int]:
        while frame:
            yield frame
            frame = self.heap.pointer(frame + frames.CALLER)
