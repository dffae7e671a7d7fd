"""The linear algebra of $Math, and its sorting, for machine code: as in ``builtins.linear``.

All sums are taken in the same order as there, and equal keys end up in the same places. Results of
one number are left to Python unless they are finite, as in ``math``; so are traps.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.builtins.math import give_number, give_real
from llmbol_core.vm.jit.builtins.realbits import sqrt
from llmbol_core.vm.jit.guarding import misfits
from llmbol_core.vm.jit.hostcode import hosted
from llmbol_core.vm.jit.pacing import goes_on, spend, works
from llmbol_core.vm.jit.source import Big, F, Real, W, Word, below, inlined, narrow, native, wide
from llmbol_core.vm.jit.values import is_inside, is_kind
from llmbol_core.vm.objects import ARRAY

_REAL, _WORD = 8, 4
_MOST = (1 << 31) - 1
_MANY = 1 << 16
"""Items between two checks whether the program is to be stopped."""
_COST = 32
"""Fuel for comparing an index or adding a product: the bytes that could be copied meanwhile."""
_FEW, _NINE = 7, 40
"""Fewer indices are sorted by insertion; with more of them the pivot is a median of nine."""
_MOST_SORTED = 1 << 20
"""The most indices that are sorted here: more would take long to split, without a check."""
_LONGEST = 1 << 18
"""Multiplications from which on NumPy is faster."""
_PLAIN, _CONJUGATE, _TRANSPOSED = ord("N"), ord("C"), ord("T")


@inlined
def items_of(ref: Word, size: Word) -> Word:
    """Return how many items an array of numbers of a size has; -1 to leave it to Python."""
    if ref == NIL or not is_kind(ref, ARRAY) or misfits(W[ref + 4], size, size, 0, -1):
        return -1
    if wide(W[ref]) * wide(size) > _MOST or not is_inside(W[ref + 12], W[ref] * size):
        return -1
    return W[ref]


@inlined
def reals(ref: Word) -> Word:
    """Return the number of items in an array of real about to be worked on, or -1."""
    count = items_of(ref, _REAL)
    return count if count >= 0 and spend(16 * count) else -1


@inlined
def goes_on_at(i: Word) -> Word:
    """Whether the program is not to be stopped, which is checked at some indices."""
    return 1 if (i & _MANY - 1) != _MANY - 1 or goes_on() else 0


@hosted("Math.dot")
def math_dot(frame: Word) -> Word:
    """Return the scalar product."""
    x, y = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4]
    count = reals(x)
    if count < 0 or reals(y) != count:
        return 0
    i, total = 0, 0.0
    x, y = W[x + 12], W[y + 12]
    while i < count:
        total = total + F[x + _REAL * i] * F[y + _REAL * i]
        i = i + 1 if goes_on_at(i) else count
    return give_real(frame, total)


@native
def sum_of_squares(x: Word, count: Word) -> Real:
    """Return the scalar product of an array with itself."""
    i, total = 0, 0.0
    while i < count:
        total = total + F[x + _REAL * i] * F[x + _REAL * i]
        i = i + 1 if goes_on_at(i) else count
    return total


@hosted("Math.norm1")
def math_norm1(frame: Word) -> Word:
    """Return the sum of the absolute values."""
    x = W[frame + ARGUMENTS]
    count = reals(x)
    if count < 0:
        return 0
    i, total = 0, 0.0
    x = W[x + 12]
    while i < count:
        item = F[x + _REAL * i]
        total = total + (-item if item < 0.0 else item)
        i = i + 1 if goes_on_at(i) else count
    return give_real(frame, total)


@hosted("Math.norm2")
def math_norm2(frame: Word) -> Word:
    """Return the length of a vector."""
    x = W[frame + ARGUMENTS]
    count = reals(x)
    if count < 0:
        return 0
    return give_real(frame, sqrt(sum_of_squares(W[x + 12], count)))


@hosted("Math.iamax")
def math_iamax(frame: Word) -> Word:
    """Return the index of the item that is largest in absolute value, the first of several."""
    x = W[frame + ARGUMENTS]
    count = reals(x)
    if count < 1:
        return 0
    x = W[x + 12]
    i, best, largest = 1, 0, F[x]
    largest = -largest if largest < 0.0 else largest
    while i < count:
        item = F[x + _REAL * i]
        item = -item if item < 0.0 else item
        if item > largest:
            best, largest = i, item
        i = i + 1 if goes_on_at(i) else count
    return give_number(frame, best)


# Sorting


@inlined
def key_at(p: Word, x: Word, at: Word) -> Real:
    """Return the value to which the index at a place refers."""
    return F[x + _REAL * W[p + _WORD * at]]


@inlined
def swap_indices(p: Word, i: Word, j: Word) -> None:
    """Exchange two indices."""
    kept = W[p + _WORD * i]
    W[p + _WORD * i] = W[p + _WORD * j]
    W[p + _WORD * j] = kept


@native
def insert_all(p: Word, x: Word, start: Word, count: Word) -> None:
    """Sort a few indices."""
    last, end = start + 1, start + count
    while last < end:
        at = last
        while at > start and not key_at(p, x, at - 1) <= key_at(p, x, at):
            swap_indices(p, at - 1, at)
            at = at - 1
        last += 1


@native
def median_of(p: Word, x: Word, i: Word, j: Word, k: Word) -> Word:
    """Return which of three places has the middle key."""
    one, two, three = key_at(p, x, i), key_at(p, x, j), key_at(p, x, k)
    if one < two:
        if two < three:
            return j
        return k if one < three else i
    if not two <= three:
        return j
    return i if one < three else k


@native
def pivot_of(p: Word, x: Word, start: Word, count: Word) -> Word:
    """Return where the pivot is: the middle, or a median of 3 or of 9."""
    middle, low, high = start + (count >> 1), start, start + count - 1
    if count == _FEW:
        return middle
    if count > _NINE:
        step = count >> 3
        low = median_of(p, x, low, low + step, low + 2 * step)
        middle = median_of(p, x, middle - step, middle, middle + step)
        high = median_of(p, x, high - 2 * step, high - step, high)
    return median_of(p, x, low, middle, high)


@native
def exchange_indices(p: Word, start: Word, end: Word, first: Word, second: Word) -> None:
    """Swap indices at a start with those before an end, as many as the smaller number says."""
    count = first if first < second else second
    i = 0
    while i < count:
        swap_indices(p, start + i, end - count + i)
        i += 1


@native
def split_indices(p: Word, x: Word, start: Word, count: Word) -> Big:
    """Move smaller keys to the left, larger ones to the right; return how many of each."""
    swap_indices(p, start, pivot_of(p, x, start, count))
    pivot = key_at(p, x, start)
    left, b = start + 1, start + 1
    right, c = start + count - 1, start + count - 1
    while b <= c:
        while b <= c and key_at(p, x, b) <= pivot:
            if key_at(p, x, b) == pivot:
                swap_indices(p, left, b)
                left += 1
            b += 1
        while b <= c and not key_at(p, x, c) < pivot:
            if key_at(p, x, c) == pivot:
                swap_indices(p, c, right)
                right = right - 1
            c = c - 1
        if b <= c:
            swap_indices(p, b, c)
            b += 1
            c = c - 1
    end = start + count
    exchange_indices(p, start, b, left - start, b - left)
    exchange_indices(p, b, end, right - c, end - right - 1)
    return wide(b - left) << 32 | wide(right - c)


@native
def order_indices(p: Word, x: Word, start: Word, count: Word) -> Word:
    """Sort indices by their values; false if the program is to be stopped meanwhile."""
    while not below(count, _FEW):
        if not works(_COST * count):
            return 0
        both = split_indices(p, x, start, count)
        low, high = narrow(both >> 32), narrow(both)
        behind = start + count - high
        # The smaller part first, which bounds the depth of recursion.
        if low < high:
            if not order_indices(p, x, start, low):
                return 0
            start, count = behind, high
        else:
            if not order_indices(p, x, behind, high):
                return 0
            count = low
    insert_all(p, x, start, count)
    return 1


@hosted("Math.sort")
def math_sort(frame: Word) -> Word:
    """Sort a permutation by the values to which its indices refer."""
    x, p = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4]
    if items_of(x, _REAL) < 0 or items_of(p, _WORD) < 0 or W[p] > _MOST_SORTED:
        return 0
    end, count = W[x], W[p]
    x, p = W[x + 12], W[p + 12]
    i = 0
    while i < count:
        if not below(W[p + _WORD * i], end):
            return 0
        i = i + 1 if goes_on_at(i) else count
    return order_indices(p, x, 0, count)


# Products of matrices


@inlined
def holds_matrix(array: Word, rows: Word, columns: Word, leading: Word) -> Word:
    """Whether an array is large enough for a matrix, which is not empty."""
    if items_of(array, _REAL) < 0 or leading < rows:
        return 0
    end = wide(leading) * wide(columns - 1) + wide(rows)
    return 1 if end <= wide(W[array]) else 0


@inlined
def are_apart(array: Word, other: Word) -> Word:
    """Whether two arrays of real do not overlap."""
    start, end = wide(W[array + 12]), wide(W[array + 12]) + _REAL * wide(W[array])
    first, last = wide(W[other + 12]), wide(W[other + 12]) + _REAL * wide(W[other])
    return 1 if end <= first or last <= start else 0


@native
def scale_column(c: Word, m: Word, beta: Real) -> None:
    """Multiply a column."""
    i = 0
    while i < m:
        F[c + _REAL * i] = beta * F[c + _REAL * i] if beta != 0.0 else 0.0
        i += 1


@native
def add_columns(
    c: Word, m: Word, k: Word, alpha: Real, a: Word, leading: Word, b: Word, step: Word
) -> None:
    """Add the columns of A, each by its factor in B, to a column of C."""
    p = 0
    while p < k:
        factor = F[b + step * p]
        if factor != 0.0:
            weight, i = alpha * factor, 0
            column = a + _REAL * leading * p
            while i < m:
                F[c + _REAL * i] = F[c + _REAL * i] + weight * F[column + _REAL * i]
                i += 1
        p += 1


@native
def add_rows(
    c: Word, m: Word, k: Word, alpha: Real, a: Word, leading: Word, b: Word, step: Word, beta: Real
) -> None:
    """Add the scalar products of A's columns and one of B to a column of C."""
    i = 0
    while i < m:
        total, p = 0.0, 0
        column = a + _REAL * leading * i
        while p < k:
            total = total + F[column + _REAL * p] * F[b + step * p]
            p += 1
        total = alpha * total
        F[c + _REAL * i] = total + beta * F[c + _REAL * i] if beta != 0.0 else total
        i += 1


@inlined
def is_known(how: Word) -> Word:
    """Whether a letter says how a matrix is taken."""
    return 1 if how in (_PLAIN, _CONJUGATE, _TRANSPOSED) else 0


@hosted("Math.gemm")
def math_gemm(frame: Word) -> Word:
    """Set C to alpha op(A) op(B) + beta C, if none of them is empty."""
    first, second = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4]
    m, n, k = W[frame + ARGUMENTS + 8], W[frame + ARGUMENTS + 12], W[frame + ARGUMENTS + 16]
    alpha, beta = F[frame + ARGUMENTS + 24], F[frame + ARGUMENTS + 48]
    a, leading = W[frame + ARGUMENTS + 32], W[frame + ARGUMENTS + 36]
    b, ldb = W[frame + ARGUMENTS + 40], W[frame + ARGUMENTS + 44]
    c, ldc = W[frame + ARGUMENTS + 56], W[frame + ARGUMENTS + 60]
    if m < 1 or n < 1 or k < 1 or alpha == 0.0:
        return 0
    if not (is_known(first) and is_known(second)):
        return 0
    rows, columns = m if first == _PLAIN else k, k if first == _PLAIN else m
    if not holds_matrix(a, rows, columns, leading):
        return 0
    rows, columns = k if second == _PLAIN else n, n if second == _PLAIN else k
    if not (
        holds_matrix(b, rows, columns, ldb)
        and holds_matrix(c, m, n, ldc)
        and are_apart(c, a)
        and are_apart(c, b)
    ):
        return 0
    if wide(m) * wide(n) * wide(k) > _LONGEST:
        return 0
    a, b, c, j = W[a + 12], W[b + 12], W[c + 12], 0
    step = _REAL if second == _PLAIN else _REAL * ldb
    while j < n:
        if not works(_COST * m * k):
            return 0
        if first == _PLAIN:
            scale_column(c, m, beta)
            add_columns(c, m, k, alpha, a, leading, b, step)
        else:
            add_rows(c, m, k, alpha, a, leading, b, step, beta)
        c, b, j = c + _REAL * ldc, b + (_REAL * ldb if second == _PLAIN else _REAL), j + 1
    return 1
