"""Columns of numbers to one each, running sums, softmax: the axis is not the last one.

Items are chunks of columns within what lies behind the axis. Of a column ``DEEP`` numbers are added
at a time, in pairs of pairs, whichever thread does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import copy_all, read, spread, write
from llmbol_core.ml.kernels.functions import exp, log
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rowwise import FOLDS, Change, Combine
from llmbol_core.ml.kernels.tiles import greater

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("columnwise")

CHUNK = 512
"""How many columns are an item."""
DEEP = 8

_PARAMETERS = "x:f32* out:f32* size:i64 count:i64 above:i64 step:i64 divisor:f32"

Body = Callable[["Pointer", "Pointer", "Value"], None]


def _chunks(
    k: Builder, x: Pointer, out: Pointer, count: Value, above: Value, made: Value, body: Body
) -> None:
    """Write ``body`` for each item: where its columns are, where results go, how many columns.

    ``made`` is how many numbers of the result there are for each column.
    """
    chunks = (count + (CHUNK - 1)) // CHUNK
    for item in k.items():
        number, first = item // chunks, item % chunks * CHUNK
        rest = count - first
        width = k.select(rest < CHUNK, rest, k.value(CHUNK, i64))
        body(x.at(number * above + first), out.at(number * count * made + first), width)


def _columns(name: str, neutral: float, combine: Combine, change: Change) -> Kernel:
    def author(
        k: Builder, x: Pointer, out: Pointer, size: Value, count: Value, above: Value,
        step: Value, divisor: Value,
    ) -> None:  # fmt: skip
        nothing = k.value(neutral, f32, k.lanes)
        totals = k.room(f32, CHUNK)

        def add(i: Value, left: Value | None, lines: Sequence[Pointer]) -> None:
            values = [change(read(k, line, i, left)) for line in lines]
            while len(values) > 1:
                values = [combine(k, *pair) for pair in zip(*[iter(values)] * 2, strict=True)]
            totals.store(combine(k, totals.load(i, k.lanes), values[0]), i)

        def body(given: Pointer, made: Pointer, width: Value) -> None:
            spread(k, width, lambda i, left: totals.store(nothing, i))
            whole = size // DEEP * DEEP
            for deep, first, last in ((DEEP, k.zeros(i64), whole), (1, whole, size)):
                for row in k.range(first, last, deep):
                    lines = [given.at((row + j) * step) for j in range(deep)]
                    spread(k, width, partial(add, lines=lines))
            by = divisor.splat(k.lanes)
            spread(k, width, lambda i, left: write(k, made, totals.load(i, k.lanes) / by, i, left))

        _chunks(k, x, out, count, above, k.value(1, i64), body)

    return group.kernel(_PARAMETERS, f"{name}_columns")(author)


COLUMN_KERNELS = {name: _columns(name, *row) for name, row in FOLDS.items()}


@group.kernel(_PARAMETERS)
def cumsum(
    k: Builder, x: Pointer, out: Pointer, size: Value, count: Value, above: Value, step: Value,
    divisor: Value,
) -> None:  # fmt: skip
    """Write running sums."""

    def body(given: Pointer, made: Pointer, width: Value) -> None:
        copy_all(k, given, made, width)
        for row in k.range(1, size):
            line, before = given.at(row * step), made.at((row - 1) * count)
            here = made.at(row * count)

            def add(i: Value, left: Value | None) -> None:
                write(k, here, read(k, line, i, left) + read(k, before, i, left), i, left)

            spread(k, width, add)

    _chunks(k, x, out, count, above, size, body)


def _softmax(is_log: bool) -> Callable[..., None]:
    def author(
        k: Builder, x: Pointer, out: Pointer, size: Value, count: Value, above: Value,
        step: Value, divisor: Value,
    ) -> None:  # fmt: skip
        tops, totals = k.room(f32, CHUNK), k.room(f32, CHUNK)

        def body(given: Pointer, made: Pointer, width: Value) -> None:
            low = k.value(float("-inf"), f32, k.lanes)
            spread(k, width, lambda i, left: tops.store(low, i))
            spread(k, width, lambda i, left: totals.store(k.zeros(f32, k.lanes), i))

            def rise(i: Value, left: Value | None, line: Pointer) -> None:
                value = read(k, line, i, left)
                tops.store(greater(k, tops.load(i, k.lanes), value), i)

            def power(i: Value, left: Value | None, line: Pointer, here: Pointer) -> None:
                value = read(k, line, i, left) - tops.load(i, k.lanes)
                made = exp(k, value)
                totals.store(totals.load(i, k.lanes) + made, i)
                write(k, here, value if is_log else made, i, left)

            def finish(i: Value, left: Value | None, here: Pointer) -> None:
                value, total = read(k, here, i, left), totals.load(i, k.lanes)
                write(k, here, value - total if is_log else value * total, i, left)

            for row in k.range(size):
                line = given.at(row * step)
                spread(k, width, partial(rise, line=line))
            for row in k.range(size):
                line, here = given.at(row * step), made.at(row * count)
                spread(k, width, partial(power, line=line, here=here))

            def turn(i: Value, left: Value | None) -> None:
                total = totals.load(i, k.lanes)
                totals.store(log(k, total) if is_log else 1.0 / total, i)

            spread(k, width, turn)
            for row in k.range(size):
                spread(k, width, partial(finish, here=made.at(row * count)))

        _chunks(k, x, out, count, above, size, body)

    return author


SCANS = {
    "cumsum": cumsum,
    "softmax": group.kernel(_PARAMETERS, "softmax")(_softmax(False)),
    "log_softmax": group.kernel(_PARAMETERS, "log_softmax")(_softmax(True)),
}
"""Operations whose results have the shape of x."""
