"""Activations that learn: their values, and what gradients before them are, in grids.

The gradient before an activation is that behind it times the slope, which is made of what the
activation was given and gave, whatever is less work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import UNARY
from llmbol_core.ml.kernels.functions import erfc, exp, sigmoid, softplus, tanh
from llmbol_core.ml.kernels.kinds import f32
from llmbol_core.ml.kernels.strided import strided_kernel

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Value

group = Group("slopes")
_SQRT_HALF, _SQRT_2_PI, _ROOT_OF_TURN = 0.7071067811865476, 0.7978845608028654, 0.3989422804014327
_SELU_SCALE, _SELU_LIMIT = 1.0507009873554805, 1.7580993408473766


def _where(k: Builder, condition: Value, value: Any, other: Any) -> Value:
    """Return one of two values or numbers."""
    vectors = [k.value(x, f32, k.lanes) if isinstance(x, float) else x for x in (value, other)]
    return k.select(condition, *vectors)


def _between(k: Builder, x: Value, low: Any, high: Any) -> Value:
    """Return 1 inside limits, else 0."""
    return _where(k, x > low, _where(k, x < high, 1.0, 0.0), 0.0)


def gelu_slope(k: Builder, x: Value) -> Value:
    """Return the slope of GELU: the normal distribution function and x times its density."""
    share = erfc(k, x * -_SQRT_HALF) * 0.5
    return k.fma(x, exp(k, x * x * -0.5) * _ROOT_OF_TURN, share)


def _gelu_tanh(k: Builder, x: Value) -> Value:
    square = x * x
    t = tanh(k, (square * 0.044715 + 1.0) * x * _SQRT_2_PI)
    inner = (square * (3 * 0.044715) + 1.0) * _SQRT_2_PI
    return ((1.0 - t * t) * x * inner + t + 1.0) * 0.5


def _silu(k: Builder, x: Value) -> Value:
    s = sigmoid(k, x)
    return s * ((1.0 - s) * x + 1.0)


def _mish(k: Builder, x: Value) -> Value:
    t = tanh(k, softplus(k, x))
    return (1.0 - t * t) * x * sigmoid(k, x) + t


def _softsign(k: Builder, x: Value) -> Value:
    below = k.abs(x) + 1.0
    return 1.0 / (below * below)


def _hard_swish(k: Builder, x: Value) -> Value:
    inside = _where(k, x < 3.0, x / 3.0 + 0.5, 1.0)
    return _where(k, x > -3.0, inside, 0.0)


# fmt: off
SLOPES: dict[str, Callable[..., Any]] = {
    # operation   slope from what it was given, what it gave, and its attributes a and b
    "tanh":         lambda k, x, y, a, b: 1.0 - y * y,
    "sigmoid":      lambda k, x, y, a, b: y * (1.0 - y),
    "relu6":        lambda k, x, y, a, b: _between(k, x, 0.0, 6.0),
    "gelu":         lambda k, x, y, a, b: gelu_slope(k, x),
    "gelu_tanh":    lambda k, x, y, a, b: _gelu_tanh(k, x),
    "silu":         lambda k, x, y, a, b: _silu(k, x),
    "mish":         lambda k, x, y, a, b: _mish(k, x),
    "log_sigmoid":  lambda k, x, y, a, b: sigmoid(k, -x),
    "softsign":     lambda k, x, y, a, b: _softsign(k, x),
    "hard_sigmoid": lambda k, x, y, a, b: _between(k, x, -3.0, 3.0) / 6.0,
    "hard_swish":   lambda k, x, y, a, b: _hard_swish(k, x),
    "leaky_relu":   lambda k, x, y, a, b: _where(k, x > 0.0, 1.0, a),
    "elu":          lambda k, x, y, a, b: _where(k, x > 0.0, 1.0, y + a),
    "selu":         lambda k, x, y, a, b: _where(k, x > 0.0, _SELU_SCALE, y + _SELU_LIMIT),
    "softplus":     lambda k, x, y, a, b: _where(k, x * a > b, 1.0, sigmoid(k, x * a)),
    "clamp":        lambda k, x, y, a, b: _between(k, x, a, b),
}
# fmt: on


def _kernels(name: str) -> tuple[Kernel, Kernel]:
    value, slope = UNARY[name][0], SLOPES[name]

    def back(k: Builder, x: Value, y: Value, d: Value, a: Value, b: Value) -> Value:
        product: Value = d * slope(k, x, y, a, b)
        return product

    return (
        strided_kernel(group, name, 1, value, "a b"),
        strided_kernel(group, f"{name}_gradient", 3, back, "a b"),
    )


KERNELS = {name: _kernels(name) for name in SLOPES}
"""For each operation what makes its values, and from inputs, values and gradients the gradients."""
