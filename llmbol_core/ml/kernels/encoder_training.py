"""Layer norm over rows with what its gradient needs, that gradient, and the gradient of GELU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rows import plus, reduced
from llmbol_core.ml.kernels.slopes import gelu_slope
from llmbol_core.ml.kernels.tiles import lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("encoder training")


@group.kernel("x:f32* y:f32* normal:f32* rate:f32* weight:f32* bias:f32* size:i64 eps:f32")
def layer_norm(
    k: Builder, x: Pointer, y: Pointer, normal: Pointer, rate: Pointer, weight: Pointer,
    bias: Pointer, size: Value, eps: Value,
) -> None:  # fmt: skip
    """Bring rows, which are the items, to mean 0 and variance 1, then scale and shift them."""
    length = size.to(f32)
    for row in k.items():
        given, made, unit = x.at(row * size), y.at(row * size), normal.at(row * size)
        mean = (reduced(k, given, size, 0.0, plus) / length).splat(k.lanes)

        def square(v: Value, i: Value, n: Value | None) -> Value:
            return (v - mean) * (v - mean)

        squares = reduced(k, given, size, 0.0, plus, square)
        root = 1.0 / k.sqrt(squares / length + eps)
        rate.store(root, row)

        def step(i: Value, left: Value | None) -> None:
            value = (read(k, given, i, left) - mean) * root
            write(k, unit, value, i, left)
            scaled = value * read(k, weight, i, left) + read(k, bias, i, left)
            write(k, made, scaled, i, left)

        spread(k, size, step)


@group.kernel("d:f32* normal:f32* rate:f32* weight:f32* base:f32* g:f32* size:i64 adds:i64")
def layer_norm_gradient(
    k: Builder, d: Pointer, normal: Pointer, rate: Pointer, weight: Pointer, base: Pointer,
    g: Pointer, size: Value, adds: Value,
) -> None:  # fmt: skip
    """Write the gradient of rows, which are the items; with ``adds`` a base is added."""
    length = size.to(f32)
    for row in k.items():
        given, unit, made = d.at(row * size), normal.at(row * size), g.at(row * size)
        more = base.at(row * size)

        def along(v: Value, i: Value, n: Value | None) -> Value:
            return v * read(k, weight, i, n)

        def across(v: Value, i: Value, n: Value | None) -> Value:
            return v * read(k, weight, i, n) * read(k, unit, i, n)

        middle = reduced(k, given, size, 0.0, plus, along) / length
        slope = reduced(k, given, size, 0.0, plus, across) / length
        factor = rate.load(row)

        def step(i: Value, left: Value | None) -> None:
            value = read(k, given, i, left) * read(k, weight, i, left)
            value = (value - middle - read(k, unit, i, left) * slope) * factor
            there = k.select(adds.differs(0), read(k, more, i, left), k.zeros(f32, k.lanes))
            write(k, made, value + there, i, left)

        spread(k, size, step)


@group.kernel(
    "d:f32* normal:f32* along_weight:f32* along_bias:f32* rows:i64 columns:i64 continued:i64"
)
def norm_weights_gradient(
    k: Builder, d: Pointer, normal: Pointer, along_weight: Pointer, along_bias: Pointer,
    rows: Value, columns: Value, continued: Value,
) -> None:  # fmt: skip
    """Add up the gradients of weight and bias; items are vectors of columns.

    ``continued``, the sums go on from what is there.
    """
    lanes, fresh = k.lanes, continued.equals(0)
    for item in k.items():
        column = item * lanes
        left = lesser_number(k, columns - column, k.value(lanes, i64))
        sums = []
        for to in (along_weight, along_bias):
            known = to.load_some(left, lanes, column)
            sums.append(k.variable(k.select(fresh, k.zeros(f32, lanes), known)))
        for row in k.range(rows):
            place = row * columns + column
            value = d.load_some(left, lanes, place)
            sums[0].value = k.fma(value, normal.load_some(left, lanes, place), sums[0].value)
            sums[1].value = sums[1].value + value
        for total, to in zip(sums, (along_weight, along_bias), strict=True):
            to.store_some(total.value, left, column)


@group.kernel("x:f32* d:f32* g:f32* size:i64")
def gelu_gradient(k: Builder, x: Pointer, d: Pointer, g: Pointer, size: Value) -> None:
    """Multiply a gradient by the derivative of GELU at x; items have ``size`` numbers."""
    first = k.begin * size
    x, d, g = x.at(first), d.at(first), g.at(first)

    def step(i: Value, left: Value | None) -> None:
        write(k, g, read(k, d, i, left) * gelu_slope(k, read(k, x, i, left)), i, left)

    spread(k, (k.end - k.begin) * size, step)
