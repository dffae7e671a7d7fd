"""A Python function in machine code: one NumPy array in, a new one out, no Python in between.

A call of a function made here costs a tenth of a microsecond besides what it computes; that of a
Python function which checks its argument and calls through ``ctypes`` costs several. Arguments that
are not as expected, and calls while another one is at work, go to a Python function instead.

    record   NumPy's array type, descriptor, axes, where their lengths are; whether a call is at
             work; where to put the addresses of both arrays; the other function; what is called to
             call it, to make an array, to let other threads run and to stop them; axes of the
             result and where their lengths are; what to run with four words; whether others may run

This relies on how CPython and NumPy lay out an array in memory, which their C interfaces promise;
where that is not so (another Python, or one without its lock) there is no such function.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.native.cfunction import ONE, Definition, address_of, cfunction, loads, new_record
from llmbol_core.native.code import library

Array = NDArray[Any]


class _Word(IntEnum):
    """Words of a record."""

    TYPE = 0
    DESCRIPTOR = 1
    AXES = 2
    LENGTHS = 3
    BUSY = 4
    BASES = 5
    OTHER = 6
    CALL = 7
    NEW = 8
    LEAVE = 9
    ENTER = 10
    RESULT_AXES = 11
    RESULT_LENGTHS = 12
    RUN = 13
    RUN_0 = 14
    RUN_1 = 15
    RUN_2 = 16
    RUN_3 = 17
    LONG = 18
    SIZE = 19


DATA, NDIM, SHAPE, STRIDES, DESCR, FLAGS = 16, 24, 32, 40, 56, 64
"""Offsets of these in an array object: PyArrayObject_fields in NumPy's ndarraytypes.h."""
_NEEDED = 0x1 | 0x100
"""Flags: in rows without gaps, and aligned."""
FLOAT, NEW = 11, 93
"""The number of float32 among NumPy's types, and of PyArray_New in its C interface."""


_BODY = f"""
define ptr @entry(ptr %self, ptr %x) {{
 %selfdata = getelementptr i8, ptr %self, i64 {DATA}
 %record = load ptr, ptr %selfdata
 %at.busy = getelementptr i64, ptr %record, i64 {_Word.BUSY.value}
WORDS
 %xtypep = getelementptr i8, ptr %x, i64 8
 %xtype = load ptr, ptr %xtypep
 %isarray = icmp eq ptr %xtype, %type
 br i1 %isarray, label %array, label %else
array:
 %xdescrp = getelementptr i8, ptr %x, i64 {DESCR}
 %xdescr = load ptr, ptr %xdescrp
 %isfloat = icmp eq ptr %xdescr, %descriptor
 %xflagsp = getelementptr i8, ptr %x, i64 {FLAGS}
 %xflags = load i32, ptr %xflagsp
 %flagged = and i32 %xflags, {_NEEDED}
 %isplain = icmp eq i32 %flagged, {_NEEDED}
 %xaxesp = getelementptr i8, ptr %x, i64 {NDIM}
 %xaxes = load i32, ptr %xaxesp
 %naxes = ptrtoint ptr %axes to i64
 %axes32 = trunc i64 %naxes to i32
 %sameaxes = icmp eq i32 %xaxes, %axes32
 %both = and i1 %isfloat, %isplain
 %all = and i1 %both, %sameaxes
 br i1 %all, label %shapes, label %else
shapes:
 %xshapep = getelementptr i8, ptr %x, i64 {SHAPE}
 %xshape = load ptr, ptr %xshapep
 br label %each
each:
 %i = phi i64 [ 0, %shapes ], [ %i1, %equal ]
 %more = icmp slt i64 %i, %naxes
 br i1 %more, label %length, label %take
length:
 %lp = getelementptr i64, ptr %xshape, i64 %i
 %l = load i64, ptr %lp
 %wp = getelementptr i64, ptr %lengths, i64 %i
 %w = load i64, ptr %wp
 %same = icmp eq i64 %l, %w
 br i1 %same, label %equal, label %else
equal:
 %i1 = add i64 %i, 1
 br label %each
take:
 %taken = cmpxchg ptr %at.busy, i64 0, i64 1 acquire monotonic
 %free = extractvalue {{ i64, i1 }} %taken, 1
 br i1 %free, label %make, label %else
make:
 %raxes = ptrtoint ptr %result_axes to i64
 %raxes32 = trunc i64 %raxes to i32
 %y = call ptr %new(ptr %type, i32 %raxes32, ptr %result_lengths, i32 {FLOAT}, ptr null,
                    ptr null, i32 0, i32 0, ptr null)
 %failed = icmp eq ptr %y, null
 br i1 %failed, label %done, label %go
go:
 %xdatap = getelementptr i8, ptr %x, i64 {DATA}
 %xdata = load ptr, ptr %xdatap
 store ptr %xdata, ptr %bases
 %ydatap = getelementptr i8, ptr %y, i64 {DATA}
 %ydata = load ptr, ptr %ydatap
 %bases1 = getelementptr i64, ptr %bases, i64 1
 store ptr %ydata, ptr %bases1
 %islong = icmp ne ptr %long, null
 br i1 %islong, label %apart, label %short
short:
 call void %run(ptr %run_0, ptr %run_1, ptr %run_2, ptr %run_3)
 br label %done
apart:
 %state = call ptr %leave()
 call void %run(ptr %run_0, ptr %run_1, ptr %run_2, ptr %run_3)
 call void %enter(ptr %state)
 br label %done
done:
 store atomic i64 0, ptr %at.busy release, align 8
 ret ptr %y
else:
 %z = call ptr %call(ptr %other, ptr %x)
 ret ptr %z
}}
"""
"""The function in LLVM's assembly language; where it says WORDS it reads the record."""


def _text() -> str:
    """Return the code, with the instructions that read the words of a record."""
    words = (word for word in _Word if word not in (_Word.SIZE, _Word.BUSY))
    return _BODY.replace("WORDS", loads(words))


class Entry:
    """A function that runs machine code on arrays of one shape; the rest goes to another one."""

    def __init__(self, other: Callable[[Any], Array]) -> None:
        """Make the function; until it is told what to ``run``, the other one gets all calls."""
        code = _library()
        assert code is not None
        self._record = new_record(_Word.SIZE)
        self._other, self._kept = other, list[Any]()
        table = ctypes.cast(interface() or 0, ctypes.POINTER(ctypes.c_void_p))
        self._set(_Word.TYPE, id(np.ndarray))
        self._set(_Word.DESCRIPTOR, id(np.dtype(np.float32)))
        self._set(_Word.AXES, -1)
        self._set(_Word.OTHER, id(other))
        self._set(_Word.NEW, table[NEW] or 0)
        for word, name in (
            (_Word.CALL, "PyObject_CallOneArg"),
            (_Word.LEAVE, "PyEval_SaveThread"),
            (_Word.ENTER, "PyEval_RestoreThread"),
        ):
            self._set(word, address_of(name))
        definition = Definition(b"run", code.addresses["entry"], ONE, other.__doc__)
        self.function: Callable[[Any], Array] = cfunction(definition, self._record, self)

    def run(
        self, shape: Sequence[int], result: Sequence[int], bases: int, words: Sequence[int],
        is_long: bool,
    ) -> None:  # fmt: skip
        """Run ``words`` (a function and four words) for arrays of a shape.

        Before that, the addresses of the input and of a new array of the result's shape are put to
        ``bases``. If it is long, other Python threads may run meanwhile.
        """
        self._set(_Word.AXES, -1)  # nothing matches while this changes
        lengths = [np.array(numbers, np.int64) for numbers in (shape, result)]
        self._kept = lengths
        self._set(_Word.LENGTHS, lengths[0].ctypes.data)
        self._set(_Word.RESULT_LENGTHS, lengths[1].ctypes.data)
        self._set(_Word.RESULT_AXES, len(result))
        self._set(_Word.BASES, bases)
        for word, number in zip(range(_Word.RUN, _Word.RUN_3 + 1), words, strict=True):
            self._set(word, number)
        self._set(_Word.LONG, int(is_long))
        self._set(_Word.AXES, len(shape))

    @property
    def is_busy(self) -> bool:
        """Whether a call is at work; what it uses must stay as it is."""
        return bool(self._record[_Word.BUSY])

    def _set(self, word: int, number: int) -> None:
        self._record[word] = number


@functools.cache
def is_possible() -> bool:
    """Return whether functions of this kind can be made here."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)
    if sys.implementation.name != "cpython" or not gil() or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    x = np.zeros((3, 5), np.float32)

    def word(offset: int, kind: Any) -> int:
        return int(kind.from_address(id(x) + offset).value or 0)

    lies = (
        word(8, ctypes.c_void_p) == id(np.ndarray)
        and word(DATA, ctypes.c_void_p) == x.ctypes.data
        and word(NDIM, ctypes.c_int32) == x.ndim
        and ctypes.c_int64.from_address(word(SHAPE, ctypes.c_void_p)).value == 3
        and ctypes.c_int64.from_address(word(STRIDES, ctypes.c_void_p)).value == 20
        and word(DESCR, ctypes.c_void_p) == id(x.dtype)
        and word(FLAGS, ctypes.c_int32) & _NEEDED == _NEEDED
    )
    return lies and interface() is not None


@functools.cache
def interface() -> int | None:
    """Return the address of NumPy's C interface."""
    core = importlib.import_module("numpy._core._multiarray_umath")
    take = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    found: int | None = take(core._ARRAY_API, None)
    return found


@functools.cache
def _library() -> Any:
    return library("entry", _text(), ["entry"])
