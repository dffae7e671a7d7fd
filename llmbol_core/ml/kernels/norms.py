"""Normalizations of the rows of whole arrays.

``apply`` is what a call from Python runs (``native.arrays``), ``f(x, weight, bias, eps)``: weights
and biases may be None. ``Norm`` names the words of its record from ``Word.FREE`` on.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import f32, f64, i64
from llmbol_core.ml.kernels.objects import (
    AXES,
    LONGEST,
    MOST,
    ROWS,
    ArrayObject,
    Work,
    new_array,
    run,
)
from llmbol_core.ml.kernels.rows import LONGEST as LONGEST_ROW
from llmbol_core.native.arrays import Word

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("norms")

_SHARE = 1 << 13


class Norm(IntEnum):
    """What a record says about an operation: words from ``Word.FREE`` on."""

    KERNEL = Word.FREE
    CENTRED = Word.FREE + 1
    ROOTED = Word.FREE + 2
    MANY = Word.FREE + 3
    """How many numbers are worth several threads."""
    NONE = Word.FREE + 4
    """Python's None."""


class _Call:
    """The code of ``apply``."""

    def __init__(self, k: Builder, given: Pointer, record: Pointer) -> None:
        self.k, self.given, self.record = k, given, record
        self.x = ArrayObject(k, given.load())
        self.ok, self.total = k.variable(k.zeros(i64)), k.variable(k.value(1, i64))
        self.size, self.factors = k.variable(k.value(1, i64)), k.room(i64, 2)
        self.lengths = k.room(i64, AXES)

    def look(self) -> None:
        """Read the arguments, and find out whether they can be handled here."""
        k, record, x = self.k, self.record, self.x
        eps = ArrayObject(k, self.given.load(3))
        is_float = eps.type.equals(record.load(Word.FLOAT_TYPE))
        with k.when(is_float & x.type.equals(record.load(Word.TYPE))):
            in_rows = (x.flags & ROWS).differs(0) & (x.axes > 0)
            with k.when(x.fits(record) & in_rows):
                self.ok.value = k.value(1, i64)
                self._measure()
                for i in range(2):
                    self._factor(i)
                # A bias without weights is left to the definition.
                lacks = self.factors.load(0).equals(0) & self.factors.load(1).differs(0)
                refused = lacks | (self.size.value > LONGEST_ROW)
                self.ok.value = k.select(refused, k.zeros(i64), self.ok.value)

    def _measure(self) -> None:
        k, lengths, axes = self.k, self.x.lengths, self.x.axes
        for i in k.range(axes):
            n = lengths.load(i)
            total = self.total.value * n
            is_bad = (n <= 0) | (n >= LONGEST) | (total >= MOST)
            self.ok.value = k.select(is_bad, k.zeros(i64), self.ok.value)
            self.total.value = k.select(is_bad, k.value(1, i64), total)
            self.lengths.store(n, i)
            self.size.value = n

    def _factor(self, number: int) -> None:
        """Read where weights or biases are: 0 if there are none."""
        k, record = self.k, self.record
        array, place = ArrayObject(k, self.given.load(1 + number)), k.variable(k.zeros(i64))
        fits = k.variable(k.zeros(i64))
        with k.either(array.address.equals(record.load(Norm.NONE))) as (none, some):
            with none:
                fits.value = k.value(1, i64)
            with some, k.when(array.type.equals(record.load(Word.TYPE))):
                in_rows = (array.flags & ROWS).differs(0) & array.axes.equals(1)
                with k.when(array.fits(record) & in_rows):
                    is_one = array.lengths.load().equals(self.size.value)
                    fits.value = k.select(is_one, k.value(1, i64), k.zeros(i64))
                    place.value = array.data
        self.factors.store(place.value, number)
        self.ok.value = self.ok.value & fits.value

    def compute(self, out: Value) -> None:
        """Compute the result."""
        k, record, size = self.k, self.record, self.size.value
        words = k.room(i64, 9)
        for i, value in enumerate((
            self.x.data, out, self.factors.load(0), self.factors.load(1), k.value(1, i64), size,
            k.zeros(i64), record.load(Norm.CENTRED), record.load(Norm.ROOTED),
        )):  # fmt: skip
            words.store(value, i)
        eps = k.pointer(self.given.load(3) + 16, f64).load()
        words.at(6).of(f32).store(eps)
        share = k.value(_SHARE, i64) // size
        chunk = k.select(share > 0, share, k.value(1, i64))
        work = Work(record.load(Norm.KERNEL), words, self.total.value // size, chunk)
        run(k, record, work, self.total.value, record.load(Norm.MANY))


@group.kernel("given:i64* count:i64 record:i64* found:i64*")
def apply(k: Builder, given: Pointer, count: Value, record: Pointer, found: Pointer) -> None:
    """Compute an operation for a call from Python; there are no items."""
    with k.when(count.equals(4)):
        call = _Call(k, given, record)
        call.look()
        with k.when(call.ok.value.equals(1)):
            made = new_array(k, record, call.x.axes, call.lengths)
            found.store(k.value(1, i64))
            with k.when(made.differs(0)):
                found.store(made)
                call.compute(ArrayObject(k, made).data)
