"""Exponential function, logarithms, powers: see ``realbits.py``.

Each function says which arguments it is made for; the caller deals with all others.
"""

from __future__ import annotations

from llmbol_core.vm.jit.builtins.realbits import (
    INFINITY,
    TWO_53,
    TWO_54,
    chopped,
    high,
    integer,
    number,
    of_high,
    scaled,
    size_of,
    sqrt,
    with_high,
)
from llmbol_core.vm.jit.source import Real, Word, inlined, native

# Exponential function and logarithms

LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LN2, ONE_BY_LN2 = 6.93147180559945286227e-01, 1.44269504088896338700e00
OVERFLOW, UNDERFLOW = 7.09782712893383973096e02, -7.45133219101941108420e02
E1, E2, E3 = 1.66666666666666019037e-01, -2.77777777770155933842e-03, 6.61375632143793436117e-05
E4, E5 = -1.65339022054652515390e-06, 4.13813679705723846039e-08
LEAST = 9.33263618503218878990e-302


@inlined
def exp_polynomial(x: Real) -> Real:
    """Return what the exponential functions make their rational approximation of."""
    t = x * x
    return x - t * (E1 + t * (E2 + t * (E3 + t * (E4 + t * E5))))


@inlined
def multiples_of_ln2(x: Real) -> Word:
    """Return how many times the logarithm of 2 is taken from x."""
    at = size_of(x)
    if at <= 0x3FD62E42 or at >= 0x40900000:
        return 0
    if at < 0x3FF0A2B2:
        return 1 if x > 0.0 else -1
    return integer(ONE_BY_LN2 * x + (0.5 if x > 0.0 else -0.5))


@native
def exp(x: Real) -> Real:
    """Return e to the x, for a finite x."""
    k, above, below_ = multiples_of_ln2(x), 0.0, 0.0
    if x > OVERFLOW:
        return INFINITY
    if x < UNDERFLOW:
        return 0.0
    if size_of(x) < 0x3E300000:
        return 1.0 + x
    if k:
        t = number(k)
        above, below_ = x - t * LN2_HIGH, t * LN2_LOW
        x = above - below_
    c = exp_polynomial(x)
    if k == 0:
        return 1.0 - ((x * c) / (c - 2.0) - x)
    y = 1.0 - ((below_ - (x * c) / (2.0 - c)) - above)
    if k >= -1021:
        return scaled(y, k)
    return scaled(y, k + 1000) * LEAST


G1, G2, G3 = 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01
G4, G5, G6 = 2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01
G7 = 1.479819860511658591e-01
THIRD = 0.33333333333333333


@native
def log(x: Real) -> Real:
    """Return the natural logarithm of a finite x > 0."""
    k = 0
    if high(x) < 0x00100000:
        k, x = -54, x * TWO_54
    at = high(x)
    k += (at >> 20) - 1023
    at &= 0xFFFFF
    upper = at + 0x95F64 & 0x100000
    x = with_high(at | upper ^ 0x3FF00000, x)
    k += upper >> 20
    f, n = x - 1.0, number(k)
    if (0xFFFFF & 2 + at) < 3:
        if f == 0.0:
            return n * LN2_HIGH + n * LN2_LOW if k else 0.0
        r = f * f * (0.5 - THIRD * f)
        return n * LN2_HIGH - ((r - n * LN2_LOW) - f) if k else f - r
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    r = z * (G1 + w * (G3 + w * (G5 + w * G7))) + w * (G2 + w * (G4 + w * G6))
    if (at - 0x6147A | 0x6B851 - at) > 0:
        half = 0.5 * f * f
        if k == 0:
            return f - (half - s * (half + r))
        return n * LN2_HIGH - ((half - (s * (half + r) + n * LN2_LOW)) - f)
    if k == 0:
        return f - s * (f - r)
    return n * LN2_HIGH - ((s * (f - r) - n * LN2_LOW) - f)


ONE_BY_LN10, LOG2_HIGH = 4.34294481903251816668e-01, 3.01029995663611771306e-01
LOG2_LOW = 3.69423907715893078616e-13


@native
def log10(x: Real) -> Real:
    """Return the logarithm to base 10 of a finite x > 0."""
    k = 0
    if high(x) < 0x00100000:
        k, x = -54, x * TWO_54
    k += (high(x) >> 20) - 1023
    i = 1 if k < 0 else 0
    y = number(k + i)
    x = with_high(high(x) & 0xFFFFF | 0x3FF - i << 20, x)
    z = y * LOG2_LOW + ONE_BY_LN10 * log(x)
    return z + y * LOG2_HIGH


# Powers

DP_HIGH, DP_LOW = 5.84962487220764160156e-01, 1.35003920212974897128e-08
L1, L2, L3 = 5.99999999999994648725e-01, 4.28571428578550184252e-01, 3.33333329818377432918e-01
L4, L5, L6 = 2.72728123808534006489e-01, 2.30660745775561754067e-01, 2.06975017800338417784e-01
LG2_HIGH, LG2_LOW = 6.93147182464599609375e-01, -1.90465429995776804525e-09
CP, CP_HIGH, CP_LOW = (
    9.61796693925975554329e-01, 9.61796700954437255859e-01, -7.02846165095275826516e-09,
)  # fmt: skip
BY_LN2_HIGH, BY_LN2_LOW = 1.44269502162933349609e00, 1.92596299112661746887e-08
OVERFLOW_TAIL = 8.0085662595372944372e-17


@native
def log2_near_one(x: Real, is_low: Word) -> Real:
    """Return one part of the logarithm to base 2 of an x that is about 1."""
    t = x - 1.0
    w = (t * t) * (0.5 - t * (0.3333333333333333333333 - t * 0.25))
    u, v = BY_LN2_HIGH * t, t * BY_LN2_LOW - w * ONE_BY_LN2
    t1 = chopped(u + v)
    return v - (t1 - u) if is_low else t1


@native
def log2_part(x: Real, is_low: Word) -> Real:
    """Return one part of the logarithm to base 2 of an x > 0: the high or the low one."""
    n, at, k, base, dp_h, dp_l = 0, high(x), 0, 1.0, 0.0, 0.0
    if at < 0x00100000:
        x, n = x * TWO_53, -53
        at = high(x)
    n += (at >> 20) - 0x3FF
    j = at & 0xFFFFF
    at = j | 0x3FF00000
    if j > 0x3988E:
        if j < 0xBB67A:
            k, base, dp_h, dp_l = 1, 1.5, DP_HIGH, DP_LOW
        else:
            n, at = n + 1, at - 0x00100000
    x = with_high(at, x)
    u, v = x - base, 1.0 / (x + base)
    s = u * v
    s_h = chopped(s)
    t_h = of_high((at >> 1 | 0x20000000) + 0x00080000 + (k << 18))
    t_l = x - (t_h - base)
    s_l = v * ((u - s_h * t_h) - s_h * t_l)
    s2 = s * s
    r = s2 * s2 * (L1 + s2 * (L2 + s2 * (L3 + s2 * (L4 + s2 * (L5 + s2 * L6)))))
    r = r + s_l * (s_h + s)
    s2 = s_h * s_h
    t_h = chopped(3.0 + s2 + r)
    t_l = r - ((t_h - 3.0) - s2)
    u, v = s_h * t_h, s_l * t_h + t_l * s
    p_h = chopped(u + v)
    p_l = v - (p_h - u)
    z_h, z_l = CP_HIGH * p_h, CP_LOW * p_h + p_l * CP + dp_l
    t = number(n)
    t1 = chopped(((z_h + z_l) + dp_h) + t)
    return z_l - (((t1 - t) - dp_h) - z_h) if is_low else t1


@native
def exp2_of(p_h: Real, p_l: Real, z: Real) -> Real:
    """Return 2 to the p_h + p_l, which is about z and gives a finite number."""
    j, n = high(z), 0
    i = j & 0x7FFFFFFF
    if i > 0x3FE00000:
        n = j + (0x00100000 >> (i >> 20) - 0x3FE)
        k = ((n & 0x7FFFFFFF) >> 20) - 0x3FF
        p_h = p_h - of_high(n & (0xFFFFF >> k ^ -1))
        n = (n & 0xFFFFF | 0x00100000) >> 20 - k
        if j < 0:
            n = 0 - n
    t = chopped(p_l + p_h)
    u, v = t * LG2_HIGH, (p_l - (t - p_h)) * LN2 + t * LG2_LOW
    z = u + v
    w = v - (z - u)
    t1 = exp_polynomial(z)
    z = 1.0 - (((z * t1) / (t1 - 2.0) - (w + z * w)) - z)
    if high(z) + (n << 20) < 0x00100000:
        return scaled(z, n + 54) / TWO_54
    return scaled(z, n)


@native
def power(x: Real, y: Real) -> Real:
    """Return x to the y, for a finite x > 0 other than 1 and a finite y other than 0."""
    if y == 1.0:
        return x
    if y == -1.0:
        return 1.0 / x
    if y == 2.0:
        return x * x
    if y == 0.5:
        return sqrt(x)
    at, huge = high(x), size_of(y)
    if huge > 0x41E00000:
        is_over = 1 if (x > 1.0) == (y > 0.0) else 0
        if huge > 0x43F00000 or at < 0x3FEFFFFF or at > 0x3FF00000:
            return INFINITY if is_over else 0.0
        t1, t2 = log2_near_one(x, 0), log2_near_one(x, 1)
    else:
        t1, t2 = log2_part(x, 0), log2_part(x, 1)
    y1 = chopped(y)
    p_l, p_h = (y - y1) * t1 + y * t2, y1 * t1
    z = p_l + p_h
    if z > 1024.0 or (z == 1024.0 and p_l + OVERFLOW_TAIL > z - p_h):
        return INFINITY
    if z < -1075.0 or (z == -1075.0 and p_l <= z - p_h):
        return 0.0
    return exp2_of(p_h, p_l, z)


@native
def ten_to(n: Word) -> Real:
    """Return 10 to the n, as a product of squares; of a tenth if n is negative.

    As on the 386, a result that is not normal is rounded from one with all digits.
    """
    product, square, unit = 1.0, 10.0, 1.0
    if n < 0:
        n, square, unit = 0 - n, 0.1, TWO_54 * TWO_54
        product = unit
    while n != 0:
        if n & 1:
            product = product * square
        square = square * square
        n = n >> 1
    return product / unit
