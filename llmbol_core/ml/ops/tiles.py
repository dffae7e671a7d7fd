"""Matrix products whose rows do not depend on each other.

Kernels sum each row of a product by itself. A float32 BLAS computes a row differently in batches of
different sizes: where it has to do the work, products are cut into tiles of a fixed number of rows,
the last one filled with zeros, so that a sample's result does not depend on how many others there
are in the batch.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops.direct import in_rows
from llmbol_core.ml.ops.table import Array, Out, Short

_TILE = 8
"""Rows of a tile: so few that the kernels of BLAS libraries do not treat some in another way."""
_LARGE = 1 << 18
"""Numbers of a result from which on its alignment matters."""
_NARROW = 16
"""Columns below which kernels compute a product no faster than BLAS."""
_WORTH = 1 << 18
"""Multiply-adds from which on they are faster, however few products there are."""
_FEW, _READ = 8, 1 << 14
"""So few rows, and so many numbers of y, that BLAS is slow at them."""
_LINE = 64
"""Bytes of a cache line."""


@functools.cache
def short_matmul() -> Short:
    """Return what multiplies small matrices at once, [M, K] times [K, N]."""
    return _short_products()[0]


@functools.cache
def short_linear() -> Short:
    """Return what multiplies few rows at once, [M, K] times [N, K] transposed, and adds a bias."""
    return _short_products()[1]


def _short_products() -> tuple[Short, Short]:
    from llmbol_core.ml.matrices import never, short_products

    chosen = target()
    return (never, never) if chosen is None else short_products(chosen)


def product(x: Array, y: Array, out: Out = None) -> Array:
    """Return [M, K] times [K, N]; each row of the result depends on its row of x alone."""
    output = _room(len(x), y.shape[1], x.dtype) if out is None else out
    if x.dtype == y.dtype == output.dtype == np.float32 and (chosen := target()) is not None:
        from llmbol_core.ml.matrices import multiply

        return multiply(x, y, output, chosen)
    return product_by_definition(x, y, output)


def product_each(x: Array, y: Array, out: Out = None) -> Array:
    """Return [..., M, K] times [..., K, N]; axes in front broadcast.

    Whether kernels or BLAS multiply depends on M, K and N alone, so a product is the same bits
    however many there are.
    """
    left, right = in_rows(x), in_rows(y)
    (rows, depth), columns = x.shape[-2:], y.shape[-1]
    is_worth = _is_worth(rows, depth, columns)
    if is_worth and x.dtype == y.dtype == np.float32 and (chosen := target()) is not None:
        from llmbol_core.ml.matrices import multiply_each

        if out is None or (out.dtype == np.float32 and out.flags.c_contiguous):
            return multiply_each(left, right, out, chosen)
    z: Array = np.matmul(left, right, out=out)
    return z


def _is_worth(rows: int, depth: int, columns: int) -> bool:
    """Return whether kernels compute one of many such products faster than BLAS."""
    is_slow = rows <= _FEW and depth * columns >= _READ
    is_large = rows * depth * columns >= _WORTH
    return rows > 1 and columns >= _NARROW and (is_slow or is_large)


def _room(rows: int, columns: int, dtype: np.dtype[Any]) -> Array:
    """Return a new array; a large one begins at a cache line, as it is written faster then."""
    count = rows * columns
    if count < _LARGE:
        return np.empty((rows, columns), dtype)
    spare = _LINE // dtype.itemsize
    whole = np.empty(count + spare, dtype)
    first = -whole.ctypes.data % _LINE // dtype.itemsize
    return whole[first : first + count].reshape(rows, columns)


def product_with_columns(x: Array, y: Array) -> Array:
    """Return [M, K] times [K, N]; each column of the result depends on its column of y alone."""
    if x.dtype == y.dtype == np.float32 and target() is not None:
        # Kernels sum each number by itself; but a single column would pass for a row.
        return product(x, y) if y.shape[1] != 1 else product(x, np.repeat(y, 2, axis=1))[:, :1]
    return np.ascontiguousarray(product(y.T, x.T).T)


def product_by_definition(x: Array, y: Array, output: Array) -> Array:
    """Compute a product with NumPy: what kernels are held to."""
    if not (x.size and y.size):
        output[...] = 0
        return output
    rows, full = len(x), len(x) // _TILE * _TILE
    if full:
        tiles = np.ascontiguousarray(x[:full]).reshape(-1, _TILE, x.shape[1])
        np.matmul(tiles, y, out=output[:full].reshape(-1, _TILE, y.shape[1]))
    if full < rows:
        tile = np.zeros((_TILE, x.shape[1]), x.dtype)
        tile[: rows - full] = x[full:]
        output[full:] = (tile @ y)[: rows - full]
    return output
