"""Python functions in machine code: CPython's PyCFunction, made while a program runs.

The ``self`` of such a function is a record: words of 8 bytes in a NumPy array, with all that the
code has to know.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

import numpy as np

ONE, SEVERAL, KEYWORDS = 0x8, 0x80, 0x2
"""CPython's METH_O, METH_FASTCALL and METH_KEYWORDS: one argument; a C array of arguments and their
number; and besides the names of those at its end."""


class Definition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )

    def __init__(self, name: bytes, function: int, flags: int, doc: str | None) -> None:
        super().__init__(name, function, flags, (doc or "").encode())


class Record(np.ndarray[Any, Any]):
    """The words of a record, which keeps alive what they refer to."""

    kept: Any


def new_record(size: int) -> Record:
    """Return a record of so many words, all zero."""
    return np.zeros(size, np.int64).view(Record)


def loads(words: Iterable[IntEnum]) -> str:
    """Return LLVM's assembly language that reads words of %record, each under its name.

    >>> Word = IntEnum("Word", ["TYPE"], start=3)
    >>> print(loads(Word))
     %at.type = getelementptr i64, ptr %record, i64 3
     %type = load ptr, ptr %at.type
    """
    return "\n".join(
        f" %at.{word.name.lower()} = getelementptr i64, ptr %record, i64 {word.value}\n"
        f" %{word.name.lower()} = load ptr, ptr %at.{word.name.lower()}"
        for word in words
    )


def cfunction(definition: Definition, record: Record, *kept: object) -> Callable[..., Any]:
    """Return a function with a record; it keeps the record and other objects alive."""
    record.kept = (definition, *kept)
    function: Callable[..., Any] = _maker()(ctypes.addressof(definition), record, "llmbol_core")
    return function


@functools.cache
def address_of(name: str) -> int:
    """Return the address of a function of CPython's C interface."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0


@functools.cache
def _maker() -> Any:
    kinds = ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object
    return ctypes.PYFUNCTYPE(*kinds)(("PyCFunction_NewEx", ctypes.pythonapi))
