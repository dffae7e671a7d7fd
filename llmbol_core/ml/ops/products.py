"""Products: linear, matrices, convolutions, embeddings; weights may be quantized in some."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.quantized import quantized_product
from llmbol_core.ml.ops.table import (
    Array,
    Indices,
    Ints,
    Shape,
    Weights,
    broadcast,
    op,
    sample,
    unbroadcast,
)
from llmbol_core.ml.ops.tiles import product
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor

# ---- linear ----


def _linear_shape(x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    if len(weight) != 2 or not x or x[-1] != weight[1]:
        raise ShapeError("linear", f"rows of {x} do not fit the weight {weight}")
    if bias is not None and bias != weight[:1]:
        raise ShapeError("linear", f"the bias is {bias}, not {weight[:1]}")
    return (*x[:-1], weight[0])


def _linear_flops(output: Shape, x: Shape, weight: Shape, bias: Shape | None = None) -> int:
    return math.prod(output) * (2 * weight[1] + (bias is not None))


def _linear_gradient(
    g: Array, y: Array, x: Array, weight: Array, bias: Array | None = None
) -> tuple[Array, Array, Array | None]:
    rows = g.reshape(-1, g.shape[-1])
    along_bias = None if bias is None else rows.sum(axis=0)
    return g @ weight, rows.T @ x.reshape(-1, x.shape[-1]), along_bias


@op(_linear_shape, _linear_flops, sample((2, 3, 5), (4, 5), (4,)), _linear_gradient)
def linear(x: Array, weight: Weights, bias: Array | None = None) -> Array:
    """Multiply rows by a matrix [out, in] and add a bias: x W^T + b."""
    rows = x.reshape(-1, x.shape[-1])
    y = quantized_product(rows, weight) if isinstance(weight, Tensor) else product(rows, weight.T)
    if bias is not None:
        y += bias
    return y.reshape(*x.shape[:-1], y.shape[1])


def _mul_mat_shape(weight: Shape, x: Shape) -> Shape:
    if len(weight) != 2 or not x or x[-1] != weight[1]:
        raise ShapeError("mul_mat", f"rows of {x} do not fit the matrix {weight}")
    return (*x[:-1], weight[0])


def _mul_mat_flops(output: Shape, weight: Shape, x: Shape) -> int:
    return 2 * math.prod(output) * weight[1]


def _mul_mat_gradient(g: Array, y: Array, weight: Array, x: Array) -> tuple[Array, Array]:
    along_x, along_weight, _ = _linear_gradient(g, y, x, weight)
    return along_weight, along_x


@op(_mul_mat_shape, _mul_mat_flops, sample((4, 5), (2, 3, 5)), _mul_mat_gradient)
def mul_mat(weight: Weights, x: Array) -> Array:
    """Multiply as ggml does: both operands have their rows along the last axis."""
    return linear(x, weight)


# ---- matrix products of activations ----


def _matmul_shape(x: Shape, y: Shape) -> Shape:
    if len(x) < 2 or len(y) < 2 or x[-1] != y[-2]:
        raise ShapeError("matmul", f"{x} and {y} do not fit: columns of one, rows of the other")
    return (*broadcast(x[:-2], y[:-2]), x[-2], y[-1])


def _matmul_flops(output: Shape, x: Shape, y: Shape) -> int:
    return 2 * math.prod(output) * x[-1]


def _matmul_gradient(g: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
    along_x, along_y = g @ y.swapaxes(-1, -2), x.swapaxes(-1, -2) @ g
    return unbroadcast(along_x, x.shape), unbroadcast(along_y, y.shape)


@op(_matmul_shape, _matmul_flops, sample((2, 3, 5), (2, 5, 4)), _matmul_gradient)
def matmul(x: Array, y: Array) -> Array:
    """Multiply matrices, [..., M, K] and [..., K, N]; the axes in front broadcast."""
    if y.ndim == 2:
        return product(x.reshape(-1, x.shape[-1]), y).reshape(*x.shape[:-1], y.shape[1])
    z: Array = np.matmul(np.ascontiguousarray(x), np.ascontiguousarray(y))
    return z


# ---- convolutions ----


def _steps(name: str, rank: int, value: int | Ints) -> Ints:
    """Return one number for each axis."""
    steps = (value,) * rank if isinstance(value, int) else value
    if len(steps) != rank:
        raise ShapeError(name, f"{rank} numbers are needed, not {steps}")
    return steps


def _conv_shape(
    x: Shape,
    weight: Shape,
    bias: Shape | None = None,
    *,
    stride: int | Ints,
    padding: int | Ints,
    dilation: int | Ints,
    groups: int,
) -> Shape:
    rank = len(weight) - 2
    name = f"conv{rank}d"
    if rank not in (1, 2) or len(x) != rank + 2 or groups < 1 or x[1] != weight[1] * groups:
        why = f"{x} does not fit the weight {weight} in {groups} groups: [N, channels, positions]"
        raise ShapeError(name, why)
    if weight[0] % groups or (bias is not None and bias != weight[:1]):
        raise ShapeError(name, f"bias {bias} and {groups} groups do not fit the weight {weight}")
    counts = []
    rule = zip(
        x[2:],
        weight[2:],
        _steps(name, rank, stride),
        _steps(name, rank, padding),
        _steps(name, rank, dilation),
        strict=True,
    )
    for length, kernel, step, border, spread in rule:
        if step < 1 or spread < 1 or border < 0 or kernel < 1:
            raise ShapeError(name, "stride and dilation are at least 1, padding at least 0")
        room = length + 2 * border - spread * (kernel - 1) - 1
        if room < 0:
            raise ShapeError(name, f"a kernel of {weight[2:]} does not fit into {x}")
        counts.append(room // step + 1)
    return (x[0], weight[0], *counts)


def _conv_flops(
    output: Shape, x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any
) -> int:
    return math.prod(output) * (2 * math.prod(weight[1:]) + (bias is not None))


def _windows(x: Array, kernel: Shape, stride: Ints, padding: Ints, dilation: Ints) -> Array:
    """View [N, C, positions] as [N, C, outputs, kernel positions]."""
    if any(padding):
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    axes = tuple(range(2, x.ndim))
    windows = sliding_window_view(x, spans, axis=axes)
    steps = [slice(None), slice(None), *(slice(None, None, s) for s in (*stride, *dilation))]
    view: Array = windows[tuple(steps)]
    return view


def _columns(x: Array, weight: Array, **attributes: Any) -> Array:
    """Return the windows as rows: [groups, N * outputs, channels of a group * kernel]."""
    rank = weight.ndim - 2
    stride, padding, dilation = (
        _steps("conv", rank, attributes[name]) for name in ("stride", "padding", "dilation")
    )
    windows = _windows(x, weight.shape[2:], stride, padding, dilation)
    outputs, groups = windows.shape[2 : 2 + rank], attributes["groups"]
    windows = windows.reshape(len(x), groups, x.shape[1] // groups, *windows.shape[2:])
    order = (1, 0, *range(3, 3 + rank), 2, *range(3 + rank, 3 + 2 * rank))
    columns = windows.transpose(order)
    return columns.reshape(groups, len(x) * math.prod(outputs), math.prod(weight.shape[1:]))


def _convolve(x: Array, weight: Array, bias: Array | None, **attributes: Any) -> Array:
    groups = attributes["groups"]
    shape = _conv_shape(x.shape, weight.shape, **attributes)
    matrices = weight.reshape(groups, weight.shape[0] // groups, -1)
    columns = _columns(x, weight, **attributes)
    parts = [product(rows, matrix.T) for rows, matrix in zip(columns, matrices, strict=True)]
    rows = parts[0] if groups == 1 else np.concatenate(parts, axis=1)
    if bias is not None:
        rows += bias
    last = rows.reshape(shape[0], *shape[2:], shape[1])
    return np.ascontiguousarray(np.moveaxis(last, -1, 1))


def _conv_gradient(
    g: Array, y: Array, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
) -> tuple[Array, Array, Array | None]:
    groups, rank = attributes["groups"], weight.ndim - 2
    stride, padding, dilation = (
        _steps("conv", rank, attributes[name]) for name in ("stride", "padding", "dilation")
    )
    rows = np.moveaxis(g, 1, -1).reshape(-1, groups, weight.shape[0] // groups).swapaxes(0, 1)
    along_weight = rows.swapaxes(1, 2) @ _columns(x, weight, **attributes)
    columns = rows @ weight.reshape(groups, weight.shape[0] // groups, -1)
    # Back from rows of windows to [N, channels, kernel positions, outputs].
    outputs, kernel = g.shape[2:], weight.shape[2:]
    columns = columns.reshape(groups, len(x), *outputs, weight.shape[1], *kernel)
    order = (1, 0, 2 + rank, *range(3 + rank, 3 + 2 * rank), *range(2, 2 + rank))
    columns = columns.transpose(order).reshape(len(x), x.shape[1], *kernel, *outputs)
    padded = np.zeros(
        (*x.shape[:2], *(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True))), x.dtype
    )
    for place in np.ndindex(*kernel):
        at = tuple(
            slice(k * d, k * d + s * (n - 1) + 1, s)
            for k, d, s, n in zip(place, dilation, stride, outputs, strict=True)
        )
        padded[(slice(None), slice(None), *at)] += columns[(slice(None), slice(None), *place)]
    inner = tuple(slice(p, p + n) for p, n in zip(padding, x.shape[2:], strict=True))
    along_bias = None if bias is None else g.sum(axis=(0, *range(2, g.ndim)))
    along_x = padded[(slice(None), slice(None), *inner)]
    return along_x, along_weight.reshape(weight.shape), along_bias


_CONV1D = sample((2, 4, 9), (6, 2, 3), (6,), stride=2, padding=1, dilation=2, groups=2)
_CONV2D = sample(
    (2, 4, 7, 8), (6, 2, 3, 2), (6,), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
)


@op(_conv_shape, _conv_flops, _CONV1D, _conv_gradient)
def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Array:
    """Slide kernels [out, in / groups, K] over [N, in, length], zeros at the borders."""
    return _convolve(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@op(_conv_shape, _conv_flops, _CONV2D, _conv_gradient)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = (1, 1),
    padding: Ints = (0, 0),
    dilation: Ints = (1, 1),
    groups: int = 1,
) -> Array:
    """Slide kernels [out, in / groups, KH, KW] over [N, in, height, width]."""
    return _convolve(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


# ---- embeddings ----


def _get_rows_shape(table: Shape, indices: Shape) -> Shape:
    if len(table) != 2:
        raise ShapeError("get_rows", f"the table must be [rows, width], not {table}")
    return (*indices, table[1])


def _get_rows_gradient(g: Array, y: Array, table: Array, indices: Array) -> tuple[Array, None]:
    along_table = np.zeros_like(table)
    np.add.at(along_table, indices.reshape(-1), g.reshape(-1, table.shape[1]))
    return along_table, None


def _get_rows_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (*sample((7, 5))(rng)[0], rng.integers(0, 7, (2, 3))), {}


@op(_get_rows_shape, lambda *shapes: 0, _get_rows_example, _get_rows_gradient)
def get_rows(table: Weights, indices: Indices) -> Array:
    """Pick rows of a table, [rows, width], which may be quantized: an embedding."""
    if indices.size and (indices.min() < 0 or indices.max() >= table.shape[0]):
        bad = indices[(indices < 0) | (indices >= table.shape[0])].flat[0]
        raise ShapeError("get_rows", f"there is no row {bad} in a table of {table.shape[0]}")
    if isinstance(table, Tensor):
        return dequantize(Tensor(table.data[indices], table.dtype))
    rows: Array = table[indices]
    return rows
