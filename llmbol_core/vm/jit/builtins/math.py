"""The functions of $Math for machine code.

Python's functions are made of the same ones, for finite results; all others are left to Python.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.hostcode import HOSTED, TEXTS, hosted, result_at
from llmbol_core.vm.jit.reals import as_real
from llmbol_core.vm.jit.source import (
    F,
    L,
    Real,
    W,
    Word,
    bits,
    c_function,
    inlined,
    narrow,
    native,
    real,
    whole,
)

_OF_C = ("ceil", "fabs", "floor", "rint", "sqrt")
"""Functions fn(x: real): real by their names in C."""
_OF_TWO = ("copysign", "fmod", "remainder")
"""Functions fn(x, y: real): real."""
_REAL = 8
_INFINITE = 0x7FF
_FRACTION = 52
_WHOLE = 2147483647.0


def _text(name: str, count: int) -> str:
    kinds = ", ".join(["double"] * count)
    reads = "".join(
        f" %x{i} = call double @real_argument(ptr %m, ptr %s, i32 %frame, i32 {i})\n"
        for i in range(count)
    )
    passed = ", ".join(f"double %x{i}" for i in range(count))
    return f"""
declare double @{name}({kinds})
define internal i32 @math_{name}(ptr %m, ptr %s, i32 %frame) {{
{reads} %value = call double @{name}({passed})
 %done = call i32 @give_real(ptr %m, ptr %s, i32 %frame, double %value)
 ret i32 %done
}}
"""


for _names, _count in ((_OF_C, 1), (_OF_TWO, 2)):
    for _name in _names:
        HOSTED[f"Math.{_name}"] = f"math_{_name}"
        TEXTS.append(_text(_name, _count))


@native
def real_argument(frame: Word, number: Word) -> Real:
    """Return an argument of a function of reals."""
    return F[frame + ARGUMENTS + _REAL * number]


@inlined
def is_finite(x: Real) -> Word:
    """Whether a real is neither infinite nor undefined."""
    return 1 if narrow(bits(x) >> _FRACTION) & _INFINITE != _INFINITE else 0


@native
def give_real(frame: Word, value: Real) -> Word:
    """Store a result, unless it is for Python to decide."""
    place = result_at(frame, _REAL)
    if place == NIL or not is_finite(value):
        return 0
    F[place] = value
    return 1


@native
def give_number(frame: Word, value: Word) -> Word:
    """Store a result that is a word."""
    place = result_at(frame, 4)
    if place == NIL:
        return 0
    W[place] = value
    return 1


@c_function
def ldexp(x: Real, n: Word) -> Real:
    """Return x times 2 to the n."""
    raise NotImplementedError


TEXTS.append(
    """
declare double @ldexp(double, i32)
"""
)


@hosted("Math.fdim")
def math_fdim(frame: Word) -> Word:
    """Return by how much x is larger than y."""
    x, y = real_argument(frame, 0), real_argument(frame, 1)
    return give_real(frame, x - y if x > y else 0.0)


@hosted("Math.fmax")
def math_fmax(frame: Word) -> Word:
    """Return the larger one."""
    x, y = real_argument(frame, 0), real_argument(frame, 1)
    return give_real(frame, y if x < y else x)


@hosted("Math.fmin")
def math_fmin(frame: Word) -> Word:
    """Return the smaller one."""
    x, y = real_argument(frame, 0), real_argument(frame, 1)
    return give_real(frame, y if x > y else x)


@hosted("Math.isnan")
def math_isnan(frame: Word) -> Word:
    """Return whether x is not a number."""
    x = real_argument(frame, 0)
    return give_number(frame, 1 if x != x else 0)


@hosted("Math.finite")
def math_finite(frame: Word) -> Word:
    """Return whether x is a finite number."""
    return give_number(frame, is_finite(real_argument(frame, 0)))


@hosted("Math.ilogb")
def math_ilogb(frame: Word) -> Word:
    """Return the exponent of x, which is neither 0 nor very small."""
    exponent = narrow(bits(real_argument(frame, 0)) >> _FRACTION) & _INFINITE
    if exponent == 0 or exponent == _INFINITE:
        return 0
    return give_number(frame, exponent - 1023)


@hosted("Math.scalbn")
def math_scalbn(frame: Word) -> Word:
    """Return x times 2 to the n."""
    return give_real(frame, ldexp(real_argument(frame, 0), W[frame + ARGUMENTS + _REAL]))


@hosted("Math.modf")
def math_modf(frame: Word) -> Word:
    """Return the whole part of x, as an int, and the rest with the sign of x."""
    x, place = real_argument(frame, 0), result_at(frame, 2 * _REAL)
    if place == NIL or not (x < _WHOLE and x > -_WHOLE):
        return 0
    part = x - real(whole(x))
    W[place] = narrow(whole(x))
    F[place + _REAL] = -0.0 if part == 0.0 and bits(x) < 0 else part
    return 1


@hosted("Math.realbits64")
def math_realbits64(frame: Word) -> Word:
    """Return the bits of x."""
    place = result_at(frame, _REAL)
    if place == NIL:
        return 0
    L[place] = L[frame + ARGUMENTS]
    return 1


@hosted("Math.bits64real")
def math_bits64real(frame: Word) -> Word:
    """Return the real that has these bits."""
    return give_real(frame, as_real(L[frame + ARGUMENTS]))
