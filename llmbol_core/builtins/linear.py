"""The linear algebra of $Math: products and norms of arrays of real, and sorting by permutation.

Matrices are stored by columns: element (i, j) of one with leading dimension ld is item i + j*ld.
Sums are taken from the first item to the last, so that results do not depend on the machine.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmbol_core.builtins import quicksort

Row = Sequence[float]
_MANY = 1 << 13
"""Indices from which on it is worth sorting with NumPy."""


class Mismatch(Exception):
    """Arrays that do not fit together."""


class OutOfBounds(Exception):
    """A matrix that is larger than the array it is in."""


@dataclass(frozen=True)
class Matrix:
    """A matrix in an array: by columns, which begin ``leading`` items apart."""

    items: Row
    rows: int
    columns: int
    leading: int

    def check(self) -> None:
        """Raise OutOfBounds if the array is too short for the matrix."""
        end = self.leading * (self.columns - 1) + self.rows
        if self.leading < self.rows or (self.rows and self.columns and end > len(self.items)):
            raise OutOfBounds

    def column(self, j: int) -> Row:
        """Return a column."""
        return self.items[j * self.leading : j * self.leading + self.rows]

    def row(self, i: int) -> Row:
        """Return a row."""
        return self.items[i : i + self.leading * self.columns : self.leading][: self.columns]


def dot(x: Row, y: Row) -> float:
    """Return the scalar product. Raises Mismatch."""
    if len(x) != len(y):
        raise Mismatch
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += a * b
    return total


def norm1(x: Row) -> float:
    """Return the sum of the absolute values."""
    total = 0.0
    for a in x:
        total += abs(a)
    return total


def norm2(x: Row) -> float:
    """Return the length of a vector."""
    return math.sqrt(dot(x, x))


def iamax(x: Row) -> int:
    """Return the index of the item that is largest in absolute value, the first of several."""
    best, largest = 0, abs(x[0]) if len(x) else 0.0
    for i, a in enumerate(x):
        if abs(a) > largest:
            best, largest = i, abs(a)
    return best


def sort(x: Row, permutation: Sequence[int]) -> array[int]:
    """Return the indices in ascending order of their values; equal ones as Inferno leaves them."""
    if len(permutation) > _MANY:
        found = _sorted_soon(x, permutation)
        if found is not None:
            return found
    elif any(not 0 <= i < len(x) for i in permutation):
        raise Mismatch
    elif len({x[i] for i in permutation}) == len(permutation) and not any(map(math.isnan, x)):
        return array("i", sorted(permutation, key=lambda i: x[i]))
    ordered = list(permutation)
    quicksort.order(ordered, x)
    return array("i", ordered)


def _sorted_soon(x: Any, permutation: Any) -> array[int] | None:
    """Return many indices in order of their values; None if some values, but not all, are equal.

    If all are equal, the pivot comes first, which then is the last index.
    """
    import numpy as np

    keys, indices = np.frombuffer(x, np.float64), np.frombuffer(permutation, np.int32)
    if indices.min() < 0 or indices.max() >= len(keys):
        raise Mismatch
    keys = keys[indices]
    if (keys == keys[0]).all():
        indices = indices.copy()
        indices[[0, -1]] = indices[[-1, 0]]
        return array("i", indices.tobytes())
    places = np.argsort(keys)
    keys = keys[places]
    if np.isnan(keys[-1]) or (keys[1:] == keys[:-1]).any():
        return None
    return array("i", indices[places].tobytes())


@dataclass(frozen=True)
class Product:
    """A call of gemm: C := alpha op(A) op(B) + beta C, where each op may transpose.

    ``m`` and ``n`` are the rows and columns of C, ``k`` is the dimension that A and B share.
    Without an A, C := alpha op(B) + beta C. Arrays and leading dimensions come in pairs.
    """

    transposes_a: bool
    transposes_b: bool
    m: int
    n: int
    k: int
    alpha: float
    a: tuple[Row | None, int]
    b: tuple[Row | None, int]
    beta: float
    c: tuple[Row, int]

    def matrices(self) -> tuple[Matrix, Matrix | None, Matrix | None] | None:
        """Return C, A and B as stored, or None if C does not change; without a B it is scaled.

        Raises OutOfBounds.
        """
        m, n, k = self.m, self.n, self.k
        old = Matrix(self.c[0], m, n, self.c[1])
        old.check()
        a = _matrix(self.a, self.transposes_a, m, k)
        b = _matrix(self.b, self.transposes_b, m if a is None else k, n)
        if not m or not n or ((self.alpha == 0 or not k) and self.beta == 1):
            return None
        if self.alpha != 0 and b is None:
            raise OutOfBounds
        return old, a, b if self.alpha != 0 else None

    @property
    def steps(self) -> int:
        """About how many multiplications the call takes."""
        return self.m * self.n * max(self.k, 1)

    def columns(self) -> list[list[float]] | None:
        """Return the new columns of C, or None if it does not change. Raises OutOfBounds."""
        found = self.matrices()
        if found is None:
            return None
        old, a, b = found
        n = self.n
        if b is None:
            scaled = (old.column(j) for j in range(n))
            return [[self.beta * z if self.beta else 0.0 for z in column] for column in scaled]
        columns = (b.row(j) if self.transposes_b else b.column(j) for j in range(n))
        pairs = ((right, old.column(j)) for j, right in enumerate(columns))
        if a is None:
            return [self._added(right, column) for right, column in pairs]
        left = [a.column(i) for i in range(a.columns)]
        return [self._multiplied(left, right, column) for right, column in pairs]

    def _added(self, right: Row, column: Row) -> list[float]:
        return [self.alpha * y + self.beta * z for y, z in zip(right, column, strict=True)]

    def _multiplied(self, left: list[Row], right: Row, column: Row) -> list[float]:
        """Return one column of the result, from the stored columns of A and a column of op(B)."""
        total = [self.beta * z if self.beta else 0.0 for z in column]
        if self.transposes_a:
            sums = [self.alpha * dot(row, right) for row in left]
            return [s + t if self.beta else s for s, t in zip(sums, total, strict=True)]
        for items, factor in zip(left, right, strict=True):
            if factor:
                weight = self.alpha * factor
                total = [t + weight * x for t, x in zip(total, items, strict=True)]
        return total


def _matrix(
    stored: tuple[Row | None, int], transposed: bool, rows: int, columns: int
) -> Matrix | None:
    """Return a matrix as stored, or None without an array. Raises OutOfBounds."""
    items, leading = stored
    if items is None:
        return None
    matrix = Matrix(items, *((columns, rows) if transposed else (rows, columns)), leading)
    matrix.check()
    return matrix
