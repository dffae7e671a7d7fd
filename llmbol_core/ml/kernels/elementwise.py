"""Operations on single float32 values: ``out[i] = f(x[i])`` and ``out[i] = f(x[i], y[i mod m])``.

Items are samples of ``size`` numbers. The numbers a and b are what an operation's attributes are:
slope, alpha, limits, factor and offset.
"""

# ruff: noqa: E501 -- the tables have one row for each operation

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.functions import (
    ERF_SERIES,
    erfc,
    exp,
    log_of_any,
    polynomial,
    sigmoid,
    softplus,
    tail,
    tanh,
)
from llmbol_core.ml.kernels.kinds import f32, i32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("elementwise")
_SQRT_2_PI = 0.7978845608028654


def _leaky(k: Builder, x: Value, a: Value, b: Value) -> Value:
    return k.select(x > 0.0, x, x * a)


def _elu(k: Builder, x: Value, a: Value, b: Value) -> Value:
    return k.select(x < 0.0, _expm1(k, x) * a, x)


def _expm1(k: Builder, x: Value) -> Value:
    """Return exp(x) - 1 for x <= 0: tanh has no cancellation near 0."""
    held = k.select(x < 0.0, x, k.value(0.0, f32, x.lanes))
    half = tanh(k, held * 0.5)
    near = 2.0 * half / (1.0 - half)
    return k.select(held < -1.0, exp(k, held) - 1.0, near)


def _selu(k: Builder, x: Value, a: Value, b: Value) -> Value:
    return k.select(x < 0.0, _expm1(k, x) * 1.7580993408473766, x * 1.0507009873554805)


def _softplus(k: Builder, x: Value, a: Value, b: Value) -> Value:
    scaled = x * a
    return k.select(scaled > b, x, softplus(k, scaled) / a)


def _gelu(k: Builder, x: Value, a: Value, b: Value) -> Value:
    beyond = tail(k, x)
    return x * k.select(x < 0.0, beyond, 1.0 - beyond)


def _gelu_tanh(k: Builder, x: Value, a: Value, b: Value) -> Value:
    # (1 + tanh(u)) / 2 is the sigmoid of 2u, which loses nothing where it is small.
    inner = (x + x * x * x * 0.044715) * _SQRT_2_PI
    return x * sigmoid(k, inner + inner)


def _erf(k: Builder, x: Value, a: Value, b: Value) -> Value:
    near = x * polynomial(k, x * x, ERF_SERIES)
    return k.select(k.abs(x) < 0.5, near, 1.0 - erfc(k, x))


def _between(k: Builder, x: Value, low: float, high: float) -> Value:
    held = k.select(x < low, k.value(low, f32, x.lanes), x)
    return k.select(held > high, k.value(high, f32, x.lanes), held)


def _clamp(k: Builder, x: Value, a: Value, b: Value) -> Value:
    held = k.select(x < a, a, x)
    return k.select(held > b, b, held)


def _sign(k: Builder, x: Value, a: Value, b: Value) -> Value:
    one = k.value(1.0, f32, x.lanes)
    return k.select(x > 0.0, one, k.select(x < 0.0, -one, x))


def _mish(k: Builder, x: Value, a: Value, b: Value) -> Value:
    return x * tanh(k, softplus(k, x))


def _hard_sigmoid(k: Builder, x: Value) -> Value:
    return _between(k, x / 6.0 + 0.5, 0.0, 1.0)


Unary = Callable[["Builder", "Value", "Value", "Value"], "Value"]

# fmt: off
UNARY: dict[str, tuple[Unary, tuple[str, ...]]] = {
    # operation   value from x, a, b                                       attributes that are a and b
    "neg":          (lambda k, x, a, b: -x,                                    ()),
    "abs":          (lambda k, x, a, b: k.abs(x),                              ()),
    "sign":         (_sign,                                                    ()),
    "floor":        (lambda k, x, a, b: k.floor(x),                            ()),
    "ceil":         (lambda k, x, a, b: -k.floor(-x),                          ()),
    "round":        (lambda k, x, a, b: k.rint(x),                             ()),
    "square":       (lambda k, x, a, b: x * x,                                 ()),
    "sqrt":         (lambda k, x, a, b: k.sqrt(x),                             ()),
    "reciprocal":   (lambda k, x, a, b: 1.0 / x,                               ()),
    "exp":          (lambda k, x, a, b: exp(k, x),                             ()),
    "log":          (lambda k, x, a, b: log_of_any(k, x),                      ()),
    "tanh":         (lambda k, x, a, b: tanh(k, x),                            ()),
    "sigmoid":      (lambda k, x, a, b: sigmoid(k, x),                         ()),
    "relu":         (lambda k, x, a, b: k.select(x < 0.0, k.value(0.0, f32, x.lanes), x), ()),
    "relu6":        (lambda k, x, a, b: _between(k, x, 0.0, 6.0),              ()),
    "erf":          (_erf,                                                     ()),
    "gelu":         (_gelu,                                                    ()),
    "gelu_tanh":    (_gelu_tanh,                                               ()),
    "silu":         (lambda k, x, a, b: x * sigmoid(k, x),                     ()),
    "mish":         (_mish,                                                    ()),
    "log_sigmoid":  (lambda k, x, a, b: -softplus(k, -x),                      ()),
    "softsign":     (lambda k, x, a, b: x / (k.abs(x) + 1.0),                  ()),
    "hard_sigmoid": (lambda k, x, a, b: _hard_sigmoid(k, x),                   ()),
    "hard_swish":   (lambda k, x, a, b: x * _hard_sigmoid(k, x),               ()),
    "leaky_relu":   (_leaky,                                                   ("slope",)),
    "elu":          (_elu,                                                     ("alpha",)),
    "selu":         (_selu,                                                    ()),
    "softplus":     (_softplus,                                                ("beta", "threshold")),
    "clamp":        (_clamp,                                                   ("low", "high")),
    "scale":        (lambda k, x, a, b: x * a + b,                             ("factor", "offset")),
}
BINARY: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add":           lambda k, x, y: x + y,
    "sub":           lambda k, x, y: x - y,
    "mul":           lambda k, x, y: x * y,
    "div":           lambda k, x, y: x / y,
    "maximum":       lambda k, x, y: k.select(x > y, x, k.select(x.equals(x), y, x)),
    "minimum":       lambda k, x, y: k.select(x < y, x, k.select(x.equals(x), y, x)),
    "equal":         lambda k, x, y: _truth(k, x.equals(y)),
    "less":          lambda k, x, y: _truth(k, x < y),
    "less_equal":    lambda k, x, y: _truth(k, x <= y),
    "greater":       lambda k, x, y: _truth(k, x > y),
    "greater_equal": lambda k, x, y: _truth(k, x >= y),
}
# fmt: on


def _truth(k: Builder, condition: Value) -> Value:
    one = k.value(1.0, f32, condition.lanes)
    return k.select(condition, one, k.value(0.0, f32, condition.lanes))


def spread(k: Builder, count: Value, body: Callable[[Value, Value | None], None]) -> None:
    """Write ``body(index, left)`` for vectors of numbers; ``left`` is None where all lanes are."""
    whole = count // k.lanes * k.lanes
    for i in k.range(0, whole, k.lanes):
        body(i, None)
    with k.when(whole < count):
        body(whole, count - whole)


def read(k: Builder, x: Pointer, index: Value, left: Value | None) -> Value:
    """Return a vector, or what is left of one."""
    return x.load(index, k.lanes) if left is None else x.load_some(left, k.lanes, index)


def write(k: Builder, out: Pointer, value: Value, index: Value, left: Value | None) -> None:
    """Store a vector, or what is left of one."""
    if left is None:
        out.store(value, index)
    else:
        out.store_some(value, left, index)


def copy_all(k: Builder, x: Pointer, out: Pointer, count: Value) -> None:
    """Write the code that copies so many numbers."""
    spread(k, count, lambda i, left: write(k, out, read(k, x, i, left), i, left))


def fill_all(k: Builder, out: Pointer, number: float, count: Value) -> None:
    """Write the code that stores one number so many times."""
    value = k.value(number, f32, k.lanes)
    spread(k, count, lambda i, left: write(k, out, value, i, left))


def _unary(name: str, function: Unary) -> Kernel:
    def author(k: Builder, x: Pointer, out: Pointer, size: Value, a: Value, b: Value) -> None:
        first = k.begin * size
        x, out = x.at(first), out.at(first)
        a, b = a.splat(k.lanes), b.splat(k.lanes)

        def step(i: Value, left: Value | None) -> None:
            write(k, out, function(k, read(k, x, i, left), a, b), i, left)

        spread(k, (k.end - k.begin) * size, step)

    return group.kernel("x:f32* out:f32* size:i64 a:f32 b:f32", name)(author)


def _binary(name: str, function: Callable[[Any, Any, Any], Any]) -> tuple[Kernel, Kernel]:
    def pairs(k: Builder, x: Pointer, y: Pointer, out: Pointer, size: Value) -> None:
        first = k.begin * size
        x, y, out = x.at(first), y.at(first), out.at(first)

        def step(i: Value, left: Value | None) -> None:
            write(k, out, function(k, read(k, x, i, left), read(k, y, i, left)), i, left)

        spread(k, (k.end - k.begin) * size, step)

    def rows(
        k: Builder, x: Pointer, y: Pointer, out: Pointer, size: Value, count: Value, swap: Value
    ) -> None:
        for row in k.range(k.begin * count, k.end * count):
            given, made = x.at(row * size), out.at(row * size)

            def step(i: Value, left: Value | None) -> None:
                u, v = read(k, given, i, left), read(k, y, i, left)
                forward, backward = function(k, u, v), function(k, v, u)
                write(k, made, k.select(swap.differs(0), backward, forward), i, left)

            spread(k, size, step)

    parameters = "x:f32* y:f32* out:f32* size:i64"
    return (
        group.kernel(parameters, f"{name}_pairs")(pairs),
        group.kernel(f"{parameters} count:i64 swap:i64", f"{name}_rows")(rows),
    )


def _single(name: str, function: Callable[[Any, Any, Any], Any], is_first: bool) -> Kernel:
    """Make the kernel whose first or second input is a single number."""

    def author(k: Builder, x: Pointer, y: Pointer, out: Pointer, size: Value) -> None:
        first = k.begin * size
        many, out = (y if is_first else x).at(first), out.at(first)
        one = (x if is_first else y).splat(0, k.lanes)

        def step(i: Value, left: Value | None) -> None:
            value = read(k, many, i, left)
            made = function(k, one, value) if is_first else function(k, value, one)
            write(k, out, made, i, left)

        spread(k, (k.end - k.begin) * size, step)

    which = "first" if is_first else "second"
    return group.kernel("x:f32* y:f32* out:f32* size:i64", f"{name}_{which}")(author)


UNARY_KERNELS = {name: _unary(name, function) for name, (function, _) in UNARY.items()}
PAIR_KERNELS, ROW_KERNELS = {}, {}
for _name, _function in BINARY.items():
    PAIR_KERNELS[_name], ROW_KERNELS[_name] = _binary(_name, _function)

FIRST_KERNELS = {name: _single(name, function, True) for name, function in BINARY.items()}
SECOND_KERNELS = {name: _single(name, function, False) for name, function in BINARY.items()}

__all__ = [
    "FIRST_KERNELS",
    "PAIR_KERNELS",
    "ROW_KERNELS",
    "SECOND_KERNELS",
    "UNARY",
    "UNARY_KERNELS",
    "group",
    "i32",
    "spread",
]
