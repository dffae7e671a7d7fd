"""Operations that only move values: other shapes, other orders, parts and repetitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.direct import in_rows
from llmbol_core.ml.ops.table import (
    I32,
    Array,
    Indices,
    Ints,
    Out,
    Shape,
    axis_of,
    op,
    same,
    sample,
)


def _free(output: Shape, *inputs: Shape | None, **attributes: Any) -> int:
    return 0


def _reshape_shape(x: Shape, shape: Ints) -> Shape:
    if any(n < -1 for n in shape) or shape.count(-1) > 1:
        raise ShapeError("reshape", f"{shape} is no shape")
    if any(n == 0 and i >= len(x) for i, n in enumerate(shape)):
        raise ShapeError("reshape", f"0 in {shape} keeps an axis that {x} does not have")
    # Axes that are kept do not count, so that an empty batch keeps the shape of its samples.
    have = math.prod(n for i, n in enumerate(x) if i >= len(shape) or shape[i] != 0)
    rest = math.prod(n for n in shape if n > 0)
    left = have // rest if -1 in shape else 1
    if rest * left != have:
        raise ShapeError("reshape", f"{x} does not fit into {shape}")
    return tuple(x[i] if n == 0 else left if n == -1 else n for i, n in enumerate(shape))


def _reshape_gradient(g: Array, y: Array, x: Array, **attributes: Any) -> tuple[Array]:
    return (g.reshape(x.shape),)


@op(_reshape_shape, _free, sample((2, 3, 4), shape=(0, -1, 2)), _reshape_gradient, is_view=True)
def reshape(x: Array, shape: Ints) -> Array:
    """View in another shape: 0 keeps an axis as it is, one -1 takes what is left."""
    return x.reshape(_reshape_shape(x.shape, shape))


def _flatten_shape(x: Shape, start: int) -> Shape:
    place = axis_of("flatten", x, start)
    return (*x[:place], math.prod(x[place:]))


@op(_flatten_shape, _free, sample((2, 3, 4)), _reshape_gradient, is_view=True)
def flatten(x: Array, start: int = 1) -> Array:
    """Join all axes from one on into one."""
    return x.reshape(_flatten_shape(x.shape, start))


def _squeeze_shape(x: Shape, axis: int) -> Shape:
    place = axis_of("squeeze", x, axis)
    if x[place] != 1:
        raise ShapeError("squeeze", f"axis {axis} of {x} has not length 1")
    return (*x[:place], *x[place + 1 :])


@op(_squeeze_shape, _free, sample((2, 1, 4), axis=1), _reshape_gradient, is_view=True)
def squeeze(x: Array, axis: int = -1) -> Array:
    """Drop an axis of length 1."""
    return x.squeeze(axis)


def _unsqueeze_shape(x: Shape, axis: int) -> Shape:
    place = axis_of("unsqueeze", (*x, 1), axis)
    return (*x[:place], 1, *x[place:])


@op(_unsqueeze_shape, _free, sample((2, 4), axis=1), _reshape_gradient, is_view=True)
def unsqueeze(x: Array, axis: int = -1) -> Array:
    """Insert an axis of length 1."""
    return np.expand_dims(x, axis)


# ---- other orders ----


def _permute_shape(x: Shape, axes: Ints) -> Shape:
    if sorted(axes) != list(range(len(x))):
        raise ShapeError("permute", f"{axes} is no order of the axes of {x}")
    return tuple(x[axis] for axis in axes)


def _permute_gradient(g: Array, y: Array, x: Array, axes: Ints) -> tuple[Array]:
    return (g.transpose(np.argsort(axes)),)


@op(_permute_shape, _free, sample((2, 3, 4), axes=(1, 2, 0)), _permute_gradient, is_view=True)
def permute(x: Array, axes: Ints) -> Array:
    """Put the axes into another order."""
    return in_rows(x.transpose(axes))


def _transpose_shape(x: Shape, first: int, second: int) -> Shape:
    a, b = axis_of("transpose", x, first), axis_of("transpose", x, second)
    shape = list(x)
    shape[a], shape[b] = shape[b], shape[a]
    return tuple(shape)


def _transpose_gradient(g: Array, y: Array, x: Array, first: int, second: int) -> tuple[Array]:
    return (g.swapaxes(first, second),)


@op(_transpose_shape, _free, sample((2, 3, 4)), _transpose_gradient, is_view=True)
def transpose(x: Array, first: int = -2, second: int = -1) -> Array:
    """Exchange two axes."""
    return in_rows(x.swapaxes(first, second))


# ---- parts and repetitions ----


def _concat_shape(x: Shape, y: Shape, axis: int) -> Shape:
    place = axis_of("concat", x, axis)
    if len(x) != len(y) or any(i != place and n != y[i] for i, n in enumerate(x)):
        raise ShapeError("concat", f"{x} and {y} do not fit along axis {axis}")
    return (*x[:place], x[place] + y[place], *x[place + 1 :])


def _concat_gradient(g: Array, z: Array, x: Array, y: Array, axis: int) -> tuple[Array, ...]:
    first, second = np.split(g, [x.shape[axis]], axis)
    return first, second


@op(_concat_shape, _free, sample((2, 3, 4), (2, 2, 4), axis=1), _concat_gradient)
def concat(x: Array, y: Array, axis: int = -1, out: Out = None) -> Array:
    """Put one after the other along an axis."""
    return np.concatenate([x, y], axis, out=out)


def _slice_shape(x: Shape, axis: int, start: int, stop: int, step: int) -> Shape:
    place = axis_of("slice", x, axis)
    if step < 1 or not 0 <= start < stop <= x[place]:
        raise ShapeError("slice", f"{start}:{stop}:{step} does not lie in axis {axis} of {x}")
    return (*x[:place], -(-(stop - start) // step), *x[place + 1 :])


def _part(ndim: int, axis: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if i == axis % ndim else slice(None) for i in range(ndim))


def _slice_gradient(
    g: Array, y: Array, x: Array, axis: int, start: int, stop: int, step: int
) -> tuple[Array]:
    along = np.zeros_like(x)
    along[_part(x.ndim, axis, slice(start, stop, step))] = g
    return (along,)


_SLICE = sample((2, 7, 4), axis=1, start=1, stop=6, step=2)


@op(_slice_shape, _free, _SLICE, _slice_gradient, name="slice", is_view=True)
def section(x: Array, axis: int, start: int, stop: int, step: int = 1) -> Array:
    """Take the positions from start to before stop along an axis."""
    return in_rows(x[_part(x.ndim, axis, slice(start, stop, step))])


def _pad_shape(x: Shape, axis: int, before: int, after: int, value: float) -> Shape:
    place = axis_of("pad", x, axis)
    if before < 0 or after < 0:
        raise ShapeError("pad", "a border has no negative width")
    return (*x[:place], before + x[place] + after, *x[place + 1 :])


def _pad_gradient(
    g: Array, y: Array, x: Array, axis: int, before: int, after: int, value: float
) -> tuple[Array]:
    return (g[_part(x.ndim, axis, slice(before, before + x.shape[axis]))],)


@op(_pad_shape, _free, sample((2, 3, 4), axis=1, before=1, after=2, value=0.5), _pad_gradient)
def pad(x: Array, axis: int, before: int, after: int, value: float = 0.0) -> Array:
    """Add borders of one value along an axis."""
    place = axis % x.ndim
    end = before + x.shape[place]
    y = np.empty((*x.shape[:place], end + after, *x.shape[place + 1 :]), x.dtype)
    y[_part(x.ndim, axis, slice(before))] = value
    y[_part(x.ndim, axis, slice(before, end))] = x
    y[_part(x.ndim, axis, slice(end, None))] = value
    return y


def _repeat_shape(x: Shape, axis: int, times: int) -> Shape:
    place = axis_of("repeat", x, axis)
    if times < 1:
        raise ShapeError("repeat", f"{times} is not a number of repetitions")
    return (*x[:place], x[place] * times, *x[place + 1 :])


def _repeat_gradient(g: Array, y: Array, x: Array, axis: int, times: int) -> tuple[Array]:
    place = axis % x.ndim
    return (g.reshape(*x.shape[:place], times, *x.shape[place:]).sum(axis=place),)


@op(_repeat_shape, _free, sample((2, 3, 4), axis=1, times=3), _repeat_gradient)
def repeat(x: Array, axis: int, times: int) -> Array:
    """Put copies after each other along an axis."""
    if not x.size:  # times may be anything, and nothing is to be copied
        return np.empty(_repeat_shape(x.shape, axis, times), x.dtype)
    return np.concatenate([x] * times, axis)


@op(same, _free, sample((3, 5)), dtype=I32)
def to_indices(x: Array) -> Array:
    """Round to whole numbers that can pick rows; what is none becomes -1."""
    if x.size and x.min() >= -(2**31) and x.max() < 2**31 - 2**7:
        return np.rint(x).astype(np.int32)
    whole = np.nan_to_num(np.rint(x), nan=-1, posinf=-1, neginf=-1)
    return whole.clip(-(2**31), 2**31 - 1 - 2**7).astype(np.int32)


def _numbers_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (rng.integers(-9, 9, (3, 5)),), {}


@op(same, _free, _numbers_example)
def to_numbers(x: Indices) -> Array:
    """Return whole numbers as float32."""
    return x.astype(np.float32)
