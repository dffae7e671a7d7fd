"""NumPy's arrays as kernels see them: which they can read, where numbers lie, new ones.

A call has a ``given`` list of objects and a record (``native.arrays``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import i32, i64, u8
from llmbol_core.native.arrays import Word
from llmbol_core.native.entry import DATA, DESCR, FLAGS, FLOAT, NDIM, SHAPE, STRIDES

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("objects")

AXES = 6
"""How many axes an array may have; the others are left to NumPy."""
ROWS, COLUMNS, ALIGNED = 0x1, 0x2, 0x100
"""NumPy's flags: without gaps in rows, in columns, and aligned."""
LONGEST = 1 << 31
"""Lengths of axes are below that."""
MOST = 1 << 32
"""Arrays have fewer numbers than that."""
LONG = 1 << 16
"""Numbers from which on other Python threads may run meanwhile."""

SHARES = 64
"""How many shares there are at most."""
LINE = 16
"""Words that counters of threads are apart."""


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
    is_long, threads = size >= LONG, record.load(Word.THREADS)
    state = k.variable(k.zeros(i64))
    with k.when(is_long):
        state.value = k.call_at(record.load(Word.LEAVE), i64)
    is_shared = (size >= many) & (threads > 1) & (work.items > work.chunk)
    with k.either(is_shared) as (yes, no):
        with yes:
            _share(k, record, work, k.select(threads < SHARES, threads, k.value(SHARES, i64)))
        with no:
            nothing = k.zeros(i64)
            k.call_at(work.kernel, i32, work.arguments, nothing, work.items, nothing)
    with k.when(is_long):
        k.call_at(record.load(Word.ENTER), i32, state.value)


def _share(k: Builder, record: Pointer, work: Work, threads: Value) -> None:
    words, taken, operation = k.room(i64, 6), k.room(i64, LINE * SHARES), k.room(i64, 4)
    for thread in k.range(threads):
        taken.store(k.zeros(i64), thread * LINE)
    for i, value in enumerate((
        work.kernel, work.arguments.address(), work.items, work.chunk, threads, taken.address()
    )):  # fmt: skip
        words.store(value, i)
    one = k.value(1, i64)
    for place, value in enumerate((record.load(Word.SHARE), words.address(), threads, one)):
        operation.store(value, place)
    k.call_at(record.load(Word.RUN), i32, record.load(Word.TEAM), operation, one)


@group.kernel("kernel:i64 arguments:i64* items:i64 chunk:i64 shares:i64 taken:i64*")
def share(
    k: Builder, kernel: Value, arguments: Pointer, items: Value, chunk: Value, shares: Value,
    taken: Pointer,
) -> None:  # fmt: skip
    """Run a kernel: each thread does its own share of the items, and then what is left of others'.

    So numbers that an operation wrote are in the cache of the thread that reads them next.
    Items are threads that may come.
    """
    chunks = (items + chunk - 1) // chunk
    each = (chunks + shares - 1) // shares
    for _ in k.items():
        for i in k.range(shares):
            number = (k.thread + i) % shares
            last = k.select(each * (number + 1) < chunks, each * (number + 1), chunks)
            with k.repeat() as again:
                mine = each * number + taken.add_atomic(1, number * LINE)
                begin, end = mine * chunk, (mine + 1) * chunk
                with k.when(mine < last):
                    stop = k.select(end < items, end, items)
                    k.call_at(kernel, i32, arguments, begin, stop, k.thread)
                again(mine < last)
