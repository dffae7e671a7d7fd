"""Matrix products whose rows do not depend on each other.

A float32 BLAS computes a row of a product differently in batches of different sizes. Here products
are cut into tiles of a fixed number of rows, the last one filled with zeros, so that a sample's
result does not depend on what else is in the batch.
"""

from __future__ import annotations

import numpy as np

from llmbol_core.ml.ops.table import Array, Out

_TILE = 32
"""Rows of a tile: a multiple of what the kernels of BLAS libraries take at a time."""


def product(x: Array, y: Array, out: Out = None) -> Array:
    """Return [M, K] times [K, N]; each row of the result depends on its row of x alone."""
    rows, full = len(x), len(x) // _TILE * _TILE
    output = np.empty((rows, y.shape[1]), x.dtype) if out is None else out
    if full:
        tiles = np.ascontiguousarray(x[:full]).reshape(-1, _TILE, x.shape[1])
        np.matmul(tiles, y, out=output[:full].reshape(-1, _TILE, y.shape[1]))
    if full < rows:
        tile = np.zeros((_TILE, x.shape[1]), x.dtype)
        tile[: rows - full] = x[full:]
        output[full:] = (tile @ y)[: rows - full]
    return output
