"""Pooling: the greatest or the mean value of each window."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.sliding import Axis, shifts
from llmbol_core.ml.ops.table import Array, Ints, Shape, op, sample


def _axes(x: Shape, kernel: Ints, stride: Ints, padding: Ints) -> list[Axis]:
    """Return the axes that windows slide along, or raise ShapeError if none fits."""
    if len(x) != 2 + len(kernel) or not len(kernel) == len(stride) == len(padding):
        numbers = f"kernel {kernel}, stride {stride}, padding {padding}"
        raise ShapeError("pool", f"{x} does not fit {numbers}: [N, channels, positions]")
    axes = []
    for length, size, step, border in zip(x[2:], kernel, stride, padding, strict=True):
        if size < 1 or step < 0 or not 0 <= border <= size // 2 or length + 2 * border < size:
            why = f"windows of {size}, steps of {step}, borders of {border} do not fit into {x}"
            raise ShapeError("pool", why)
        axes.append(Axis(length, size, step or size, border, 1))
    return axes


def _pool_shape(x: Shape, kernel: Ints, stride: Ints, padding: Ints) -> Shape:
    axes = _axes(x, kernel, stride, padding)
    if not all(axis.length for axis in axes):
        raise ShapeError("pool", f"there is nothing to pool in {x}")
    return (*x[:2], *(axis.outputs for axis in axes))


def _pool1d_shape(x: Shape, kernel: int, stride: int, padding: int) -> Shape:
    return _pool_shape(x, (kernel,), (stride,), (padding,))


def _pool_flops(output: Shape, x: Shape, kernel: int | Ints, **attributes: Any) -> int:
    return math.prod(output) * (kernel if isinstance(kernel, int) else math.prod(kernel))


def _parts(x: Array, kernel: Ints, stride: Ints, padding: Ints) -> list[tuple[Any, Any]]:
    """Return for each kernel position the windows it meets the input in, and where."""
    axes = _axes(x.shape, kernel, stride, padding)
    box = [(0, axis.outputs) for axis in axes]
    return [((..., *windows), (..., *sources)) for _, windows, sources in shifts(axes, box)]


def _greatest(x: Array, kernel: Ints, stride: Ints, padding: Ints) -> Array:
    y = np.full(_pool_shape(x.shape, kernel, stride, padding), -np.inf, x.dtype)
    for windows, sources in _parts(x, kernel, stride, padding):
        y[windows] = np.maximum(y[windows], x[sources])
    return y


def _greatest_gradient(
    g: Array, y: Array, x: Array, kernel: Ints, stride: Ints, padding: Ints
) -> tuple[Array]:
    """Give each gradient to the first element of its window that is the greatest."""
    along, waiting = np.zeros_like(x), np.ones(y.shape, bool)
    for windows, sources in _parts(x, kernel, stride, padding):
        chosen = waiting[windows] & (x[sources] == y[windows])
        along[sources] += np.where(chosen, g[windows], 0)
        waiting[windows] &= ~chosen
    return (along,)


def _mean(x: Array, kernel: Ints, stride: Ints, padding: Ints) -> Array:
    y = np.zeros(_pool_shape(x.shape, kernel, stride, padding), x.dtype)
    for windows, sources in _parts(x, kernel, stride, padding):
        y[windows] += x[sources]
    y /= math.prod(kernel)
    return y


def _mean_gradient(
    g: Array, y: Array, x: Array, kernel: Ints, stride: Ints, padding: Ints
) -> tuple[Array]:
    along = np.zeros_like(x)
    for windows, sources in _parts(x, kernel, stride, padding):
        along[sources] += g[windows] / math.prod(kernel)
    return (along,)


def _greatest1d_gradient(g: Array, y: Array, x: Array, **numbers: int) -> tuple[Array]:
    return _greatest_gradient(g, y, x, **{name: (n,) for name, n in numbers.items()})


def _mean1d_gradient(g: Array, y: Array, x: Array, **numbers: int) -> tuple[Array]:
    return _mean_gradient(g, y, x, **{name: (n,) for name, n in numbers.items()})


_EXAMPLE1D = sample((2, 3, 9), kernel=3, stride=2, padding=1)
_EXAMPLE2D = sample((2, 3, 5, 7), kernel=(2, 3), stride=(1, 2), padding=(1, 0))


@op(_pool1d_shape, _pool_flops, _EXAMPLE1D, _greatest1d_gradient)
def max_pool1d(x: Array, kernel: int, stride: int = 0, padding: int = 0) -> Array:
    """Return the greatest value of each window along [N, channels, length]; stride 0: kernel."""
    return _greatest(x, (kernel,), (stride,), (padding,))


@op(_pool_shape, _pool_flops, _EXAMPLE2D, _greatest_gradient)
def max_pool2d(x: Array, kernel: Ints, stride: Ints = (0, 0), padding: Ints = (0, 0)) -> Array:
    """Return the greatest value of each window of [N, channels, height, width]."""
    return _greatest(x, kernel, stride, padding)


@op(_pool1d_shape, _pool_flops, _EXAMPLE1D, _mean1d_gradient)
def avg_pool1d(x: Array, kernel: int, stride: int = 0, padding: int = 0) -> Array:
    """Average each window along [N, channels, length], zeros at the borders."""
    return _mean(x, (kernel,), (stride,), (padding,))


@op(_pool_shape, _pool_flops, _EXAMPLE2D, _mean_gradient)
def avg_pool2d(x: Array, kernel: Ints, stride: Ints = (0, 0), padding: Ints = (0, 0)) -> Array:
    """Average each window of [N, channels, height, width], zeros at the borders."""
    return _mean(x, kernel, stride, padding)
