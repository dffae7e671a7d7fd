"""Many values to one along an axis, and orders along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import I32, Array, Shape, axis_of, op, per_input, sample


def _reduced(x: Shape, axis: int, keepdims: bool) -> Shape:
    place = axis_of("reduction", x, axis)
    if not x[place]:
        raise ShapeError("reduction", f"nothing lies along axis {axis} of {x}")
    return (*x[:place], *((1,) if keepdims else ()), *x[place + 1 :])


def _spread(g: Array, axis: int, keepdims: bool) -> Array:
    """Return a gradient with the axis that the reduction dropped."""
    return g if keepdims else np.expand_dims(g, axis)


def _sum_gradient(g: Array, y: Array, x: Array, axis: int, keepdims: bool) -> tuple[Array]:
    return (np.broadcast_to(_spread(g, axis, keepdims), x.shape),)


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), _sum_gradient, name="sum")
def total(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Add up along an axis."""
    return np.asarray(x.sum(axis=axis, keepdims=keepdims))


def _mean_gradient(g: Array, y: Array, x: Array, axis: int, keepdims: bool) -> tuple[Array]:
    return (np.broadcast_to(_spread(g, axis, keepdims) / x.shape[axis], x.shape),)


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), _mean_gradient)
def mean(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Average along an axis."""
    return np.asarray(x.mean(axis=axis, keepdims=keepdims))


def _extreme_gradient(g: Array, y: Array, x: Array, axis: int, keepdims: bool) -> tuple[Array]:
    """Give the gradient to the first of the elements that reach the extreme."""
    reached = x == _spread(y, axis, keepdims)
    first = np.expand_dims(reached.argmax(axis=axis), axis)
    along = np.zeros_like(x)
    np.put_along_axis(along, first, _spread(g, axis, keepdims), axis)
    return (along,)


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), _extreme_gradient, name="max")
def greatest(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Return the greatest value along an axis."""
    return np.asarray(x.max(axis=axis, keepdims=keepdims))


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), _extreme_gradient, name="min")
def least(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Return the least value along an axis."""
    return np.asarray(x.min(axis=axis, keepdims=keepdims))


def _sum_squares_gradient(g: Array, y: Array, x: Array, axis: int, keepdims: bool) -> tuple[Array]:
    return (2 * x * _spread(g, axis, keepdims),)


@op(_reduced, per_input(2), sample((2, 3, 5), axis=1), _sum_squares_gradient)
def sum_squares(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Add up the squares along an axis."""
    return np.asarray(np.square(x).sum(axis=axis, keepdims=keepdims))


def _cumulative(x: Shape, axis: int) -> Shape:
    axis_of("cumsum", x, axis)
    return x


def _cumsum_gradient(g: Array, y: Array, x: Array, axis: int) -> tuple[Array]:
    return (np.flip(np.flip(g, axis).cumsum(axis=axis), axis),)


@op(_cumulative, per_input(1), sample((2, 3, 5), axis=1), _cumsum_gradient)
def cumsum(x: Array, axis: int = -1) -> Array:
    """Return running sums along an axis."""
    return x.cumsum(axis=axis)


# ---- places instead of values ----


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), dtype=I32)
def argmax(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Return where the greatest value lies along an axis, the first of equals."""
    return np.asarray(x.argmax(axis=axis, keepdims=keepdims)).astype(np.int32)


@op(_reduced, per_input(1), sample((2, 3, 5), axis=1), dtype=I32)
def argmin(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
    """Return where the least value lies along an axis, the first of equals."""
    return np.asarray(x.argmin(axis=axis, keepdims=keepdims)).astype(np.int32)


def _sorted_shape(x: Shape, **attributes: Any) -> Shape:
    if not x:
        raise ShapeError("argsort", "a single number has no rows to sort")
    return x


@op(_sorted_shape, per_input(16), sample((3, 5)), dtype=I32)
def argsort(x: Array, descending: bool = False) -> Array:
    """Return the order of each row's values, equals as they stand."""
    return np.argsort(-x if descending else x, axis=-1, kind="stable").astype(np.int32)


def _top_k_shape(x: Shape, k: int) -> Shape:
    if not x or not 1 <= k <= x[-1]:
        raise ShapeError("top_k", f"{k} values cannot be chosen from the rows of {x}")
    return (*x[:-1], k)


@op(_top_k_shape, per_input(16), sample((3, 5), k=2), dtype=I32)
def top_k(x: Array, k: int) -> Array:
    """Return where the k greatest values of each row lie, greatest first, equals as they stand."""
    turned = -x
    last = np.partition(turned, k - 1, axis=-1)[..., k - 1 : k]
    if np.isnan(last).any():  # they come last, and equal nothing
        return np.argsort(turned, axis=-1, kind="stable")[..., :k].astype(np.int32)
    better, equal = turned < last, turned == last
    wanted = k - better.sum(axis=-1, keepdims=True)
    chosen = better | (equal & (equal.cumsum(axis=-1, dtype=np.int32) <= wanted))
    places = (np.flatnonzero(chosen) % x.shape[-1]).reshape(*x.shape[:-1], k)
    order = np.take_along_axis(turned, places, -1).argsort(axis=-1, kind="stable")
    return np.take_along_axis(places, order, -1).astype(np.int32)
