"""A Python function in machine code that puts arrays' addresses into a table and runs a function.

    f(x, ..., y)    runs it on these NumPy arrays and returns the last one; None is address 0

It checks nothing: callers make sure that the arrays are as expected, and how many they are.

    record   the table, where the address of the last array goes, Python's None, what makes a
             reference, what lets other Python threads run and stops them; what to run with four
             words; whether others may run meanwhile

This relies on how NumPy lays out an array in memory (``entry``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

from numpy.typing import NDArray

from llmbol_core.native.cfunction import (
    SEVERAL,
    Definition,
    address_of,
    cfunction,
    loads,
    new_record,
)
from llmbol_core.native.code import library
from llmbol_core.native.entry import DATA

Array = NDArray[Any]


class _Word(IntEnum):
    """Words of a record."""

    BASES = 0
    LAST = 1
    NONE = 2
    REFER = 3
    LEAVE = 4
    ENTER = 5
    RUN = 6
    RUN_0 = 7
    RUN_1 = 8
    RUN_2 = 9
    RUN_3 = 10
    LONG = 11
    SIZE = 12


_BODY = f"""
define ptr @filled(ptr %self, ptr %given, i64 %count) {{
start:
 %selfdata = getelementptr i8, ptr %self, i64 {DATA}
 %record = load ptr, ptr %selfdata
WORDS
 %before = sub i64 %count, 1
 br label %each
each:
 %i = phi i64 [ 0, %start ], [ %i1, %put ]
 %more = icmp slt i64 %i, %before
 br i1 %more, label %one, label %finish
one:
 %at = getelementptr ptr, ptr %given, i64 %i
 %object = load ptr, ptr %at
 %nothing = icmp eq ptr %object, %none
 br i1 %nothing, label %put, label %some
some:
 %datap = getelementptr i8, ptr %object, i64 {DATA}
 %found = load ptr, ptr %datap
 br label %put
put:
 %data = phi ptr [ null, %one ], [ %found, %some ]
 %place = getelementptr ptr, ptr %bases, i64 %i
 store ptr %data, ptr %place
 %i1 = add i64 %i, 1
 br label %each
finish:
 %yp = getelementptr ptr, ptr %given, i64 %before
 %y = load ptr, ptr %yp
 %ydatap = getelementptr i8, ptr %y, i64 {DATA}
 %ydata = load ptr, ptr %ydatap
 %to = ptrtoint ptr %last to i64
 %lastp = getelementptr ptr, ptr %bases, i64 %to
 store ptr %ydata, ptr %lastp
 call void %refer(ptr %y)
 %islong = icmp ne ptr %long, null
 br i1 %islong, label %apart, label %short
short:
 call void %run(ptr %run_0, ptr %run_1, ptr %run_2, ptr %run_3)
 ret ptr %y
apart:
 %state = call ptr %leave()
 call void %run(ptr %run_0, ptr %run_1, ptr %run_2, ptr %run_3)
 call void %enter(ptr %state)
 ret ptr %y
}}
"""
"""The function in LLVM's assembly language; where it says WORDS it reads the record."""


def on_filled(
    bases: int, last: int, words: Sequence[int], is_long: bool, kept: Any
) -> Callable[..., Array]:
    """Return a function that runs ``words``: a function and four words.

    Before that the arrays' addresses go to ``bases``, that of the last one to the place ``last``.
    What is ``kept`` lives as long as the function.
    """
    definition, _ = _code()
    record = new_record(_Word.SIZE)
    record[:] = (
        *(bases, last, id(None), address_of("Py_IncRef")),
        *(address_of("PyEval_SaveThread"), address_of("PyEval_RestoreThread"), *words),
        int(is_long),
    )
    return cfunction(definition, record, kept)


@functools.cache
def _code() -> tuple[Definition, Any]:
    """Return what describes functions of this kind to CPython, and their code."""
    words = loads(word for word in _Word if word is not _Word.SIZE)
    code = library("filled", _BODY.replace("WORDS", words), ["filled"])
    return Definition(b"run", code.addresses["filled"], SEVERAL, None), code
