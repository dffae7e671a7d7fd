"""NumPy's arrays as kernels see them: which they can read, where numbers lie, new ones.

A call has a ``given`` list of objects and a record (``native.arrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.kinds import i32, i64, u8
from llmbol_core.native.arrays import Word
from llmbol_core.native.entry import DATA, DESCR, FLAGS, FLOAT, NDIM, SHAPE, STRIDES

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

AXES = 6
"""How many axes an array may have; the others are left to NumPy."""
COLUMNS, ALIGNED = 0x2, 0x100
"""NumPy's flags: without gaps in columns, and aligned."""
LONGEST = 1 << 31
"""Lengths of axes are below that."""
MOST = 1 << 32
"""Arrays have fewer numbers than that."""
LONG = 1 << 16
"""Numbers from which on other Python threads may run meanwhile."""


class ArrayObject:
    """An object that may be an array of float32."""

    def __init__(self, k: Builder, address: Value) -> None:
        self.k, self.address = k, address
        self._base = k.pointer(address, u8)

    def word(self, offset: int) -> Value:
        """Return a word of the object."""
        return self._base.bytes_on(offset).of(i64).load()

    @property
    def type(self) -> Value:
        """The address of the object's type."""
        return self.word(8)

    @property
    def data(self) -> Value:
        """Where the first number lies."""
        return self.word(DATA)

    @property
    def axes(self) -> Value:
        """How many axes there are."""
        return self._base.bytes_on(NDIM).of(i32).load().to(i64)

    @property
    def flags(self) -> Value:
        """NumPy's flags."""
        return self._base.bytes_on(FLAGS).of(i32).load().to(i64)

    @property
    def lengths(self) -> Pointer:
        """Where the lengths of the axes are."""
        return self.k.pointer(self.word(SHAPE), i64)

    @property
    def strides(self) -> Pointer:
        """Where the bytes from number to number along the axes are."""
        return self.k.pointer(self.word(STRIDES), i64)

    def fits(self, record: Pointer) -> Value:
        """Return whether an array, which the object is, holds float32 and has few axes."""
        is_float = self.word(DESCR).equals(record.load(Word.DESCRIPTOR))
        return is_float & (self.flags & ALIGNED).differs(0) & (self.axes <= AXES)


class Work(NamedTuple):
    """A kernel to run: its address, its arguments, how many items, and how many at a time."""

    kernel: Value
    arguments: Pointer
    items: Value
    chunk: Value


def new_array(k: Builder, record: Pointer, axes: Value, lengths: Pointer) -> Value:
    """Return the address of a new array of float32 in rows, 0 if there is no memory."""
    none, number = k.zeros(i64), k.value(FLOAT, i32)
    return k.call_at(
        record.load(Word.NEW), i64, record.load(Word.TYPE), axes.to(i32), lengths, number,
        none, none, k.zeros(i32), k.zeros(i32), none,
    )  # fmt: skip


def new_like(k: Builder, record: Pointer, array: Value) -> Value:
    """Return the address of a new array that lies as another one does."""
    none = k.zeros(i64)
    keep_order = k.value(2, i32)
    return k.call_at(record.load(Word.NEW_LIKE), i64, array, keep_order, none, k.zeros(i32))


def run(k: Builder, record: Pointer, work: Work, size: Value, many: Value) -> None:
    """Run a kernel on so many numbers, by the team if there are ``many``."""
    is_long = size >= LONG
    state = k.variable(k.zeros(i64))
    with k.when(is_long):
        state.value = k.call_at(record.load(Word.LEAVE), i64)
    is_shared = (size >= many) & (record.load(Word.THREADS) > 1) & (work.items > work.chunk)
    with k.either(is_shared) as (yes, no):
        with yes:
            operation = k.room(i64, 4)
            operation.store(work.kernel)
            operation.store(work.arguments.address(), 1)
            operation.store(work.items, 2)
            operation.store(work.chunk, 3)
            one, team = k.value(1, i64), record.load(Word.TEAM)
            k.call_at(record.load(Word.RUN), i32, team, operation, one)
        with no:
            nothing = k.zeros(i64)
            k.call_at(work.kernel, i32, work.arguments, nothing, work.items, nothing)
    with k.when(is_long):
        k.call_at(record.load(Word.ENTER), i32, state.value)
