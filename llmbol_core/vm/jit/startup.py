"""Getting the native interpreter: from the cache, or compiled once for this kind of machine."""

from __future__ import annotations

import ctypes
import os
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.native.jobs import Job, wait_at_end
from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.runtime import SHARED, UPKEEP

if TYPE_CHECKING:
    from llmbol_core.native.library import Library
    from llmbol_core.vm.module import Module


class NativeInterpreter(NamedTuple):
    """The native interpreter: its functions to run and to look through the heap, its handlers.

    ``share`` is ``run`` while other threads may have Python's lock.
    """

    run: Callable[[int | None, int, int], int]
    share: Callable[[int | None, int, int], int]
    survey: Callable[[int | None, int, int], int]
    handlers: dict[str, int]
    shared: array[int]
    libraries: list[Any]

    def load_upkeep(self, data: bytes) -> None:
        """Use an object file's functions for ``UPKEEP`` from now on."""
        from llmbol_core.native.image import load_object

        library = load_object(data, ["handlers"])
        self.libraries.append(library)
        better = _stored(library, [SHARED + name for name in UPKEEP])
        self.handlers.update(better)
        for place, name in enumerate(better, len(self.shared) - len(better)):
            self.shared[place] = better[name]


_INTERPRETER, _UPKEEP = "interpreter", "upkeep"
WORTH_LOADING, WORTH_COMPILING = 1 << 9, 1 << 13
"""Instructions that a program runs before the interpreter is looked for, and before it is made."""
_WORTH_IMPROVING = 1.0
"""Seconds that a program runs before the functions of ``UPKEEP`` are compiled well."""
_PATIENCE = 0.004
"""Seconds between two pauses while waiting for that."""

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
    """Gets the interpreter once for the whole of Python's process."""

    def __init__(self) -> None:
        self._found: NativeInterpreter | None = None
        self._is_missing = False
        self._job: Job[bytes] | None = None
        self._improves_at = 0.0
        self._is_rough = False
        """Whether the functions of ``UPKEEP`` are not compiled well yet."""

    def get(self, ran: int, until: float | None) -> NativeInterpreter | None:
        """Return the interpreter, if it pays for a program that ran so many instructions.

        Making it takes a quarter of a second, which is waited for up to a moment of
        ``time.monotonic``: if the program went on meanwhile it would take far longer.
        """
        if self._found is None and ran >= WORTH_LOADING:
            data = None if self._is_missing else _cached(_INTERPRETER)
            self._is_missing = data is None
            if data is None and ran >= WORTH_COMPILING:
                data = self._made(until)
            if data is not None:
                self._found = _load(data)
                self._load_upkeep(_cached(_UPKEEP))
        return self._found

    def _made(self, until: float | None) -> bytes | None:
        job = self._job = self._job or Job(_compiled)
        if not job.wait(until):
            return None
        self._job = None
        return job.result()

    def improve(self) -> None:
        """Compile those functions well once the program has run for long enough."""
        if self._is_rough and (now := time.monotonic()) >= self._improves_at:
            self._improve(now)

    def hasten(self, pause: Callable[[], None]) -> None:
        """Wait until they are compiled well, calling ``pause`` now and then."""
        while self._is_rough:
            self._improve(time.monotonic() + _PATIENCE)
            pause()

    def _improve(self, until: float | None) -> None:
        """Wait up to a moment until they are compiled well, and begin if need be."""
        job = self._job = self._job or Job(_compiled_upkeep)
        if job.wait(until) and self._is_rough:
            self._job = None
            self._load_upkeep(job.result())

    def _finish(self, seconds: float | None) -> None:
        """Compile them well at the end if that was not done, so that other processes find it.

        That takes a second once, however little of it is left: given up half-way it would begin
        anew at the end of every program.
        """
        if self._is_rough and seconds != 0.0:
            self._improve(None)

    def _load_upkeep(self, data: bytes | None) -> None:
        self._is_rough = data is None
        if data is not None and self._found is not None:
            self._found.load_upkeep(data)
        elif data is None:
            self._improves_at = time.monotonic() + _WORTH_IMPROVING
            wait_at_end(self, self._finish)

    def forget_job(self) -> None:
        """Forget a thread that does not exist any more."""
        self._job = None


STARTUP = _Startup()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STARTUP.forget_job)


def _key(what: str) -> str:
    from llmbol_core.native.cache import key_of

    return key_of(what, digest())


def _cached(what: str) -> bytes | None:
    from llmbol_core.native.cache import ObjectCache

    return ObjectCache().get(_key(what))


def _compiled() -> bytes:
    """Return the handlers' names and the size of an object file, a line each; two object files.

    All is compiled quickly; the second is what ``_compiled_upkeep`` compiles well.
    """
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.cold import handler_names, interpreter_text
    from llmbol_core.vm.jit.lowering.lowerer import upkeep_text

    code = llvm.compile_text(interpreter_text(), 0)
    head = f"{' '.join(handler_names())}\n{len(code)}\n".encode()
    data = head + code + llvm.compile_text(upkeep_text(), 0)
    ObjectCache().put(_key(_INTERPRETER), data)
    return data


def _compiled_upkeep() -> bytes:
    """Return an object file of the functions of ``UPKEEP``, compiled well."""
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.lowering.lowerer import upkeep_text

    data = llvm.compile_text(upkeep_text(), 1)
    ObjectCache().put(_key(_UPKEEP), data)
    return data


def _load(data: bytes) -> NativeInterpreter:
    from llmbol_core.native.image import load_object
    from llmbol_core.native.library import function

    line, size, code = data.split(b"\n", 2)
    names = line.decode().split()
    library = load_object(code[: int(size)], ["run", "survey", "handlers"])
    handlers = _stored(library, names)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    word = ctypes.c_int32
    signature = library.addresses["run"], number, pointer, pointer, word
    run, share = function(*signature), function(*signature, keeps_lock=False)
    survey = function(library.addresses["survey"], word, pointer, pointer, word)
    shared = array("Q", [handlers[name] for name in names if name.startswith(SHARED)])
    made = NativeInterpreter(run, share, survey, handlers, shared, [library])
    made.load_upkeep(code[int(size) :])
    return made


def _stored(library: Library, names: list[str]) -> dict[str, int]:
    """Return the addresses of functions that an object file's function ``handlers`` stores."""
    from llmbol_core.native.library import function

    table = array("Q", bytes(8 * len(names)))
    function(library.addresses["handlers"], None, ctypes.c_void_p)(table.buffer_info()[0])
    return dict(zip(names, table, strict=True))
