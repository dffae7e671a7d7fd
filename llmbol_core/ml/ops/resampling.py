"""Other resolutions: enlarging, and pooling to a given number of positions.

All of these treat [N, channels, positions...] one axis of positions after the other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import OPS, Array, Ints, Shape, op, sample


def _sized(x: Shape, size: Ints, **attributes: Any) -> Shape:
    if len(x) != 2 + len(size) or not size or min(size) < 1 or min(x[2:]) < 1:
        why = f"{x} cannot become {size} positions: [N, channels, positions...]"
        raise ShapeError("resize", why)
    return (*x[:2], *size)


def _free(output: Shape, x: Shape, **attributes: Any) -> int:
    return 0


# ---- the nearest position ----


def nearest_places(length: int, count: int) -> Array:
    """Return the source of each position, floor(i length / count)."""
    return np.arange(count) * length // count


def _nearest_gradient(g: Array, y: Array, x: Array, size: Ints) -> tuple[Array]:
    for axis, count in enumerate(size, 2):
        along = np.zeros((*g.shape[:axis], x.shape[axis], *g.shape[axis + 1 :]), g.dtype)
        where = nearest_places(x.shape[axis], count)
        np.add.at(along.swapaxes(0, axis), where, g.swapaxes(0, axis))
        g = along
    return (g,)


@op(_sized, _free, sample((2, 3, 4, 3), size=(6, 7)), _nearest_gradient)
def upsample_nearest(x: Array, size: Ints) -> Array:
    """Resize [N, channels, positions...]: each value is the one of the position it falls on."""
    for axis, count in enumerate(size, 2):
        x = x.take(nearest_places(x.shape[axis], count), axis)
    return x


# ---- between two positions ----


def between(length: int, count: int, corners: bool) -> tuple[Array, Array, Array]:
    """Return for each position the two sources it lies between, and the share of the second.

    With corners the first and last positions fall on the first and last sources; without, the
    outer edges of the first and last cells do.
    """
    place = np.arange(count, dtype=np.float64)
    if corners:
        place *= (length - 1) / max(count - 1, 1)
    else:
        place = np.maximum((place + 0.5) * (length / count) - 0.5, 0)
    first = np.minimum(place.astype(np.int64), length - 1)
    return first, np.minimum(first + 1, length - 1), place - first


def _along(share: Array, x: Array, axis: int) -> Array:
    return share.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1 - axis))


def _linear_gradient(g: Array, y: Array, x: Array, size: Ints, corners: bool) -> tuple[Array]:
    for axis, count in enumerate(size, 2):
        first, second, share = between(x.shape[axis], count, corners)
        share = _along(share, g, axis)
        along = np.zeros((*g.shape[:axis], x.shape[axis], *g.shape[axis + 1 :]), g.dtype)
        np.add.at(along.swapaxes(0, axis), first, (g * (1 - share)).swapaxes(0, axis))
        np.add.at(along.swapaxes(0, axis), second, (g * share).swapaxes(0, axis))
        g = along
    return (g,)


def _linear_flops(output: Shape, x: Shape, size: Ints, corners: bool) -> int:
    return 3 * len(size) * math.prod(output)


@op(_sized, _linear_flops, sample((2, 3, 4, 3), size=(6, 7)), _linear_gradient)
def upsample_linear(x: Array, size: Ints, corners: bool = False) -> Array:
    """Resize [N, channels, positions...], linear between neighbours: bilinear for two axes.

    With ``corners`` the outermost values stay outermost (PyTorch's ``align_corners``).
    """
    for axis, count in enumerate(size, 2):
        first, second, share = between(x.shape[axis], count, corners)
        share = _along(share, x, axis)
        x = x.take(first, axis) * (1 - share) + x.take(second, axis) * share
    return x


# ---- pooling to a number of positions ----


def _windows(length: int, count: int) -> list[slice]:
    """Return the windows that cover an axis: from floor(i l / n) to ceil((i + 1) l / n)."""
    return [slice(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def _part(x: Array, axis: int, where: slice | int) -> Any:
    return (*(slice(None),) * axis, where)


def _adaptive_flops(output: Shape, x: Shape, size: Ints) -> int:
    return math.prod(x)


_mean, _max = OPS["mean"].run, OPS["max"].run


def _averaged(x: Array, axis: int, count: int) -> Array:
    parts = [_mean(x[_part(x, axis, w)], axis) for w in _windows(x.shape[axis], count)]
    return np.stack(parts, axis)


def _adaptive_avg_gradient(g: Array, y: Array, x: Array, size: Ints) -> tuple[Array]:
    for axis, count in enumerate(size, 2):
        along = np.zeros((*g.shape[:axis], x.shape[axis], *g.shape[axis + 1 :]), g.dtype)
        for i, window in enumerate(_windows(x.shape[axis], count)):
            spread = g[_part(g, axis, slice(i, i + 1))] / (window.stop - window.start)
            along[_part(g, axis, window)] += spread
        g = along
    return (g,)


_ADAPTIVE = sample((2, 3, 5, 7), size=(2, 3))


@op(_sized, _adaptive_flops, _ADAPTIVE, _adaptive_avg_gradient)
def adaptive_avg_pool(x: Array, size: Ints) -> Array:
    """Average [N, channels, positions...] over windows that cover it, so many along each axis."""
    if set(size) == {1}:
        return _mean(x.reshape(*x.shape[:2], math.prod(x.shape[2:]))).reshape(*x.shape[:2], *size)
    for axis, count in enumerate(size, 2):
        x = _averaged(x, axis, count)
    return x


def _largest(x: Array, axis: int, count: int) -> Array:
    parts = [_max(x[_part(x, axis, w)], axis) for w in _windows(x.shape[axis], count)]
    return np.stack(parts, axis)


def _adaptive_max_gradient(g: Array, y: Array, x: Array, size: Ints) -> tuple[Array]:
    """Give each gradient to the first value that is the greatest, axis by axis."""
    stages = [x]
    for axis, count in enumerate(size, 2):
        stages.append(_largest(stages[-1], axis, count))
    for axis in range(len(size) + 1, 1, -1):
        source = stages[axis - 2]
        along = np.zeros_like(source)
        for i, window in enumerate(_windows(source.shape[axis], size[axis - 2])):
            place = np.expand_dims(source[_part(source, axis, window)].argmax(axis=axis), axis)
            part = along[_part(along, axis, window)]
            given = np.take_along_axis(part, place, axis) + g[_part(g, axis, slice(i, i + 1))]
            np.put_along_axis(part, place, given, axis)
        g = along
    return (g,)


@op(_sized, _adaptive_flops, _ADAPTIVE, _adaptive_max_gradient)
def adaptive_max_pool(x: Array, size: Ints) -> Array:
    """Return the greatest value of each window of [N, channels, positions...], so many an axis."""
    for axis, count in enumerate(size, 2):
        x = _largest(x, axis, count)
    return x
