"""Where the greatest numbers of rows lie, greatest first, equals as they stand, NaN last.

Numbers become whole ones in the same order. A row that fits into a vector is ranked: of each number
it is counted how many come before it. Of a longer one the best so far are a heap whose root is the
worst of them, with the place behind the number so that no two are equal; what is not above the root
passes by, a vector at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import spread
from llmbol_core.ml.kernels.kinds import i32, i64, u64
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("order")

_LEAST = -(1 << 31)
_PLACE = (1 << 32) - 1


def scratch_size(count: int) -> int:
    """Return how many words of 4 bytes a thread needs room for."""
    return 2 * (2 * count + 2)


def _ordered(x: Value) -> Value:
    """Return float32 as int32 in the same order, both zeros alike, NaN least."""
    k, bits = x.k, (x + 0.0).bits(i32)
    whole = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return k.select(x.equals(x), whole, k.value(_LEAST, i32, x.lanes))


class _Heap:
    """The code that keeps the best numbers of a row; what lies behind them is above all."""

    def __init__(self, k: Builder, room: Pointer, size: Value) -> None:
        self.k, self.room, self.size = k, room, size
        self.above = k.value(-1, u64)

    def entry(self, number: Value, place: Value) -> Value:
        """Return a number with its place behind it: among equals the first is greatest."""
        high = (number.to(i64) + (1 << 31)).to(u64) << 32
        return high | (self.k.value(_PLACE, i64) - place).to(u64)

    def begin(self, x: Pointer) -> None:
        """Write the code that takes the first numbers of a row."""
        k = self.k
        for i in k.range(self.size):
            self.room.store(self.entry(_ordered(x.load(i)), i), i)
        for i in k.range(self.size, 2 * self.size + 2):
            self.room.store(self.above, i)
        half = self.size // 2
        for i in k.range(half):
            hole = half - 1 - i
            self.put(self.room.load(hole), hole)

    def put(self, value: Value, start: Value) -> None:
        """Write the code that puts an entry to where it belongs, from a free place on."""
        k, room = self.k, self.room
        hole = k.variable(start)
        with k.repeat() as again:
            left = hole.value * 2 + 1
            first, second = room.load(left), room.load(left + 1)
            is_second = second < first
            least = k.select(is_second, second, first)
            moves = least < value
            room.store(k.select(moves, least, value), hole.value)
            hole.value = k.select(moves, left + k.select(is_second, k.value(1, i64), 0), hole.value)
            again(moves)

    @property
    def worst(self) -> Value:
        """The number of the root."""
        high = (self.room.load(0) >> 32).to(i64) - (1 << 31)
        return high.to(i32)

    def take_rest(self, x: Pointer, length: Value) -> None:
        """Write the code that takes what is better of the rest of a row."""
        k = self.k
        rest, count = x.at(self.size), length - self.size
        worst = k.variable(self.worst)
        room = k.room(i32, k.lanes)

        def step(i: Value, left: Value | None) -> None:
            there = None
            if left is None:
                numbers = _ordered(rest.load(i, k.lanes))
            else:
                there = k.ramp(k.lanes, i32) < left.to(i32).splat(k.lanes)
                numbers = _ordered(rest.load_some(left, k.lanes, i))
            better = numbers > worst.value.splat(k.lanes)
            better = better if there is None else better & there
            found = k.variable(k.bits_of(better))
            with k.when(found.value.differs(0)):
                room.store(numbers)
                with k.repeat() as again:
                    lane = k.trailing_zeros(found.value)
                    number = room.load(lane)
                    with k.when(number > worst.value):
                        self.put(self.entry(number, self.size + i + lane), k.value(0, i64))
                        worst.value = self.worst
                    found.value = found.value & (found.value - 1)
                    again(found.value.differs(0))

        spread(k, count, step)

    def write(self, out: Pointer) -> None:
        """Write the code that takes entries off and writes their places, from the last one on."""
        k = self.k
        for i in k.range(self.size):
            last = self.size - 1 - i
            place = self.k.value(_PLACE, u64) - (self.room.load(0) & _PLACE)
            out.store(place.to(i64).to(i32), last)
            moved = self.room.load(last)
            self.room.store(self.above, last)
            with k.when(last > 0):
                self.put(moved, k.value(0, i64))


def _rank(k: Builder, x: Pointer, out: Pointer, length: Value, count: Value, room: Pointer) -> None:
    """Write the code for a row that fits into a vector."""
    lanes = k.ramp(k.lanes, i32)
    there = lanes < length.to(i32).splat(k.lanes)
    numbers = _ordered(x.load_some(length, k.lanes))
    room.store(numbers)
    one, none = k.value(1, i32, k.lanes), k.zeros(i32, k.lanes)
    rank = k.variable(none)
    for j in k.range(length):
        other = room.splat(j, k.lanes)
        first = (other > numbers) | (other.equals(numbers) & (lanes > j.to(i32).splat(k.lanes)))
        rank.value = rank.value + k.select(first, one, none)
    places = room.at(k.lanes)
    room.store(k.select(there, rank.value, lanes))
    for j in k.range(length):
        places.store(j.to(i32), room.load(j).to(i64))
    shown = places.load(0, k.lanes)
    out.store_some(shown, lesser_number(k, count, k.value(k.lanes, i64)))


@group.kernel("x:f32* out:i32* scratch:u64* room:i64 length:i64 count:i64")
def top(
    k: Builder, x: Pointer, out: Pointer, scratch: Pointer, room: Value, length: Value,
    count: Value,
) -> None:  # fmt: skip
    """Write where the greatest numbers lie; items are rows."""
    heap = _Heap(k, scratch.at(k.thread * room), count)
    small = k.room(i32, 2 * k.lanes)
    with k.either(length <= k.lanes) as (short, long):
        with short:
            for row in k.items():
                _rank(k, x.at(row * length), out.at(row * count), length, count, small)
        with long:
            for row in k.items():
                given = x.at(row * length)
                heap.begin(given)
                heap.take_rest(given, length)
                heap.write(out.at(row * count))
