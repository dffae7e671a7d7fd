"""Sums, products and copies of numbers that lie in grids: samples of lines of rows.

Each array has its own steps from sample to sample, line to line and row to row, so that parts of an
array, and arrays with a border around them, are read and written where they are. Items are lines.
Results below ``low`` become that: 0 makes them those of a ReLU, minus infinity leaves them alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.kinds import f32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("strided")


def _where(k: Builder, value: Value, mask: Value) -> Value:
    """Keep what stands where a mask is above 0."""
    return k.select(mask > 0.0, value, k.zeros(f32, k.lanes))


# fmt: off
STRIDED: dict[str, tuple[int, Callable[..., Any]]] = {
    # operation   arrays given, value
    "copy":      (1, lambda k, x: x),
    "add":       (2, lambda k, x, y: x + y),
    "mul":       (2, lambda k, x, y: x * y),
    "keep":      (2, _where),
    "add_keep":  (3, lambda k, x, y, mask: _where(k, x + y, mask)),
}
# fmt: on
"""The operations. ``keep`` takes what stands where the last array is above 0, else 0."""


def strided_kernel(
    where: Group, name: str, count: int, function: Callable[..., Any], numbers: str
) -> Kernel:
    """Make a kernel on so many arrays in grids; the array that it writes comes last.

    ``function`` gives a vector from the builder, one of each array, and one of each number: names
    of float32 parameters.
    """

    def author(k: Builder, *given: Any) -> None:
        arrays = [given[4 * n : 4 * n + 4] for n in range(count + 1)]
        lines, rows, size, *values = given[4 * count + 4 :]
        spreads = [value.splat(k.lanes) for value in values]
        for item in k.items():
            sample, line = item // lines, item % lines
            starts = [x.at(sample * by[0] + line * by[1]) for x, *by in arrays]
            for row in k.range(rows):
                *inputs, out = (
                    start.at(row * by) for start, (*_, by) in zip(starts, arrays, strict=True)
                )

                def step(
                    i: Value, left: Value | None, inputs: list[Pointer] = inputs, out: Pointer = out
                ) -> None:
                    read_all = [read(k, x, i, left) for x in inputs]
                    write(k, out, function(k, *read_all, *spreads), i, left)

                spread(k, size, step)

    names = ("x", "y", "z")[:count]
    arrays = [f"{n}:f32* {n}_sample:i64 {n}_line:i64 {n}_row:i64" for n in (*names, "out")]
    more = [f"{number}:f32" for number in numbers.split()]
    parameters = " ".join([*arrays, "lines:i64 rows:i64 size:i64", *more])
    return where.kernel(parameters, name)(author)


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make results below a last number that number."""

    def limited(k: Builder, *given: Any) -> Value:
        *arrays, least = given
        value: Value = function(k, *arrays)
        return k.select(value < least, least, value)

    return limited


KERNELS = {
    name: strided_kernel(group, name, count, _limited(function), "low")
    for name, (count, function) in STRIDED.items()
}
