"""The reference engine: runs each instruction as its row in the table, or its handler, says.

It defines what programs do; everything faster is tested against it. Instructions are decoded
(``steps.py``) when they first run. A running process keeps its state in its ``Process`` except for
the program counter, which each step passes to the next one; steps that change the frame or the
module return ``SWITCH``, those after which the process must stop return ``STOP``.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from llmbol_core.errors import Trap
from llmbol_core.vm import (  # noqa: F401 -- their handlers
    handlers_channel,
    handlers_control,
    handlers_heap,
    handlers_text,
    traps,
)
from llmbol_core.vm.arena import ASTRAY, NIL
from llmbol_core.vm.checks import guarded
from llmbol_core.vm.collector import collect_cycles
from llmbol_core.vm.exceptions import Level, deliver, levels
from llmbol_core.vm.handlers_control import STOP, YIELD
from llmbol_core.vm.host import HostCall, HostFunction, HostModule
from llmbol_core.vm.ieee import AT_START, CONTROL, EXCEPTIONS, HAPPENED, WATCHED, Arithmetic
from llmbol_core.vm.links import Link, Linked
from llmbol_core.vm.module import Instruction
from llmbol_core.vm.objects import LINKS, MODULE
from llmbol_core.vm.process import TYPE, Process, Raised, Stack
from llmbol_core.vm.remains import Remains
from llmbol_core.vm.steps import Step, StepMaker

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.scheduler import ReadyQueue, Scheduler
    from llmbol_core.vm.verification.guards import Guard


_PATIENCE = 32
"""Instructions between two checks whether time is up: any of them can take long."""


class Interpreter:
    """Runs processes of one machine, one at a time."""

    def __init__(self, machine: InfernoVM, channels: Channels) -> None:
        self.machine, self.heap, self.channels = machine, machine.heap, channels
        self.scheduler: Scheduler
        self.process: Process
        """The process that is running."""
        self.keeps_turn = False
        """Whether the process that ran last has not used up its slice, and continues first."""
        self.started = 0
        """How many processes have been started, which is the number of the last one."""
        self.linked: dict[int, Linked] = {}
        self._next_links = 1
        self._spare_links: list[int] = []
        self.remains = Remains(self.heap)
        self.floating = AT_START
        """What the words of processes that Python starts begin with: see ``ieee.py``."""
        self.arithmetic = Arithmetic()
        """Computes with reals for processes that are careful of how that is done."""
        self._maker = StepMaker(self, self.heap)
        self.heap.finalizers[MODULE] = self._forget

    # Running

    def run(self, process: Process, budget: int, one_stretch: bool = False) -> tuple[int, bool]:
        """Run a process for so many instructions; return how many it ran, and whether it continues.

        One stretch ends where the frame or the module changes.
        """
        self.process = process
        left, until = budget, self.scheduler.until
        most = budget if until is None else _PATIENCE
        goes_on = process.fault is None or self._take_fault(process)
        while goes_on and left:
            steps, fp, mp, pc = process.steps, process.fp >> 2, process.mp >> 2, process.pc
            countdown = range(left - 1, max(left - most, 0) - 1, -1)
            try:
                for left in countdown:  # noqa: B007 -- used behind the loop
                    pc = steps[pc](fp, mp)
                    if pc < 0:
                        break
                else:
                    process.pc = pc
            except (Trap, Raised) as error:
                process.pc = pc
                goes_on = self._deliver(process, error)
            except ASTRAY:
                process.pc = pc
                goes_on = self._deliver(process, Trap(traps.NIL_DEREFERENCE))
            else:
                if pc == YIELD:
                    break
                goes_on = pc != STOP
            if one_stretch or (until is not None and self.scheduler.is_late):
                break
        return budget - left, goes_on

    def catch_up(self) -> None:
        """Do what was left for later, since it may let processes go on."""

    def stuck(self) -> None:
        """Take note that all processes wait for each other; the program ends now."""

    def _take_fault(self, process: Process) -> bool:
        """Raise the exception that arose while the process was not running."""
        fault, process.fault = process.fault, None
        assert fault is not None
        return self._deliver(process, fault)

    def _deliver(self, process: Process, error: Trap | Raised) -> bool:
        """Continue in a handler, or end the process and return false."""
        # Delivery fails if there is no memory for the string, or if the stack is damaged.
        with suppress(Trap, *ASTRAY):
            if deliver(self, process, error):
                return True
        within = isinstance(error, Trap) and error.module
        module = within or process.module.module.name
        self.machine.end(process, Trap(error.name, module, process.pc))
        return False

    def steps(self, module: LoadedModule) -> list[Step]:
        """Return the steps of a module's instructions, each made when it first runs."""
        steps: list[Step] = []

        def first(pc: int, instruction: Instruction, fp: int, mp: int) -> int:
            step = self._maker.step(instruction, module.types, pc + 1)
            if pc in module.proof.guards:
                step = guarded(self, module.proof.guards[pc], step)
            self.install(module, steps, pc, step)
            return step(fp, mp)

        for pc, instruction in enumerate(module.module.instructions):
            steps.append(functools.partial(first, pc, instruction))
        return steps

    def install(self, module: LoadedModule, steps: list[Step], pc: int, step: Step) -> None:
        """Store the step of an instruction."""
        steps[pc] = step

    def passed(self, guard: Guard, handle: int, number: int) -> None:
        """Take note that a guard has let a link of a handle pass."""

    def constant(self, value: int) -> int:
        """Return the address of a word with this value, which lives as long as the engine."""
        return self._maker.constant(value)

    def release_constants(self) -> None:
        """Free what was made in the arena for instructions."""
        self._maker.release_constants()

    # Levels of calls

    def handled_levels(self, process: Process) -> Iterator[Level]:
        """Yield the two innermost frames of a process, and at least those that may have handlers.

        The second one decides whether an object or its name is passed on: see ``find_handler``.
        """
        return levels(self, process)

    def foreign_frame(self, frame: int, target: int) -> int:
        """Return the first frame, from one up to another, that another module may have called."""
        return frame

    # Processes

    def new_process(self, pid: int, group: int, environment: Environment, extent: int) -> Process:
        """Return a process with a stack of so many bytes, at no instruction yet."""
        return Process(pid, group, environment, Stack(self.heap, extent))

    def ready_queue(self, processes: Mapping[int, Process]) -> ReadyQueue:
        """Return an empty queue for those of some processes that are ready to run."""
        return deque()

    def forget_process(self, process: Process) -> None:
        """Give up what was made for a process that has ended."""

    def observe(self) -> None:
        """Take note that the end of each process is to be reported from now on."""

    def begin(self, process: Process, parent: Process | None) -> None:
        """Let a new process begin with what its parent has, if it has one."""
        if parent is not None:
            process.sharing, process.floating = parent.sharing, parent.floating
        else:
            process.floating = self.floating

    def adapt(self, process: Process) -> None:
        """Let a process go on as its word says that tells how it computes with reals."""

    def heed(self, how: int) -> None:
        """Be careful of reals from now on, and watch what happens if that is asked for."""
        if self.floating & how == how:
            return
        self.floating |= how
        for process in self.scheduler.processes.values():
            if how & WATCHED:
                process.floating &= ~(EXCEPTIONS << HAPPENED)
            if how & WATCHED or process.floating & CONTROL:
                process.floating |= how
                self.adapt(process)

    # Memory

    def collect(self) -> int:
        """Release all objects that only cycles keep; return how many."""
        return collect_cycles(self.heap)

    # Modules

    def new_handle(self, data: int, linked: Linked) -> int:
        """Return a module handle for module data, which it takes over."""
        if not self._spare_links:
            self._spare_links.append(self._next_links)
            self._next_links += 1
        ref = self.heap.new_module(data, self._spare_links[-1])
        self.linked[self._spare_links.pop()] = linked
        if not isinstance(linked.module, HostModule):
            linked.module.handles += 1
        return ref

    def relink(self, handle: int, linked: Linked) -> None:
        """Let a module handle stand for something else."""
        self.linked[self.heap.words[(handle + LINKS) >> 2]] = linked

    def linked_of(self, handle: int) -> Linked:
        """Return what a module handle stands for; nil traps."""
        if handle == NIL:
            raise Trap(traps.NOT_LOADED)
        return self.linked[self.heap.words[(handle + LINKS) >> 2]]

    def module_of(self, handle: int) -> LoadedModule:
        """Return the module that a handle of code leads to."""
        module = self.linked_of(handle).module
        if isinstance(module, HostModule):
            raise Trap(traps.SPAWN_BUILTIN)
        return module

    def link(self, handle: int, number: int) -> Link:
        """Return a link of a handle; a negative number means export -number - 1."""
        linked = self.linked_of(handle)
        links, index = (linked.links, number) if number >= 0 else (linked.exports, -number - 1)
        if index >= len(links) or (links[index].function is None and links[index].pc < 0):
            raise Trap(traps.INVALID_MFRAME)
        return links[index]

    def check_frame(self, frame: int, number: int) -> None:
        """Trap unless a frame is one of a type, or laid out like it; size 0 fits all."""
        made, types = self.heap.word(frame + TYPE), self.heap.types
        if made != number and types[made] != types[number] and types[number].size:
            raise Trap(traps.TYPE_CHECK)

    def type_number(self, number: int) -> int:
        """Return the heap's number for a type of the running module."""
        types = self.process.module.types
        if not 0 <= number < len(types):
            raise Trap(traps.ILLEGAL)
        return types[number]

    def enter_module(self, process: Process, handle: int) -> None:
        """Make a process run code of a module; it takes over the reference to the handle."""
        module = self.module_of(handle)
        process.handle = handle
        process.mp = self.heap.pointer(handle)
        process.module, process.steps = module, module.steps

    def leave_module(self, process: Process, handle: int) -> None:
        """Make a process run code of the caller's module again, whose handle the frame kept."""
        gone = process.handle
        self.enter_module(process, handle)
        self.heap.release(gone)

    def _forget(self, handle: int) -> None:
        number = self.heap.words[(handle + LINKS) >> 2]
        module = self.linked.pop(number).module
        self._spare_links.append(number)
        if not isinstance(module, HostModule):
            module.handles -= 1
            if not module.handles:
                self.machine.loader.rest(module)

    def unload(self, module: LoadedModule) -> None:
        """Drop what is kept for a module that no handle refers to and nobody can find again."""

    # Calls

    def call_host(self, function: HostFunction, frame: int, next_pc: int) -> int:
        """Call a host function; if it has to wait, the process waits."""
        process = self.process
        process.pc = next_pc - 1
        call = HostCall(self.machine, process, self.heap, frame, process.module)
        try:
            wish = function.run(call)
        except (Trap, *ASTRAY) as error:
            raise function.failed(error) from None
        if wish is None:
            if (fault := process.fault) is not None:
                process.fault = None
                raise fault
            process.stack.pop_releasing(frame)
            if self.scheduler.until is None or not self.scheduler.is_late:
                return next_pc
            process.pc = next_pc
            return YIELD
        process.pc, process.called = next_pc, function.module
        self.scheduler.wait(process, wish, lambda: process.stack.pop_releasing(frame))
        return STOP

    def spawn(self, handle: int, frame: int, pc: int) -> None:
        """Start a process whose bottom frame is one that the running process has made."""
        heap, parent = self.heap, self.process
        number = heap.word(frame + 12)
        child = self.machine.new_process(parent, heap.retain(handle), number)
        child.pc = pc
        size = heap.types[number].size - 16
        if size > 0:
            heap.view(child.fp + 16, size)[:] = bytes(heap.view(frame + 16, size))
        parent.stack.pop(frame)
        self.scheduler.add(child)
