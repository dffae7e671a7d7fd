"""Bessel functions of integer order, of the first (J) and second kind (Y): see ``special.py``."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmbol_core.builtins import special_tables as tables
from llmbol_core.builtins.special import cos, polynomial, sin
from llmbol_core.vm.jit.builtins.exponentials import log
from llmbol_core.vm.jit.builtins.realbits import high, size_of

_Rational = tuple[Sequence[float], Sequence[float]]
_UNDEFINED = -math.nan

_BY_ROOT_PI, _TWO_BY_PI = 5.64189583547756279280e-01, 6.36619772367581382433e-01
_STEPS = (0x40200000, 0x40122E8B, 0x4006DB6D)
_FAR = 0x48000000
_VERY_FAR = 0x52D00000


def _asymptotic(x: float, rows: Sequence[_Rational]) -> float:
    at = size_of(x)
    above, under = rows[sum(at < step for step in _STEPS)]
    z = 1.0 / (x * x)
    return polynomial(z, above) / polynomial(z, under)


def _waves(x: float, order: int) -> tuple[float, float]:
    """Return what J and Y of order 0 or 1 are the amplitudes of, for an x of at least 2."""
    s, c = sin(x), cos(x)
    ss, cc = (s - c, s + c) if order == 0 else (-s - c, s - c)
    if size_of(x) < 0x7FE00000:
        z = -cos(x + x) if order == 0 else cos(x + x)
        if (s * c < 0.0) if order == 0 else (s * c > 0.0):
            cc = z / ss
        else:
            ss = z / cc
    return cc, ss


def _amplitudes(x: float, order: int) -> tuple[float, float]:
    if order == 0:
        return 1.0 + _asymptotic(x, tables.P0), (-0.125 + _asymptotic(x, tables.Q0)) / x
    return 1.0 + _asymptotic(x, tables.P1), (0.375 + _asymptotic(x, tables.Q1)) / x


def _far_j(x: float, order: int) -> float:
    cc, ss = _waves(x, order)
    if size_of(x) > _FAR:
        return _BY_ROOT_PI * cc / math.sqrt(x)
    u, v = _amplitudes(x, order)
    return _BY_ROOT_PI * (u * cc - v * ss) / math.sqrt(x)


def _far_y(x: float, order: int) -> float:
    cc, ss = _waves(x, order)
    if size_of(x) > _FAR:
        return _BY_ROOT_PI * ss / math.sqrt(x)
    u, v = _amplitudes(x, order)
    return _BY_ROOT_PI * (u * ss + v * cc) / math.sqrt(x)


def j0(x: float) -> float:
    """Return J of order 0."""
    if not math.isfinite(x):
        return 1.0 / (x * x)
    at, x = size_of(x), abs(x)
    if at >= 0x40000000:
        return _far_j(x, 0)
    if at < 0x3F200000:
        return 1.0 if at < 0x3E400000 else 1.0 - 0.25 * x * x
    z = x * x
    quotient = z * polynomial(z, tables.J0_R) / polynomial(z, tables.J0_S)
    if at < 0x3FF00000:
        return 1.0 + z * (-0.25 + quotient)
    return (1.0 + 0.5 * x) * (1.0 - 0.5 * x) + z * quotient


def j1(x: float) -> float:
    """Return J of order 1."""
    if not math.isfinite(x):
        return 1.0 / x
    at = size_of(x)
    if at >= 0x40000000:
        found = _far_j(abs(x), 1)
        return -found if x < 0 else found
    if at < 0x3E400000:
        return 0.5 * x
    z = x * x
    r = z * polynomial(z, tables.J1_R) * x
    return x * 0.5 + r / polynomial(z, tables.J1_S)


def y0(x: float) -> float:
    """Return Y of order 0."""
    at = size_of(x)
    if (edge := _edge(x)) is not None:
        return edge
    if at >= 0x40000000:
        return _far_y(x, 0)
    if at <= 0x3E400000:
        return tables.Y0_U[0] + _TWO_BY_PI * log(x)
    z = x * x
    quotient = polynomial(z, tables.Y0_U) / polynomial(z, tables.Y0_V)
    return quotient + _TWO_BY_PI * (j0(x) * log(x))


def y1(x: float) -> float:
    """Return Y of order 1."""
    at = size_of(x)
    if (edge := _edge(x)) is not None:
        return edge
    if at >= 0x40000000:
        return _far_y(x, 1)
    if at <= 0x3C900000:
        return -_TWO_BY_PI / x
    z = x * x
    quotient = polynomial(z, tables.Y1_U) / polynomial(z, tables.Y1_V)
    return x * quotient + _TWO_BY_PI * (j1(x) * log(x) - 1.0 / x)


def _edge(x: float) -> float | None:
    """Return Y of any order where that is no number or no finite one."""
    if x != x:
        return x
    if x == 0:
        return -math.inf
    if x < 0:
        return _UNDEFINED
    return 0.0 if math.isinf(x) else None


def jn(n: int, x: float) -> float:
    """Return J of an integer order."""
    if x != x:
        return x + x
    if n < 0:
        n, x = -n, -x
    if n < 2:
        return j1(x) if n else j0(x)
    is_negative = n & 1 and math.copysign(1.0, x) < 0
    x = abs(x)
    if x == 0 or math.isinf(x):
        found = 0.0
    elif n <= x:
        found = _very_far(n, x, 0) if high(x) >= _VERY_FAR else _upwards(n, x, j0(x), j1(x))
    else:
        found = _series(n, x) if high(x) < 0x3E100000 else _downwards(n, x)
    return -found if is_negative else found


def yn(n: int, x: float) -> float:
    """Return Y of an integer order."""
    sign = -1.0 if n < 0 and n & 1 else 1.0
    n = abs(n)
    if (edge := _edge(x)) is not None:
        return sign * edge if n == 1 and x != 0 else edge
    if n < 2:
        return sign * y1(x) if n else y0(x)
    return sign * (_very_far(n, x, 1) if high(x) >= _VERY_FAR else _upwards(n, x, y0(x), y1(x)))


def _very_far(n: int, x: float, is_y: int) -> float:
    s, c = sin(x), cos(x)
    waves = ((s - c, -s - c, -s + c, s + c), (c + s, -c + s, -c - s, c - s))[not is_y]
    return _BY_ROOT_PI * waves[n & 3] / math.sqrt(x)


def _upwards(n: int, x: float, before: float, now: float) -> float:
    for i in range(1, n):
        if now == -math.inf:
            break
        before, now = now, now * ((i + i) / x) - before
    return now


def _series(n: int, x: float) -> float:
    """Return the first term of the power series of J."""
    if n > 33:
        return 0.0
    product, power = 1.0, x * 0.5
    for i in range(2, n + 1):
        product *= i
        power *= x * 0.5
    return power / product


def _downwards(n: int, x: float) -> float:
    """Return J of an order above x from a continued fraction and the recurrence downwards."""
    w, h = (n + n) / x, 2.0 / x
    q0, z, k = w, w + h, 1
    q1 = w * z - 1.0
    while q1 < 1e9:
        k, z = k + 1, z + h
        q0, q1 = q1, z * q1 - q0
    t = 0.0
    for i in range(2 * (n + k), 2 * n - 1, -2):
        t = 1.0 / (i / x - t)
    a, b, di = t, 1.0, float(2 * (n - 1))
    is_safe = n * log(abs((2.0 / x) * n)) < 7.09782712893383973096e02
    for _ in range(n - 1):
        a, b = b, b * di / x - a
        di -= 2.0
        if not is_safe and b > 1e100:
            a, t, b = a / b, t / b, 1.0
    return t * j0(x) / b
