"""Orders of rows: where their numbers lie from the least to the greatest, equals as they stand.

Numbers become whole ones in the same order. Few of them count how many stand before them; others go
to one of 256 places by eight bits at a time, lowest bits first, each with its place in the row
behind it. NaN come last, up and down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread
from llmbol_core.ml.kernels.kinds import i32, i64, u32, u64

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("sorting")

FEW = 128
"""How many numbers count those before them at most."""
DIGITS, PLACES = 4, 256
_MOST = (1 << 31) - 1


def scratch_size(length: int) -> int:
    """Return how many words of 8 bytes a thread needs room for."""
    return 2 * length + DIGITS * PLACES


def _ordered(x: Value, descending: Value) -> Value:
    """Return float32 as int32 in the order that is wanted, both zeros alike, NaN greatest."""
    k = x.k
    bits = (k.select(descending.splat(x.lanes), -x, x) + 0.0).bits(i32)
    whole = bits ^ ((bits >> 31) & _MOST)
    return k.select(x.equals(x), whole, k.value(_MOST, i32, x.lanes))


class _Counted:
    """The code for few numbers."""

    def __init__(self, k: Builder, length: Value, descending: Value) -> None:
        self.k, self.length, self.descending = k, length, descending
        self.numbers, self.ranks = k.room(i32, FEW), k.room(i32, FEW)

    def write(self, x: Pointer, out: Pointer) -> None:
        """Write the code for a row."""
        k, lanes = self.k, self.k.lanes
        spread(
            k, self.length,
            lambda i, left: self.numbers.store(_ordered(read(k, x, i, left), self.descending), i),
        )  # fmt: skip
        for start in k.range(0, self.length, lanes):
            numbers = self.numbers.load(start, lanes)
            one, rank = k.value(1, i32, lanes), k.variable(k.zeros(i32, lanes))
            end = k.select(start + lanes < self.length, start + lanes, self.length)

            def count(first: Value) -> None:
                rank.value = rank.value + k.select(first, one, 0)

            for j in k.range(start):
                count(self.numbers.splat(j, lanes) <= numbers)
            for j in k.range(start, end):
                other, here = self.numbers.splat(j, lanes), (j - start).to(i32).splat(lanes)
                count((other < numbers) | (other.equals(numbers) & (k.ramp(lanes, i32) > here)))
            for j in k.range(end, self.length):
                count(self.numbers.splat(j, lanes) < numbers)
            self.ranks.store(rank.value, start)
        for i in k.range(self.length):
            out.store(i.to(i32), self.ranks.load(i).to(i64))


class _Dealt:
    """The code for many numbers: entries go to and fro between two halves of a room."""

    def __init__(self, k: Builder, room: Pointer, length: Value, descending: Value) -> None:
        self.k, self.length, self.descending = k, length, descending
        self.counts, self.entries = room.of(i64), room.at(DIGITS * PLACES)
        self.numbers = self.entries.at(length).of(u32)

    def write(self, x: Pointer, out: Pointer) -> None:
        """Write the code for a row."""
        k, lanes = self.k, self.k.lanes
        self._begin(x)
        half = k.variable(k.value(0, i64))
        for digit in range(DIGITS):
            counts = self.counts.at(digit * PLACES)
            first = self._place(self.entries.load(half.value), digit)
            with k.when(counts.load(first).differs(self.length)):  # else they are all alike
                self._deal(counts, self.entries.at(half.value), self._other(half.value), digit)
                half.value = self.length - half.value
        sorted_ = self.entries.at(half.value)
        whole = self.length // lanes * lanes
        for i in k.range(0, whole, lanes):
            out.store(sorted_.load(i, lanes).to(i32), i)
        for i in k.range(whole, self.length):
            out.store(sorted_.load(i).to(i32), i)

    def _begin(self, x: Pointer) -> None:
        """Write the code that makes entries, and counts them by all digits."""
        k, lanes = self.k, self.k.lanes
        for i in k.range(0, DIGITS * PLACES, lanes):
            self.counts.store(k.zeros(i64, lanes), i)

        def step(i: Value, left: Value | None) -> None:
            numbers = _ordered(read(k, x, i, left), self.descending) ^ (-1 << 31)
            if left is None:
                self.numbers.store(numbers.bits(u32), i)
            else:
                self.numbers.store_some(numbers.bits(u32), left, i)

        spread(k, self.length, step)
        for i in k.range(self.length):
            entry = (self.numbers.load(i).to(u64) << 32) | i.bits(u64)
            self.entries.store(entry, i)
            for digit in range(DIGITS):
                place = self._place(entry, digit) + digit * PLACES
                self.counts.store(self.counts.load(place) + 1, place)

    def _deal(self, counts: Pointer, given: Pointer, made: Pointer, digit: int) -> None:
        """Write the code that puts entries in order by one digit."""
        k = self.k
        total = k.variable(k.value(0, i64))
        for place in k.range(PLACES):
            count = counts.load(place)
            counts.store(total.value, place)
            total.value = total.value + count
        for i in k.range(self.length):
            entry = given.load(i)
            place = self._place(entry, digit)
            to = counts.load(place)
            made.store(entry, to)
            counts.store(to + 1, place)

    def _other(self, half: Value) -> Pointer:
        return self.entries.at(self.length - half)

    @staticmethod
    def _place(entry: Value, digit: int) -> Value:
        return ((entry >> (32 + 8 * digit)) & (PLACES - 1)).to(i64)


@group.kernel("x:f32* out:i32* scratch:u64* room:i64 length:i64 descending:i64")
def argsort(
    k: Builder, x: Pointer, out: Pointer, scratch: Pointer, room: Value, length: Value,
    descending: Value,
) -> None:  # fmt: skip
    """Write the order of each row's numbers; items are rows."""
    is_down = descending.differs(0)
    counted = _Counted(k, length, is_down)
    dealt = _Dealt(k, scratch.at(k.thread * room), length, is_down)
    with k.either(length <= FEW) as (few, many):
        with few:
            for row in k.items():
                counted.write(x.at(row * length), out.at(row * length))
        with many:
            for row in k.items():
                dealt.write(x.at(row * length), out.at(row * length))
