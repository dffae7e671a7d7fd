"""The functions of one or two reals that $Math has, for all arguments.

Inside of its domain a function is Inferno's to the last bit (``vm/jit/builtins/realbits.py``);
elsewhere it has the values of IEEE arithmetic, as Inferno's library.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llmbol_core.builtins import bessel, special
from llmbol_core.vm.jit.builtins import angles, exponentials, hyperbolic
from llmbol_core.vm.jit.builtins.realbits import size_of

_WHOLE = 2.0**52
"""From here on every real is whole."""
_HUGE, _HUGER = 0x41E00000, 0x43F00000
"""High words of 2 ** 31 and 2 ** 64."""
_NEAR_ONE = 0x3FEFFFFF, 0x3FF00000
"""High words of the numbers whose logarithm has a series of its own in powers beyond 2 ** 31."""
_UNDEFINED = -math.nan
"""What an undefined operation gives on the 386: a NaN whose sign bit is set."""


def _quiet(function: Callable[..., float]) -> Callable[..., float]:
    """Return Python's function with IEEE's values where Python raises."""

    def quiet(*values: float) -> float:
        try:
            return function(*values)
        except ValueError:
            return _UNDEFINED
        except OverflowError:
            return math.inf

    return quiet


def _within(
    domain: Callable[[float], bool], function: Callable[[float], float], other: Callable[..., float]
) -> Callable[[float], float]:
    """Return a function that for arguments outside of a domain is another one."""
    return lambda x: function(x) if domain(x) else other(x)


def _finite(function: Callable[[float], float], other: Callable[..., float]) -> Any:
    return _within(math.isfinite, function, other)


def _logarithm(function: Callable[[float], float], other: Callable[..., float]) -> Any:
    plain = _within(lambda x: 0 < x < math.inf, function, _quiet(other))
    return lambda x: -math.inf if x == 0 else plain(x)


def _odd(function: Callable[[float], float]) -> Callable[[float], float]:
    """Return a function with f(-x) = -f(x), so that it is infinite with the right sign."""
    return lambda x: math.copysign(_quiet(function)(abs(x)), x) if x == x else x


def _atanh(x: float) -> float:
    if abs(x) == 1:
        return math.copysign(math.inf, x)
    return hyperbolic.atanh(x) if abs(x) < 1 else _quiet(math.atanh)(x)


def _log1p(x: float) -> float:
    if x == -1:
        return -math.inf
    return hyperbolic.log1p(x) if -1 < x < math.inf else _quiet(math.log1p)(x)


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """Return a rounding function that gives reals, minus zero among them."""
    return lambda x: math.copysign(function(x), x) if abs(x) < _WHOLE else x


def _atan2(y: float, x: float) -> float:
    if x and y and math.isfinite(x) and math.isfinite(y):
        return angles.atan2(y, x)
    return math.atan2(y, x) if x == x and y == y else x + y


def _cbrt(x: float) -> float:
    return hyperbolic.cbrt(x) if x and math.isfinite(x) else x


def _hypot(x: float, y: float) -> float:
    if math.isfinite(x) and math.isfinite(y):
        return hyperbolic.hypot(x, y)
    if math.isinf(x) or math.isinf(y):
        return math.inf
    return abs(x) + abs(y)


def power(x: float, y: float) -> float:
    """Return x to the y as Inferno's library: 1 to an infinite or undefined y is NaN."""
    if math.isnan(y):
        return y
    if math.isinf(y) and abs(x) == 1:
        return _UNDEFINED
    if not math.isfinite(x) or not math.isfinite(y) or x in (0.0, 1.0, -1.0) or not y:
        return _pow_at_edge(x, y)
    is_whole = math.fmod(y, 1) == 0
    if x < 0 and not is_whole:
        return _UNDEFINED
    is_odd = x < 0 and math.fmod(y, 2) != 0
    if x < 0 and size_of(y) > _HUGE:
        return _negative_to_huge(x, y, -1.0 if is_odd else 1.0)
    found = exponentials.power(abs(x), y)
    return -found if is_odd else found


def _negative_to_huge(x: float, y: float, sign: float) -> float:
    """Return x < 0 to a y beyond 2 ** 31: far from -1 without a sign, near it 0 or infinite."""
    if _NEAR_ONE[0] <= size_of(x) <= _NEAR_ONE[1] and size_of(y) <= _HUGER:
        return sign * (0.0 if y > 0 else math.inf)
    return math.inf if (x < -1) == (y > 0) else 0.0


def _pow_at_edge(x: float, y: float) -> float:
    is_odd = math.isfinite(y) and abs(math.fmod(y, 2)) == 1
    try:
        return math.pow(x, y)
    except (OverflowError, ValueError) as error:
        if isinstance(error, ValueError) and x != 0:
            return _UNDEFINED
        return math.copysign(math.inf, x) if is_odd else math.inf


def _to_one(x: float) -> bool:
    return abs(x) <= 1


# fmt: off
UNARY: dict[str, Callable[[float], float]] = {
    "acos":  _within(_to_one, angles.acos, _quiet(math.acos)),
    "acosh": _within(lambda x: 1 <= x < math.inf, hyperbolic.acosh, _quiet(math.acosh)),
    "asin":  _within(_to_one, angles.asin, _quiet(math.asin)),
    "asinh": _finite(hyperbolic.asinh, math.asinh),
    "atan":  _finite(angles.atan, math.atan),
    "atanh": _atanh,
    "cbrt":  _cbrt,
    "ceil":  _whole(math.ceil),
    "cos":   _finite(special.cos, _quiet(math.cos)),
    "cosh":  _finite(hyperbolic.cosh, _quiet(math.cosh)),
    "erf":   _finite(special.erf, math.erf),
    "erfc":  _finite(special.erfc, math.erfc),
    "exp":   _finite(exponentials.exp, _quiet(math.exp)),
    "expm1": _finite(hyperbolic.expm1, _quiet(math.expm1)),
    "fabs":  math.fabs,
    "floor": _whole(math.floor),
    "log":   _logarithm(exponentials.log, math.log),
    "log10": _logarithm(exponentials.log10, math.log10),
    "log1p": _log1p,
    "rint":  _whole(round),
    "sin":   _finite(special.sin, _quiet(math.sin)),
    "sinh":  _finite(hyperbolic.sinh, _odd(math.sinh)),
    "sqrt":  _quiet(math.sqrt),
    "tan":   _finite(special.tan, _quiet(math.tan)),
    "tanh":  _finite(hyperbolic.tanh, math.tanh),
    "j0":    bessel.j0,
    "j1":    bessel.j1,
    "y0":    bessel.y0,
    "y1":    bessel.y1,
}
BINARY: dict[str, Callable[[float, float], float]] = {
    "atan2(y, x)":     _atan2,
    "copysign(x, s)":  math.copysign,
    "fdim(x, y)":      lambda x, y: x - y if x > y else 0.0,
    "fmax(x, y)":      lambda x, y: y if x < y else x,
    "fmin(x, y)":      lambda x, y: y if x > y else x,
    "fmod(x, y)":      _quiet(math.fmod),
    "hypot(x, y)":     _hypot,
    "nextafter(x, y)": lambda x, y: x if x == y else math.nextafter(x, y),
    "pow(x, y)":       power,
    "remainder(x, p)": _quiet(math.remainder),
}
# fmt: on
