"""Softmax and normalizations."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import Array, Out, Shape, axis_of, op, per_output, sample


def _along(x: Shape, *others: Shape | None, axis: int) -> Shape:
    if not x[axis_of("softmax", x, axis)]:
        raise ShapeError("softmax", f"nothing lies along axis {axis} of {x}")
    return x


def _softmax_gradient(g: Array, y: Array, x: Array, axis: int) -> tuple[Array]:
    return (y * (g - (g * y).sum(axis=axis, keepdims=True)),)


@op(_along, per_output(12), sample((3, 4, 5), axis=1), _softmax_gradient)
def softmax(x: Array, axis: int = -1, out: Out = None) -> Array:
    """Return exp(x) divided by its sum along an axis."""
    y: Array = np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    np.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def _log_softmax_gradient(g: Array, y: Array, x: Array, axis: int) -> tuple[Array]:
    return (g - np.exp(y) * g.sum(axis=axis, keepdims=True),)


@op(_along, per_output(12), sample((3, 4, 5), axis=1), _log_softmax_gradient)
def log_softmax(x: Array, axis: int = -1, out: Out = None) -> Array:
    """Return the logarithm of softmax without computing tiny quotients."""
    y: Array = np.subtract(x, x.max(axis=axis, keepdims=True), out=out)
    y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y


# ---- normalizations ----


def _batch_norm_shape(x: Shape, *statistics: Shape, eps: float) -> Shape:
    if len(x) < 2 or any(shape != x[1:2] for shape in statistics):
        why = f"weight, bias, mean, variance {statistics} do not fit the channels of {x}"
        raise ShapeError("batch_norm", why)
    return x


def _channels(values: Array, x: Array) -> Array:
    """Return one value per channel in a shape that fits beside x."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def _batch_norm_gradient(
    g: Array,
    y: Array,
    x: Array,
    weight: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    eps: float,
) -> tuple[Array, ...]:
    axes = (0, *range(2, x.ndim))
    rate = 1 / np.sqrt(variance + eps)
    centred = x - _channels(mean, x)
    total, moment = g.sum(axis=axes), (g * centred).sum(axis=axes)
    along_variance = -0.5 * weight * rate**3 * moment
    return (
        g * _channels(weight * rate, x),
        moment * rate,
        total,
        -total * weight * rate,
        along_variance,
    )


def _batch_norm_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x, weight, bias, mean = sample((2, 3, 4), (3,), (3,), (3,))(rng)[0]
    return (x, weight, bias, mean, *sample((3,), low=0.5)(rng)[0]), {"eps": 0.01}


@op(_batch_norm_shape, per_output(2), _batch_norm_example, _batch_norm_gradient)
def batch_norm(
    x: Array,
    weight: Array,
    bias: Array,
    mean: Array,
    variance: Array,
    eps: float = 1e-5,
    out: Out = None,
) -> Array:
    """Normalize each channel (axis 1) with a known mean and variance, then scale and shift."""
    factor = weight / np.sqrt(variance + x.dtype.type(eps))
    y: Array = np.subtract(x, _channels(mean, x), out=out)
    y *= _channels(factor, x)
    y += _channels(bias, x)
    return y


def _row_norm_shape(x: Shape, *gains: Shape | None, eps: float) -> Shape:
    if not x or not x[-1] or any(shape is not None and shape != x[-1:] for shape in gains):
        raise ShapeError("norm", f"weight and bias {gains} do not fit the rows of {x}")
    return x


def _sum_rows(x: Array) -> Array:
    total: Array = x.sum(axis=tuple(range(x.ndim - 1)))
    return total


def _layer_norm_gradient(
    g: Array,
    y: Array,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    eps: float,
) -> tuple[Array | None, ...]:
    centred = x - x.mean(axis=-1, keepdims=True)
    rate = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps)
    normal = centred * rate
    inner = g if weight is None else g * weight
    mean, moment = inner.mean(axis=-1, keepdims=True), (inner * normal).mean(axis=-1, keepdims=True)
    along_x = rate * (inner - mean - normal * moment)
    along_weight = None if weight is None else _sum_rows(g * normal)
    return along_x, along_weight, None if bias is None else _sum_rows(g)


@op(_row_norm_shape, per_output(8), sample((2, 3, 5), (5,), (5,)), _layer_norm_gradient)
def layer_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    out: Out = None,
) -> Array:
    """Bring each row to mean 0 and variance 1, then scale and shift."""
    y: Array = np.subtract(x, x.mean(axis=-1, keepdims=True), out=out)
    y /= np.sqrt(np.square(y).mean(axis=-1, keepdims=True) + x.dtype.type(eps))
    if weight is not None:
        y *= weight
    if bias is not None:
        y += bias
    return y


def _rms_norm_gradient(
    g: Array, y: Array, x: Array, weight: Array | None = None, *, eps: float
) -> tuple[Array | None, ...]:
    rate = 1 / np.sqrt(np.square(x).mean(axis=-1, keepdims=True) + eps)
    normal = x * rate
    inner = g if weight is None else g * weight
    along_x = rate * (inner - normal * (inner * normal).mean(axis=-1, keepdims=True))
    return along_x, None if weight is None else _sum_rows(g * normal)


@op(_row_norm_shape, per_output(5), sample((2, 3, 5), (5,)), _rms_norm_gradient)
def rms_norm(x: Array, weight: Array | None = None, eps: float = 1e-5, out: Out = None) -> Array:
    """Divide each row by the root of its mean square, then scale."""
    y: Array = np.square(x, out=out)
    root = np.sqrt(y.mean(axis=-1, keepdims=True) + x.dtype.type(eps))
    np.divide(x, root, out=y)
    if weight is not None:
        y *= weight
    return y


def _l2_norm_gradient(g: Array, y: Array, x: Array, eps: float) -> tuple[Array]:
    size = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    inner = g - y * (g * y).sum(axis=-1, keepdims=True) * (size > eps)
    return (inner / np.maximum(size, eps),)


@op(_row_norm_shape, per_output(4), sample((2, 3, 5)), _l2_norm_gradient)
def l2_norm(x: Array, eps: float = 1e-12) -> Array:
    """Divide each row by its Euclidean length, or by eps if that is greater."""
    size = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    y: Array = x / np.maximum(size, x.dtype.type(eps))
    return y


def _group_norm_shape(x: Shape, *gains: Shape | None, groups: int, eps: float) -> Shape:
    if len(x) < 2 or groups < 1 or x[1] % groups or not math.prod(x[1:]):
        raise ShapeError("group_norm", f"the channels of {x} do not divide into {groups} groups")
    if any(shape is not None and shape != x[1:2] for shape in gains):
        raise ShapeError("group_norm", f"weight and bias {gains} do not fit the channels of {x}")
    return x


def _normal(x: Array, groups: int, eps: float, out: Out = None) -> tuple[Array, Array]:
    """Return each group with mean 0 and variance 1, [N, groups, values], and what it took."""
    rows = x.reshape(len(x), groups, math.prod(x.shape[1:]) // groups)
    place = None if out is None else out.reshape(rows.shape)
    normal: Array = np.subtract(rows, rows.mean(axis=-1, keepdims=True), out=place)
    rate = 1 / np.sqrt(np.square(normal).mean(axis=-1, keepdims=True) + x.dtype.type(eps))
    normal *= rate
    return normal, rate


def _group_norm_gradient(
    g: Array,
    y: Array,
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    *,
    groups: int,
    eps: float,
) -> tuple[Array | None, ...]:
    normal, rate = _normal(x, groups, eps)
    inner = (g if weight is None else g * _channels(weight, x)).reshape(normal.shape)
    mean, moment = inner.mean(axis=-1, keepdims=True), (inner * normal).mean(axis=-1, keepdims=True)
    axes = (0, *range(2, x.ndim))
    along_x = (rate * (inner - mean - normal * moment)).reshape(x.shape)
    along_weight = None if weight is None else (g * normal.reshape(x.shape)).sum(axis=axes)
    return along_x, along_weight, None if bias is None else g.sum(axis=axes)


@op(_group_norm_shape, per_output(8), sample((2, 6, 5), (6,), (6,), groups=2), _group_norm_gradient)
def group_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    groups: int = 1,
    eps: float = 1e-5,
    out: Out = None,
) -> Array:
    """Bring each group of channels of each sample to mean 0 and variance 1, then scale and shift.

    With as many groups as channels this is instance normalization.
    """
    y = _normal(x, groups, eps, out)[0].reshape(x.shape)
    if weight is not None:
        y *= _channels(weight, x)
    if bias is not None:
        y += _channels(bias, x)
    return y
