"""Kernels as machine code: made once for a machine and instruction set, kept on disk, called.

The key of an object is made from the bytes of all files of this package and of the tables that it
reads: what is on disk already is loaded without writing a line of code. Callers that need a kernel
ask ``target.target()`` first whether there is anything to run it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.ml.kernels.target import Target, processor_for, target
from llmbol_core.native.code import made
from llmbol_core.native.files import read_bytes
from llmbol_core.native.notices import tell
from llmbol_core.native.team import team

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.declaration import Group, Kernel


_TABLES = ("dtypes.py", "kquants.py")
"""Modules of the package above that kernels take numbers from."""


class Operation:
    """A kernel with its arguments, ready to be run any number of times."""

    __slots__ = ("_kept", "arguments", "words")

    def __init__(self, words: tuple[int, int, int, int], arguments: Any, kept: Any) -> None:
        self.words, self._kept = words, kept
        self.arguments = arguments
        """The argument words, which may be changed between runs."""


def operation(kernel: Kernel, items: int, arguments: Sequence[Any], chunk: int = 0) -> Operation:
    """Bind a kernel to arguments: arrays, addresses or numbers, one for each parameter.

    Arrays are kept alive. ``chunk`` is how many items a thread takes at a time; 0 is all of them.
    """
    packed = bytearray(_layout(kernel).pack(*map(_value, arguments)) or bytes(8))
    held = (ctypes.c_int64 * (len(packed) // 8)).from_buffer(packed)
    words = (address_of(kernel), ctypes.addressof(held), items, chunk or max(items, 1))
    return Operation(words, held, arguments)


def run(operations: Sequence[Operation]) -> None:
    """Run operations one after the other, each by the whole team."""
    Program(operations).run()


class Program:
    """Operations that run together, prepared once."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = list(operations)
        flat = [word for made in self.operations for word in made.words]
        self._list = (ctypes.c_int64 * max(1, len(flat)))(*flat)
        self._address = ctypes.addressof(self._list)

    def run(self) -> None:
        """Run them one after the other, each by the whole team."""
        team().run(self._address, len(self.operations))


@functools.cache
def _layout(kernel: Kernel) -> struct.Struct:
    """Return how a kernel's arguments lie: eight bytes for each."""
    forms = {"f32": "f4x", "f64": "d"}
    parts = ["Q" if p.is_pointer else forms.get(p.kind.name, "q") for p in kernel.parameters]
    return struct.Struct("<" + "".join(parts))


def _value(argument: Any) -> Any:
    """Return the word for an argument."""
    if isinstance(argument, np.ndarray):
        return argument.__array_interface__["data"][0]
    return argument or 0


def address_of(kernel: Kernel) -> int:
    """Return the address of a kernel's machine code, which is made now if need be."""
    chosen = target()
    if chosen is None:
        raise RuntimeError("there is no instruction set to run kernels with")
    with _lock:  # code that two threads load would be given up for one of them
        address: int = _loaded(kernel.group, chosen).addresses[kernel.name]
    return address


_lock = threading.Lock()


@functools.cache
def _loaded(group: Group, chosen: Target) -> Any:
    """Return a group's machine code in memory."""
    code = _sources() + (read_bytes(group.home).decode() if group.home else "")

    def compiled() -> bytes:
        from llmbol_core.native.llvm import compile_text

        tell("compiling kernels for this processor, which is done once")
        return compile_text(text_of(group, chosen), 3, processor_for(chosen))

    return made(("kernels", group.name, chosen.name, code), group.kernels, compiled)


def text_of(group: Group, chosen: Target) -> str:
    """Return the code of a group in LLVM's assembly language."""
    from llvmlite import ir

    from llmbol_core.ml.kernels.builder import Builder

    module = ir.Module(group.name)
    for kernel in group.kernels.values():
        Builder(module, kernel, chosen)
    return str(module)


@functools.cache
def _sources() -> str:
    """Return the text of this package and its tables, which all machine code depends on."""
    folder = os.path.dirname(__file__)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    paths = [os.path.join(folder, name) for name in names]
    paths += [os.path.join(os.path.dirname(folder), name) for name in _TABLES]
    return "".join(read_bytes(path).decode() for path in paths)
