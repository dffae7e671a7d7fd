"""A process: a chain of frames in the arena, a program counter, and what it waits for.

A frame lies on its process's stack; the first words are its link to the caller::

    0 return pc    4 frame of the caller, 0 in the bottom frame    8 handle of the caller's module
    if the call went to another one, else 0    12 type    16 address for the result
    32 arguments, then locals

Nothing of a process lives anywhere else between instructions, so that it can be stopped and resumed
at each of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.errortext import cut
from llmbol_core.vm.ieee import AT_START
from llmbol_core.vm.objects import STACK, Heap

if TYPE_CHECKING:
    from llmbol_core.vm.environment import Environment
    from llmbol_core.vm.loader import LoadedModule
    from llmbol_core.vm.steps import Step

RETURN_PC, CALLER, MODULE, TYPE = 0, 4, 8, 12
"""Offsets of a frame's links."""
LEAST_FRAME = 32
SENDS, RECEIVES, IN_ALT = "sends", "receives", "waits in alt"
"""What a process that waits at channels is doing, in words."""

_LEAST_EXTENT = 1024
_MOST_TOLD = 200
"""Characters that are kept of the name of an exception."""
_FIRST_EXTENTS = 1 << 13, 1 << 16
"""The least and the most bytes asked for as the stack of a process that Python starts."""
_PART_OF_MEMORY = 1 << 10
MOST_EXTENT = 1 << 24


class Raised(Exception):
    """A Dis exception in flight: its name, and the object raised, or nil; it owns the reference."""

    def __init__(self, name: str, value: int = NIL) -> None:
        super().__init__(name)
        self.name, self.value = name, value


class Extent(NamedTuple):
    """A piece of a stack, and the top of the piece before it."""

    base: int
    limit: int
    previous_top: int


class Extents(Protocol):
    """The pieces of a stack, the last one at -1: the part of ``list`` that is used."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...

    def append(self, extent: Extent, /) -> None:
        """Add a piece at the end."""

    def pop(self) -> Extent:
        """Remove and return the last piece."""


class Stack:
    """The frames of one process, one after the other.

    When a piece is full another one is added, twice as large, so that no frame ever moves.
    """

    def __init__(self, heap: Heap, extent: int, extents: Extents | None = None) -> None:
        self._heap = heap
        self._extents: Extents = [] if extents is None else extents
        self.top = self.limit = self.base = 0
        self._begin(first_extent(extent))

    @property
    def pieces(self) -> int:
        """How many pieces there are."""
        return len(self._extents)

    def push(self, number: int) -> int:
        """Make a frame of a type and return its address; its pointers are nil."""
        heap = self._heap
        size, pointers = heap.types[number]
        frame = self.top
        top = frame + frame_size(size)
        if top > self.limit:
            self._extend(frame_size(size))
            frame = self.top
            top = frame + frame_size(size)
        self.top = top
        at = frame >> 2
        words = heap.pointers
        words[at] = words[at + 1] = words[at + 2] = 0
        words[at + 3] = number
        words[at + 4] = NIL
        for offset in pointers:
            words[(frame + offset) >> 2] = NIL
        return frame

    def pop(self, frame: int) -> None:
        """Drop the topmost frame, whose pointers have been released."""
        self.top = frame
        if frame == self.base and len(self._extents) > 1:
            self._shrink()

    def pop_releasing(self, frame: int) -> None:
        """Drop the topmost frame and release its pointers."""
        heap = self._heap
        for offset in heap.types[heap.words[(frame + TYPE) >> 2]].pointers:
            heap.release(heap.pointers[(frame + offset) >> 2])
        self.pop(frame)

    def pop_above(self, frame: int) -> None:
        """Drop all frames above one, called or not, and release their pointers."""
        while True:
            extent = self._extents[-1]
            holds = extent.base <= frame < extent.limit
            start = self._end(frame) if holds else extent.base
            self._release(start, self.top, are_left=True)
            self.top = start
            if holds or len(self._extents) == 1:
                return
            self._shrink()

    def drop(self) -> None:
        """Drop all frames, and release their pointers and the handles of their callers."""
        while True:
            self._release(self.base, self.top, are_left=False)
            self.top = self.base
            if len(self._extents) == 1:
                return
            self._shrink()

    def _release(self, start: int, end: int, are_left: bool) -> None:
        """Release what the frames between two addresses refer to.

        That includes the handles of the callers, unless the frames were returned from one by one.
        """
        heap = self._heap
        if heap.release_frames(start, end, are_left):
            return
        while start < end:
            behind = self._end(start)
            handle = heap.pointer(start + MODULE)
            if handle and not are_left:
                heap.set_pointer(start + MODULE, 0)
                heap.release(handle)
            for offset in heap.types[heap.word(start + TYPE)].pointers:
                heap.give(start + offset, NIL)
            start = behind

    def words(self) -> Iterator[memoryview]:
        """Yield the words of the frames, piece by piece."""
        top = self.top
        for number in range(len(self._extents) - 1, -1, -1):
            base, _, previous = self._extents[number]
            yield self._heap.pointers[base >> 2 : top >> 2]
            top = previous

    def free(self) -> None:
        """Free the memory of the stack, whose frames have been dropped."""
        while self._extents:
            self._heap.free(self._extents.pop().base)

    def _end(self, frame: int) -> int:
        return frame + frame_size(self._heap.types[self._heap.word(frame + TYPE)].size)

    def _extend(self, size: int) -> None:
        self._begin(max(min(2 * (self.limit - self.base), MOST_EXTENT), size))

    def _begin(self, room: int) -> None:
        """Begin a new piece of so many bytes."""
        try:
            base = self._heap.new_object(STACK, room)
        except Trap:
            raise Trap(traps.MAIN_FULL) from None
        self._extents.append(Extent(base, base + room, self.top))
        self.base = self.top = base
        self.limit = base + room

    def _shrink(self) -> None:
        """Go back to the piece before the last one."""
        gone = self._extents.pop()
        self._heap.free(gone.base)
        last = self._extents[-1]
        self.base, self.limit, self.top = last.base, last.limit, gone.previous_top


def roomy_extent(extent: int, memory: int) -> int:
    """Return the bytes to ask for as the stack of a process that Python starts.

    ``memory`` is the program's limit. Where recursion goes beyond a piece of the stack, machine
    code is left.
    """
    least, most = _FIRST_EXTENTS
    return max(extent, least, min(memory // _PART_OF_MEMORY, most))


def first_extent(extent: int) -> int:
    """Return the bytes of the first piece of a stack, given what the module asks for."""
    return 2 * max(extent, _LEAST_EXTENT)


def frame_size(size: int) -> int:
    """Return the bytes that a frame of a type with this size takes on a stack."""
    return (max(size, LEAST_FRAME) + 7) & ~7


class Process:
    """One process of a program. ``pc`` and ``fp`` are up to date whenever another one runs."""

    address = 0
    """Where machine code finds what it needs of the process, if it runs processes."""

    def __init__(self, pid: int, group: int, environment: Environment, stack: Stack) -> None:
        self.pid, self.group, self.environment, self.stack = pid, group, environment, stack
        self.fp = 0
        self.pc = 0
        self.handle = NIL
        """The handle of the module whose code runs; the process owns a reference."""
        self.mp = NIL
        self.module: LoadedModule
        self.steps: list[Step] = []
        self.offer = 0
        """The first of its offers while it waits at channels: see ``channels.py``."""
        self.waits_for = ""
        """What it waits for, in words; empty while it is ready or runs."""
        self.called = ""
        """The built-in module in which it waited last."""
        self.fault: Trap | None = None
        """An exception to raise when it next runs, at its pc."""
        self.is_killed = False
        self.floating = AT_START
        """How it computes with reals, and which exceptions that has had: see ``ieee.py``."""
        self.is_kept = False
        """Whether Python, and not a process, has started it and waits for its end."""
        self.sharing = ""
        """What its group is told of an exception that ends a member: see ``groups.py``."""
        self.last_exception = ""
        """Where the last exception was raised, and what it was."""

    def note_exception(self, pc: int, module: LoadedModule, name: str, built_in: str = "") -> None:
        """Note the last exception, with as much of its name as is shown anywhere.

        ``built_in`` names the built-in module that was called and raised it, if one did.
        """
        caller = module.module.name
        where = f"{pc + 1} {caller}[{built_in}]" if built_in else f"{pc} {caller}"
        self.last_exception = cut(f"{where} {name[:_MOST_TOLD]}")

    def fail(self, error: Trap) -> None:
        """Raise an exception in the process as soon as it runs again.

        It is raised in the instruction that waits or, if none does, before the next instruction.
        """
        if self.waits_for:
            self.pc -= 1
        self.fault = error

    def notice(self) -> None:
        """Take note of what the host may have changed in the process's environment."""

    @property
    def place(self) -> str:
        """Where the process is, for people."""
        pc = self.pc - 1 if self.waits_for else self.pc
        return f"process {self.pid} in {self.module.module.name} at pc {pc}"
