"""Getting the native interpreter: from the cache, or compiled once for this kind of machine."""

from __future__ import annotations

import ctypes
import functools
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.native.jobs import Job, wait_at_end
from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.jit.components import ALL, CORE, WELL, needed
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.runtime import BURY, SHARED

if TYPE_CHECKING:
    from llmbol_core.native.library import Library
    from llmbol_core.vm.module import Module


class NativeInterpreter(NamedTuple):
    """The native interpreter: its functions to run and to look through the heap, its handlers.

    ``share`` is ``run`` while other threads may have Python's lock. ``shared`` is the table of
    shared functions, ``places`` tells where they are in it, by their names among the handlers.
    """

    run: Callable[[int | None, int, int], int]
    share: Callable[[int | None, int, int], int]
    survey: Callable[[int | None, int, int], int]
    handlers: dict[str, int]
    shared: array[int]
    places: dict[str, int]
    libraries: list[Any]

    def add(self, data: bytes) -> None:
        """Use the handlers and functions of a component from now on."""
        found, library = _loaded(data)
        self.libraries.append(library)
        self.handlers.update(found)
        for name in self.places.keys() & found.keys():
            self.shared[self.places[name]] = found[name]


WORTH_LOADING, WORTH_COMPILING = 1 << 9, 1 << 13
"""Instructions that a program runs before the interpreter is looked for, and before it is made."""
_OFTEN = 1000
"""How often Python stands in for a component before that is compiled."""
_WORTH_IMPROVING, _AFTER_COMPILING = 0.25, 1.0
"""Seconds that a program runs before a component is compiled well; after it has compiled another.

A program that finds no component in the cache has enough to wait for.
"""
_PATIENCE = 0.004
"""Seconds between two pauses while waiting for that."""
_HEAP = (BURY, "list_free", "collect")
"""The components that go through the heap."""

_GOING_ELSEWHERE = (Effect.JUMP, Effect.BRANCH, Effect.CALL)


def may_run_long(module: Module) -> bool:
    """Return whether a program jumps back anywhere: in a loop, or by a call of an earlier function.

    It then gets the interpreter, if that is in the cache, before the clock is looked at.
    """
    return any(
        instruction.destination.mode is Mode.IMMEDIATE and instruction.destination.value <= pc
        for pc, instruction in enumerate(module.instructions)
        if instruction.op.effect in _GOING_ELSEWHERE
    )


class _Startup:
    """Gets the interpreter once for the whole of Python's process, and its components."""

    def __init__(self) -> None:
        self._found: NativeInterpreter | None = None
        self._is_missing = False
        self._levels: dict[str, int] = {}
        """How well the components are compiled that are loaded."""
        self._wanted = Counter[str]()
        self._job: tuple[str, int, Job[bytes]] | None = None
        self._improves_at = 0.0
        self.version = 0
        """How many components have been loaded."""

    def get(
        self, ran: int, until: float | None, is_whole: bool = False
    ) -> NativeInterpreter | None:
        """Return the interpreter, if it pays for a program that ran so many instructions.

        If it is to be whole, its components are there, too.

        Making it takes a quarter of a second, which is waited for up to a moment of
        ``time.monotonic``: if the program went on meanwhile it would take far longer.
        """
        if self._found is None and ran >= WORTH_LOADING:
            self._is_missing = self._is_missing or not self._find(CORE)
            if self._is_missing and ran >= WORTH_COMPILING:
                self._make(CORE, 0, until)
        if self._found is not None and is_whole:
            for component in ALL:
                self.provide(component, until)
        return self._found

    def provide(self, component: str, until: float | None = None) -> None:
        """Get a component, which is waited for up to a moment of ``time.monotonic``."""
        if component not in self._levels and not self._find(component):
            self._make(component, 0, until)

    def want(self, name: str, until: float | None) -> None:
        """Note that Python runs an instruction or function for which there may be a component.

        Get that if it is in the cache, or has been wanted often: it is waited for up to a moment.
        """
        for component in needed(name):
            if component not in self._levels:
                self._wanted[component] += 1
                if self._wanted[component] == 1:
                    self._find(component)
                elif self._wanted[component] > _OFTEN:
                    self._make(component, 0, until)

    def improve(self) -> None:
        """Compile well, one by one, what is worth it once the program has run for long enough."""
        if self._job is not None and self._job[2].wait(0.0):
            self._take()
        rough = next((c for c, level in self._levels.items() if c in WELL and not level), "")
        if rough and self._job is None and time.monotonic() >= self._improves_at:
            self._begin(rough, 1)

    def hasten(self, pause: Callable[[], None]) -> None:
        """Wait until what goes through the heap is compiled well, calling ``pause`` meanwhile."""
        for component in _HEAP:
            if component not in self._levels:
                self._find(component)
            while self._levels.get(component, 0) < 1:
                self._make(component, 1, time.monotonic() + _PATIENCE)
                pause()

    def _find(self, component: str) -> bool:
        """Load a component from the cache; return whether it was there."""
        from llmbol_core.native.cache import ObjectCache

        for level in (1, 0) if component in WELL else (0,):
            data = ObjectCache().get(_key(component, level))
            if data is not None:
                self._load(component, level, data, _WORTH_IMPROVING)
                return True
        return False

    def _make(self, component: str, level: int, until: float | None) -> None:
        """Compile a component, load it, and wait for that up to a moment."""
        while self._levels.get(component, -1) < level:
            if not (self._job or self._begin(component, level))[2].wait(until):
                return
            self._take()

    def _begin(self, component: str, level: int) -> tuple[str, int, Job[bytes]]:
        job = Job(functools.partial(_compiled, component, level))
        wait_at_end(self, self._finish)
        self._job = component, level, job
        return self._job

    def _finish(self, seconds: float | None) -> None:
        """Wait at the program's end for what is being compiled, so that other programs find it.

        Given up half-way it would begin anew in every program.
        """
        if self._job is not None and seconds != 0.0:
            self._job[2].wait()

    def _take(self) -> None:
        """Load what has been compiled, unless another thread has just done so."""
        job, self._job = self._job, None
        if job is not None:
            self._load(job[0], job[1], job[2].result(), _AFTER_COMPILING)

    def _load(self, component: str, level: int, data: bytes, rest: float) -> None:
        """Use a component from now on; let none be compiled well for so many seconds."""
        if component == CORE:
            self._found = _interpreter(data)
            self._levels[BURY] = 0
            self._find(BURY)
        elif self._found is not None:
            self._found.add(data)
        self._levels[component] = level
        self.version += 1
        self._improves_at = max(self._improves_at, time.monotonic() + rest)

    def forget_job(self) -> None:
        """Forget a thread that does not exist any more."""
        self._job = None


STARTUP = _Startup()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STARTUP.forget_job)


def _key(component: str, level: int) -> str:
    from llmbol_core.native.cache import key_of

    return key_of("component", component, str(level), digest())


def _compiled(component: str, level: int) -> bytes:
    """Return a component: the names of its handlers and functions in a line, and its object file.

    It is kept in the cache.
    """
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.cold import names_in, text_of

    head = f"{' '.join(names_in(component))}\n".encode()
    data = head + llvm.compile_text(text_of(component), level)
    ObjectCache().put(_key(component, level), data)
    return data


def _interpreter(data: bytes) -> NativeInterpreter:
    from llmbol_core.native.library import function

    handlers, library = _loaded(data, "run", "survey")
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    word = ctypes.c_int32
    signature = library.addresses["run"], number, pointer, pointer, word
    run, share = function(*signature), function(*signature, keeps_lock=False)
    survey = function(library.addresses["survey"], word, pointer, pointer, word)
    names = [name for name in handlers if name.startswith(SHARED)]
    places = {name: place for place, name in enumerate(names)}
    shared = array("Q", [handlers[name] for name in names])
    return NativeInterpreter(run, share, survey, handlers, shared, places, [library])


def _loaded(data: bytes, *others: str) -> tuple[dict[str, int], Library]:
    """Return the addresses of what a component names, and its code with some more functions."""
    from llmbol_core.native.image import load_object
    from llmbol_core.native.library import function

    line, code = data.split(b"\n", 1)
    names = line.decode().split()
    library = load_object(code, [*others, "handlers"])
    table = array("Q", bytes(8 * len(names)))
    function(library.addresses["handlers"], None, ctypes.c_void_p)(table.buffer_info()[0])
    return dict(zip(names, table, strict=True)), library
