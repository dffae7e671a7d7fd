"""Operations on single values: activations, arithmetic with broadcasting, comparisons."""
# ruff: noqa: E501 -- the tables have one row for each operation

from __future__ import annotations

import math
from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import (
    Array,
    Out,
    broadcast,
    op,
    per_output,
    same,
    sample,
    unbroadcast,
)

_SQRT_HALF = 0.7071067811865476
_SQRT_2_PI = 0.7978845608028654
_SQRT_PI_INVERSE = 0.5641895835477563
_ERF_SERIES = tuple(
    2 * _SQRT_PI_INVERSE * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(9, -1, -1)
)
"""Taylor's series of erf(x) / x in powers of x squared."""


def _sigmoid(x: Array, out: Out = None) -> Array:
    y = np.asarray(np.negative(x, out=out))  # a single number comes as no array
    np.exp(y, out=y)
    y += 1
    np.divide(1, y, out=y)
    return y


def _softplus(x: Array) -> Array:
    y: Array = np.logaddexp(x, x.dtype.type(0))
    return y


def _erfc(x: Array) -> Array:
    """Return the complementary error function with a relative error below 1.2e-7.

    A Chebyshev fit in t = 1/(1 + |x|/2): W. Press et al., Numerical Recipes, section 6.2.
    """
    z = np.abs(x.astype(np.float64))
    t = 1 / (1 + 0.5 * z)
    total = np.full_like(t, 0.17087277)
    for c in (-0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418):
        total = total * t + c
    for c in (0.37409196, 1.00002368, -1.26551223):
        total = total * t + c
    tail = t * np.exp(total - z * z)
    result: Array = np.where(x >= 0, tail, 2 - tail).astype(x.dtype)
    return result


def _erf(x: Array) -> Array:
    """Return the error function; near 0 by its series, where 1 - erfc(x) would lose digits."""
    z = np.square(x)
    near = np.full_like(x, _ERF_SERIES[0])
    for c in _ERF_SERIES[1:]:
        near = near * z + x.dtype.type(c)
    result: Array = np.where(np.abs(x) < 0.5, x * near, 1 - _erfc(x))
    return result


def _gelu_tanh(x: Array) -> Array:
    y = _sigmoid(2 * _SQRT_2_PI * (x + 0.044715 * x * x * x))  # half of 1 + tanh, exact far out
    y *= x
    return y


def _gelu_tanh_slope(x: Array, y: Array) -> Array:
    t = np.tanh(_SQRT_2_PI * (x + 0.044715 * x * x * x))
    inner = _SQRT_2_PI * (1 + 3 * 0.044715 * x * x)
    slope: Array = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner
    return slope


def _silu(x: Array, out: Out = None) -> Array:
    y = _sigmoid(x, out)
    y *= x
    return y


def _relu(x: Array, out: Out = None) -> Array:
    y: Array = np.maximum(x, 0, out=out)
    return y


def _relu6(x: Array, out: Out = None) -> Array:
    return np.clip(x, 0, 6, out=out)


def _hard_sigmoid(x: Array, out: Out = None) -> Array:
    y = np.asarray(np.divide(x, 6, out=out))
    y += 0.5
    np.clip(y, 0, 1, out=y)
    return y


def _hard_swish(x: Array, out: Out = None) -> Array:
    y = _hard_sigmoid(x, out)
    y *= x
    return y


def _silu_slope(x: Array, y: Array) -> Array:
    s = _sigmoid(x)
    slope: Array = s * (1 + x * (1 - s))
    return slope


def _gelu_slope(x: Array, y: Array) -> Array:
    density = np.exp(-0.5 * x * x) * (0.5 * _SQRT_2_PI)
    slope: Array = 0.5 * _erfc(-x * _SQRT_HALF) + x * density
    return slope


def _mish_slope(x: Array, y: Array) -> Array:
    t = np.tanh(_softplus(x))
    slope: Array = t + x * (1 - t * t) * _sigmoid(x)
    return slope


def _between(x: Array, low: float, high: float) -> Array:
    return (x > low) & (x < high)


Function = Callable[..., Array]
Slope = Callable[[Array, Array], Array] | None

# fmt: off
_UNARY: tuple[tuple[str, Function, Slope, int, tuple[float, float], str], ...] = (
    # name  value  slope from input and output  flops  range of the example  summary
    ("neg",      np.negative,                  lambda x, y: -np.ones_like(x),  1, (-2, 2), "Change the sign."),
    ("abs",      np.abs,                       lambda x, y: np.sign(x),        1, (-2, 2), "Drop the sign."),
    ("sign",     np.sign,                      None,                           1, (-2, 2), "Return -1, 0 or 1."),
    ("floor",    np.floor,                     None,                           1, (-2, 2), "Round down."),
    ("ceil",     np.ceil,                      None,                           1, (-2, 2), "Round up."),
    ("round",    np.rint,                      None,                           1, (-2, 2), "Round to nearest, halves to even."),
    ("square",   np.square,                    lambda x, y: 2 * x,             1, (-2, 2), "Multiply by itself."),
    ("sqrt",     np.sqrt,                      lambda x, y: 0.5 / y,           1, (0.1, 4), "Return the square root."),
    ("reciprocal", lambda x: 1 / x,            lambda x, y: -y * y,            1, (0.5, 4), "Return one divided by the value."),
    ("exp",      np.exp,                       lambda x, y: y,                 8, (-2, 2), "Return e to the power of the value."),
    ("log",      np.log,                       lambda x, y: 1 / x,             8, (0.1, 4), "Return the natural logarithm."),
    ("sin",      np.sin,                       lambda x, y: np.cos(x),         8, (-3, 3), "Return the sine."),
    ("cos",      np.cos,                       lambda x, y: -np.sin(x),        8, (-3, 3), "Return the cosine."),
    ("tanh",     np.tanh,                      lambda x, y: 1 - y * y,        10, (-2, 2), "Return the hyperbolic tangent."),
    ("sigmoid",  _sigmoid,                     lambda x, y: y * (1 - y),      10, (-3, 3), "Return 1 / (1 + exp(-x))."),
    ("relu",     _relu,                        lambda x, y: x > 0,             1, (-2, 2), "Replace negative values by zero."),
    ("relu6",    _relu6,                       lambda x, y: _between(x, 0, 6), 2, (-2, 8), "Limit values to 0 ... 6."),
    ("gelu",     lambda x: 0.5 * x * _erfc(-x * _SQRT_HALF), _gelu_slope,     25, (-3, 3), "Multiply by the normal distribution function."),
    ("gelu_tanh", _gelu_tanh,                  _gelu_tanh_slope,              18, (-3, 3), "Approximate gelu by a hyperbolic tangent."),
    ("erf",      _erf,                         lambda x, y: 2 * _SQRT_PI_INVERSE * np.exp(-x * x), 24, (-3, 3), "Return the error function."),
    ("silu",     _silu,                        _silu_slope,                   11, (-3, 3), "Multiply by the sigmoid."),
    ("mish",     lambda x: x * np.tanh(_softplus(x)), _mish_slope,            30, (-3, 3), "Multiply by tanh of softplus."),
    ("log_sigmoid", lambda x: -_softplus(-x),  lambda x, y: _sigmoid(-x),     20, (-3, 3), "Return the logarithm of the sigmoid."),
    ("softsign", lambda x: x / (1 + np.abs(x)), lambda x, y: 1 / np.square(1 + np.abs(x)), 3, (-2, 2), "Return x / (1 + |x|)."),
    ("hard_sigmoid", _hard_sigmoid, lambda x, y: _between(x, -3, 3) / x.dtype.type(6), 4, (-4, 4), "Limit x / 6 + 1/2 to 0 ... 1."),
    ("hard_swish", _hard_swish, lambda x, y: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)), 5, (-4, 4), "Multiply by the hard sigmoid."),
)
# fmt: on


def _register_unary(
    name: str, function: Function, slope: Slope, flops: int, summary: str, span: tuple[float, float]
) -> None:
    def simple(x: Array) -> Array:
        return function(x)

    def placed(x: Array, out: Out = None) -> Array:
        return function(x, out=out)

    def gradient(g: Array, y: Array, x: Array) -> tuple[Array]:
        return (g * slope(x, y),) if slope else (g,)

    fills = isinstance(function, np.ufunc) or "out" in signature(function).parameters
    run = placed if fills else simple
    run.__doc__ = summary
    example = sample((3, 5), low=span[0], high=span[1])
    op(same, per_output(flops), example, gradient if slope else None, name)(run)


for _name, _function, _slope, _flops, _span, _summary in _UNARY:
    _register_unary(_name, _function, _slope, _flops, _summary, _span)


def _leaky_relu_gradient(g: Array, y: Array, x: Array, slope: float) -> tuple[Array]:
    return (np.where(x > 0, g, g * slope),)


@op(same, per_output(2), sample((3, 5), slope=0.1), _leaky_relu_gradient)
def leaky_relu(x: Array, slope: float = 0.01, out: Out = None) -> Array:
    """Multiply negative values by the slope."""
    y = np.asarray(np.multiply(x, slope, out=out))
    np.copyto(y, x, where=x > 0)
    return y


def _elu_gradient(g: Array, y: Array, x: Array, alpha: float) -> tuple[Array]:
    return (np.where(x > 0, g, g * (y + alpha)),)


@op(same, per_output(10), sample((3, 5), alpha=0.7), _elu_gradient)
def elu(x: Array, alpha: float = 1.0) -> Array:
    """Replace negative values by alpha (exp(x) - 1)."""
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def _selu_gradient(g: Array, y: Array, x: Array) -> tuple[Array]:
    return (g * np.where(x > 0, _SELU_SCALE, y + _SELU_SCALE * _SELU_ALPHA),)


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


@op(same, per_output(10), sample((3, 5)), _selu_gradient)
def selu(x: Array) -> Array:
    """Scale elu so that activations keep mean 0 and variance 1."""
    return _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def _softplus_gradient(g: Array, y: Array, x: Array, beta: float, threshold: float) -> tuple[Array]:
    return (np.where(x * beta > threshold, g, g * _sigmoid(x * beta)),)


@op(same, per_output(20), sample((3, 5), beta=2.0), _softplus_gradient)
def softplus(x: Array, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """Return log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold."""
    return np.where(x * beta > threshold, x, _softplus(x * beta) / beta)


def _clamp_shape(x: tuple[int, ...], low: float, high: float) -> tuple[int, ...]:
    if low > high:
        raise ShapeError("clamp", f"low {low} is above high {high}")
    return x


def _clamp_gradient(g: Array, y: Array, x: Array, low: float, high: float) -> tuple[Array]:
    return (g * _between(x, low, high),)


@op(_clamp_shape, per_output(2), sample((3, 5)), _clamp_gradient)
def clamp(x: Array, low: float = -1.0, high: float = 1.0, out: Out = None) -> Array:
    """Limit values to low ... high (hard tanh with the defaults)."""
    return np.clip(x, low, high, out=out)


def _scale_gradient(g: Array, y: Array, x: Array, factor: float, offset: float) -> tuple[Array]:
    return (g * factor,)


@op(same, per_output(2), sample((3, 5), factor=0.5, offset=1.0), _scale_gradient)
def scale(x: Array, factor: float = 1.0, offset: float = 0.0, out: Out = None) -> Array:
    """Multiply by a factor and add an offset."""
    y: Array = np.multiply(x, factor, out=out)
    if offset:
        y += offset
    return y


# ---- two inputs ----

Partial = Callable[[Array, Array, Array], tuple[Any, Any]] | None

# fmt: off
_BINARY: tuple[tuple[str, Callable[..., Array], Partial, str], ...] = (
    # name  value  slopes from both inputs and the output  summary
    ("add",      np.add,      lambda x, y, z: (1, 1),                       "Add."),
    ("sub",      np.subtract, lambda x, y, z: (1, -1),                      "Subtract the second from the first."),
    ("mul",      np.multiply, lambda x, y, z: (y, x),                       "Multiply."),
    ("div",      np.divide,   lambda x, y, z: (1 / y, -z / y),              "Divide the first by the second."),
    ("power",    np.power,    lambda x, y, z: (y * np.power(x, y - 1), z * np.log(x)), "Raise the first to the power of the second."),
    ("maximum",  np.maximum,  lambda x, y, z: (x >= y, x < y),              "Return the greater."),
    ("minimum",  np.minimum,  lambda x, y, z: (x <= y, x > y),              "Return the lesser."),
    ("equal",    np.equal,           None, "Return 1 where both are equal, else 0."),
    ("less",     np.less,            None, "Return 1 where the first is less, else 0."),
    ("less_equal", np.less_equal,    None, "Return 1 where the first is less or equal, else 0."),
    ("greater",  np.greater,         None, "Return 1 where the first is greater, else 0."),
    ("greater_equal", np.greater_equal, None, "Return 1 where the first is greater or equal, else 0."),
)
# fmt: on


def _register_binary(
    name: str, function: Callable[..., Array], partial: Partial, summary: str
) -> None:
    def run(x: Array, y: Array, out: Out = None) -> Array:
        z = function(x, y) if out is None else function(x, y, out=out)
        return z.astype(x.dtype, copy=False)

    def gradient(g: Array, z: Array, x: Array, y: Array) -> tuple[Array, Array]:
        first, second = partial(x, y, z) if partial else (1, 1)
        return unbroadcast(g * first, x.shape), unbroadcast(g * second, y.shape)

    run.__doc__ = summary
    example = sample((2, 3, 5), (3, 1), low=0.5, high=2.0)
    op(broadcast, per_output(1), example, gradient if partial else None, name)(run)


for _row in _BINARY:
    _register_binary(*_row)


def _where_gradient(
    g: Array, z: Array, condition: Array, x: Array, y: Array
) -> tuple[None, Array, Array]:
    chosen = condition != 0
    return None, unbroadcast(g * chosen, x.shape), unbroadcast(g * ~chosen, y.shape)


def _where_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    condition = rng.integers(0, 2, (3, 5)).astype(np.float32)
    return (condition, *sample((2, 3, 5), (5,))(rng)[0]), {}


@op(broadcast, per_output(1), _where_example, _where_gradient)
def where(condition: Array, x: Array, y: Array) -> Array:
    """Return x where the condition is not zero, else y."""
    return np.where(condition != 0, x, y)
