"""Error function, gamma function, and angles of any size, to the last bit as in Inferno's library.

That is fdlibm's; see ``vm/jit/builtins/realbits.py``. Here are the same intervals, rational
approximations and recurrences. The coefficients stand in ``special_tables.py``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import cache, reduce
from typing import NamedTuple

from llmbol_core.builtins import special_tables as tables
from llmbol_core.vm.jit.builtins import angles
from llmbol_core.vm.jit.builtins.exponentials import exp, log
from llmbol_core.vm.jit.builtins.realbits import chopped, high, size_of


def polynomial(z: float, coefficients: Sequence[float]) -> float:
    """Return the value of a polynomial whose coefficients are given from the lowest power on."""
    total = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = coefficient + z * total
    return total


# Trigonometric functions of all finite numbers


_DIGIT = 24
"""Bits of the digits that numbers are multiplied by 2/pi in."""
_MOST_DIGITS, _FEWEST_DIGITS = 66, 4


class _Reduced(NamedTuple):
    """What is left of a number when multiples of pi/2 are taken away: two parts, how many."""

    value: float
    tail: float
    quadrant: int


@cache
def _pi_digits() -> tuple[list[int], list[float]]:
    """Return the digits of 2/pi, and pi/2 as a sum of reals, each a digit; by Machin's formula."""
    size = _DIGIT * (_MOST_DIGITS + 4)
    one = 1 << size

    def arc_tangent(n: int) -> int:
        term, total, k, sign = one // n, 0, 1, 1
        while term:
            total += sign * (term // k)
            term, k, sign = term // (n * n), k + 2, -sign
        return total

    half_pi = 8 * arc_tangent(5) - 2 * arc_tangent(239)
    inverse = one * one // half_pi
    digits = [_digit(inverse, size - _DIGIT * i) for i in range(1, _MOST_DIGITS + 1)]
    places = [_DIGIT * i - 1 for i in range(1, _FEWEST_DIGITS + 2)]
    return digits, [math.ldexp(_digit(half_pi, size - at), -at) for at in places]


def _digit(number: int, position: int) -> int:
    """Return the digit whose last bit has this position."""
    return number >> position & (1 << _DIGIT) - 1


def _reduced(x: float) -> _Reduced:
    """Take multiples of pi/2 from the size of a large x, with as many digits as fdlibm does."""
    fraction, exponent = math.frexp(abs(x))
    number = int(math.ldexp(fraction, 3 * _DIGIT))
    first = max(0, (exponent - 27) // _DIGIT)
    count, above = _FEWEST_DIGITS, 0
    while True:
        point = _DIGIT * (count + first + 2) - exponent
        product = _product(number, first, count)
        quarters, rest = product >> point, product & (1 << point) - 1
        is_upper = rest >> (point - 1)
        if is_upper:
            quarters, rest = quarters + 1, (1 << point) - rest
        above = (rest.bit_length() - 1) // _DIGIT
        if above >= _FEWEST_DIGITS:
            break
        count += _FEWEST_DIGITS - above
    digits = [
        math.ldexp(_digit(rest, _DIGIT * i), _DIGIT * i - point) for i in range(above, -1, -1)
    ]
    value, tail = _times_half_pi(digits)
    return _Reduced(*((-value, -tail) if is_upper else (value, tail)), quarters & 3)


def _product(number: int, first: int, count: int) -> int:
    """Return the digits of a number of three times those of 2/pi, up to a place."""
    digits, _ = _pi_digits()
    total = 0
    for i in range(count + 1):
        for j in range(min(3, first + i + 1)):
            factor = _digit(number, _DIGIT * (2 - j))
            total += (factor * digits[first + i - j]) << _DIGIT * (count - i)
    return total


def _times_half_pi(digits: list[float]) -> tuple[float, float]:
    """Return the product of a fraction, digits from the highest on, and pi/2 as two reals."""
    _, half_pi = _pi_digits()
    terms = [
        _total(0.0, [half_pi[k] * digits[i - k] for k in range(min(len(half_pi), i + 1))])
        for i in range(len(digits))
    ]
    value = _total(0.0, terms[::-1])
    return value, _total(terms[0] - value, terms[1:])


def _total(start: float, terms: list[float]) -> float:
    """Return a sum that is rounded after each term; Python's own is more exact than Inferno's."""
    return reduce(operator.add, terms, start)


def sin(x: float) -> float:
    """Return the sine of a finite x."""
    if size_of(x) <= angles.MOST_REDUCED:
        return angles.sin(x)
    value, tail, n = _reduced(x)
    found = angles.cos_near(value, tail) if n & 1 else angles.sin_near(value, tail, 1)
    return -found if (n > 1) != (x < 0) else found


def cos(x: float) -> float:
    """Return the cosine of a finite x."""
    if size_of(x) <= angles.MOST_REDUCED:
        return angles.cos(x)
    value, tail, n = _reduced(x)
    found = angles.sin_near(value, tail, 1) if n & 1 else angles.cos_near(value, tail)
    return -found if n in (1, 2) else found


def tan(x: float) -> float:
    """Return the tangent of a finite x."""
    if size_of(x) <= angles.MOST_REDUCED:
        return angles.tan(x)
    value, tail, n = _reduced(x)
    found = angles.tan_near(value, tail, -1 if n & 1 else 1)
    return -found if x < 0 else found


# The error function

_ERX, _EFX, _EFX8 = 8.45062911510467529297e-01, 1.28379167095512586316e-01, 1.02703333676410069053


def _near_zero(x: float) -> float:
    z = x * x
    return polynomial(z, tables.ERF_PP) / polynomial(z, tables.ERF_QQ)


def _near_one(x: float) -> float:
    s = abs(x) - 1.0
    return polynomial(s, tables.ERF_PA) / polynomial(s, tables.ERF_QA)


def _far(x: float, limit: int) -> float:
    """Return 1 less the error function of an x that is not small, times x."""
    s = 1.0 / (x * x)
    if size_of(x) < limit:
        quotient = polynomial(s, tables.ERF_RA) / polynomial(s, tables.ERF_SA)
    else:
        quotient = polynomial(s, tables.ERF_RB) / polynomial(s, tables.ERF_SB)
    z = chopped(x)
    return exp(-z * z - 0.5625) * exp((z - x) * (z + x) + quotient)


def erf(x: float) -> float:
    """Return the error function of a finite x."""
    at, a = size_of(x), abs(x)
    if at < 0x3E300000:
        return 0.125 * (8.0 * x + _EFX8 * x) if at < 0x00800000 else x + _EFX * x
    if at < 0x3FEB0000:
        return x + x * _near_zero(x)
    if at < 0x3FF40000:
        return math.copysign(_ERX + _near_one(x), x)
    if at >= 0x40180000:
        return math.copysign(1.0, x)
    return math.copysign(1.0 - _far(a, 0x4006DB6E) / a, x)


def erfc(x: float) -> float:
    """Return 1 less the error function of a finite x."""
    at, a = size_of(x), abs(x)
    if at < 0x3C700000:
        return 1.0 - x
    if at < 0x3FEB0000:
        y = _near_zero(x)
        return 1.0 - (x + x * y) if x < 0.25 else 0.5 - (x * y + (x - 0.5))
    if at < 0x3FF40000:
        y = _near_one(x)
        return (1.0 - _ERX) - y if x >= 0 else 1.0 + (_ERX + y)
    if at >= 0x403C0000 or (x < 0 and at >= 0x40180000):
        return 0.0 if x > 0 else 2.0
    r = _far(a, 0x4006DB6D)
    return r / a if x > 0 else 2.0 - r / a


# The logarithm of the gamma function

_TC, _TF, _TT = 1.46163214496836224576, -1.21486290535849611461e-01, -3.63867699703950536541e-18


def _sin_pi(x: float) -> float:
    """Return the sine of pi times an x < 0 that is not whole."""
    if size_of(x) < 0x3FD00000:
        return angles.sin_near(math.pi * x, 0.0, 0)
    y = -x * 0.5
    y = 2.0 * (y - math.floor(y))
    n = int(y * 4.0)
    if n in (1, 2):
        y = angles.cos_near(math.pi * (0.5 - y), 0.0)
    elif n in (5, 6):
        y = -angles.cos_near(math.pi * (y - 1.5), 0.0)
    else:
        y = angles.sin_near(math.pi * {0: y, 7: y - 2.0}.get(n, 1.0 - y), 0.0, 0)
    return -y


def lgamma(x: float) -> tuple[int, float]:
    """Return the sign of gamma(x) and the logarithm of its size, for a finite x that is no pole."""
    if size_of(x) < 0x3B900000:
        return (-1, -log(-x)) if x < 0 else (1, -log(x))
    if x > 0:
        return 1, _lgamma(x)
    t = _sin_pi(x)
    return (-1 if t < 0 else 1), log(math.pi / abs(t * x)) - _lgamma(-x)


def _lgamma(x: float) -> float:
    if x in (1.0, 2.0):
        return 0.0
    if x < 2.0:
        return _lgamma_small(x)
    if x < 8.0:
        i = int(x)
        y, z = x - i, 1.0
        r = 0.5 * y + y * polynomial(y, tables.GAMMA_S) / polynomial(y, tables.GAMMA_R)
        for k in range(i - 1, 1, -1):
            z *= y + k
        return r + log(z) if i > 2 else r
    if size_of(x) < 0x43900000:
        z = 1.0 / x
        w = tables.GAMMA_W[0] + z * polynomial(z * z, tables.GAMMA_W[1:])
        return (x - 0.5) * (log(x) - 1.0) + w
    return x * (log(x) - 1.0)


def _lgamma_small(x: float) -> float:
    """Return it for an x < 2."""
    at, r = high(x), 0.0
    if at <= 0x3FECCCCC:
        r = -log(x)
        if at >= 0x3FE76944:
            return r + _lgamma_near_two(1.0 - x)
        if at >= 0x3FCDA661:
            return r + _lgamma_near_minimum(x - (_TC - 1.0))
        return r + _lgamma_near_one(x)
    if at >= 0x3FFBB4C3:
        return r + _lgamma_near_two(2.0 - x)
    return r + (_lgamma_near_minimum(x - _TC) if at >= 0x3FF3B4C4 else _lgamma_near_one(x - 1.0))


def _lgamma_near_two(y: float) -> float:
    z = y * y
    even, odd = tables.GAMMA_A[::2], tables.GAMMA_A[1::2]
    return (y * polynomial(z, even) + z * polynomial(z, odd)) - 0.5 * y


def _lgamma_near_minimum(y: float) -> float:
    z = y * y
    w = z * y
    p1, p2, p3 = (polynomial(w, tables.GAMMA_T[i::3]) for i in range(3))
    return _TF + (z * p1 - (_TT - w * (p2 + y * p3)))


def _lgamma_near_one(y: float) -> float:
    return -0.5 * y + y * polynomial(y, tables.GAMMA_U) / polynomial(y, tables.GAMMA_V)
