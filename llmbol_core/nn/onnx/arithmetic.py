"""Importers of operators on single values: arithmetic, comparisons, activations, quantization."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.nn.onnx.importers import row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Constant, Operand, Traced, Unsupported
from llmbol_core.nn.onnx.tracing import Tracer

_LARGEST = float(np.finfo(np.float32).max)


def number(operand: Operand) -> float | None:
    """Return the value of a constant that is one finite number, else None."""
    if isinstance(operand, Constant) and operand.array.size == 1 and len(operand.shape) <= 1:
        value = float(np.float32(operand.array.reshape(())))
        return value if math.isfinite(value) else None
    return None


def constant(value: float) -> Constant:
    """Return a number as a constant."""
    return Constant(np.array([value], np.float32))


# fmt: off
_UNARY: dict[str, tuple[str, dict[str, Any]]] = {
    # operator    operation, attributes
    "Abs":        ("abs", {}),          "Neg":        ("neg", {}),
    "Exp":        ("exp", {}),          "Log":        ("log", {}),
    "Sqrt":       ("sqrt", {}),         "Reciprocal": ("reciprocal", {}),
    "Sin":        ("sin", {}),          "Cos":        ("cos", {}),
    "Tanh":       ("tanh", {}),         "Sigmoid":    ("sigmoid", {}),
    "Relu":       ("relu", {}),         "Erf":        ("erf", {}),
    "Softplus":   ("softplus", {}),     "Softsign":   ("softsign", {}),
    "HardSwish":  ("hard_swish", {}),
}
_WHOLE: dict[str, str] = {"Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign"}
_COMPARE: dict[str, str] = {
    "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal",
    "Greater": "greater", "GreaterOrEqual": "greater_equal",
}
# fmt: on


@row(*_UNARY)
def unary(tracer: Tracer, node: Node) -> Traced:
    """Emit the operation of the same meaning."""
    op, attributes = _UNARY[node.operator]
    keeps = node.operator in ("Abs", "Neg", "Relu")
    return tracer.op(op, node[0], whole=keeps and node[0].whole, **attributes)


@row(*_WHOLE)
def rounding(tracer: Tracer, node: Node) -> Traced:
    """Emit a rounding."""
    return tracer.op(_WHOLE[node.operator], node[0], whole=True)


@row(*_COMPARE)
def comparison(tracer: Tracer, node: Node) -> Traced:
    """Emit a comparison, which gives 1 or 0."""
    return tracer.op(_COMPARE[node.operator], node[0], node[1], whole=True)


# ---- arithmetic ----


@row("Add")
def add(tracer: Tracer, node: Node) -> Operand:
    """Emit a sum; a number becomes an offset."""
    return sum_of(tracer, node[0], node[1])


def sum_of(tracer: Tracer, x: Operand, y: Operand) -> Operand:
    """Emit x + y."""
    if (value := number(x)) is not None:
        x, y = y, x
    elif (value := number(y)) is None:
        return tracer.op("add", x, y, whole=x.whole and y.whole)
    return tracer.op("scale", x, factor=1.0, offset=value, whole=x.whole and y.whole)


@row("Sub")
def subtract(tracer: Tracer, node: Node) -> Operand:
    """Emit a difference; a number becomes an offset."""
    x, y = node[0], node[1]
    whole = x.whole and y.whole
    if (value := number(y)) is not None:
        return tracer.op("scale", x, factor=1.0, offset=-value, whole=whole)
    if (value := number(x)) is not None:
        return tracer.op("scale", y, factor=-1.0, offset=value, whole=whole)
    return tracer.op("sub", x, y, whole=whole)


@row("Mul")
def multiply(tracer: Tracer, node: Node) -> Operand:
    """Emit a product; a number becomes a factor."""
    return product_of(tracer, node[0], node[1])


def product_of(tracer: Tracer, x: Operand, y: Operand) -> Operand:
    """Emit x y."""
    if (value := number(x)) is not None:
        x, y = y, x
    elif (value := number(y)) is None:
        return tracer.op("mul", x, y, whole=x.whole and y.whole)
    return tracer.op("scale", x, factor=value, whole=x.whole and y.whole)


@row("Div")
def divide(tracer: Tracer, node: Node) -> Operand:
    """Emit a quotient; that of integers is cut to an integer."""
    x, y = node[0], node[1]
    if x.whole and y.whole:
        return truncated(tracer, tracer.op("div", x, y))
    if value := number(y):
        return tracer.op("scale", x, factor=1 / value)
    return tracer.op("div", x, y)


def truncated(tracer: Tracer, x: Operand) -> Traced:
    """Emit rounding towards zero."""
    size = tracer.op("floor", tracer.op("abs", x))
    return tracer.op("mul", size, tracer.op("sign", x), whole=True)


@row("Pow")
def power(tracer: Tracer, node: Node) -> Operand:
    """Emit a power; simple exponents become simple operations."""
    x, y = node[0], node[1]
    exponent = number(y)
    if exponent == 1.0:
        return x
    if exponent == 3.0:
        return tracer.op("mul", tracer.op("square", x), x, whole=x.whole)
    simple = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    if exponent in simple and not (x.whole and exponent != 2.0):
        return tracer.op(simple[exponent], x, whole=x.whole)
    return tracer.op("power", x, y)


@row("Mod")
def remainder(tracer: Tracer, node: Node) -> Operand:
    """Emit x - y floor(x / y), or with the sign of x if ``fmod`` is set."""
    x, y = node[0], node[1]
    quotient = tracer.op("div", x, y)
    cut = truncated(tracer, quotient) if node.attr("fmod", 0) else tracer.op("floor", quotient)
    return tracer.op("sub", x, tracer.op("mul", cut, y), whole=x.whole and y.whole)


@row("Min", "Max", "Sum")
def several(tracer: Tracer, node: Node) -> Operand:
    """Emit one operation for each operand but the first."""
    name = {"Min": "minimum", "Max": "maximum", "Sum": "add"}[node.operator]
    # One that depends on the input stands first: a step cannot start from two constants.
    return tracer.chain(name, sorted(node.given(), key=lambda x: isinstance(x, Constant)))


@row("Mean")
def mean_of_several(tracer: Tracer, node: Node) -> Operand:
    """Emit the sum times one over the number of operands."""
    total = tracer.chain("add", sorted(node.given(), key=lambda x: isinstance(x, Constant)))
    return tracer.op("scale", total, factor=1 / len(node.operands))


# ---- truth values ----


@row("And", "Or", "Xor")
def logic(tracer: Tracer, node: Node) -> Operand:
    """Emit what does the same with 1 and 0."""
    if node.operator == "Xor":
        return tracer.op("abs", tracer.op("sub", node[0], node[1]), whole=True)
    return tracer.op({"And": "mul", "Or": "maximum"}[node.operator], node[0], node[1], whole=True)


@row("Not")
def negation(tracer: Tracer, node: Node) -> Operand:
    """Emit 1 - x."""
    return tracer.op("scale", node[0], factor=-1.0, offset=1.0, whole=True)


@row("IsNaN")
def is_nan(tracer: Tracer, node: Node) -> Operand:
    """Emit 1 where a value is not equal to itself."""
    equal = tracer.op("equal", node[0], node[0])
    return tracer.op("scale", equal, factor=-1.0, offset=1.0, whole=True)


@row("IsInf")
def is_infinite(tracer: Tracer, node: Node) -> Operand:
    """Emit 1 where the size is infinite."""
    node.needs("detect_negative", 1)
    node.needs("detect_positive", 1)
    infinite = Constant(np.array([np.inf], np.float32))
    return tracer.op("equal", tracer.op("abs", node[0]), infinite, whole=True)


@row("Where")
def where(tracer: Tracer, node: Node) -> Operand:
    """Emit a choice."""
    return tracer.op("where", *node.given(), whole=node[1].whole and node[2].whole)


_FLOATS = (1, 10, 11, 16)
_TRUTH = 9


@row("Cast")
def cast(tracer: Tracer, node: Node) -> Operand:
    """Emit nothing for a wider type; to integers cut, to truth values compare with 0."""
    return cast_to(tracer, node[0], int(node.attr("to")))


def cast_to(tracer: Tracer, x: Operand, kind: int) -> Operand:
    """Emit a conversion to an element type of ONNX."""
    x = tracer.numbers(x)
    if kind in _FLOATS:
        if isinstance(x, Traced):
            return Traced(x.name, x.shape)
        return x
    if kind == _TRUTH:
        zero = tracer.op("equal", x, constant(0.0))
        return tracer.op("scale", zero, factor=-1.0, offset=1.0, whole=True)
    return x if x.whole else truncated(tracer, x)


# ---- activations ----


@row("LeakyRelu")
def leaky_relu(tracer: Tracer, node: Node) -> Operand:
    """Emit ``leaky_relu``."""
    return tracer.op("leaky_relu", node[0], slope=node.attr("alpha", 0.01))


@row("Elu")
def elu(tracer: Tracer, node: Node) -> Operand:
    """Emit ``elu``."""
    return tracer.op("elu", node[0], alpha=node.attr("alpha", 1.0))


@row("Selu")
def selu(tracer: Tracer, node: Node) -> Operand:
    """Emit ``selu`` for the usual constants, else a scaled ``elu``."""
    alpha = node.attr("alpha", 1.67326319217681884765625)
    gamma = node.attr("gamma", 1.05070102214813232421875)
    if abs(alpha - 1.6732632) < 1e-6 and abs(gamma - 1.050701) < 1e-6:
        return tracer.op("selu", node[0])
    return tracer.op("scale", tracer.op("elu", node[0], alpha=alpha), factor=gamma)


@row("Celu")
def celu(tracer: Tracer, node: Node) -> Operand:
    """Emit alpha elu(x / alpha)."""
    alpha = node.attr("alpha", 1.0)
    inner = tracer.op("scale", node[0], factor=1 / alpha)
    return tracer.op("scale", tracer.op("elu", inner), factor=alpha)


@row("PRelu")
def prelu(tracer: Tracer, node: Node) -> Operand:
    """Emit ``leaky_relu`` for one slope, else a choice between x and slope x."""
    if (slope := number(node[1])) is not None:
        return tracer.op("leaky_relu", node[0], slope=slope)
    falling = tracer.op("mul", node[0], node[1])
    return tracer.op("where", tracer.op("greater", node[0], constant(0.0)), node[0], falling)


@row("ThresholdedRelu")
def thresholded_relu(tracer: Tracer, node: Node) -> Operand:
    """Emit x where it is above alpha, else 0."""
    above = tracer.op("greater", node[0], constant(node.attr("alpha", 1.0)))
    return tracer.op("where", above, node[0], constant(0.0))


@row("Shrink")
def shrink(tracer: Tracer, node: Node) -> Operand:
    """Emit x moved towards 0 by ``bias`` outside of -lambd ... lambd, inside 0."""
    lambd, bias = node.attr("lambd", 0.5), node.attr("bias", 0.0)
    x, zero = node[0], constant(0.0)
    down = tracer.op("scale", x, factor=1.0, offset=-bias)
    up = tracer.op("scale", x, factor=1.0, offset=bias)
    high = tracer.op("where", tracer.op("greater", x, constant(lambd)), down, zero)
    return tracer.op("where", tracer.op("less", x, constant(-lambd)), up, high)


@row("HardSigmoid")
def hard_sigmoid(tracer: Tracer, node: Node) -> Operand:
    """Emit ``hard_sigmoid`` for PyTorch's slope, else a limited straight line."""
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return tracer.op("hard_sigmoid", node[0])
    line = tracer.op("scale", node[0], factor=alpha, offset=beta)
    return tracer.op("clamp", line, low=0.0, high=1.0)


@row("Mish", since=18)
def mish(tracer: Tracer, node: Node) -> Operand:
    """Emit ``mish``."""
    return tracer.op("mish", node[0])


@row("Gelu", since=20)
def gelu(tracer: Tracer, node: Node) -> Operand:
    """Emit ``gelu`` or its approximation."""
    node.needs("approximate", "none", "tanh")
    return tracer.op("gelu_tanh" if node.attr("approximate") == "tanh" else "gelu", node[0])


@row("Clip")
def clip(tracer: Tracer, node: Node) -> Operand:
    """Emit limits: both at once if they are numbers."""
    x, low, high = node[0], node[1] if node.has(1) else None, node[2] if node.has(2) else None
    bounds = [None if side is None else number(side) for side in (low, high)]
    if not x.whole and bounds == [0.0, 6.0]:
        return tracer.op("relu6", x)
    if None not in bounds and bounds[0] <= bounds[1]:  # type: ignore[operator]  # both are numbers
        return tracer.op("clamp", x, low=bounds[0], high=bounds[1], whole=x.whole)
    if low is not None:
        x = tracer.op("maximum", x, low, whole=x.whole)
    return x if high is None else tracer.op("minimum", x, high, whole=x.whole)


@row("Tan")
def tangent(tracer: Tracer, node: Node) -> Operand:
    """Emit sin / cos."""
    return tracer.op("div", tracer.op("sin", node[0]), tracer.op("cos", node[0]))


@row("Sinh", "Cosh")
def hyperbolic(tracer: Tracer, node: Node) -> Operand:
    """Emit half of exp(x) minus or plus exp(-x)."""
    sign = "sub" if node.operator == "Sinh" else "add"
    up, down = tracer.op("exp", node[0]), tracer.op("exp", tracer.op("neg", node[0]))
    return tracer.op("scale", tracer.op(sign, up, down), factor=0.5)


# ---- quantized values, as numbers ----


@row("QuantizeLinear")
def quantize(tracer: Tracer, node: Node) -> Operand:
    """Emit round(x / scale) + zero point, limited to the type."""
    kind = np.dtype(np.uint8) if not node.has(2) else node.constant(2, "the zero point").dtype
    if kind.kind not in "iu":
        raise Unsupported(f"quantization to {kind}")
    limits = np.iinfo(kind)
    scale, zero = _along(tracer, node, 1), _along(tracer, node, 2)
    y = tracer.op("round", tracer.op("div", node[0], scale))
    y = y if zero is None else tracer.op("add", y, zero)
    return tracer.op("clamp", y, low=float(limits.min), high=float(limits.max), whole=True)


@row("DequantizeLinear")
def dequantize(tracer: Tracer, node: Node) -> Operand:
    """Emit (x - zero point) scale."""
    scale, zero = _along(tracer, node, 1), _along(tracer, node, 2)
    x = node[0] if zero is None else tracer.op("sub", node[0], zero)
    return tracer.op("mul", x, scale)


def _along(tracer: Tracer, node: Node, index: int) -> Any:
    """Return a scale or zero point in a shape that broadcasts along the axis of the node."""
    if not node.has(index):
        return None
    values = node.constant(index, "the scale or zero point")
    node.needs("block_size", 0)
    if values.ndim == 0 or values.size == 1:
        return Constant(values.reshape(1))
    rank = len(node[0].shape)
    shape = [1] * rank
    shape[int(node.attr("axis", 1)) % rank] = -1
    return Constant(values.reshape(shape))
