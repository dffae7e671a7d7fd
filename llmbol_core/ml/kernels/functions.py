"""Functions of float32 vectors, by polynomials; errors are relative and against the exact value.

    exp       2 units in the last place; 0 below -87.3 and infinity above 88.7
    log       2 units in the last place, for positive numbers
    tanh      4 units in the last place
    sigmoid   4 units in the last place
    erfc      2e-6 between -4 and 4, absolute 1e-12 above
    tail      1e-6 up to 5, absolute 1e-12 above

Polynomials: S. Moshier's Cephes library (exp, log), Eigen's rational tanh, for erfc W. Press et
al., Numerical Recipes, section 6.2, and for the tail our own fits with the least greatest error.
NaN stays NaN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.kinds import f32, i32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Value

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
        5.0000001201e-1)  # fmt: skip
_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
        -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip
_TANH = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
         1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
_TANH_BELOW = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03,
               4.89352518554385e-03)  # fmt: skip
_TANH_END = 7.90531110763549805
_ERFC = (0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418,
         0.37409196, 1.00002368, -1.26551223)  # fmt: skip
_TAIL = (0.0361946941, -0.159377624, 0.210117192, -0.0571662449, 0.130415854, 0.099347308,
         0.1208455, 0.119623265)  # fmt: skip
_TAIL_RATE = 0.3
_POWERS = (0.00132764798, 0.00967554404, 0.0555071328, 0.240221197, 0.693146967, 1.00000007)
"""Two to the power of x, for x between -1/2 and 1/2."""
ERF_SERIES = (
    -1.4925650358406250e-05,
    1.2055332981789664e-04,
    -8.5483270234508522e-04,
    5.2239776254421879e-03,
    -2.6866170645131252e-02,
    1.1283791670955126e-01,
    -3.7612638903183754e-01,
    1.1283791670955126e00,
)
"""Taylor's series of erf(x) / x in powers of x squared, enough of it below 1/2."""


def polynomial(k: Builder, x: Value, numbers: tuple[float, ...]) -> Value:
    """Return a polynomial in x by Horner's rule, the highest power's factor first."""
    total = k.value(numbers[0], f32, x.lanes)
    for number in numbers[1:]:
        total = k.fma(total, x, k.value(number, f32, x.lanes))
    return total


def exp(k: Builder, x: Value) -> Value:
    """Return e to the power of x."""
    low, high = k.value(-104.0, f32, x.lanes), k.value(89.0, f32, x.lanes)
    held = k.select(x < low, low, x)
    held = k.select(held > high, high, held)
    n = k.rint(held * 1.44269504088896341)
    f = k.fma(n, k.value(-0.693359375, f32, x.lanes), held)
    f = k.fma(n, k.value(2.12194440e-4, f32, x.lanes), f)
    p = k.fma(polynomial(k, f, _EXP), f * f, f) + 1.0
    # Two factors of a power of two each: 2^n alone would not be a float near the ends.
    whole = n.to(i32)
    half = whole >> 1
    first = ((half + 127) << 23).bits(f32)
    second = ((whole - half + 127) << 23).bits(f32)
    return k.select(x.equals(x), p * first * second, x)


def log(k: Builder, x: Value) -> Value:
    """Return the natural logarithm of normal positive numbers."""
    bits = x.bits(i32)
    e = ((bits >> 23) - 126).to(f32)
    m = ((bits & 0x7FFFFF) | 0x3F000000).bits(f32)
    small = m < 0.70710678118654752
    e = k.select(small, e - 1.0, e)
    f = k.select(small, m + m, m) - 1.0
    z = f * f
    y = polynomial(k, f, _LOG) * f * z
    y = k.fma(e, k.value(-2.12194440e-4, f32, x.lanes), y)
    y = y - z * 0.5
    return k.fma(e, k.value(0.693359375, f32, x.lanes), f + y)


def log_of_any(k: Builder, x: Value) -> Value:
    """Return the natural logarithm of any number: that of 0 is -infinity, below is NaN."""
    small = x < 1.17549435e-38
    y = _log_around_1(k, k.select(small, x * 8388608.0, x))
    y = k.select(small, y - 15.942385152878742, y)
    nan, low = (k.value(float(name), f32, x.lanes) for name in ("nan", "-inf"))
    odd = k.select(x.equals(0.0), low, k.select(x < 0.0, nan, x))
    return k.select((x > 0.0) & (x < float("inf")), y, odd)


def _log_around_1(k: Builder, x: Value) -> Value:
    """Return what ``log`` does, with less waiting of one step for another."""
    half = 0x3F3504F3  # the square root of 1/2: the mantissa lies between that and twice as much
    bits = x.bits(i32) - half
    e = (bits >> 23).to(f32)
    f = ((bits & 0x7FFFFF) + half).bits(f32) - 1.0
    z, power = f * f, f
    parts = [k.value(number, f32, x.lanes) for number in reversed(_LOG)]
    while len(parts) > 1:  # Estrin's scheme
        rest = parts[-1:] if len(parts) % 2 else []
        pairs = zip(parts[::2], parts[1::2], strict=False)
        parts = [k.fma(high, power, low) for low, high in pairs] + rest
        power = power * power
    y = k.fma(e, k.value(-2.12194440e-4, f32, x.lanes), parts[0] * f * z)
    y = k.fma(z, k.value(-0.5, f32, x.lanes), y)
    return k.fma(e, k.value(0.693359375, f32, x.lanes), f + y)


def log1p_of_small(k: Builder, x: Value) -> Value:
    """Return log(1 + x) for 0 <= x <= 1."""
    u = x + 1.0
    return log(k, u) + (x - (u - 1.0)) / u


def tanh(k: Builder, x: Value) -> Value:
    """Return the hyperbolic tangent."""
    above, below = tanh_parts(k, x)
    return above / below


def tanh_parts(k: Builder, x: Value) -> tuple[Value, Value]:
    """Return numerator and denominator of the hyperbolic tangent."""
    end = k.value(_TANH_END, f32, x.lanes)
    held = k.select(x < -end, -end, x)
    held = k.select(held > end, end, held)
    z = held * held
    return held * polynomial(k, z, _TANH), polynomial(k, z, _TANH_BELOW)


def sigmoid(k: Builder, x: Value) -> Value:
    """Return 1 / (1 + exp(-x))."""
    return 1.0 / (exp(k, -x) + 1.0)


def erfc(k: Builder, x: Value) -> Value:
    """Return the complementary error function."""
    z = k.abs(x)
    t = 1.0 / k.fma(z, k.value(0.5, f32, x.lanes), k.value(1.0, f32, x.lanes))
    tail = t * exp(k, k.fma(-z, z, polynomial(k, t, _ERFC)))
    return k.select(x < 0.0, 2.0 - tail, tail)


def tail(k: Builder, x: Value) -> Value:
    """Return how much of the normal distribution lies beyond |x|, on one side.

    That is exp(-x^2 / 2) times t times a polynomial in t = 1 / (1 + 0.3 |x|).
    """
    t = 1.0 / k.fma(k.abs(x), k.value(_TAIL_RATE, f32, x.lanes), k.value(1.0, f32, x.lanes))
    power = k.max(x * (x * -0.72134752044448170), k.value(-126.0, f32, x.lanes))
    n = k.rint(power)
    near = polynomial(k, power - n, _POWERS)
    scaled = (near.bits(i32) + (n.to(i32) << 23)).bits(f32)
    return scaled * (polynomial(k, t, _TAIL) * t)


def softplus(k: Builder, x: Value) -> Value:
    """Return log(1 + exp(x))."""
    positive = k.select(x < 0.0, k.value(0.0, f32, x.lanes), x)
    return positive + log1p_of_small(k, exp(k, -k.abs(x)))
