"""Trigonometric functions and their inverses: see ``realbits.py``.

Each function says which arguments it is made for; the caller deals with all others.
"""

from __future__ import annotations

from llmbol_core.vm.jit.builtins.realbits import (
    chopped,
    high,
    integer,
    number,
    of_high,
    size,
    size_of,
    sqrt,
)
from llmbol_core.vm.jit.source import Real, Word, inlined, native

# Trigonometric functions

S1, S2, S3 = -1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04
S4, S5, S6 = 2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10
C1, C2, C3 = 4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05
C4, C5, C6 = -2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11
BY_HALF_PI = 6.36619772367581382433e-01
P1, P1T = 1.57079632673412561417e00, 6.07710050650619224932e-11
P2, P2T = 6.07710050630396597660e-11, 2.02226624879595063154e-21
P3, P3T = 2.02226624871116645580e-21, 8.47842766036889956997e-32
QUARTER, MOST_REDUCED = 0x3FE921FB, 0x413921FB
"""High words of pi/4, and of the largest number that is reduced here."""


@native
def sin_near(x: Real, y: Real, has_tail: Word) -> Real:
    """Return the sine of x + y, where x is within pi/4 and y its tail."""
    if size_of(x) < 0x3E400000:
        return x
    z = x * x
    v = z * x
    r = S2 + z * (S3 + z * (S4 + z * (S5 + z * S6)))
    if has_tail == 0:
        return x + v * (S1 + z * r)
    return x - ((z * (0.5 * y - v * r) - y) - v * S1)


@native
def cos_near(x: Real, y: Real) -> Real:
    """Return the cosine of x + y, where x is within pi/4 and y its tail."""
    at = size_of(x)
    if at < 0x3E400000:
        return 1.0
    z = x * x
    r = z * (C1 + z * (C2 + z * (C3 + z * (C4 + z * (C5 + z * C6)))))
    if at < 0x3FD33333:
        return 1.0 - (0.5 * z - (z * r - x * y))
    q = 0.28125 if at > 0x3FE90000 else of_high(at - 0x00200000)
    return (1.0 - q) - ((0.5 * z - q) - (z * r - x * y))


T0, T1, T2 = 3.33333333333334091986e-01, 1.33333333333201242699e-01, 5.39682539762260521377e-02
T3, T4, T5 = 2.18694882948595424599e-02, 8.86323982359930005737e-03, 3.59207910759131235356e-03
T6, T7, T8 = 1.45620945432529025516e-03, 5.88041240820264096874e-04, 2.46463134818469906812e-04
T9, T10 = 7.81794442939557092300e-05, 7.14072491382608190305e-05
T11, T12 = -1.85586374855275456654e-05, 2.59073051863633712884e-05
PI_4, PI_4_LOW = 7.85398163397448278999e-01, 3.06161699786838301793e-17


@native
def tan_near(x: Real, y: Real, sign: Word) -> Real:
    """Return the tangent of x + y as of ``sin_near``, or if the sign is -1 what -1 / that is."""
    at, is_negative = size_of(x), 1 if high(x) < 0 else 0
    if at < 0x3E300000:
        return x if sign == 1 else -1.0 / x
    if at >= 0x3FE59428:
        if is_negative:
            x, y = -x, -y
        x, y = (PI_4 - x) + (PI_4_LOW - y), 0.0
    z = x * x
    w = z * z
    r = T1 + w * (T3 + w * (T5 + w * (T7 + w * (T9 + w * T11))))
    v = z * (T2 + w * (T4 + w * (T6 + w * (T8 + w * (T10 + w * T12)))))
    s = z * x
    r = y + z * (s * (r + v) + y)
    r = r + T0 * s
    w = x + r
    if at >= 0x3FE59428:
        v = number(sign)
        return (-1.0 if is_negative else 1.0) * (v - 2.0 * (x - (w * w / (w + v) - r)))
    if sign == 1:
        return w
    z = chopped(w)
    a = -1.0 / w
    t = chopped(a)
    return t + a * (1.0 + t * z + t * (r - (z - x)))


@inlined
def quadrant(x: Real) -> Word:
    """Return how many times pi/2 was taken from the size of x, which is at most 2 ** 19 * pi/2."""
    if size_of(x) < 0x4002D97C:
        return 1
    return integer(size(x) * BY_HALF_PI + 0.5)


@native
def reduced(x: Real, is_tail: Word) -> Real:
    """Return what is left of the size of such an x that is more than pi/4, or the tail of that."""
    at, n = size_of(x), quadrant(x)
    t, f = size(x), number(n)
    r, w = t - f * P1, f * P1T
    if at < 0x4002D97C and at == 0x3FF921FB:
        r, w = r - P2, P2T
    y = r - w
    if at >= 0x4002D97C and (at >> 20) - (high(y) >> 20 & 0x7FF) > 16:
        t, w = r, f * P2
        r = t - w
        w = f * P2T - ((t - r) - w)
        y = r - w
        if (at >> 20) - (high(y) >> 20 & 0x7FF) > 49:
            t, w = r, f * P3
            r = t - w
            w = f * P3T - ((t - r) - w)
            y = r - w
    return (r - y) - w if is_tail else y


@native
def sin(x: Real) -> Real:
    """Return the sine of an x within 2 ** 19 * pi/2."""
    if size_of(x) <= QUARTER:
        return sin_near(x, 0.0, 0)
    y, tail, n = reduced(x, 0), reduced(x, 1), quadrant(x) & 3
    value = cos_near(y, tail) if n & 1 else sin_near(y, tail, 1)
    return -value if (n > 1) != (x < 0.0) else value


@native
def cos(x: Real) -> Real:
    """Return the cosine of an x within 2 ** 19 * pi/2."""
    if size_of(x) <= QUARTER:
        return cos_near(x, 0.0)
    y, tail, n = reduced(x, 0), reduced(x, 1), quadrant(x) & 3
    value = sin_near(y, tail, 1) if n & 1 else cos_near(y, tail)
    return -value if n in (1, 2) else value


@native
def tan(x: Real) -> Real:
    """Return the tangent of an x within 2 ** 19 * pi/2."""
    if size_of(x) <= QUARTER:
        return tan_near(x, 0.0, 1)
    y, tail, n = reduced(x, 0), reduced(x, 1), quadrant(x)
    value = tan_near(y, tail, 1 - ((n & 1) << 1))
    return -value if x < 0.0 else value


# Their inverse functions

A0, A1, A2 = 3.33333333333329318027e-01, -1.99999999998764832476e-01, 1.42857142725034663711e-01
A3, A4, A5 = -1.11111104054623557880e-01, 9.09088713343650656196e-02, -7.69187620504482999495e-02
A6, A7, A8 = 6.66107313738753120669e-02, -5.83357013379057348645e-02, 4.97687799461593236017e-02
A9, A10 = -3.65315727442169155270e-02, 1.62858201153657823623e-02
AT_HALF, AT_HALF_LOW = 4.63647609000806093515e-01, 2.26987774529616870924e-17
AT_THREE, AT_THREE_LOW = 9.82793723247329054082e-01, 1.39033110312309984516e-17
PI, PI_LOW = 3.14159265358979311600e00, 1.2246467991473531772e-16
PI_2, PI_2_LOW = 1.57079632679489655800e00, 6.12323399573676603587e-17


@native
def atan(x: Real) -> Real:
    """Return the arc tangent of x, which is no NaN."""
    at, above, below_, t = size_of(x), 0.0, 0.0, size(x)
    if at >= 0x44100000:
        return PI_2 + PI_2_LOW if x > 0.0 else -PI_2 - PI_2_LOW
    if at < 0x3E200000:
        return x
    if at < 0x3FDC0000:
        t = x
    elif at < 0x3FE60000:
        above, below_, t = AT_HALF, AT_HALF_LOW, (2.0 * t - 1.0) / (2.0 + t)
    elif at < 0x3FF30000:
        above, below_, t = PI_4, PI_4_LOW, (t - 1.0) / (t + 1.0)
    elif at < 0x40038000:
        above, below_, t = AT_THREE, AT_THREE_LOW, (t - 1.5) / (1.0 + 1.5 * t)
    else:
        above, below_, t = PI_2, PI_2_LOW, -1.0 / t
    z = t * t
    w = z * z
    s1 = z * (A0 + w * (A2 + w * (A4 + w * (A6 + w * (A8 + w * A10)))))
    s2 = w * (A1 + w * (A3 + w * (A5 + w * (A7 + w * A9))))
    if at < 0x3FDC0000:
        return t - t * (s1 + s2)
    z = above - ((t * (s1 + s2) - below_) - t)
    return -z if x < 0.0 else z


@native
def atan2(y: Real, x: Real) -> Real:
    """Return the angle of (x, y), neither 0 and both finite."""
    if x == 1.0:
        return atan(y)
    k = (size_of(y) >> 20) - (size_of(x) >> 20)
    if size_of(y) - size_of(x) < k << 20:
        k -= 1
    if k > 60:
        z = PI_2 + 0.5 * PI_LOW
    elif x < 0.0 and k < -60:
        z = 0.0
    else:
        z = atan(size(y / x))
    if x > 0.0:
        return z if y > 0.0 else -z
    return PI - (z - PI_LOW) if y > 0.0 else (z - PI_LOW) - PI


N0, N1, N2 = 1.66666666666666657415e-01, -3.25565818622400915405e-01, 2.01212532134862925881e-01
N3, N4, N5 = -4.00555345006794114027e-02, 7.91534994289814532176e-04, 3.47933107596021167570e-05
D1, D2 = -2.40339491173441421878e00, 2.02094576023350569471e00
D3, D4 = -6.88283971605453293030e-01, 7.70381505559019352791e-02


@inlined
def asin_quotient(t: Real) -> Real:
    """Return the rational approximation that the arc sine and the arc cosine are made of."""
    p = t * (N0 + t * (N1 + t * (N2 + t * (N3 + t * (N4 + t * N5)))))
    return p / (1.0 + t * (D1 + t * (D2 + t * (D3 + t * D4))))


@native
def asin(x: Real) -> Real:
    """Return the arc sine of an x within 1."""
    at = size_of(x)
    if at >= 0x3FF00000:
        return x * PI_2 + x * PI_2_LOW
    if at < 0x3FE00000:
        return x if at < 0x3E400000 else x + x * asin_quotient(x * x)
    t = (1.0 - size(x)) * 0.5
    s, r = sqrt(t), asin_quotient(t)
    if at >= 0x3FEF3333:
        t = PI_2 - (2.0 * (s + s * r) - PI_2_LOW)
    else:
        w = chopped(s)
        c = (t - w * w) / (s + w)
        t = PI_4 - ((2.0 * s * r - (PI_2_LOW - 2.0 * c)) - (PI_4 - 2.0 * w))
    return t if x > 0.0 else -t


@native
def acos(x: Real) -> Real:
    """Return the arc cosine of an x within 1."""
    at = size_of(x)
    if at >= 0x3FF00000:
        return 0.0 if x > 0.0 else PI + 2.0 * PI_2_LOW
    if at < 0x3FE00000:
        if at <= 0x3C600000:
            return PI_2 + PI_2_LOW
        return PI_2 - (x - (PI_2_LOW - x * asin_quotient(x * x)))
    z = (1.0 - size(x)) * 0.5
    s, r = sqrt(z), asin_quotient(z)
    if x < 0.0:
        return PI - 2.0 * (s + (r * s - PI_2_LOW))
    d = chopped(s)
    c = (z - d * d) / (s + d)
    return 2.0 * (d + (r * s + c))
