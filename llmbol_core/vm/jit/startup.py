"""Getting the native interpreter: from the cache, or compiled once for this kind of machine."""

from __future__ import annotations

import ctypes
import os
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.native.jobs import Job
from llmbol_core.vm.isa import Effect, Mode
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.runtime import SHARED, UPKEEP

if TYPE_CHECKING:
    from llmbol_core.native.library import Library
    from llmbol_core.vm.module import Module


class NativeInterpreter(NamedTuple):
    """The native interpreter: how it runs, how it looks through the heap, its handlers.

    ``share`` is ``run`` while other threads may have Python's lock.
    """

    run: Callable[[int | None, int, int], int]
    share: Callable[[int | None, int, int], int]
    survey: Callable[[int | None, int, int], int]
    handlers: dict[str, int]
    shared: array[int]
    library: Any


WORTH_LOADING, WORTH_COMPILING = 1 << 9, 1 << 13
"""Instructions that a program runs before the interpreter is looked for, and made if need be."""


_GOING_ELSEWHERE = (Effect.JUMP, Effect.BRANCH, Effect.CALL)


def may_run_long(module: Module) -> bool:
    """Return whether a program goes back anywhere, by a loop or a call of what comes before.

    It then gets the interpreter, if that is in the cache, before it looks at the clock.
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

    def get(self, ran: int, until: float | None) -> NativeInterpreter | None:
        """Return the interpreter, if that is worth it for a program that ran so many instructions.

        Making it takes a fifth of a second, which is waited for up to a moment of
        ``time.monotonic``: if the program went on meanwhile it would take far longer.
        """
        if self._found is None and ran >= WORTH_LOADING:
            data = None if self._is_missing else _cached()
            self._is_missing = data is None
            if data is None and ran >= WORTH_COMPILING:
                data = self._made(until)
            if data is not None:
                self._found = _load(data)
        return self._found

    def _made(self, until: float | None) -> bytes | None:
        job = self._job or Job(_compiled)
        is_over = job.wait(until)
        self._job = None if is_over else job
        return job.result() if is_over else None

    def forget_job(self) -> None:
        """Do not wait for a thread that is not there any more."""
        self._job = None


STARTUP = _Startup()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STARTUP.forget_job)


def _key() -> str:
    from llmbol_core.native.cache import key_of

    return key_of("interpreter", digest())


def _cached() -> bytes | None:
    from llmbol_core.native.cache import ObjectCache

    return ObjectCache().get(_key())


def _compiled() -> bytes:
    """Return the names of the handlers, the size of an object, each with a line end; two objects.

    What goes through much memory is compiled well, all else quickly.
    """
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.cold import handler_names, interpreter_text
    from llmbol_core.vm.jit.lowering import upkeep_text

    code = llvm.compile_text(interpreter_text(), 0)
    head = f"{' '.join(handler_names())}\n{len(code)}\n".encode()
    data = head + code + llvm.compile_text(upkeep_text(), 1)
    ObjectCache().put(_key(), data)
    return data


def _load(data: bytes) -> NativeInterpreter:
    from llmbol_core.native.image import load_object
    from llmbol_core.native.library import function

    line, size, code = data.split(b"\n", 2)
    names, upkeep = line.decode().split(), [SHARED + name for name in UPKEEP]
    library = load_object(code[: int(size)], ["run", "survey", "handlers"])
    better = load_object(code[int(size) :], ["handlers"])
    handlers = _stored(library, names) | _stored(better, upkeep)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    word = ctypes.c_int32
    signature = library.addresses["run"], number, pointer, pointer, word
    run, share = function(*signature), function(*signature, keeps_lock=False)
    survey = function(library.addresses["survey"], word, pointer, pointer, word)
    shared = array("Q", [handlers[name] for name in names if name.startswith(SHARED)])
    return NativeInterpreter(run, share, survey, handlers, shared, (library, better))


def _stored(library: Library, names: list[str]) -> dict[str, int]:
    """Return the addresses of functions that an object's function ``handlers`` stores."""
    from llmbol_core.native.library import function

    table = array("Q", bytes(8 * len(names)))
    function(library.addresses["handlers"], None, ctypes.c_void_p)(table.buffer_info()[0])
    return dict(zip(names, table, strict=True))
