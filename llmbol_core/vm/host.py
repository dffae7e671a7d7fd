"""What a built-in module is made of: functions of the host that a Dis program can call.

A function finds its arguments in the frame that the caller filled, from ``frame + ARGUMENTS`` on,
and the address for its result at ``frame + RESULT``. It works at once and returns None, or returns
what the process is to wait for while others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from llmbol_core.errors import Trap
from llmbol_core.native.jobs import Job
from llmbol_core.vm import traps
from llmbol_core.vm.module import TypeDescriptor

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.machine import InfernoVM
    from llmbol_core.vm.objects import Heap
    from llmbol_core.vm.process import Process

_T = TypeVar("_T")
_A_WHILE = 0.01
"""Seconds between two checks whether a program's time is up."""

ARGUMENTS = 32
"""Offset in a frame of the first argument."""
RESULT = 16
"""Offset in a frame of the address for the result."""

STARTED = time.monotonic_ns()
"""The moment from which programs count time, in nanoseconds."""


class Sleep(NamedTuple):
    """The process waits for so many seconds; others run meanwhile."""

    seconds: float


class Turn(NamedTuple):
    """The function is done and returns this value, but other ready processes run first."""

    value: Any


class Work(NamedTuple):
    """The process waits for work that takes time; others run meanwhile.

    ``run`` is called in another thread and must not touch the machine. What it returns is passed
    to ``finish``, which may write the result and raise Trap as the function itself may, or return
    the next thing to wait for.
    """

    run: Callable[[], Any]
    finish: Callable[[Any], Any]


class Until(NamedTuple):
    """The process waits for something that other processes do, until ``ready`` returns true.

    After that ``then`` is called, which may return the next thing to wait for.
    """

    ready: Callable[[], bool]
    then: Callable[[], Any]


class Exchange(NamedTuple):
    """The process sends the value at an address over a channel, or receives one there.

    After that ``then`` is called, which may return the next thing to wait for. If the process is
    ended or interrupted before, or the channel goes away, ``let_go`` is called instead.
    """

    channel: int
    sends: bool
    address: int
    then: Callable[[], Any]
    let_go: Callable[[], None]


class Session(ExitStack):
    """What built-in modules hold while processes run, and let go of when they have stopped.

    ``holders`` are the modules that have entered something.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holders: set[str] = set()


Wish = Sleep | Turn | Work | Until | Exchange
HostResult = Wish | None


@dataclass(slots=True)
class HostCall:
    """One call of a host function: who calls, and the address of the filled frame."""

    machine: InfernoVM
    process: Process
    heap: Heap
    frame: int
    caller: LoadedModule | None
    text: str | None = None
    """The text to print, if the engine has formatted it."""

    def pause(self) -> None:
        """Raise LimitError if the program's time is up; long work calls it every few ms."""
        self.heap.pause()

    def apart(self, function: Callable[[], _T]) -> _T:
        """Return the result of a function that takes long without letting other threads run Python.

        It runs in another thread and must not touch the machine. Raises LimitError.
        """
        job = Job(function)
        try:
            while not job.wait(time.monotonic() + _A_WHILE):
                self.pause()
        except BaseException:
            job.cancel()
            raise
        return job.result()


class HostFunction(NamedTuple):
    """One function: its link signature, its frame, what it does and returns.

    The frame's size is 0 if it takes a variable number of arguments. ``run`` raises Trap to raise
    a Dis exception in the caller. ``native`` is the name by which machine code knows the function,
    if it has code that may do the same in its place. ``module`` is the name of its module.
    """

    name: str
    signature: int
    frame: TypeDescriptor
    run: Callable[[HostCall], HostResult]
    native: str = ""
    result: TypeDescriptor = TypeDescriptor(-1, 0)
    module: str = ""

    def failed(self, error: Exception) -> Trap:
        """Return what a call raises, given what ended it: a trap inside of the module."""
        return trap_of(error, self.module)


def trap_of(error: Exception, module: str) -> Trap:
    """Return a trap as raised in a module; any other error comes of a damaged heap."""
    trap = error if isinstance(error, Trap) else Trap(traps.NIL_DEREFERENCE)
    trap.module = module
    return trap


class Functions(Sequence[HostFunction]):
    """The functions of a module in the order of their names, each made when it is first wanted."""

    def __init__(self, names: Sequence[str], make: Callable[[str], HostFunction]) -> None:
        self.names = names
        self._make = make
        self._made: dict[str, HostFunction] = {}

    def find(self, name: str) -> HostFunction | None:
        """Return the function of a name, None if there is none."""
        if name not in self._made:
            if name not in self.names:
                return None
            self._made[name] = self._make(name)
        return self._made[name]

    def __getitem__(self, index: Any) -> Any:
        """Return the function at an index."""
        return self.find(self.names[index])

    def __len__(self) -> int:
        return len(self.names)


class HostModule(NamedTuple):
    """A built-in module, such as ``$Sys``; its functions are in the order of their names."""

    name: str
    functions: Functions
