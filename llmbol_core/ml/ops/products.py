"""Products: linear, matrices, embeddings; weights may be quantized where a row says so."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.quantized import multiplied, quantized_product
from llmbol_core.ml.ops.table import (
    Array,
    Indices,
    Out,
    Shape,
    Short,
    Weights,
    broadcast,
    flat_rows,
    op,
    sample,
    unbroadcast,
)
from llmbol_core.ml.ops.tiles import product, product_each, short_linear, short_matmul
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
    rows = flat_rows(g)
    along_bias = None if bias is None else rows.sum(axis=0)
    return g @ weight, rows.T @ flat_rows(x), along_bias


@op(
    _linear_shape, _linear_flops, sample((2, 3, 5), (4, 5), (4,)), _linear_gradient,
    short=short_linear,
)  # fmt: skip
def linear(x: Array, weight: Weights, bias: Array | None = None, out: Out = None) -> Array:
    """Multiply rows by a matrix [out, in] and add a bias: x W^T + b."""
    return _multiplied(x, multiplied(weight) if isinstance(weight, Tensor) else weight, bias, out)


def _multiplied(x: Array, weight: Weights, bias: Array | None, out: Out) -> Array:
    """Return rows times the transpose of a matrix, with a bias added."""
    rows, place = flat_rows(x), None if out is None else flat_rows(out)
    if isinstance(weight, Tensor):
        y = quantized_product(rows, weight, place, bias)
    else:
        y = product(rows, weight.T, place)
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


def _short_mul_mat() -> Short:
    multiply = short_linear()
    return lambda weight, x, *more: None if more else multiply(x, weight)


@op(
    _mul_mat_shape, _mul_mat_flops, sample((4, 5), (2, 3, 5)), _mul_mat_gradient,
    short=functools.cache(_short_mul_mat),
)  # fmt: skip
def mul_mat(weight: Weights, x: Array, out: Out = None) -> Array:
    """Multiply as ggml does: both operands have their rows along the last axis."""
    return _multiplied(x, weight, None, out)


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


@op(
    _matmul_shape, _matmul_flops, sample((2, 3, 5), (2, 5, 4)), _matmul_gradient,
    short=short_matmul,
)  # fmt: skip
def matmul(x: Array, y: Array, out: Out = None) -> Array:
    """Multiply matrices, [..., M, K] and [..., K, N]; the axes in front broadcast."""
    if y.ndim == 2:
        place = None if out is None else flat_rows(out)
        return product(flat_rows(x), y, place).reshape(*x.shape[:-1], y.shape[1])
    return product_each(x, y, out)


# ---- embeddings ----


def _get_rows_shape(table: Shape, indices: Shape) -> Shape:
    if len(table) != 2:
        raise ShapeError("get_rows", f"the table must be [rows, width], not {table}")
    return (*indices, table[1])


def _get_rows_gradient(g: Array, y: Array, table: Array, indices: Array) -> tuple[Array, None]:
    along_table = np.zeros_like(table)
    np.add.at(along_table, indices.reshape(-1), flat_rows(g))
    return along_table, None


def _get_rows_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (*sample((7, 5))(rng)[0], rng.integers(0, 7, (2, 3))), {}


@op(_get_rows_shape, lambda *shapes: 0, _get_rows_example, _get_rows_gradient)
def get_rows(table: Weights, indices: Indices, out: Out = None) -> Array:
    """Pick rows of a table, [rows, width], which may be quantized: an embedding."""
    if indices.size and (indices.min() < 0 or indices.max() >= table.shape[0]):
        bad = indices[(indices < 0) | (indices >= table.shape[0])].flat[0]
        raise ShapeError("get_rows", f"there is no row {bad} in a table of {table.shape[0]}")
    if isinstance(table, Tensor):
        found = dequantize(Tensor(table.data[indices], table.dtype))
        return found if out is None else _copied(found, out)
    rows: Array = table.take(indices, 0, out=out, mode="raise" if out is None else "clip")
    return rows


def _copied(found: Array, out: Array) -> Array:
    out[...] = found
    return out
