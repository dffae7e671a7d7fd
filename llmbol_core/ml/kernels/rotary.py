"""Rotary positions: pairs of numbers of each row rotated by an angle that grows with its position.

    x, out    [items, width]
    factors   [positions, 2, dims]: the factors of all numbers, then those of their partners

The first ``dims`` numbers of a row are rotated and the others copied. Item i has position i modulo
``positions``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import copy_all, read, spread, write

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("rotary")
_PARAMETERS = "x:f32* out:f32* factors:f32* width:i64 dims:i64 positions:i64"
_Rotate = Callable[["Pointer", "Pointer", "Pointer"], None]
"""Writes the code for the rotated part of a row: numbers, results, factors."""


def _rows(
    k: Builder, rotate: _Rotate, x: Pointer, out: Pointer, factors: Pointer, width: Value,
    dims: Value, positions: Value,
) -> None:  # fmt: skip
    """Write the code for all rows."""
    for item in k.items():
        row, place = x.at(item * width), out.at(item * width)
        rotate(row, place, factors.at(item % positions * dims * 2))
        with k.when(dims < width):
            copy_all(k, row.at(dims), place.at(dims), width - dims)


@group.kernel(_PARAMETERS)
def rotate_neighbours(
    k: Builder, x: Pointer, out: Pointer, factors: Pointer, width: Value, dims: Value,
    positions: Value,
) -> None:  # fmt: skip
    """Rotate numbers 2i and 2i + 1 of rows."""
    order = [lane ^ 1 for lane in range(k.lanes)]

    def rotate(row: Pointer, place: Pointer, numbers: Pointer) -> None:
        def some(i: Value, left: Value | None) -> None:
            given = read(k, row, i, left)
            own, other = (read(k, part, i, left) for part in (numbers, numbers.at(dims)))
            write(k, place, given * own + given.shuffle(order) * other, i, left)

        spread(k, dims, some)

    _rows(k, rotate, x, out, factors, width, dims, positions)


@group.kernel(_PARAMETERS)
def rotate_halves(
    k: Builder, x: Pointer, out: Pointer, factors: Pointer, width: Value, dims: Value,
    positions: Value,
) -> None:  # fmt: skip
    """Rotate numbers i and i + dims / 2 of rows."""
    half = dims // 2
    firsts: tuple[Value | int, Value | int] = (0, half)

    def rotate(row: Pointer, place: Pointer, numbers: Pointer) -> None:
        def some(i: Value, left: Value | None) -> None:
            given = [read(k, row.at(first), i, left) for first in firsts]
            for j, first in enumerate(firsts):
                own = read(k, numbers.at(first), i, left)
                other = read(k, numbers.at(dims + first), i, left)
                write(k, place.at(first), given[j] * own + given[1 - j] * other, i, left)

        spread(k, half, some)

    _rows(k, rotate, x, out, factors, width, dims, positions)
