"""Getting the native interpreter: from the cache, or compiled while Python runs the program."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple


class NativeInterpreter(NamedTuple):
    """The native interpreter: how it is run, and its handlers by the names of ``handler_names``."""

    run: Callable[[int | None, int, int], int]
    handlers: dict[str, int]
    library: Any


class _Startup:
    """Makes the interpreter once for the whole program."""

    def __init__(self) -> None:
        self._found: NativeInterpreter | None = None
        self._data: bytes | None = None
        self._thread: threading.Thread | None = None

    def get(self, waits: bool) -> NativeInterpreter | None:
        """Return the interpreter; None if it is not there yet and the caller does not wait."""
        if self._found is None:
            data = self._object(waits)
            if data is not None:
                self._found = _load(data)
        return self._found

    def _object(self, waits: bool) -> bytes | None:
        if self._thread is None:
            self._data = _cached()
            if self._data is not None:
                return self._data
            self._thread = threading.Thread(target=self._compile, daemon=True)
            self._thread.start()
        if waits:
            self._thread.join()
        return self._data

    def _compile(self) -> None:
        self._data = _compiled()


native_interpreter = _Startup().get


def _key() -> str:
    from llmbol_core.native.cache import key_of
    from llmbol_core.vm.jit.cold import interpreter_text

    return key_of(interpreter_text())


def _cached() -> bytes | None:
    from llmbol_core.native.cache import ObjectCache

    return ObjectCache().get(_key())


def _compiled() -> bytes:
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.cold import interpreter_text

    data = llvm.compile_text(interpreter_text(), 1)
    ObjectCache().put(_key(), data)
    return data


def _load(data: bytes) -> NativeInterpreter:
    from llmbol_core.native import llvm
    from llmbol_core.vm.jit.cold import handler_names

    library = llvm.load_object(data, ["run", "handlers"])
    names = handler_names()
    table = array("Q", bytes(8 * len(names)))
    llvm.function(library.addresses["handlers"], None, ctypes.c_void_p)(table.buffer_info()[0])
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    run = llvm.function(library.addresses["run"], number, pointer, pointer, ctypes.c_int32)
    return NativeInterpreter(run, dict(zip(names, table, strict=True)), library)
