"""Where the greatest numbers of rows lie, greatest first, equals as they stand, NaN last.

Numbers are mapped to integers in the same order. Those not above the worst of the best so far are
passed over, a vector at a time. The best are a heap whose root is the worst of them, with the place
after the number so that no two are equal; or a vector, if they fit into one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread
from llmbol_core.ml.kernels.kinds import i32, i64, u64
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("order")

_LEAST, _MOST = -(1 << 31), (1 << 31) - 1
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
        worst = k.variable(self.worst)

        def take(number: Value, place: Value) -> None:
            self.put(self.entry(number, place), k.value(0, i64))
            worst.value = self.worst

        better_ones(k, x, self.size, length, lambda: worst.value, take)

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


class _Few:
    """The code for as many numbers as a vector has lanes at most: they stay in one, in order.

    Those that are wanted are its last ones; before them is what is above all.
    """

    def __init__(self, k: Builder, length: Value, count: Value) -> None:
        self.k, self.length, self.count = k, length, count
        self.lanes = k.ramp(k.lanes, i32)
        self.numbers, self.room = (k.room(i32, 2 * k.lanes) for _ in range(2))
        self.places = k.room(i32, 2 * k.lanes)

    def begin(self, x: Pointer, there: Value) -> None:
        """Write the code that puts the first numbers in order, so many of a vector."""
        k, lanes = self.k, self.lanes
        numbers = _ordered(x.load_some(there, k.lanes))
        self.room.store(numbers)
        one, none = k.value(1, i32, k.lanes), k.zeros(i32, k.lanes)
        rank = k.variable(none)
        for j in k.range(there):
            other = self.room.splat(j, k.lanes)
            first = (other > numbers) | (other.equals(numbers) & (lanes > j.to(i32).splat(k.lanes)))
            rank.value = rank.value + k.select(first, one, none)
        self.room.store(rank.value, k.lanes)
        self.numbers.store(k.value(_MOST, i32, k.lanes))
        before = k.value(k.lanes, i64) - self.count
        for j in k.range(there):
            place = before + self.room.load(j + k.lanes).to(i64)
            self.numbers.store(self.room.load(j), place)
            self.places.store(j.to(i32), place)

    def take_rest(self, x: Pointer) -> None:
        """Write the code that lets better numbers of the rest of a row in."""
        k, lanes = self.k, self.k.lanes
        numbers, places = (k.variable(v.load(0, lanes)) for v in (self.numbers, self.places))
        right = [0, *range(lanes - 1)]
        is_first = self.lanes.equals(0)

        def let_in(number: Value, place: Value) -> None:
            new, held = number.splat(lanes), numbers.value
            moved = held.shuffle(right)
            stays = held >= new
            goes_here = is_first | (moved >= new)
            numbers.value = k.select(stays, held, k.select(goes_here, new, moved))
            whither = k.select(goes_here, place.to(i32).splat(lanes), places.value.shuffle(right))
            places.value = k.select(stays, places.value, whither)

        better_ones(
            k, x, k.value(lanes, i64), self.length, lambda: numbers.value.lane(lanes - 1), let_in
        )
        self.places.store(places.value)

    def write(self, out: Pointer) -> None:
        """Write the code that writes the places."""
        k = self.k
        shown = self.places.load(k.value(k.lanes, i64) - self.count, k.lanes)
        out.store_some(shown, self.count)


def better_ones(
    k: Builder, x: Pointer, first: Value, length: Value, worst: Callable[[], Value],
    take: Callable[[Value, Value], None],
) -> None:  # fmt: skip
    """Write ``take(number, place)`` for numbers of a row from the first on that beat the worst."""
    room = k.room(i32, k.lanes)
    rest = x.at(first)

    def step(i: Value, left: Value | None) -> None:
        numbers = _ordered(read(k, rest, i, left))
        better = numbers > worst().splat(k.lanes)
        if left is not None:
            better = better & (k.ramp(k.lanes, i32) < left.to(i32).splat(k.lanes))
        found = k.variable(k.bits_of(better))
        with k.when(found.value.differs(0)):
            room.store(numbers)
            with k.repeat() as again:
                lane = k.trailing_zeros(found.value)
                number = room.load(lane)
                with k.when(number > worst()):
                    take(number, first + i + lane)
                found.value = found.value & (found.value - 1)
                again(found.value.differs(0))

    spread(k, length - first, step)


@group.kernel("x:f32* out:i32* scratch:u64* room:i64 length:i64 count:i64")
def top(
    k: Builder, x: Pointer, out: Pointer, scratch: Pointer, room: Value, length: Value,
    count: Value,
) -> None:  # fmt: skip
    """Write where the greatest numbers lie; items are rows."""
    heap = _Heap(k, scratch.at(k.thread * room), count)
    few = _Few(k, length, count)
    with k.either(count <= k.lanes) as (little, much):
        with little:
            for row in k.items():
                given = x.at(row * length)
                few.begin(given, lesser_number(k, length, k.value(k.lanes, i64)))
                with k.when(length > k.lanes):
                    few.take_rest(given)
                few.write(out.at(row * count))
        with much:
            for row in k.items():
                given = x.at(row * length)
                heap.begin(given)
                heap.take_rest(given, length)
                heap.write(out.at(row * count))
