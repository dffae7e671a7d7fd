"""Pooling: the greatest or the mean value of each window."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.sliding import Axis, shifts
from llmbol_core.ml.ops.table import OPS, Array, Ints, Shape, op, sample


def pooled_axes(x: Shape, kernel: Ints, stride: Ints, padding: Ints, ceil: bool) -> list[Axis]:
    """Return the axes that windows slide along, or raise ShapeError if none fits."""
    if len(x) != 2 + len(kernel) or not len(kernel) == len(stride) == len(padding):
        numbers = f"kernel {kernel}, stride {stride}, padding {padding}"
        raise ShapeError("pool", f"{x} does not fit {numbers}: [N, channels, positions]")
    axes = []
    for length, size, step, border in zip(x[2:], kernel, stride, padding, strict=True):
        if size < 1 or step < 0 or not 0 <= border <= size // 2 or length + 2 * border < size:
            sizes = f"windows of {size}, steps of {step or size}, borders of {border}"
            why = f"{sizes} do not fit into {x}"
            raise ShapeError("pool", why)
        axes.append(Axis(length, size, step or size, border, 1, ceil))
    return axes


def _pool_shape(
    x: Shape, kernel: Ints, stride: Ints, padding: Ints, ceil: bool, **attributes: Any
) -> Shape:
    axes = pooled_axes(x, kernel, stride, padding, ceil)
    if not all(axis.length for axis in axes):
        raise ShapeError("pool", f"there is nothing to pool in {x}")
    return (*x[:2], *(axis.outputs for axis in axes))


def _pool1d_shape(x: Shape, **attributes: Any) -> Shape:
    return _pool_shape(x, **widened(attributes))


def widened(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of one axis as those of several."""
    return {n: (v,) if n in ("kernel", "stride", "padding") else v for n, v in attributes.items()}


def _pool_flops(output: Shape, x: Shape, kernel: int | Ints, **attributes: Any) -> int:
    return math.prod(output) * (kernel if isinstance(kernel, int) else math.prod(kernel))


def _parts(axes: list[Axis]) -> list[tuple[Any, Any]]:
    """Return for each kernel position the windows it meets the input in, and where."""
    box = [(0, axis.outputs) for axis in axes]
    return [((..., *windows), (..., *sources)) for _, windows, sources in shifts(axes, box)]


_maximum, _add, _scale = (OPS[name].run for name in ("maximum", "add", "scale"))


def _greatest(x: Array, **attributes: Any) -> Array:
    axes = pooled_axes(x.shape, **attributes)
    parts = _parts(axes)
    if not any(axis.is_cut for axis in axes):
        return functools.reduce(_maximum, [x[sources] for _, sources in parts])
    y = np.full(_pool_shape(x.shape, **attributes), -np.inf, x.dtype)
    for windows, sources in parts:
        np.maximum(y[windows], x[sources], out=y[windows])
    return y


def _greatest_gradient(g: Array, y: Array, x: Array, **attributes: Any) -> tuple[Array]:
    """Give each gradient to the first element of its window that is the greatest."""
    along, waiting = np.zeros_like(x), np.ones(y.shape, bool)
    for windows, sources in _parts(pooled_axes(x.shape, **attributes)):
        chosen = x[sources] == y[windows]
        chosen &= waiting[windows]
        along[sources] += g[windows] * chosen
        waiting[windows] ^= chosen
    return (along,)


def divisors(axes: list[Axis], count_padding: bool, dtype: Any) -> Array:
    """Return how many places of the input, and of the borders if they count, each window covers."""
    total = np.ones((1,) * len(axes), dtype)
    for number, axis in enumerate(axes):
        start = np.arange(axis.outputs) * axis.stride - axis.padding
        stop = np.minimum(start + axis.kernel, axis.length + axis.padding)
        if not count_padding:
            start, stop = np.maximum(start, 0), np.minimum(stop, axis.length)
        sides = [-1 if i == number else 1 for i in range(len(axes))]
        total = total * (stop - start).astype(dtype).reshape(sides)
    return total


def _mean(x: Array, count_padding: bool, **attributes: Any) -> Array:
    axes = pooled_axes(x.shape, **attributes)
    parts = _parts(axes)
    if not any(axis.is_cut for axis in axes):
        total = functools.reduce(_add, [x[sources] for _, sources in parts])
        return _scale(total, 1 / math.prod(axis.kernel for axis in axes))
    y = np.zeros(_pool_shape(x.shape, **attributes), x.dtype)
    for windows, sources in parts:
        y[windows] += x[sources]
    y /= divisors(axes, count_padding, x.dtype)
    return y


def _mean_gradient(
    g: Array, y: Array, x: Array, count_padding: bool, **attributes: Any
) -> tuple[Array]:
    along, axes = np.zeros_like(x), pooled_axes(x.shape, **attributes)
    shares = g / divisors(axes, count_padding, x.dtype)
    for windows, sources in _parts(axes):
        along[sources] += shares[windows]
    return (along,)


def _greatest1d_gradient(g: Array, y: Array, x: Array, **attributes: Any) -> tuple[Array]:
    return _greatest_gradient(g, y, x, **widened(attributes))


def _mean1d_gradient(g: Array, y: Array, x: Array, **attributes: Any) -> tuple[Array]:
    return _mean_gradient(g, y, x, **widened(attributes))


_MAX1D = sample((2, 3, 9), kernel=3, stride=2, padding=1)
_MAX2D = sample((2, 3, 5, 7), kernel=(2, 3), stride=(1, 2), padding=(1, 0))
_AVG1D = sample((2, 3, 9), kernel=4, stride=3, padding=1, ceil=True, count_padding=False)
_AVG2D = sample((2, 3, 5, 8), kernel=(2, 3), stride=(2, 2), padding=(1, 1), ceil=True)


@op(_pool1d_shape, _pool_flops, _MAX1D, _greatest1d_gradient)
def max_pool1d(
    x: Array, kernel: int, stride: int = 0, padding: int = 0, ceil: bool = False
) -> Array:
    """Return the greatest value of each window along [N, channels, length]; stride 0: kernel."""
    return _greatest(x, kernel=(kernel,), stride=(stride,), padding=(padding,), ceil=ceil)


@op(_pool_shape, _pool_flops, _MAX2D, _greatest_gradient)
def max_pool2d(
    x: Array, kernel: Ints, stride: Ints = (0, 0), padding: Ints = (0, 0), ceil: bool = False
) -> Array:
    """Return the greatest value of each window of [N, channels, height, width]."""
    return _greatest(x, kernel=kernel, stride=stride, padding=padding, ceil=ceil)


@op(_pool1d_shape, _pool_flops, _AVG1D, _mean1d_gradient)
def avg_pool1d(
    x: Array,
    kernel: int,
    stride: int = 0,
    padding: int = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> Array:
    """Average each window along [N, channels, length], zeros at the borders."""
    return _mean(
        x, count_padding, kernel=(kernel,), stride=(stride,), padding=(padding,), ceil=ceil
    )


@op(_pool_shape, _pool_flops, _AVG2D, _mean_gradient)
def avg_pool2d(
    x: Array,
    kernel: Ints,
    stride: Ints = (0, 0),
    padding: Ints = (0, 0),
    ceil: bool = False,
    count_padding: bool = True,
) -> Array:
    """Average each window of [N, channels, height, width], zeros at the borders."""
    return _mean(x, count_padding, kernel=kernel, stride=stride, padding=padding, ceil=ceil)
