"""The elementary functions of $Math for machine code: see ``realbits.py``.

Arguments that a function is not made for are left to Python.
"""

from __future__ import annotations

from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.builtins.angles import MOST_REDUCED, acos, asin, atan, atan2, cos, sin, tan
from llmbol_core.vm.jit.builtins.exponentials import exp, log, log10, power, ten_to
from llmbol_core.vm.jit.builtins.hyperbolic import (
    acosh,
    asinh,
    atanh,
    cbrt,
    cosh,
    expm1,
    hypot,
    log1p,
    sinh,
    tanh,
)
from llmbol_core.vm.jit.builtins.math import give_real, is_finite, real_argument
from llmbol_core.vm.jit.builtins.realbits import size, size_of
from llmbol_core.vm.jit.hostcode import hosted
from llmbol_core.vm.jit.source import Real, W, Word, native


@hosted("Math.exp")
def math_exp(frame: Word) -> Word:
    """Return e to the x."""
    x = real_argument(frame, 0)
    return give_real(frame, exp(x)) if is_finite(x) else 0


@hosted("Math.expm1")
def math_expm1(frame: Word) -> Word:
    """Return e to the x, less 1."""
    x = real_argument(frame, 0)
    return give_real(frame, expm1(x)) if is_finite(x) else 0


@hosted("Math.sinh")
def math_sinh(frame: Word) -> Word:
    """Return the hyperbolic sine."""
    x = real_argument(frame, 0)
    return give_real(frame, sinh(x)) if is_finite(x) else 0


@hosted("Math.cosh")
def math_cosh(frame: Word) -> Word:
    """Return the hyperbolic cosine."""
    x = real_argument(frame, 0)
    return give_real(frame, cosh(x)) if is_finite(x) else 0


@hosted("Math.tanh")
def math_tanh(frame: Word) -> Word:
    """Return the hyperbolic tangent."""
    x = real_argument(frame, 0)
    return give_real(frame, tanh(x)) if is_finite(x) else 0


@hosted("Math.asinh")
def math_asinh(frame: Word) -> Word:
    """Return the inverse hyperbolic sine."""
    x = real_argument(frame, 0)
    return give_real(frame, asinh(x)) if is_finite(x) else 0


@hosted("Math.atan")
def math_atan(frame: Word) -> Word:
    """Return the arc tangent."""
    x = real_argument(frame, 0)
    return give_real(frame, atan(x)) if is_finite(x) else 0


@hosted("Math.log")
def math_log(frame: Word) -> Word:
    """Return the natural logarithm."""
    x = real_argument(frame, 0)
    return give_real(frame, log(x)) if x > 0.0 and is_finite(x) else 0


@hosted("Math.log10")
def math_log10(frame: Word) -> Word:
    """Return the logarithm to base 10."""
    x = real_argument(frame, 0)
    return give_real(frame, log10(x)) if x > 0.0 and is_finite(x) else 0


@hosted("Math.log1p")
def math_log1p(frame: Word) -> Word:
    """Return the logarithm of 1 + x."""
    x = real_argument(frame, 0)
    return give_real(frame, log1p(x)) if x > -1.0 and is_finite(x) else 0


@hosted("Math.acosh")
def math_acosh(frame: Word) -> Word:
    """Return the inverse hyperbolic cosine."""
    x = real_argument(frame, 0)
    return give_real(frame, acosh(x)) if x >= 1.0 and is_finite(x) else 0


@hosted("Math.atanh")
def math_atanh(frame: Word) -> Word:
    """Return the inverse hyperbolic tangent."""
    x = real_argument(frame, 0)
    return give_real(frame, atanh(x)) if size(x) < 1.0 else 0


@hosted("Math.acos")
def math_acos(frame: Word) -> Word:
    """Return the arc cosine."""
    x = real_argument(frame, 0)
    return give_real(frame, acos(x)) if size(x) <= 1.0 else 0


@hosted("Math.asin")
def math_asin(frame: Word) -> Word:
    """Return the arc sine."""
    x = real_argument(frame, 0)
    return give_real(frame, asin(x)) if size(x) <= 1.0 else 0


@hosted("Math.sin")
def math_sin(frame: Word) -> Word:
    """Return the sine."""
    x = real_argument(frame, 0)
    return give_real(frame, sin(x)) if size_of(x) <= MOST_REDUCED else 0


@hosted("Math.cos")
def math_cos(frame: Word) -> Word:
    """Return the cosine."""
    x = real_argument(frame, 0)
    return give_real(frame, cos(x)) if size_of(x) <= MOST_REDUCED else 0


@hosted("Math.tan")
def math_tan(frame: Word) -> Word:
    """Return the tangent."""
    x = real_argument(frame, 0)
    return give_real(frame, tan(x)) if size_of(x) <= MOST_REDUCED else 0


@hosted("Math.cbrt")
def math_cbrt(frame: Word) -> Word:
    """Return the cubic root."""
    x = real_argument(frame, 0)
    return give_real(frame, cbrt(x)) if x != 0.0 and is_finite(x) else 0


@hosted("Math.atan2")
def math_atan2(frame: Word) -> Word:
    """Return the angle of (x, y)."""
    y, x = real_argument(frame, 0), real_argument(frame, 1)
    if x == 0.0 or y == 0.0 or not is_finite(x) or not is_finite(y):
        return 0
    return give_real(frame, atan2(y, x))


@hosted("Math.hypot")
def math_hypot(frame: Word) -> Word:
    """Return the length of (x, y)."""
    x, y = real_argument(frame, 0), real_argument(frame, 1)
    return give_real(frame, hypot(x, y)) if is_finite(x) and is_finite(y) else 0


@native
def power_of(frame: Word, x: Real, y: Real) -> Word:
    """Store x to the y, if x is a positive number or y is 0."""
    if y == 0.0 or (x == 1.0 and is_finite(y)):
        return give_real(frame, 1.0)
    if not x > 0.0 or not is_finite(x) or not is_finite(y):
        return 0
    return give_real(frame, power(x, y))


@hosted("Math.pow")
def math_pow(frame: Word) -> Word:
    """Return x to the y."""
    return power_of(frame, real_argument(frame, 0), real_argument(frame, 1))


@hosted("Math.pow10")
def math_pow10(frame: Word) -> Word:
    """Return 10 to the p."""
    return give_real(frame, ten_to(W[frame + ARGUMENTS]))
