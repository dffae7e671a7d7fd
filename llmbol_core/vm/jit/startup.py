"""Getting the native interpreter: from the cache, or compiled while Python runs the program."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Callable
from typing import Any, NamedTuple

from llmbol_core.vm.jit.identity import digest


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

    @property
    def is_there(self) -> bool:
        """Whether the interpreter can be had at once."""
        return self._found is not None

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
            self._thread = threading.Thread(target=self._compile)
            self._thread.start()
        if waits:
            self._thread.join()
        return self._data

    def _compile(self) -> None:
        self._data = _compiled()


STARTUP = _Startup()


def _key() -> str:
    from llmbol_core.native.cache import key_of

    return key_of("interpreter", digest())


def _cached() -> bytes | None:
    from llmbol_core.native.cache import ObjectCache

    return ObjectCache().get(_key())


def _compiled() -> bytes:
    """Return the names of the handlers, a line end, and the object."""
    from llmbol_core.native import llvm
    from llmbol_core.native.cache import ObjectCache
    from llmbol_core.vm.jit.cold import handler_names, interpreter_text

    code = llvm.compile_text(interpreter_text(), 0)
    data = " ".join(handler_names()).encode() + b"\n" + code
    ObjectCache().put(_key(), data)
    return data


def _load(data: bytes) -> NativeInterpreter:
    from llmbol_core.native.image import load_object
    from llmbol_core.native.library import function

    line, _, code = data.partition(b"\n")
    names = line.decode().split()
    library = load_object(code, ["run", "handlers"])
    table = array("Q", bytes(8 * len(names)))
    function(library.addresses["handlers"], None, ctypes.c_void_p)(table.buffer_info()[0])
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    run = function(library.addresses["run"], number, pointer, pointer, ctypes.c_int32)
    return NativeInterpreter(run, dict(zip(names, table, strict=True)), library)
