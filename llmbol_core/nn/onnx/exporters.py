"""The rows of ``EXPORTERS``: each operation of the table as nodes of ONNX, opset 17.

``rope`` has no row: no operator of that opset turns pairs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto

from llmbol_core.ml.graph import Step, Value
from llmbol_core.nn.onnx.writer import Writer, exporter

# fmt: off
_SIMPLE = {
    # operation   operator
    "neg":        "Neg",        "abs":       "Abs",       "sign":     "Sign",
    "floor":      "Floor",      "ceil":      "Ceil",      "round":    "Round",
    "sqrt":       "Sqrt",       "exp":       "Exp",       "log":      "Log",
    "reciprocal": "Reciprocal", "sin":       "Sin",       "cos":      "Cos",
    "tanh":       "Tanh",       "sigmoid":   "Sigmoid",   "relu":     "Relu",
    "softsign":   "Softsign",   "hard_swish": "HardSwish", "selu":    "Selu",
    "erf":        "Erf",        "add":       "Add",       "sub":      "Sub",
    "mul":        "Mul",        "div":       "Div",       "power":    "Pow",
    "maximum":    "Max",        "minimum":   "Min",       "matmul":   "MatMul",
}
_COMPARE = {
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
    "greater": "Greater", "greater_equal": "GreaterOrEqual",
}
_REDUCE = {"mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin",
           "sum_squares": "ReduceSumSquare"}
# fmt: on


@exporter(*_SIMPLE)
def _simple(w: Writer, step: Step) -> str:
    return w.node(_SIMPLE[step.op], *map(w.name, step.inputs))


@exporter(*_COMPARE)
def _compare(w: Writer, step: Step) -> str:
    truth = w.node(_COMPARE[step.op], *map(w.name, step.inputs))
    return w.node("Cast", truth, to=TensorProto.FLOAT)


@exporter("where")
def _where(w: Writer, step: Step) -> str:
    condition, x, y = map(w.name, step.inputs)
    return w.node("Where", w.node("Equal", condition, w.number(0)), y, x)


def _x(w: Writer, step: Step) -> str:
    return w.name(step.inputs[0])


def times(w: Writer, x: str, factor: float) -> str:
    """Write a product with a number."""
    return w.node("Mul", x, w.number(factor))


def _plus(w: Writer, x: str, offset: float) -> str:
    return w.node("Add", x, w.number(offset))


@exporter("scale")
def _scale(w: Writer, step: Step) -> str:
    factor, offset = step.attributes["factor"], step.attributes["offset"]
    y = times(w, _x(w, step), factor) if factor != 1 else _x(w, step)
    return _plus(w, y, offset) if offset or factor == 1 else y


@exporter("square")
def _square(w: Writer, step: Step) -> str:
    return w.node("Mul", _x(w, step), _x(w, step))


@exporter("relu6", "clamp")
def _clamp(w: Writer, step: Step) -> str:
    low, high = step.attributes.get("low", 0.0), step.attributes.get("high", 6.0)
    return w.node("Clip", _x(w, step), w.number(low), w.number(high))


@exporter("gelu")
def _gelu(w: Writer, step: Step) -> str:
    x = _x(w, step)
    erf = w.node("Erf", w.node("Div", x, w.number(math.sqrt(2))))
    return times(w, w.node("Mul", x, _plus(w, erf, 1)), 0.5)


@exporter("gelu_tanh")
def _gelu_tanh(w: Writer, step: Step) -> str:
    x = _x(w, step)
    cube = w.node("Mul", w.node("Mul", x, x), x)
    inner = w.node("Add", x, times(w, cube, 0.044715))
    bent = w.node("Tanh", times(w, inner, math.sqrt(2 / math.pi)))
    return times(w, w.node("Mul", x, _plus(w, bent, 1)), 0.5)


@exporter("silu")
def _silu(w: Writer, step: Step) -> str:
    return w.node("Mul", _x(w, step), w.node("Sigmoid", _x(w, step)))


@exporter("mish")
def _mish(w: Writer, step: Step) -> str:
    x = _x(w, step)
    return w.node("Mul", x, w.node("Tanh", w.node("Softplus", x)))


@exporter("log_sigmoid")
def _log_sigmoid(w: Writer, step: Step) -> str:
    return w.node("Neg", w.node("Softplus", w.node("Neg", _x(w, step))))


@exporter("hard_sigmoid")
def _hard_sigmoid(w: Writer, step: Step) -> str:
    return w.node("HardSigmoid", _x(w, step), alpha=1 / 6, beta=0.5)


@exporter("leaky_relu")
def _leaky_relu(w: Writer, step: Step) -> str:
    return w.node("LeakyRelu", _x(w, step), alpha=step.attributes["slope"])


@exporter("elu")
def _elu(w: Writer, step: Step) -> str:
    return w.node("Elu", _x(w, step), alpha=step.attributes["alpha"])


@exporter("softplus")
def _softplus(w: Writer, step: Step) -> str:
    beta = step.attributes["beta"]
    if beta == 1:
        return w.node("Softplus", _x(w, step))
    return times(w, w.node("Softplus", times(w, _x(w, step), beta)), 1 / beta)


# ---- normalizations ----


@exporter("softmax", "log_softmax")
def _softmax(w: Writer, step: Step) -> str:
    operator = "Softmax" if step.op == "softmax" else "LogSoftmax"
    return w.node(operator, _x(w, step), axis=step.attributes["axis"])


@exporter("batch_norm")
def _batch_norm(w: Writer, step: Step) -> str:
    names = map(w.name, step.inputs)
    return w.node("BatchNormalization", *names, epsilon=step.attributes["eps"])


@exporter("layer_norm")
def _layer_norm(w: Writer, step: Step) -> str:
    x, *gains = step.inputs
    names = [w.name(gain) for gain in gains]
    if not names:
        names = [w.constant(np.ones(x.shape[-1], np.float32))]
    return w.node("LayerNormalization", w.name(x), *names, epsilon=step.attributes["eps"])


@exporter("rms_norm")
def _rms_norm(w: Writer, step: Step) -> str:
    x, *gains = map(w.name, step.inputs)
    mean = w.node("ReduceMean", w.node("Mul", x, x), axes=[-1], keepdims=1)
    y = w.node("Div", x, w.node("Sqrt", _plus(w, mean, step.attributes["eps"])))
    return w.node("Mul", y, gains[0]) if gains else y


@exporter("l2_norm")
def _l2_norm(w: Writer, step: Step) -> str:
    x = _x(w, step)
    length = w.node("ReduceL2", x, axes=[-1], keepdims=1)
    return w.node("Div", x, w.node("Max", length, w.number(step.attributes["eps"])))


@exporter("group_norm")
def _group_norm(w: Writer, step: Step) -> str:
    x, *gains = step.inputs
    groups = step.attributes["groups"]
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    rows = w.node("Reshape", w.name(x), w.ints([0, groups, -1]))
    names = (w.constant(ones), w.constant(zeros))
    normed = w.node("InstanceNormalization", rows, *names, epsilon=step.attributes["eps"])
    y = w.node("Reshape", normed, w.ints([0, *x.shape[1:]]))
    for operator, gain in zip(("Mul", "Add"), gains, strict=False):
        column = w.ints([-1, *[1] * (len(x.shape) - 2)])
        y = w.node(operator, y, w.node("Reshape", w.name(gain), column))
    return y


# ---- along an axis ----


@exporter(*_REDUCE)
def _reduce(w: Writer, step: Step) -> str:
    a = step.attributes
    return w.node(_REDUCE[step.op], _x(w, step), axes=[a["axis"]], keepdims=int(a["keepdims"]))


@exporter("sum")
def _sum(w: Writer, step: Step) -> str:
    a = step.attributes
    return w.node("ReduceSum", _x(w, step), w.ints([a["axis"]]), keepdims=int(a["keepdims"]))


@exporter("cumsum")
def _cumsum(w: Writer, step: Step) -> str:
    return w.node("CumSum", _x(w, step), w.constant(np.int64(step.attributes["axis"])))


@exporter("argmax", "argmin")
def _place(w: Writer, step: Step) -> str:
    a = step.attributes
    operator = "ArgMax" if step.op == "argmax" else "ArgMin"
    return w.node(operator, _x(w, step), axis=a["axis"], keepdims=int(a["keepdims"]))


@exporter("argsort", "top_k")
def _ordered(w: Writer, step: Step) -> str:
    (x,), a = step.inputs, step.attributes
    count = w.ints([a.get("k", x.shape[-1])])
    largest = int(a.get("descending", True))
    return w.nodes_of("TopK", [w.name(x), count], 2, axis=-1, largest=largest, sorted=1)[1]


# ---- shapes ----


@exporter("reshape")
def _reshape(w: Writer, step: Step) -> str:
    return w.node("Reshape", _x(w, step), w.ints(step.attributes["shape"]))


@exporter("flatten")
def _flatten(w: Writer, step: Step) -> str:
    start = step.attributes["start"] % len(step.inputs[0].shape)
    return w.node("Reshape", _x(w, step), w.ints([0] * start + [-1]))


@exporter("squeeze", "unsqueeze")
def _squeeze(w: Writer, step: Step) -> str:
    return w.node(step.op.capitalize(), _x(w, step), w.ints([step.attributes["axis"]]))


@exporter("permute")
def _permute(w: Writer, step: Step) -> str:
    return w.node("Transpose", _x(w, step), perm=list(step.attributes["axes"]))


@exporter("transpose")
def _transpose(w: Writer, step: Step) -> str:
    order = list(range(len(step.inputs[0].shape)))
    first, second = step.attributes["first"], step.attributes["second"]
    order[first], order[second] = order[second], order[first]
    return w.node("Transpose", _x(w, step), perm=order)


@exporter("concat")
def _concat(w: Writer, step: Step) -> str:
    return w.node("Concat", *map(w.name, step.inputs), axis=step.attributes["axis"])


def cut(w: Writer, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
    """Write a slice along an axis."""
    return w.node("Slice", x, *(w.ints([n]) for n in (start, stop, axis, step)))


@exporter("slice")
def _slice(w: Writer, step: Step) -> str:
    a = step.attributes
    return cut(w, _x(w, step), a["axis"], a["start"], a["stop"], a["step"])


def _widths(x: Value, attributes: dict[str, Any]) -> list[int]:
    """Return the widths of all borders before, then of all after."""
    axis, rank = attributes["axis"] % len(x.shape), len(x.shape)
    sides = [attributes["before"], attributes["after"]]
    return [side if i == axis else 0 for side in sides for i in range(rank)]


@exporter("pad")
def _pad(w: Writer, step: Step) -> str:
    widths = w.ints(_widths(step.inputs[0], step.attributes))
    return w.node("Pad", _x(w, step), widths, w.number(step.attributes["value"]))


@exporter("pad_reflect", "pad_replicate")
def _pad_like(w: Writer, step: Step) -> str:
    mode = "reflect" if step.op == "pad_reflect" else "edge"
    widths = w.ints(_widths(step.inputs[0], step.attributes))
    return w.node("Pad", _x(w, step), widths, mode=mode)


@exporter("pad_circular")
def _pad_circular(w: Writer, step: Step) -> str:
    a, x = step.attributes, _x(w, step)
    axis = a["axis"] % len(step.inputs[0].shape)
    size = step.inputs[0].shape[axis]
    parts = [cut(w, x, axis, size - a["before"], size)] if a["before"] else []
    parts.append(x)
    parts += [cut(w, x, axis, 0, a["after"])] if a["after"] else []
    return w.node("Concat", *parts, axis=axis)


@exporter("repeat")
def _repeat(w: Writer, step: Step) -> str:
    a, rank = step.attributes, len(step.inputs[0].shape)
    times = [a["times"] if i == a["axis"] % rank else 1 for i in range(rank)]
    return w.node("Tile", _x(w, step), w.ints(times))


@exporter("to_indices")
def _to_indices(w: Writer, step: Step) -> str:
    return w.node("Cast", w.node("Round", _x(w, step)), to=TensorProto.INT64)


@exporter("to_numbers")
def _to_numbers(w: Writer, step: Step) -> str:
    return w.node("Cast", _x(w, step), to=TensorProto.FLOAT)
