"""Bessel functions of integer order, of the first kind (J) and the second (Y).

Up to x = 25 the J of all orders come from their recurrence run downwards, normalized by
J0 + 2 J2 + 2 J4 + ... = 1, and Y0 and Y1 from Neumann's series over those J; beyond, both come from
Hankel's asymptotic expansion, whose smallest term is then below 1e-20. Orders above 1 follow by
recurrence in the direction in which it is stable. Formulas: Abramowitz and Stegun, 9.1.27,
9.1.46, 9.1.88, 9.1.89, 9.2.5 to 9.2.10. The absolute error is about 1e-15.
"""

from __future__ import annotations

import math

_ASYMPTOTIC_FROM = 25.0
_EULER = 0.57721566490153286061
_SMALL = 1e-8
"""Below this the first term of a power series is the whole of it."""
_TINY = 1e-300
_HUGE = 1e200
_LEAST_LOGARITHM = -760.0
"""A number whose natural logarithm is less than this is 0 as a real."""


def jn(order: int, x: float) -> float:
    """Return J of an integer order at x."""
    if math.isnan(x):
        return x
    n = abs(order)
    sign = -1.0 if n % 2 and (order < 0) != (math.copysign(1.0, x) < 0) else 1.0
    x = abs(x)
    if x == 0 or math.isinf(x):
        return sign if n == 0 and x == 0 else math.copysign(0.0, sign)
    if x < _SMALL:
        return sign * _power(n, x / 2)
    if n > x and n * math.log(x / 2) - math.lgamma(n + 1) < _LEAST_LOGARITHM:
        return math.copysign(0.0, sign)
    if x <= _ASYMPTOTIC_FROM or n > x:
        return sign * _downwards(n, x)[n]
    return sign * _upwards(n, x, _hankel(0, x)[0], _hankel(1, x)[0])


def yn(order: int, x: float) -> float:
    """Return Y of an integer order at x: undefined for a negative x, minus infinity at 0."""
    if math.isnan(x):
        return x
    if x < 0:
        return -math.nan
    n = abs(order)
    sign = -1.0 if n % 2 and order < 0 else 1.0
    if x == 0:
        return -sign * math.inf
    if math.isinf(x):
        return 0.0
    first = _hankel(0, x)[1], _hankel(1, x)[1]
    if x <= _ASYMPTOTIC_FROM:
        first = _neumann(x)
    return sign * _upwards(n, x, *first)


def _power(order: int, half: float) -> float:
    """Return a power of x/2 divided by the factorial of its exponent."""
    product = 1.0
    for n in range(1, order + 1):
        product *= half / n
        if not product:
            break
    return product


def _upwards(order: int, x: float, zeroth: float, first: float) -> float:
    """Return the function of an order from those of order 0 and 1."""
    if order == 0:
        return zeroth
    before, now = zeroth, first
    for n in range(1, order):
        before, now = now, 2 * n / x * now - before
        if math.isinf(now):
            break
    return now


def _downwards(order: int, x: float) -> list[float]:
    """Return J of the orders 0, 1, ... up to ``order`` and some more, by Miller's algorithm."""
    start = max(order, int(x)) + 20 + int(math.sqrt(60.0 * max(order, x)))
    start += start % 2
    values = [0.0] * (start + 1)
    above, here = 0.0, _TINY
    for n in range(start, 0, -1):
        values[n] = here
        above, here = here, 2 * n / x * here - above
        if abs(here) > _HUGE:
            # What is left behind at this scale is too small to matter, or becomes so.
            above, here = above / _HUGE, here / _HUGE
            values[n:] = [value / _HUGE for value in values[n:]]
    values[0] = here
    total = math.fsum([values[0], *(2 * value for value in values[2::2])])
    return [value / total for value in values]


def _neumann(x: float) -> tuple[float, float]:
    """Return Y0 and Y1 for an x that is not large."""
    if x < _SMALL:
        return 2 / math.pi * (math.log(x / 2) + _EULER), -2 / math.pi / x
    j = _downwards(1, x)
    logarithm = math.log(x / 2) + _EULER
    even = math.fsum((-1) ** k * j[2 * k] / k for k in range(1, len(j) // 2))
    odd = math.fsum(
        (-1) ** k * (2 * k + 1) / (k * (k + 1)) * j[2 * k + 1] for k in range(1, (len(j) - 1) // 2)
    )
    y0 = 2 / math.pi * (logarithm * j[0] - 2 * even)
    y1 = 2 / math.pi * ((logarithm - 1) * j[1] - j[0] / x - odd)
    return y0, y1


def _hankel(order: int, x: float) -> tuple[float, float]:
    """Return J and Y of order 0 or 1 for a large x."""
    p, q, term = 1.0, 0.0, 1.0
    for k in range(1, 60):
        factor = (4.0 * order * order - (2 * k - 1) ** 2) / (k * 8.0 * x)
        if abs(term * factor) >= abs(term) or abs(term) < 1e-18:
            break
        term *= factor
        if k % 2:
            q += term * (1 if k % 4 == 1 else -1)
        else:
            p += term * (1 if k % 4 == 0 else -1)
    # cos and sin of x - pi/4 or x - 3 pi/4, without the rounding of the difference.
    plus, minus = math.sin(x) + math.cos(x), math.sin(x) - math.cos(x)
    cosine, sine = (plus, minus) if order == 0 else (minus, -plus)
    scale = 1 / math.sqrt(math.pi * x)
    return scale * (p * cosine - q * sine), scale * (p * sine + q * cosine)
