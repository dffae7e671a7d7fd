"""Element-wise operations on whole arrays: any shapes that broadcast, any strides.

``apply`` is what a call from Python runs (``native.arrays``): it looks at the arrays, joins axes
that lie as one, makes the result, and has a kernel of ``elementwise`` do it all at once, or
``walk`` do it row by row. ``Map`` names the words of its record from ``Word.FREE`` on.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import spread, write
from llmbol_core.ml.kernels.kinds import f32, f64, i32, i64
from llmbol_core.ml.kernels.objects import (
    AXES,
    COLUMNS,
    LONGEST,
    MOST,
    ArrayObject,
    Work,
    new_array,
    new_like,
    run,
)
from llmbol_core.native.arrays import Word

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("maps")

INPUTS = 3
"""How many arrays there may be."""
JOINED = 4
"""How many axes may be left after those that lie as one are joined."""
BLOCK = 1024
"""How many numbers of a row are worked on at a time if they are no neighbours."""
SHARE = 1 << 13
"""How many numbers a thread takes at a time."""
_TABLE = 1 + JOINED
"""Words for each array of ``walk``: where it lies, steps along the axes from the last one on."""


class Map(IntEnum):
    """What a record says about an operation: words from ``Word.FREE`` on."""

    INPUTS = Word.FREE
    FLAT = Word.FREE + 1
    """The kernel for arrays that lie alike."""
    SECOND = Word.FREE + 2
    """The kernel for a single number as the second input; 0 if there is none."""
    FIRST = Word.FREE + 3
    """The kernel for a single number as the first input; 0 if there is none."""
    WALK = Word.FREE + 4
    """The kernel ``walk``."""
    MANY = Word.FREE + 5
    """How many numbers are worth several threads."""
    IN_ROWS = Word.FREE + 6
    """1 if the result is always in rows; otherwise it is in columns if all inputs are."""
    MOVE = Word.FREE + 7
    """The kernel ``move`` if numbers are only moved, else 0."""
    TURN = Word.FREE + 8
    """The kernel ``turn`` likewise."""


class _Call:
    """The code of ``apply``."""

    def __init__(self, k: Builder, given: Pointer, count: Value, record: Pointer) -> None:
        self.k, self.given, self.count, self.record = k, given, count, record
        self.inputs = record.load(Map.INPUTS)
        self.lengths, self.steps = k.room(i64, AXES), k.room(i64, AXES * INPUTS)
        self.shape, self.data = k.room(i64, AXES), k.room(i64, INPUTS)
        self.numbers = k.room(f32, 2)
        """The attributes a and b."""
        self.ok, self.axes = k.variable(k.value(1, i64)), k.variable(k.zeros(i64))
        self.total, self.kept = k.variable(k.value(1, i64)), k.variable(k.zeros(i64))
        self.turned = k.variable(k.value(COLUMNS, i64))
        """Flags that all arrays have, if they are of one shape."""

    def refuse(self, condition: Value) -> None:
        """Leave the call to the other function if a condition holds."""
        self.ok.value = self.k.select(condition, self.k.zeros(i64), self.ok.value)

    def look(self) -> None:
        """Read what is given: axes are counted from the last, 0 steps along what is repeated."""
        k, inputs = self.k, self.inputs
        for axis in range(AXES):
            self.lengths.store(k.value(1, i64), axis)
        for place in range(2):
            self.numbers.store(k.zeros(f32), place)
        self.refuse(self.count.differs(inputs) & self.count.differs(inputs + 2))
        for i in k.range(inputs, k.select(self.ok.value.equals(1), self.count, inputs)):
            number = ArrayObject(k, self.given.load(i))
            is_float = number.type.equals(self.record.load(Word.FLOAT_TYPE))
            self.refuse(is_float.equals(k.value(0, is_float.kind)))
            with k.when(is_float):
                self.numbers.store(k.pointer(number.address + 16, f64).load(), i - inputs)
        for i in k.range(k.select(self.ok.value.equals(1), inputs, k.zeros(i64))):
            array = ArrayObject(k, self.given.load(i))
            with k.either(array.type.equals(self.record.load(Word.TYPE))) as (yes, no):
                with no:
                    self.refuse(k.value(1, i64).equals(1))
                with yes, k.either(array.fits(self.record)) as (fits, other):
                    with other:
                        self.refuse(k.value(1, i64).equals(1))
                    with fits:
                        self._read(array, i)
        self._count()

    def _read(self, array: ArrayObject, number: Value) -> None:
        k, axes = self.k, array.axes
        lengths, strides = array.lengths, array.strides
        steps = self.steps.at(number * AXES)
        self.data.store(array.data, number)
        self.turned.value = self.turned.value & array.flags
        is_other = number.differs(0) & axes.differs(self.axes.value)
        for i in k.range(axes):
            place = axes - 1 - i
            n, known = lengths.load(place), self.lengths.load(i)
            is_one = n.equals(1)
            fits = is_one | known.equals(1) | n.equals(known)
            self.refuse((n <= 0) | (n >= LONGEST) | fits.equals(k.value(0, fits.kind)))
            is_other = is_other | (number.differs(0) & n.differs(known))
            self.lengths.store(k.select(is_one, known, n), i)
            steps.store(k.select(is_one, k.zeros(i64), strides.load(place) >> 2), i)
            with k.when(number.differs(0) & n.differs(known)):
                self.turned.value = k.zeros(i64)
        for i in k.range(axes, AXES):
            steps.store(k.zeros(i64), i)
        with k.when(number.differs(0) & axes.differs(self.axes.value)):
            self.turned.value = k.zeros(i64)
        self.axes.value = k.select(axes > self.axes.value, axes, self.axes.value)

    def _count(self) -> None:
        """Count the numbers of the result, and put its lengths in order."""
        k, axes = self.k, self.axes.value
        for i in k.range(axes):
            n = self.lengths.load(i)
            self.shape.store(n, axes - 1 - i)
            total = self.total.value * n
            self.refuse(total >= MOST)
            self.total.value = k.select(total >= MOST, k.value(1, i64), total)

    def join(self) -> None:
        """Join axes along which all arrays go on with the same steps."""
        k = self.k
        for i in k.range(self.axes.value):
            n = self.lengths.load(i)
            with k.when(n.differs(1)):
                kept = self.kept.value
                last = k.select(kept > 0, kept - 1, kept)
                before = self.lengths.load(last)
                goes_on = k.variable(k.select(kept > 0, k.value(1, i64), k.zeros(i64)))
                for j in k.range(self.inputs):
                    steps = self.steps.at(j * AXES)
                    is_next = steps.load(i).equals(steps.load(last) * before)
                    goes_on.value = k.select(is_next, goes_on.value, k.zeros(i64))
                with k.either(goes_on.value.equals(1)) as (yes, no):
                    with yes:
                        self.lengths.store(before * n, last)
                    with no:
                        self.lengths.store(n, kept)
                        for j in k.range(self.inputs):
                            steps = self.steps.at(j * AXES)
                            steps.store(steps.load(i), kept)
                        self.kept.value = kept + 1

    def lie_as_one(self) -> None:
        """Take arrays in columns, or single numbers, for one row of numbers."""
        k = self.k
        in_rows = self.record.load(Map.IN_ROWS).equals(1)
        self.turned.value = k.select(in_rows, k.zeros(i64), self.turned.value)
        is_one = self.turned.value.differs(0) | self.total.value.equals(1)
        with k.when(is_one):
            self.kept.value = k.value(1, i64)
            self.lengths.store(self.total.value)
            for j in k.range(self.inputs):
                self.steps.store(k.value(1, i64), j * AXES)

    def make(self) -> Value:
        """Return a new array for the result."""
        k, made = self.k, self.k.variable(self.k.zeros(i64))
        with k.either(self.turned.value.differs(0)) as (yes, no):
            with yes:
                made.value = new_like(k, self.record, self.given.load())
            with no:
                made.value = new_array(k, self.record, self.axes.value, self.shape)
        return made.value

    def compute(self, out: Value) -> None:
        """Compute the result."""
        k = self.k
        is_flat = k.variable(self.kept.value)
        for j in k.range(self.inputs):
            is_flat.value = k.select(self.steps.load(j * AXES).equals(1), is_flat.value,
                                     k.zeros(i64))  # fmt: skip
        with k.either(is_flat.value.equals(1)) as (yes, no):
            with yes:
                self._flat(out)
            with no:
                self._move_or_walk(out)

    def _move_or_walk(self, out: Value) -> None:
        k, record = self.k, self.record
        moves = record.load(Map.MOVE).differs(0) & (self.kept.value > 1)
        with k.either(moves & self.steps.load(1).equals(1)) as (turned, other):
            with turned:
                self._move(out, record.load(Map.TURN), 0)
            with other, k.either(moves & self.steps.load(0).equals(1)) as (near, far):
                with near:
                    self._move(out, record.load(Map.MOVE), 1)
                with far:
                    self._walk(out)

    def _flat(self, out: Value) -> None:
        k, record = self.k, self.record
        words = k.room(i64, INPUTS + 4)
        for j in k.range(self.inputs):
            words.store(self.data.load(j), j)
        _finish(k, words.at(self.inputs), out, self.numbers)
        work = Work(record.load(Map.FLAT), words, self.total.value, k.value(SHARE, i64))
        run(k, record, work, self.total.value, record.load(Map.MANY))

    def _move(self, out: Value, kernel: Value, axis: int) -> None:
        """Have rows moved, or turned; rows lie along the other one of the last two axes."""
        k, record = self.k, self.record
        words, above = k.room(i64, 9), k.variable(k.value(1, i64))
        kept = self.kept.value
        for i in range(JOINED):
            n = k.select(kept > i, self.lengths.load(i), k.value(1, i64))
            words.store(n, 2 + i)
            above.value = above.value * n if i > 1 else above.value
        for i, step in enumerate((axis, 2, 3)):
            words.store(k.select(kept > step, self.steps.load(step), k.zeros(i64)), 6 + i)
        words.store(self.data.load())
        words.store(out, 1)
        lines = (self.lengths.load(1) + (k.lanes - 1)) // k.lanes
        share = k.value(SHARE // k.lanes, i64) // self.lengths.load()
        chunk = k.select(share > 0, share, k.value(1, i64))
        work = Work(kernel, words, above.value * lines, chunk)
        run(k, record, work, self.total.value, record.load(Map.MANY))

    def _walk(self, out: Value) -> None:
        k, record = self.k, self.record
        table = k.room(i64, _TABLE * INPUTS)
        kept = self.kept.value
        sizes, rows = k.room(i64, JOINED), k.variable(k.value(1, i64))
        for i in range(JOINED):
            sizes.store(k.select(kept > i, self.lengths.load(i), k.value(1, i64)), i)
            rows.value = rows.value * sizes.load(i) if i else rows.value
        for j in k.range(self.inputs):
            line, steps = table.at(j * _TABLE), self.steps.at(j * AXES)
            line.store(self.data.load(j))
            for i in range(JOINED):
                line.store(k.select(kept > i, steps.load(i), k.zeros(i64)), i + 1)
        pieces = (sizes.load() + (SHARE - 1)) // SHARE
        words = k.room(i64, 9)
        for i, value in enumerate((
            self.inputs, record.load(Map.FLAT), record.load(Map.FIRST), record.load(Map.SECOND),
            sizes.address(), pieces, out, self.numbers.address(), table.address(),
        )):  # fmt: skip
            words.store(value, i)
        share = k.value(SHARE, i64) // sizes.load()
        chunk = k.select(share > 0, share, k.value(1, i64))
        work = Work(record.load(Map.WALK), words, rows.value * pieces, chunk)
        run(k, record, work, self.total.value, record.load(Map.MANY))


def _finish(k: Builder, words: Pointer, out: Value, numbers: Pointer) -> None:
    """Write the arguments of a kernel that follow the inputs: out, size, a, b."""
    words.store(out)
    words.store(k.value(1, i64), 1)
    for i in range(2):
        words.at(2 + i).of(f32).store(numbers.load(i))


@group.kernel("given:i64* count:i64 record:i64* found:i64*")
def apply(k: Builder, given: Pointer, count: Value, record: Pointer, found: Pointer) -> None:
    """Compute an operation for a call from Python; there are no items."""
    call = _Call(k, given, count, record)
    call.look()
    with k.when(call.ok.value.equals(1)):
        call.join()
        call.lie_as_one()
        with k.when(call.kept.value <= JOINED):
            made = call.make()
            found.store(k.value(1, i64))
            with k.when(made.differs(0)):
                found.store(made)
                call.compute(ArrayObject(k, made).data)


# ---- row by row ----


@group.kernel(
    "inputs:i64 flat:i64 first:i64 second:i64 sizes:i64* pieces:i64 "
    "out:f32* numbers:f32* table:i64*"
)
def walk(
    k: Builder, inputs: Value, flat: Value, first: Value, second: Value, sizes: Pointer,
    pieces: Value, out: Pointer, numbers: Pointer, table: Pointer,
) -> None:  # fmt: skip
    """Compute rows of numbers by other kernels; items are pieces of rows of the result.

    Numbers of an input that are no neighbours are put side by side before.
    """
    size, *above = (sizes.load(i) for i in range(JOINED))
    room, words, alone = k.room(f32, BLOCK * INPUTS), k.room(i64, INPUTS + 4), k.value(-1, i64)
    # Which input is a single number in every row, and a kernel takes it as such.
    steps = [table.load(_TABLE * j + 1) for j in range(2)]
    takes = [first.differs(0) & steps[0].equals(0), second.differs(0) & steps[1].equals(0)]
    with_first = takes[0] & steps[1].differs(0)
    with_second = takes[1] & steps[0].differs(0)
    single = k.select(with_first, k.zeros(i64), k.select(with_second, k.value(1, i64), alone))
    kernel = k.select(with_first, first, k.select(with_second, second, flat))
    is_near = k.variable(k.value(1, i64))
    for j in k.range(inputs):
        fits = table.load(j * _TABLE + 1).equals(1) | j.equals(single)
        is_near.value = k.select(fits, is_near.value, k.zeros(i64))
    block = k.select(is_near.value.equals(1), k.value(SHARE, i64), k.value(BLOCK, i64))
    for item in k.items():
        row, piece = item // pieces, item % pieces
        at, rest = [], row
        for length in above:
            at.append(rest % length)
            rest = rest // length
        first_of = piece * SHARE
        stop = k.select(first_of + SHARE < size, first_of + SHARE, size)
        for begin in k.range(first_of, stop, block):
            left = stop - begin
            count = k.select(left < block, left, block)
            for j in k.range(inputs):
                start, step, *by = (table.load(j * _TABLE + i) for i in range(_TABLE))
                place = k.pointer(start, f32).at(begin * step)
                for index, distance in zip(at, by, strict=True):
                    place = place.at(index * distance)
                words.store(place.address(), j)
                with k.when(step.differs(1) & j.differs(single)):
                    near = room.at(j * BLOCK)
                    words.store(near.address(), j)
                    _gather(k, place, step, near, count)
            _finish(k, words.at(inputs), out.at(row * size + begin).address(), numbers)
            nothing = k.zeros(i64)
            k.call_at(kernel, i32, words, nothing, count, nothing)


def _gather(k: Builder, x: Pointer, step: Value, near: Pointer, count: Value) -> None:
    """Put numbers side by side that are so many apart."""
    with k.either(step.equals(0)) as (is_one, are_more):
        with is_one:
            value = x.splat(0, k.lanes)
            spread(k, count, lambda i, left: write(k, near, value, i, left))
        with are_more, k.either(step.equals(2)) as (is_half, are_far):
            with is_half:
                _every_other(k, x, near, count)
            with are_far:
                for i in k.range(count):
                    near.store(x.load(i * step), i)


def _every_other(k: Builder, x: Pointer, near: Pointer, count: Value) -> None:
    """Put every second number side by side; nothing behind the last one is read."""
    whole = (count - 1) // k.lanes * k.lanes
    even = range(0, 2 * k.lanes, 2)
    for i in k.range(0, whole, k.lanes):
        pair = [x.load(i + i + h * k.lanes, k.lanes) for h in range(2)]
        near.store(pair[0].shuffle(even, pair[1]), i)
    for i in k.range(whole, count):
        near.store(x.load(i + i), i)
