"""Hyperbolic functions and their inverses, the cubic root, and lengths: see ``realbits.py``.

Each function says which arguments it is made for; the caller deals with all others.
"""

from __future__ import annotations

from llmbol_core.vm.jit.builtins.exponentials import (
    G1,
    G2,
    G3,
    G4,
    G5,
    G6,
    G7,
    LN2,
    LN2_HIGH,
    LN2_LOW,
    OVERFLOW,
    exp,
    log,
    multiples_of_ln2,
)
from llmbol_core.vm.jit.builtins.realbits import (
    INFINITY,
    TWO_54,
    chopped,
    high,
    number,
    of_high,
    scaled,
    size,
    size_of,
    sqrt,
    with_high,
)
from llmbol_core.vm.jit.source import Real, Word, native

# Hyperbolic functions and others

Q1, Q2, Q3 = -3.33333333333331316428e-02, 1.58730158725481460165e-03, -7.93650757867487942473e-05
Q4, Q5 = 4.00821782732936239552e-06, -2.01099218183624371326e-07


@native
def expm1(x: Real) -> Real:
    """Return e to the x, less 1, for a finite x."""
    k, c = multiples_of_ln2(x), 0.0
    if x > OVERFLOW:
        return INFINITY
    if size_of(x) >= 0x4043687A and x < 0.0:
        return -1.0
    if size_of(x) < 0x3C900000:
        return x
    if k:
        t = number(k)
        above, below_ = x - t * LN2_HIGH, t * LN2_LOW
        x = above - below_
        c = (above - x) - below_
    half = 0.5 * x
    h = x * half
    r = 1.0 + h * (Q1 + h * (Q2 + h * (Q3 + h * (Q4 + h * Q5))))
    t = 3.0 - r * half
    e = h * ((r - t) / (6.0 - x * t))
    if k == 0:
        return x - (x * e - h)
    e = (x * (e - c) - c) - h
    if k == -1:
        return 0.5 * (x - e) - 0.5
    if k == 1:
        return -2.0 * (e - (x + 0.5)) if x < -0.25 else 1.0 + 2.0 * (x - e)
    if k <= -2 or k > 56:
        return scaled(1.0 - (e - x), k) - 1.0
    if k < 20:
        return scaled(of_high(0x3FF00000 - (0x200000 >> k)) - (e - x), k)
    return scaled((x - (e + of_high(0x3FF - k << 20))) + 1.0, k)


MOST_HYPERBOLIC = 710.4758600739439


@native
def cosh(x: Real) -> Real:
    """Return the hyperbolic cosine of a finite x."""
    at, a = size_of(x), size(x)
    if at < 0x3FD62E43:
        t = expm1(a)
        w = 1.0 + t
        return w if at < 0x3C800000 else 1.0 + (t * t) / (w + w)
    if at < 0x40360000:
        t = exp(a)
        return 0.5 * t + 0.5 / t
    if at < 0x40862E42:
        return 0.5 * exp(a)
    if a > MOST_HYPERBOLIC:
        return INFINITY
    w = exp(0.5 * a)
    return 0.5 * w * w


@native
def sinh(x: Real) -> Real:
    """Return the hyperbolic sine of a finite x."""
    at, a, h = size_of(x), size(x), -0.5 if x < 0.0 else 0.5
    if at < 0x3E300000:
        return x
    if at < 0x40360000:
        t = expm1(a)
        if at < 0x3FF00000:
            return h * (2.0 * t - t * t / (t + 1.0))
        return h * (t + t / (t + 1.0))
    if at < 0x40862E42:
        return h * exp(a)
    if a > MOST_HYPERBOLIC:
        return x * 1e307
    w = exp(0.5 * a)
    return h * w * w


@native
def tanh(x: Real) -> Real:
    """Return the hyperbolic tangent of a finite x."""
    at, z = size_of(x), 1.0
    if at < 0x3C800000:
        return x * (1.0 + x)
    if at < 0x40360000:
        if at >= 0x3FF00000:
            z = 1.0 - 2.0 / (expm1(2.0 * size(x)) + 2.0)
        else:
            t = expm1(-2.0 * size(x))
            z = -t / (t + 2.0)
    return -z if x < 0.0 else z


K1, K2, K3 = 5.42857142857142815906e-01, -7.05306122448979611050e-01, 1.41428571428571436819e00
K4, K5 = 1.60714285714285720630e00, 3.57142857142857150787e-01


@native
def cbrt(x: Real) -> Real:
    """Return the cubic root of a finite x other than 0."""
    a = size(x)
    if high(a) < 0x00100000:
        t = of_high(high(TWO_54 * a) // 3 + 696219795)
    else:
        t = of_high(high(a) // 3 + 715094163)
    r = t * t / a
    s = K1 + r * t
    t = t * (K5 + K4 / (s + K3 + K2 / s))
    t = of_high(high(t) + 1)
    s = t * t
    r = a / s
    r = (r - t) / (t + t + r)
    t = t + t * r
    return -t if x < 0.0 else t


@native
def hypot(x: Real, y: Real) -> Real:
    """Return the length of (x, y), both finite."""
    a, b, k = size(x), size(y), 0
    if high(b) > high(a):
        a, b = b, size(x)
    if high(a) - high(b) > 0x3C00000:
        return a + b
    if high(a) > 0x5F300000:
        a, b, k = scaled(a, -600), scaled(b, -600), 600
    if high(b) < 0x20B00000:
        if b == 0.0:
            return a
        if high(b) <= 0xFFFFF:
            a, b, k = a * of_high(0x7FD00000), b * of_high(0x7FD00000), k - 1022
        else:
            a, b, k = scaled(a, 600), scaled(b, 600), k - 600
    w = a - b
    if w > b:
        t1 = chopped(a)
        t2 = a - t1
        w = sqrt(t1 * t1 - (b * (-b) - t2 * (a + t1)))
    else:
        a, y1 = a + a, chopped(b)
        t1 = of_high(high(a))
        w = sqrt(t1 * y1 - (w * (-w) - (t1 * (b - y1) + (a - t1) * b)))
    return scaled(1.0, k) * w if k else w


# Logarithm near 1, and the inverse hyperbolic functions

ROOT_LESS_ONE = 0x3FDA827A


@native
def log1p_part(f: Real, k: Word, c: Real, is_near: Word) -> Real:
    """Return the logarithm of (1 + f) times 2 to the k, where c corrects the rounding of f."""
    half, n = 0.5 * f * f, number(k)
    if is_near:
        if f == 0.0:
            return n * LN2_HIGH + (c + n * LN2_LOW) if k else 0.0
        r = half * (1.0 - 0.66666666666666666 * f)
        return n * LN2_HIGH - ((r - (n * LN2_LOW + c)) - f) if k else f - r
    s = f / (2.0 + f)
    z = s * s
    r = z * (G1 + z * (G2 + z * (G3 + z * (G4 + z * (G5 + z * (G6 + z * G7))))))
    if k == 0:
        return f - (half - s * (half + r))
    return n * LN2_HIGH - ((half - (s * (half + r) + (n * LN2_LOW + c))) - f)


@native
def log1p(x: Real) -> Real:
    """Return the logarithm of 1 + x, for a finite x > -1."""
    at = size_of(x)
    if at < 0x3E200000:
        return x if at < 0x3C900000 else x - x * x * 0.5
    if high(x) < ROOT_LESS_ONE and (x > 0.0 or at <= 0x3FD2BEC3):
        return log1p_part(x, 0, 0.0, 0)
    u, c = x, 0.0
    if high(x) < 0x43400000:
        u = 1.0 + x
    k, h = (high(u) >> 20) - 1023, high(u) & 0xFFFFF
    if high(x) < 0x43400000:
        c = (1.0 - (u - x) if k > 0 else x - (u - 1.0)) / u
    if h < 0x6A09E:
        u = with_high(h | 0x3FF00000, u)
    else:
        k += 1
        u, h = with_high(h | 0x3FE00000, u), 0x00100000 - h >> 2
    return log1p_part(u - 1.0, k, c, 1 if h == 0 else 0)


@native
def asinh(x: Real) -> Real:
    """Return the inverse hyperbolic sine of a finite x."""
    at, t = size_of(x), size(x)
    if at < 0x3E300000:
        return x
    if at > 0x41B00000:
        w = log(t) + LN2
    elif at > 0x40000000:
        w = log(2.0 * t + 1.0 / (sqrt(x * x + 1.0) + t))
    else:
        t = x * x
        w = log1p(size(x) + t / (1.0 + sqrt(1.0 + t)))
    return w if x > 0.0 else -w


@native
def acosh(x: Real) -> Real:
    """Return the inverse hyperbolic cosine of a finite x >= 1."""
    at = high(x)
    if at >= 0x41B00000:
        return log(x) + LN2
    if x == 1.0:
        return 0.0
    if at > 0x40000000:
        return log(2.0 * x - 1.0 / (x + sqrt(x * x - 1.0)))
    t = x - 1.0
    return log1p(t + sqrt(2.0 * t + t * t))


@native
def atanh(x: Real) -> Real:
    """Return the inverse hyperbolic tangent of an x between -1 and 1."""
    at, a = size_of(x), size(x)
    if at < 0x3E300000:
        return x
    if at < 0x3FE00000:
        t = a + a
        t = 0.5 * log1p(t + t * a / (1.0 - a))
    else:
        t = 0.5 * log1p((a + a) / (1.0 - a))
    return t if x >= 0.0 else -t
