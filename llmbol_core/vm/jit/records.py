"""Processes in the form that machine code uses: their records, and the queue of ready ones.

The attributes that machine code also uses are properties here, which read and write the record.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmbol_core.errors import Trap
from llmbol_core.vm.arena import ASTRAY
from llmbol_core.vm.jit.runtime import EXTENT_ROWS, RECORD_WORDS, Machine, State, Wait
from llmbol_core.vm.process import IN_ALT, RECEIVES, SENDS, Extent, Process, Stack

if TYPE_CHECKING:
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.jit.population import Population
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.objects import Heap
    from llmbol_core.vm.steps import Step

Record = memoryview
"""The words of a process."""
_NOTHING = memoryview(array("q", bytes(8 * RECORD_WORDS)))
_FEW = 16

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


class RecordPool:
    """The records of a machine's processes; native code takes from those that are free, too."""

    def __init__(self, words: array[int]) -> None:
        self._words = words
        self._slabs: list[array[int]] = []
        self._views: dict[int, Record] = {}

    def take(self) -> int:
        """Return the address of a record, all zero."""
        if not self._words[Machine.RECORDS]:
            self._grow()
        address: int = self._words[Machine.RECORDS]
        record = self._views[address]
        self._words[Machine.RECORDS] = record[State.NEXT]
        record[:] = _NOTHING
        return address

    def view(self, address: int) -> Record:
        """Return the words of a record."""
        return self._views[address]

    def give(self, address: int) -> None:
        """Return a record to the pool."""
        self._views[address][State.NEXT] = self._words[Machine.RECORDS]
        self._words[Machine.RECORDS] = address

    def _grow(self) -> None:
        """Make as many records as there are, some at first."""
        count = max(_FEW, len(self._views))
        slab = array("q", bytes(8 * RECORD_WORDS * count))
        self._slabs.append(slab)
        start, whole = slab.buffer_info()[0], memoryview(slab)
        for at in range(0, len(slab), RECORD_WORDS):
            self._views[start + 8 * at] = whole[at : at + RECORD_WORDS]
            self.give(start + 8 * at)


class _Rows:
    """The pieces of a stack: the first ones in a record, any others behind them."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self._others: list[Extent] = []

    def __len__(self) -> int:
        return self.record[State.EXTENT_COUNT]

    def __getitem__(self, index: int) -> Extent:
        number = index % len(self)
        if number >= EXTENT_ROWS:
            return self._others[number - EXTENT_ROWS]
        at = State.EXTENTS + 3 * number
        return Extent(*self.record[at : at + 3])

    def append(self, extent: Extent) -> None:
        """Add a piece at the end."""
        number = len(self)
        if number >= EXTENT_ROWS:
            self._others.append(extent)
        else:
            for at, word in enumerate(extent, State.EXTENTS + 3 * number):
                self.record[at] = word
        self.record[State.EXTENT_COUNT] = number + 1

    def pop(self) -> Extent:
        """Remove and return the last piece."""
        last = self[-1]
        if self._others:
            self._others.pop()
        self.record[State.EXTENT_COUNT] -= 1
        return last


class NativeStack(Stack):
    """A stack on which machine code makes frames."""

    top = _word(State.TOP)
    limit = _word(State.LIMIT)
    base = _word(State.BASE)

    def __init__(self, heap: Heap, extent: int, record: Record) -> None:
        self.record = record
        self._rows = _Rows(record)
        super().__init__(heap, extent, self._rows)

    @classmethod
    def found(cls, heap: Heap, record: Record) -> NativeStack:
        """Return the stack that a record describes already."""
        stack = cls.__new__(cls)
        stack.record, stack._heap = record, heap
        stack._extents = stack._rows = _Rows(record)
        return stack

    def detach(self, record: Record) -> None:
        """Go on with a copy of the record."""
        self.record = self._rows.record = record


class NativeProcess(Process):
    """A process that machine code runs."""

    pc = _word(State.PC)
    fp = _word(State.FP)
    mp = _word(State.MP)
    handle = _word(State.HANDLE)
    offer = _word(State.OFFER)

    is_kept = _word(State.IS_KEPT)
    floating = _word(State.FLOATING)

    def __init__(
        self, engine: Population, pid: int, group: int, environment: Environment, extent: int
    ) -> None:
        self._prepare(engine, engine.records.take())
        self.record[State.PID] = pid
        self.record[State.MACHINE] = engine.machine_address
        try:
            stack = NativeStack(engine.heap, extent, self.record)
        except BaseException:
            engine.records.give(self.address)
            raise
        super().__init__(pid, group, environment, stack)
        self.notice()

    def _prepare(self, engine: Population, address: int) -> None:
        self._engine = engine
        self.address, self.record = address, engine.records.view(address)
        self._fault: Trap | None = None
        self._waits_for = self._last_exception = ""
        self._module: LoadedModule

    @classmethod
    def found(cls, engine: Population, address: int, parent: Process) -> NativeProcess:
        """Return a process that native code has started, a descendant of another one."""
        process = cls.__new__(cls)
        process._prepare(engine, address)
        record = process.record
        words, stack = record.tobytes(), NativeStack.found(engine.heap, record)
        record[State.RAISED] = 0
        environment = parent.environment.inherit()
        Process.__init__(process, record[State.PID], parent.group, environment, stack)
        record[:] = memoryview(words).cast("q")
        record[State.ANCESTOR] = record[State.NEWER] = record[State.OLDER] = 0
        process.sharing = parent.sharing
        return process

    def detach(self) -> None:
        """Give the record up, the process having ended."""
        self.take_raised()
        self._module = self.module
        self._engine.records.give(self.address)
        self.record = memoryview(array("q", self.record))
        self.record[State.CODE] = self.address = 0
        assert isinstance(self.stack, NativeStack)
        self.stack.detach(self.record)

    def take_raised(self) -> None:
        """Take note of the last exception that native code has handled."""
        ref = self.record[State.RAISED]
        if not ref:
            return
        self.record[State.RAISED] = 0
        heap, pc = self._engine.heap, self.record[State.RAISED_PC]
        with suppress(*ASTRAY):
            name = heap.string(ref)
            heap.release(ref)
            self._environment.error = name
            loaded = self._engine.modules.get(self.record[State.RAISED_CODE])
            if loaded is not None:
                self.note_exception(pc, loaded, name)

    @property
    def environment(self) -> Environment:
        """Its names, descriptors and error string."""
        self.take_raised()
        return self._environment

    @environment.setter
    def environment(self, environment: Environment) -> None:
        self._environment = environment

    @property
    def last_exception(self) -> str:
        """Where the last exception was raised, and what it was."""
        self.take_raised()
        return self._last_exception

    @last_exception.setter
    def last_exception(self, what: str) -> None:
        self.take_raised()
        self._last_exception = what

    def notice(self) -> None:
        """Take note of the descriptors that the process now has."""
        self.record[State.FILES] = self.environment.descriptors.known

    @property
    def fault(self) -> Trap | None:
        """An exception to raise when it next runs; machine code knows whether there is one."""
        return self._fault

    @fault.setter
    def fault(self, error: Trap | None) -> None:
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
