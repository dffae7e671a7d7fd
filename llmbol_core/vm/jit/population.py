"""A machine's processes, some of which native code starts and ends by itself, and their output.

Python's objects for those are made when Python next has control: before anything needs them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from llmbol_core.vm.arena import ASTRAY, MANY, NIL
from llmbol_core.vm.exceptions import Level, caller_of, innermost
from llmbol_core.vm.files.openfile import FileFault
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.interpreter import Interpreter
from llmbol_core.vm.jit.guarding import KnownLinks
from llmbol_core.vm.jit.holders import all_are_near
from llmbol_core.vm.jit.lent import Lent
from llmbol_core.vm.jit.records import NativeProcess, RecordPool, RunQueue
from llmbol_core.vm.jit.runtime import MACHINE_WORDS, Machine, State, Survey
from llmbol_core.vm.objects import LINKS

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.process import Process
    from llmbol_core.vm.scheduler import ReadyQueue
    from llmbol_core.vm.verification.guards import Guard

_IS_TEXT_MADE = Machine.IS_TEXT_MADE


class Population(Interpreter):
    """What the fast engine knows of processes."""

    def __init__(self, machine: InfernoVM, channels: Channels) -> None:
        self._words = array("q", bytes(8 * MACHINE_WORDS))
        super().__init__(machine, channels)
        self.machine_address = self._words.buffer_info()[0]
        self.records = RecordPool(self._words)
        self.modules: dict[int, LoadedModule] = {}
        """Modules by where native code has their instructions."""
        self.guarded = KnownLinks(), KnownLinks()
        """What guards have let pass: of most processes, and of those that are careful of reals."""
        self._known: dict[int, NativeProcess] = {}
        """Processes by the addresses of their records."""

    def new_process(self, pid: int, group: int, environment: Environment, extent: int) -> Process:
        """Return a process that has a stack of so many bytes and is nowhere yet."""
        process = NativeProcess(self, pid, group, environment, extent)
        self._known[process.address] = process
        return process

    def forget_process(self, process: Process) -> None:
        """Take a process's record back."""
        assert isinstance(process, NativeProcess)
        del self._known[process.address]
        process.detach()

    def handled_levels(self, process: Process) -> Iterator[Level]:
        """Yield the two innermost frames of a process, and those that may have handlers."""
        yield innermost(process)
        level, count = caller_of(self, innermost(process)), 0
        while level is not None:
            if not (count := count + 1) % MANY:
                self.heap.pause()
            yield level
            level = self._next_handled(level)

    def _next_handled(self, level: Level) -> Level | None:
        """Return the next frame after one that may have handlers, None if there is none."""
        words, caller = self._words, caller_of(self, level)
        if caller is None:
            return None
        words[Machine.TABLE], words[Machine.STACK] = caller.frame, caller.handle
        words[Machine.DEPTH] = caller.pc
        found = self._survey(Survey.HANDLED)
        if found <= 0:
            return caller if found else None
        handle = words[Machine.STACK]
        return Level(words[Machine.TABLE], self.module_of(handle), handle, words[Machine.DEPTH])

    def foreign_frame(self, frame: int, target: int) -> int:
        """Return the next frame that has left a module, up to another one."""
        self._words[Machine.TABLE], self._words[Machine.STACK] = frame, target
        found = self._survey(Survey.FOREIGN)
        return frame if found == -1 else found & NIL

    def _survey(self, what: Survey) -> int:
        """Let native code work on the whole heap; -1 if there is none."""
        return -1

    def may_wait(self) -> bool:
        """Whether it makes no difference if what dies now is freed a little later.

        It would if the host keeps a value for it, to be closed, or if a process waits at a channel.
        """
        processes = list(self.scheduler.processes.values())
        if len(processes) != 1 or self.channels.ends:
            return False
        with suppress(*ASTRAY):
            return not self.heap.hosted or all_are_near(self, processes[0])
        return False

    def observe(self) -> None:
        """Start and end no process in native code from now on."""
        self._words[Machine.OBSERVED] = 1

    @property
    def started(self) -> int:
        """How many processes have been started; the last one's number."""
        return self._words[Machine.PIDS]

    @started.setter
    def started(self, count: int) -> None:
        self._words[Machine.PIDS] = count

    def passed(self, guard: Guard, handle: int, number: int) -> None:
        """Have native code remember what a guard has let pass."""
        for known in self.guarded:
            known.remember(guard, self.heap.words[(handle + LINKS) >> 2], number)

    def _lend(self) -> None:
        """Give native code what it needs besides the arena."""
        self._lent = Lent(self._words)
        self._words[Machine.MOST_PROCESSES] = self.machine.limits.threads

    def _notice(self) -> None:
        """Take account of the processes that native code has started or ended."""
        words, processes = self._words, self.scheduler.processes
        record, words[Machine.OLDEST], words[Machine.NEWEST] = words[Machine.OLDEST], 0, 0
        while record:
            view = self.records.view(record)
            following, parent = view[State.NEWER], self._known[view[State.ANCESTOR]]
            process = NativeProcess.found(self, record, parent)
            self._known[record] = processes[process.pid] = process
            record = following
        record, words[Machine.ENDED] = words[Machine.ENDED], 0
        while record:
            process = self._known[record]
            record = process.record[State.NEXT]
            self.scheduler.remove(process)
            self.forget_process(process)
            process.environment.close()

    def ready_queue(self, processes: Mapping[int, Process]) -> ReadyQueue:
        """Return the queue, which native code shares."""
        return RunQueue(self._words, processes)

    def _host_call(self, process: Process, frame: int) -> HostCall:
        """Return a call of the host by a process, with the text to print if it is formatted."""
        words, text = self._words, None
        if words[_IS_TEXT_MADE]:
            words[_IS_TEXT_MADE] = 0
            text = self._lent.text(words[Machine.TEXT_COUNT])
        return HostCall(self.machine, process, self.heap, frame, process.module, text)

    def flush(self) -> None:
        """Write the output that waits; the next call reports what cannot be written."""
        words = self._words
        count = words[Machine.OUTPUT_COUNT]
        if not count:
            return
        words[Machine.OUTPUT_COUNT] = 0
        try:
            file = self.machine.environment.standard[words[Machine.OUTPUT_STREAM]]
            file.write(self._lent.output(count))
        except FileFault:
            words[Machine.OUTPUT_FAILED] = 1
