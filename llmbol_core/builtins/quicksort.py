"""The quicksort by which $Math sorts a permutation: equal keys end up where Inferno leaves them.

It is Bentley's and McIlroy's ("Engineering a Sort Function", 1993): keys equal to the pivot gather
at both ends while the rest is split, and are then moved to the middle. NaN counts as
greater.
"""

from __future__ import annotations

from collections.abc import Sequence

_INSERTION = 7
_MANY = 40


def order(a: list[int], x: Sequence[float]) -> None:
    """Sort indices by the values that they stand for, in place."""
    stack = [(0, len(a))]
    while stack:
        start, count = stack.pop()
        if count < _INSERTION:
            _insert(a, x, start, count)
            continue
        low, high = _split(a, x, start, count)
        # The part to the left of the pivot first, as recursion would.
        stack.append((start + count - high, high))
        stack.append((start, low))


def _insert(a: list[int], x: Sequence[float], start: int, count: int) -> None:
    for end in range(start + 1, start + count):
        at = end
        while at > start and not x[a[at - 1]] <= x[a[at]]:
            a[at - 1], a[at] = a[at], a[at - 1]
            at -= 1


def _split(a: list[int], x: Sequence[float], start: int, count: int) -> tuple[int, int]:
    """Move smaller keys to the left, larger ones to the right; return how many of each."""
    pivot = _pivot(a, x, start, count)
    a[start], a[pivot] = a[pivot], a[start]
    key = x[a[start]]
    left = b = start + 1
    right = c = start + count - 1
    while True:
        while b <= c and x[a[b]] <= key:
            if x[a[b]] == key:
                a[left], a[b] = a[b], a[left]
                left += 1
            b += 1
        while b <= c and not x[a[c]] < key:
            if x[a[c]] == key:
                a[c], a[right] = a[right], a[c]
                right -= 1
            c -= 1
        if b > c:
            break
        a[b], a[c] = a[c], a[b]
        b, c = b + 1, c - 1
    end = start + count
    _exchange(a, start, b, min(left - start, b - left))
    _exchange(a, b, end, min(right - c, end - right - 1))
    return b - left, right - c


def _exchange(a: list[int], start: int, end: int, count: int) -> None:
    """Swap so many indexes at a start with those before an end, one by one."""
    for i in range(count):
        left, right = start + i, end - count + i
        a[left], a[right] = a[right], a[left]


def _pivot(a: list[int], x: Sequence[float], start: int, count: int) -> int:
    """Return where the pivot is: the middle, or a median of 3 or of 9."""
    middle, low, high = start + count // 2, start, start + count - 1
    if count == _INSERTION:
        return middle
    if count > _MANY:
        step = count // 8
        low = _median(a, x, low, low + step, low + 2 * step)
        middle = _median(a, x, middle - step, middle, middle + step)
        high = _median(a, x, high - 2 * step, high - step, high)
    return _median(a, x, low, middle, high)


def _median(a: list[int], x: Sequence[float], i: int, j: int, k: int) -> int:
    """Return which of three places has the middle key."""
    one, two, three = x[a[i]], x[a[j]], x[a[k]]
    if one < two:
        return j if two < three else k if one < three else i
    if not two <= three:
        return j
    return i if one < three else k
