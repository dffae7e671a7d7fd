"""Operations along one axis of whole arrays: sums and extremes, running sums, softmax.

``apply`` is what a call from Python runs (``native.arrays``), ``f(x, axis, keepdims)``: it takes an
array apart into what lies before the axis, along it and after it, and has a kernel do rows, where
the axis is the last one, or columns. ``Fold`` names the words of its record from ``Word.FREE`` on.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.columnwise import CHUNK
from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import f32, i32, i64
from llmbol_core.ml.kernels.objects import AXES, LONGEST, MOST, ArrayObject, Work, new_array, run
from llmbol_core.ml.kernels.rowwise import PART
from llmbol_core.native.arrays import Word

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("folds")

_PARTS = 1 << 12
"""Up to how many parts of rows are shared by the team."""
_SHARE = 1 << 14


class Fold(IntEnum):
    """What a record says about an operation: words from ``Word.FREE`` on."""

    ROWS = Word.FREE
    PARTS = Word.FREE + 1
    """The kernel for parts of long rows; 0 if there is none."""
    JOIN = Word.FREE + 2
    """The kernel that joins what parts give."""
    COLUMNS = Word.FREE + 3
    KEEPS = Word.FREE + 4
    """1 if the result has the shape of x."""
    AVERAGES = Word.FREE + 5
    """1 if the result is divided by how many numbers there are."""
    MANY = Word.FREE + 6
    """How many numbers are worth several threads."""
    INT_TYPE = Word.FREE + 7
    AS_LONG = Word.FREE + 8
    TRUE = Word.FREE + 9
    LONGEST = Word.FREE + 10
    """The longest rows that are done here."""


class _Side:
    """The axes before or after the one: how many numbers, and steps from one to the next."""

    def __init__(self, k: Builder) -> None:
        self.k = k
        self.count, self.step = k.variable(k.value(1, i64)), k.variable(k.zeros(i64))
        self.is_even = k.variable(k.value(1, i64))

    def add(self, n: Value, step: Value) -> None:
        """Add an axis in front of the others; those of length 1 do not count."""
        k = self.k
        with k.when(n.differs(1)):
            is_first = self.count.value.equals(1)
            goes_on = is_first | step.equals(self.step.value * self.count.value)
            self.is_even.value = k.select(goes_on, self.is_even.value, k.zeros(i64))
            self.step.value = k.select(is_first, step, self.step.value)
            self.count.value = self.count.value * n


class _Call:
    """The code of ``apply``."""

    def __init__(self, k: Builder, given: Pointer, record: Pointer) -> None:
        self.k, self.record = k, record
        self.array = ArrayObject(k, given.load())
        self.given = given
        self.ok, self.axis = k.variable(k.zeros(i64)), k.variable(k.zeros(i64))
        self.shape, self.axes = k.room(i64, AXES), k.variable(k.zeros(i64))
        self.before, self.behind = _Side(k), _Side(k)
        self.size, self.step = k.variable(k.value(1, i64)), k.variable(k.value(1, i64))

    def look(self) -> None:
        """Read the arguments, and find out whether they can be handled here."""
        k, record, array = self.k, self.record, self.array
        number = ArrayObject(k, self.given.load(1))
        is_whole = number.type.equals(record.load(Fold.INT_TYPE))
        with k.when(is_whole & array.type.equals(record.load(Word.TYPE))):
            is_over = k.room(i32, 1)
            axis = k.call_at(record.load(Fold.AS_LONG), i64, number.address, is_over)
            axis = k.select(axis < 0, axis + array.axes, axis)
            self.axis.value = axis
            is_axis = (axis >= 0) & (axis < array.axes) & is_over.load().equals(0)
            with k.when(array.fits(record) & is_axis):
                self.ok.value = k.value(1, i64)
                self._read(axis)

    def _read(self, axis: Value) -> None:
        k, array = self.k, self.array
        axes, lengths, strides = array.axes, array.lengths, array.strides
        total = k.variable(k.value(1, i64))
        for i in k.range(axes):
            place = axes - 1 - i
            n, step = lengths.load(place), strides.load(place) >> 2
            is_bad = (n <= 0) | (n >= LONGEST) | (total.value * n >= MOST)
            self.ok.value = k.select(is_bad, k.zeros(i64), self.ok.value)
            total.value = k.select(is_bad, k.value(1, i64), total.value * n)
            with k.when(place > axis):
                self.behind.add(n, step)
            with k.when(place < axis):
                self.before.add(n, step)
            with k.when(place.equals(axis)):
                self.size.value, self.step.value = n, step
        is_long = self.size.value > self.record.load(Fold.LONGEST)
        self.ok.value = k.select(is_long, k.zeros(i64), self.ok.value)
        even = self.before.is_even.value & self.behind.is_even.value
        self.ok.value = self.ok.value & even
        self._turn()

    def _turn(self) -> None:
        """Exchange what is before the axis with what is after it if its numbers are neighbours."""
        k, before, behind = self.k, self.before, self.behind
        is_last = behind.count.value.equals(1)
        can_turn = is_last & before.step.value.equals(1) & (before.count.value > 1)
        can_turn = can_turn & self.step.value.differs(1) & self.record.load(Fold.KEEPS).equals(0)
        with k.when(can_turn & (self.size.value > 1)):
            behind.count.value, behind.step.value = before.count.value, k.value(1, i64)
            before.count.value = k.value(1, i64)
        is_row = behind.count.value.equals(1)
        is_near = self.step.value.equals(1) | self.size.value.equals(1)
        fits = (is_row & is_near) | behind.step.value.equals(1)
        self.ok.value = k.select(fits, self.ok.value, k.zeros(i64))

    def make(self) -> Value:
        """Return a new array for the result."""
        k, array, kept = self.k, self.array, self._kept()
        for i in k.range(array.axes):
            n = array.lengths.load(i)
            is_axis = i.equals(self.axis.value)
            with k.when((is_axis & kept.equals(0)).equals(k.value(0, is_axis.kind))):
                one = is_axis & kept.equals(1)
                self.shape.store(k.select(one, k.value(1, i64), n), self.axes.value)
                self.axes.value = self.axes.value + 1
        return new_array(k, self.record, self.axes.value, self.shape)

    def _kept(self) -> Value:
        """Return what becomes of the axis: 0 if it goes, 1 if one place is left, 2 all of them."""
        k, record = self.k, self.record
        is_true = self.given.load(2).equals(record.load(Fold.TRUE))
        keeps = k.select(is_true, k.value(1, i64), k.zeros(i64))
        return k.select(record.load(Fold.KEEPS).equals(1), k.value(2, i64), keeps)

    def compute(self, out: Value) -> None:
        """Compute the result."""
        k = self.k
        size, divisor = self.size.value, k.room(f32, 1)
        averages = self.record.load(Fold.AVERAGES).equals(1)
        divisor.store(k.select(averages, size.to(f32), k.value(1.0, f32)))
        with k.either(self.behind.count.value.equals(1)) as (rows, columns):
            with rows:
                self._rows(out, divisor.load())
            with columns:
                self._columns(out, divisor.load())

    def _rows(self, out: Value, divisor: Value) -> None:
        k, record, size, rows = self.k, self.record, self.size.value, self.before.count.value
        parts = (size + (PART - 1)) // PART
        is_shared = (rows < 64) & (parts > 1) & (rows * parts <= _PARTS)
        is_shared = is_shared & record.load(Fold.PARTS).differs(0)
        total = rows * size
        with k.either(is_shared) as (yes, no):
            with yes:
                room = k.room(f32, _PARTS)
                words = self._words(room.address(), size, parts, k.value(1.0, f32))
                items, one = rows * parts, k.value(1, i64)
                work = Work(record.load(Fold.PARTS), words, items, one)
                run(k, record, work, total, record.load(Fold.MANY))
                words.store(room.address())
                words.store(out, 1)
                words.at(4).of(f32).store(divisor)
                nothing = k.zeros(i64)
                k.call_at(record.load(Fold.JOIN), i64, words, nothing, rows, nothing)
            with no:
                words = self._words(out, size, parts, divisor)
                work = Work(record.load(Fold.ROWS), words, rows, _share(k, size))
                run(k, record, work, total, record.load(Fold.MANY))

    def _words(self, out: Value, size: Value, parts: Value, divisor: Value) -> Pointer:
        """Return the arguments of a kernel for rows."""
        words = self.k.room(i64, 6)
        for i, value in enumerate((self.array.data, out, size, parts)):
            words.store(value, i)
        words.at(4).of(f32).store(divisor)
        words.store(self.before.step.value, 5)
        return words

    def _columns(self, out: Value, divisor: Value) -> None:
        k, record, size, count = self.k, self.record, self.size.value, self.behind.count.value
        before, words = self.before, k.room(i64, 7)
        for i, value in enumerate(
            (self.array.data, out, size, count, before.step.value, self.step.value)
        ):
            words.store(value, i)
        words.at(6).of(f32).store(divisor)
        chunks = (count + (CHUNK - 1)) // CHUNK
        wide = k.select(count < CHUNK, count, k.value(CHUNK, i64))
        items = before.count.value * chunks
        work = Work(record.load(Fold.COLUMNS), words, items, _share(k, size * wide))
        run(k, record, work, items * wide * size, record.load(Fold.MANY))


def _share(k: Builder, size: Value) -> Value:
    """Return how many items of so many numbers a thread takes at a time."""
    share = k.value(_SHARE, i64) // size
    return k.select(share > 0, share, k.value(1, i64))


@group.kernel("given:i64* count:i64 record:i64* found:i64*")
def apply(k: Builder, given: Pointer, count: Value, record: Pointer, found: Pointer) -> None:
    """Compute an operation for a call from Python; there are no items."""
    with k.when(count.equals(3)):
        call = _Call(k, given, record)
        call.look()
        with k.when(call.ok.value.equals(1)):
            made = call.make()
            found.store(k.value(1, i64))
            with k.when(made.differs(0)):
                found.store(made)
                call.compute(ArrayObject(k, made).data)
