"""Large products of matrices: the results of ``linear.Product``, to the last bit, by NumPy.

There each element is summed from the first term to the last; here the terms of many elements are
added at a time, but never two terms of the same element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.builtins.linear import Matrix, Product

Reals = NDArray[np.float64]
_BLOCK = 1 << 15
"""Elements that are worked on together: as many as fit the processor's cache."""
_FEW = 64
"""Elements below which it is not worth it, however long their sums are."""


def multiply(product: Product) -> Callable[[Any], None]:
    """Return a function that stores the result in C's array. Raises OutOfBounds."""
    found = columns(product)

    def store(target: Any) -> None:
        if found is not None:
            memory = np.frombuffer(target, np.float64)
            strides = (8 * product.c[1], 8)
            place = np.lib.stride_tricks.as_strided(memory, found.shape, strides)
            place[...] = found

    return store


def columns(product: Product) -> Reals | None:
    """Return the new columns of C as rows, or None if it stays. Raises OutOfBounds."""
    found = product.matrices()
    if found is None:
        return None
    if product.m * product.n < _FEW:
        return np.array(product.columns())
    old, left, right = (None if matrix is None else _view(matrix) for matrix in found)
    assert old is not None
    alpha, beta = product.alpha, product.beta
    with np.errstate(all="ignore"):
        total = beta * old if beta else np.zeros(old.shape)
        if right is None:
            return total
        right = right.T if product.transposes_b else right
        if left is None:
            return np.asarray(alpha * right + beta * old)
        if not product.transposes_a:
            _multiply(total, left, right, alpha)
            return total
        sums = np.zeros(old.shape)
        _multiply(sums, left.T, right, None)
        sums *= alpha
        return sums + total if beta else sums


def _view(matrix: Matrix) -> Reals:
    """Return the columns of a matrix as rows."""
    memory: Any = matrix.items
    items = np.frombuffer(memory, np.float64)
    shape, strides = (matrix.columns, matrix.rows), (8 * matrix.leading, 8)
    return np.lib.stride_tricks.as_strided(items, shape, strides, writeable=False)


def _multiply(total: Reals, left: Reals, right: Reals, alpha: float | None) -> None:
    """Add the products of row p of the left with column p of the right, for each p.

    With a factor, a 0 on the right adds nothing, not even times NaN or infinity.
    """
    wide = min(total.shape[1], _BLOCK)
    high = max(1, _BLOCK // wide)
    for j in range(0, total.shape[0], high):
        weights = np.ascontiguousarray(right[j : j + high].T)
        for i in range(0, total.shape[1], wide):
            part = total[j : j + high, i : i + wide]
            terms, rows = np.empty(part.shape), np.ascontiguousarray(left[:, i : i + wide])
            for column, row in zip(weights, rows, strict=True):
                if alpha is None:
                    part += np.multiply.outer(column, row, out=terms)
                    continue
                counts = column != 0
                if counts.all():
                    part += np.multiply.outer(alpha * column, row, out=terms)
                else:
                    part[counts] += np.multiply.outer(alpha * column[counts], row)
