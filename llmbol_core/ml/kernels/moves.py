"""Moving numbers of whole arrays, and choosing among them: what ``elementwise`` does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import copy_all, read, spread, write

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("moves")


@group.kernel("condition:f32* x:f32* y:f32* out:f32* size:i64")
def where(
    k: Builder, condition: Pointer, x: Pointer, y: Pointer, out: Pointer, size: Value
) -> None:
    """Take x where the condition is not zero, else y."""
    first = k.begin * size
    condition, x, y, out = (array.at(first) for array in (condition, x, y, out))

    def step(i: Value, left: Value | None) -> None:
        given = [read(k, array, i, left) for array in (condition, x, y)]
        write(k, out, k.select(given[0].differs(0.0), given[1], given[2]), i, left)

    spread(k, (k.end - k.begin) * size, step)


@group.kernel("x:f32* out:f32* size:i64")
def copy(k: Builder, x: Pointer, out: Pointer, size: Value) -> None:
    """Copy numbers."""
    first = k.begin * size
    copy_all(k, x.at(first), out.at(first), (k.end - k.begin) * size)


@group.kernel(
    "x:f32* out:f32* width:i64 height:i64 deep:i64 more:i64 step:i64 third:i64 fourth:i64"
)
def turn(
    k: Builder, x: Pointer, out: Pointer, width: Value, height: Value, deep: Value, more: Value,
    step: Value, third: Value, fourth: Value,
) -> None:  # fmt: skip
    """Write columns as rows: out[..., i, j] = x[..., j, i]; items are as many rows as lanes.

    Rows of x are ``step`` apart; above them there are ``more`` times ``deep`` matrices.
    """
    lines = (height + (k.lanes - 1)) // k.lanes
    whole = width // k.lanes * k.lanes
    for item in k.items():
        row, matrix = item % lines * k.lanes, item // lines
        given = x.at(matrix % deep * third + matrix // deep * fourth + row)
        made = out.at((matrix * height + row) * width)
        rest = height - row
        with k.either(rest >= k.lanes) as (full, part):
            with full:
                for i in k.range(0, whole, k.lanes):
                    rows = [given.at((i + n) * step).load(0, k.lanes) for n in range(k.lanes)]
                    for n, value in enumerate(_turned(rows)):
                        made.at(n * width).store(value, i)
                for i in k.range(whole, width):
                    for j in k.range(k.lanes):
                        made.at(j * width).store(given.at(i * step).load(j), i)
            with part:
                for i in k.range(width):
                    for j in k.range(rest):
                        made.at(j * width).store(given.at(i * step).load(j), i)


@group.kernel(
    "x:f32* out:f32* width:i64 height:i64 deep:i64 more:i64 step:i64 third:i64 fourth:i64"
)
def move(
    k: Builder, x: Pointer, out: Pointer, width: Value, height: Value, deep: Value, more: Value,
    step: Value, third: Value, fourth: Value,
) -> None:  # fmt: skip
    """Copy rows, which are ``step`` apart; items are as many rows as lanes, as for ``turn``."""
    lines = (height + (k.lanes - 1)) // k.lanes
    for item in k.items():
        row, matrix = item % lines * k.lanes, item // lines
        given = x.at(matrix % deep * third + matrix // deep * fourth)
        made = out.at(matrix * height * width)
        end = k.select(row + k.lanes < height, row + k.lanes, height)
        for i in k.range(row, end):
            copy_all(k, given.at(i * step), made.at(i * width), width)


def _turned(rows: list[Value]) -> list[Value]:
    """Return the columns of a square of vectors: blocks beside the diagonal change places."""
    distance = len(rows) // 2
    while distance:
        for i in range(len(rows)):
            if not i & distance:
                first, second = rows[i], rows[i + distance]
                n, lanes = len(rows), range(len(rows))
                low = [j if not j & distance else n + j - distance for j in lanes]
                high = [j + distance if not j & distance else n + j for j in lanes]
                rows[i], rows[i + distance] = (
                    first.shuffle(low, second), first.shuffle(high, second)
                )  # fmt: skip
        distance //= 2
    return rows
