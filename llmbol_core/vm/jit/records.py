"""Processes as machine code finds them: their records, and the queue of those that are ready.

The attributes that machine code also uses are properties here, which read and write the record.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbol_core.errors import Trap
from llmbol_core.vm.jit.runtime import Machine, State, Wait
from llmbol_core.vm.process import IN_ALT, RECEIVES, SENDS, Process, Raised, Stack

if TYPE_CHECKING:
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.jit.engine import JitEngine
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.objects import Heap
    from llmbol_core.vm.steps import Step

_WAITS: dict[int, str] = {
    Wait.NOTHING: "",
    Wait.SEND: SENDS,
    Wait.RECEIVE: RECEIVES,
    Wait.ALT: IN_ALT,
}


def _word(at: State) -> Any:
    """Return a property that is a word of the record."""

    def get(self: NativeProcess | NativeStack) -> int:
        return self.record[at]

    def put(self: NativeProcess | NativeStack, value: int) -> None:
        self.record[at] = value

    return property(get, put)


class NativeStack(Stack):
    """A stack on which machine code makes frames."""

    top = _word(State.TOP)
    limit = _word(State.LIMIT)
    base = _word(State.BASE)

    def __init__(self, heap: Heap, extent: int, record: array[int]) -> None:
        self.record = record
        super().__init__(heap, extent)


class NativeProcess(Process):
    """A process that machine code runs."""

    pc = _word(State.PC)
    fp = _word(State.FP)
    mp = _word(State.MP)
    handle = _word(State.HANDLE)
    offer = _word(State.OFFER)

    def __init__(
        self, engine: JitEngine, pid: int, group: int, environment: Environment, extent: int
    ) -> None:
        self._engine = engine
        self.record = array("q", bytes(8 * len(State)))
        self.address = self.record.buffer_info()[0]
        self._fault: Raised | Trap | None = None
        self._waits_for = ""
        self._module: LoadedModule
        self.record[State.PID] = pid
        self.record[State.MACHINE] = engine.machine_address
        stack = NativeStack(engine.heap, extent, self.record)
        super().__init__(pid, group, environment, stack)
        self.notice()

    def notice(self) -> None:
        """Take note of the descriptors that the process now has."""
        self.record[State.OUTPUTS] = self.environment.descriptors.outputs

    @property
    def fault(self) -> Raised | Trap | None:
        """An exception to raise when it next runs; machine code knows whether there is one."""
        return self._fault

    @fault.setter
    def fault(self, error: Raised | Trap | None) -> None:
        self._fault = error
        self.record[State.FAULT] = error is not None

    @property
    def waits_for(self) -> str:
        """What it waits for, in words; empty while it is ready or runs."""
        return _WAITS.get(self.record[State.WAITS], self._waits_for)

    @waits_for.setter
    def waits_for(self, what: str) -> None:
        self._waits_for = what
        self.record[State.WAITS] = Wait.OTHER if what else Wait.NOTHING

    @property
    def module(self) -> LoadedModule:
        """The module whose code runs; native code says it by where the instructions are."""
        code = self.record[State.CODE]
        return self._engine.modules[code] if code else self._module

    @module.setter
    def module(self, module: LoadedModule) -> None:
        self._module = module

    @property
    def steps(self) -> list[Step]:
        """The steps of its instructions."""
        return self.module.steps

    @steps.setter
    def steps(self, steps: list[Step]) -> None: ...


class RunQueue:
    """The processes that are ready, linked through their records."""

    def __init__(self, machine: array[int], processes: Mapping[int, Process]) -> None:
        self._machine, self._processes = machine, processes

    def __len__(self) -> int:
        count, at = 0, self._machine[Machine.FIRST]
        while at:
            count, at = count + 1, _at(at, State.NEXT).value
        return count

    def __bool__(self) -> bool:
        return self._machine[Machine.FIRST] != 0

    def __contains__(self, process: object) -> bool:
        return isinstance(process, NativeProcess) and process.record[State.IS_READY] != 0

    def append(self, process: Process) -> None:
        """Put a process behind the others."""
        self._insert(process, self._machine[Machine.LAST], 0)

    def appendleft(self, process: Process) -> None:
        """Put a process before the others."""
        self._insert(process, 0, self._machine[Machine.FIRST])

    def popleft(self) -> Process:
        """Take out the first process; there must be one."""
        first = self._processes[_at(self._machine[Machine.FIRST], State.PID).value]
        self.remove(first)
        return first

    def remove(self, process: Process) -> None:
        """Take out a process that is in the queue."""
        assert isinstance(process, NativeProcess)
        record = process.record
        self._link(record[State.PREVIOUS], record[State.NEXT])
        record[State.IS_READY] = 0

    def clear(self) -> None:
        """Forget all processes, which have ended."""
        self._machine[Machine.FIRST] = self._machine[Machine.LAST] = 0

    def _insert(self, process: Process, before: int, behind: int) -> None:
        assert isinstance(process, NativeProcess)
        record = process.record
        assert not record[State.IS_READY]
        record[State.IS_READY] = 1
        self._link(before, process.address)
        self._link(process.address, behind)

    def _link(self, before: int, behind: int) -> None:
        """Let two neighbours know of each other; 0 is the end of the queue."""
        if before:
            _at(before, State.NEXT).value = behind
        else:
            self._machine[Machine.FIRST] = behind
        if behind:
            _at(behind, State.PREVIOUS).value = before
        else:
            self._machine[Machine.LAST] = before


def _at(record: int, word: State) -> Any:
    return ctypes.c_int64.from_address(record + 8 * word)
