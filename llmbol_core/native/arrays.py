"""A Python function in machine code that takes NumPy arrays of any layout and returns a new one.

    f(x, ...)    the result of a kernel or, if that cannot do it, of another function

The kernel gets the arguments' address and number, the record, and a word for its result: the
address of a new array, 0 for arguments that it cannot take, or 1 if there is no memory. In the
second case, and for keywords, the other function is called.

    record   NumPy's array type and descriptor, Python's type of floats; what makes arrays, one by
             its lengths and one like another; what lets other Python threads run and stops them;
             what runs a list of operations by a team, and the team; the kernel, the other function
             and what calls it; what shares a kernel among threads; then what the kernel
            needs to know

This relies on how CPython and NumPy lay out an array in memory (``entry``).
"""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.native.cfunction import (
    KEYWORDS,
    SEVERAL,
    Definition,
    Record,
    address_of,
    cfunction,
    new_record,
)
from llmbol_core.native.code import library
from llmbol_core.native.entry import DATA, NEW, interface, is_possible
from llmbol_core.native.team import team

Array = NDArray[Any]


class Word(IntEnum):
    """Words of a record."""

    TYPE = 0
    DESCRIPTOR = 1
    FLOAT_TYPE = 2
    NEW = 3
    NEW_LIKE = 4
    LEAVE = 5
    ENTER = 6
    RUN = 7
    TEAM = 8
    THREADS = 9
    KERNEL = 10
    OTHER = 11
    CALL = 12
    SHARE = 13
    """The function that shares a kernel's items among threads."""
    FREE = 14
    """The first of the words that belong to the kernel."""
    SIZE = 32


_NEW_LIKE = 277
"""The number of PyArray_NewLikeArray in NumPy's C interface."""

_TEXT = f"""
define ptr @arrays(ptr %self, ptr %given, i64 %count, ptr %names) {{
 %recordp = getelementptr i8, ptr %self, i64 {DATA}
 %record = load ptr, ptr %recordp
 %words = alloca [4 x i64], align 8
 %found = alloca i64, align 8
 %named = icmp ne ptr %names, null
 br i1 %named, label %other, label %try
try:
 store ptr %given, ptr %words
 %w1 = getelementptr i64, ptr %words, i64 1
 store i64 %count, ptr %w1
 %w2 = getelementptr i64, ptr %words, i64 2
 store ptr %record, ptr %w2
 %w3 = getelementptr i64, ptr %words, i64 3
 store ptr %found, ptr %w3
 store i64 0, ptr %found
 %at.kernel = getelementptr ptr, ptr %record, i64 {Word.KERNEL.value}
 %kernel = load ptr, ptr %at.kernel
 call void %kernel(ptr %words, i64 0, i64 0, i64 0)
 %made = load i64, ptr %found
 switch i64 %made, label %done [ i64 0, label %other i64 1, label %failed ]
done:
 %array = inttoptr i64 %made to ptr
 ret ptr %array
failed:
 ret ptr null
other:
 %at.call = getelementptr ptr, ptr %record, i64 {Word.CALL.value}
 %call = load ptr, ptr %at.call
 %at.other = getelementptr ptr, ptr %record, i64 {Word.OTHER.value}
 %function = load ptr, ptr %at.other
 %result = call ptr %call(ptr %function, ptr %given, i64 %count, ptr %names)
 ret ptr %result
}}
"""


def on_arrays(
    kernel: int, share: int, words: Sequence[int], other: Callable[..., Any]
) -> Callable[..., Any]:
    """Return a function on arrays; ``words`` are what the kernel needs to know.

    ``share`` is the kernel that shares others among threads.
    """
    if not is_possible():
        return other
    table = ctypes.cast(interface() or 0, ctypes.POINTER(ctypes.c_void_p))
    record = new_record(Word.SIZE)
    workers = team()
    for word, number in (
        (Word.TYPE, id(np.ndarray)),
        (Word.DESCRIPTOR, id(np.dtype(np.float32))),
        (Word.FLOAT_TYPE, id(float)),
        (Word.NEW, table[NEW] or 0),
        (Word.NEW_LIKE, table[_NEW_LIKE] or 0),
        (Word.LEAVE, address_of("PyEval_SaveThread")),
        (Word.ENTER, address_of("PyEval_RestoreThread")),
        (Word.RUN, workers.entry),
        (Word.TEAM, workers.address),
        (Word.THREADS, workers.threads),
        (Word.KERNEL, kernel),
        (Word.OTHER, id(other)),
        (Word.SHARE, share),
        (Word.CALL, address_of("PyObject_Vectorcall")),
    ):
        record[word] = number
    record[Word.FREE : Word.FREE + len(words)] = words
    _records.append(weakref.ref(record))
    flags = SEVERAL | KEYWORDS
    definition = Definition(b"arrays", _library().addresses["arrays"], flags, other.__doc__)
    return cfunction(definition, record, other)


_records: list[weakref.ref[Record]] = []


@functools.cache
def _library() -> Any:
    return library("arrays", _TEXT, ["arrays"])


def _work_alone() -> None:
    """Do without a team that a forked process does not have."""
    for reference in _records:
        record = reference()
        if record is not None:
            record[Word.THREADS] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_work_alone)
