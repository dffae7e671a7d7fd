"""The rows of ``EXPORTERS`` for windows, matrix products, attention and recurrent networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.ml.graph import Step
from llmbol_core.nn.onnx.exporters import cut, times
from llmbol_core.nn.onnx.writer import Inexpressible, Writer, exporter

# ---- windows ----


def _per_axis(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple) else [value]


@exporter("conv1d", "conv2d")
def _convolution(w: Writer, step: Step) -> str:
    a = {name: _per_axis(value) for name, value in step.attributes.items()}
    return w.node(
        "Conv",
        *map(w.name, step.inputs),
        strides=a["stride"],
        pads=a["padding"] * 2,
        dilations=a["dilation"],
        group=a["groups"][0],
    )


@exporter("conv_transpose1d", "conv_transpose2d")
def _transposed(w: Writer, step: Step) -> str:
    a = {name: _per_axis(value) for name, value in step.attributes.items()}
    return w.node(
        "ConvTranspose",
        *map(w.name, step.inputs),
        strides=a["stride"],
        pads=a["padding"] * 2,
        output_padding=a["output_padding"],
        dilations=a["dilation"],
        group=a["groups"][0],
    )


@exporter("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")
def _pool(w: Writer, step: Step) -> str:
    a = step.attributes
    kernel = _per_axis(a["kernel"])
    strides = [s or k for s, k in zip(_per_axis(a["stride"]), kernel, strict=True)]
    shared: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    shared |= {"pads": _per_axis(a["padding"]) * 2, "ceil_mode": int(a["ceil"])}
    if step.op.startswith("max"):
        return w.node("MaxPool", w.name(step.inputs[0]), **shared)
    return w.node(
        "AveragePool", w.name(step.inputs[0]), count_include_pad=int(a["count_padding"]), **shared
    )


@exporter("adaptive_avg_pool")
def _adaptive_mean(w: Writer, step: Step) -> str:
    """Multiply with the shares that the values of an axis have in each mean."""
    (x,), y = step.inputs, w.name(step.inputs[0])
    rank = len(x.shape)
    for axis, count in enumerate(step.attributes["size"], rank - len(step.attributes["size"])):
        shares = np.zeros((x.shape[axis], count), np.float32)
        for place, (start, stop) in enumerate(_parts(x.shape[axis], count)):
            shares[start:stop, place] = 1 / (stop - start)
        order = [i for i in range(rank) if i != axis] + [axis]
        y = w.node("Transpose", y, perm=order)
        y = w.node("MatMul", y, w.constant(shares))
        y = w.node("Transpose", y, perm=np.argsort(order).tolist())
    return y


@exporter("adaptive_max_pool")
def _adaptive_max(w: Writer, step: Step) -> str:
    """Join the greatest values of each part of an axis."""
    (x,), y = step.inputs, w.name(step.inputs[0])
    rank = len(x.shape)
    for axis, count in enumerate(step.attributes["size"], rank - len(step.attributes["size"])):
        parts = [
            w.node("ReduceMax", cut(w, y, axis, start, stop), axes=[axis], keepdims=1)
            for start, stop in _parts(x.shape[axis], count)
        ]
        y = w.node("Concat", *parts, axis=axis)
    return y


def _parts(size: int, count: int) -> list[tuple[int, int]]:
    """Return where each of the parts of an axis starts and ends, as PyTorch divides it."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


@exporter("upsample_nearest", "upsample_linear")
def _resize(w: Writer, step: Step) -> str:
    (x,), size = step.inputs, step.attributes["size"]
    old = x.shape[-len(size) :]
    is_linear = step.op.endswith("linear")
    way = "align_corners" if step.attributes.get("corners") else "half_pixel"
    modes = {"mode": "linear" if is_linear else "nearest", "nearest_mode": "floor"}
    modes["coordinate_transformation_mode"] = way if is_linear else "asymmetric"
    if all(new % n == 0 for new, n in zip(size, old, strict=True)):
        scales = [1, 1, *(new / n for new, n in zip(size, old, strict=True))]
        names = (w.name(x), "", w.constant(np.array(scales, np.float32)))
        return w.node("Resize", *names, **modes)
    first = w.node("Shape", w.name(x), end=2)
    sizes = w.node("Concat", first, w.ints(list(size)), axis=0)
    return w.node("Resize", w.name(x), "", "", sizes, **modes)


# ---- products ----


@exporter("linear", "mul_mat")
def _linear(w: Writer, step: Step) -> str:
    x, matrix, *bias = step.inputs
    if step.op == "mul_mat":
        x, matrix = matrix, x
    if len(x.shape) == 2:
        return w.node("Gemm", w.name(x), w.name(matrix), *map(w.name, bias), transB=1)
    if w.is_weight(matrix):
        columns = w.constant(w.array(matrix).T, f"{matrix.name}.T")
    else:
        columns = w.node("Transpose", w.name(matrix), perm=[1, 0])
    y = w.node("MatMul", w.name(x), columns)
    return w.node("Add", y, w.name(bias[0])) if bias else y


@exporter("get_rows")
def _get_rows(w: Writer, step: Step) -> str:
    return w.node("Gather", *map(w.name, step.inputs), axis=0)


@exporter("attention")
def _attention(w: Writer, step: Step) -> str:
    query, key, value, *mask = step.inputs
    if query.shape[:-2] != key.shape[:-2]:
        raise Inexpressible("heads that share a key")
    rank, width = len(query.shape), query.shape[-1]
    order = [*range(rank - 2), rank - 1, rank - 2]
    scores = w.node("MatMul", w.name(query), w.node("Transpose", w.name(key), perm=order))
    scores = times(w, scores, step.attributes["scale"] or 1 / math.sqrt(width))
    if mask:
        scores = w.node("Add", scores, w.name(mask[0]))
    if step.attributes["causal"]:
        rows, columns = query.shape[-2], key.shape[-2]
        hidden = ~np.tri(rows, columns, columns - rows, dtype=bool)
        lowest = np.where(hidden, np.float32(-np.inf), np.float32(0))
        scores = w.node("Add", scores, w.constant(lowest))
    return w.node("MatMul", w.node("Softmax", scores, axis=-1), w.name(value))


_GATES = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn_tanh": (0,), "rnn_relu": (0,)}
"""ONNX's gates in PyTorch's: i, o, f, c in i, f, g, o; z, r, h in r, z, n."""


@exporter(*_GATES)
def _recurrent(w: Writer, step: Step) -> str:
    x, *weights = step.inputs
    arrays = [w.array(weight) for weight in weights]
    order = _GATES[step.op]

    def ordered(rows: Any) -> Any:
        blocks = np.split(rows, len(order))
        return np.concatenate([blocks[i] for i in order])

    base = weights[0].name
    names = [
        w.constant(ordered(a)[None], f"{base}.{k}") for a, k in zip(arrays[:2], "WR", strict=True)
    ]
    if len(arrays) > 2:
        zeros = np.zeros_like(arrays[2])
        halves = (ordered(arrays[2]), ordered(arrays[3] if len(arrays) > 3 else zeros))
        names.append(w.constant(np.concatenate(halves)[None], f"{base}.B"))
    more: dict[str, Any] = {"direction": "reverse" if step.attributes["reverse"] else "forward"}
    if step.op == "gru":
        more["linear_before_reset"] = 1
    if step.op == "rnn_relu":
        more["activations"] = ["Relu"]
    operator = {"lstm": "LSTM", "gru": "GRU"}.get(step.op, "RNN")
    steps_first = w.node("Transpose", w.name(x), perm=[1, 0, 2])
    states = w.node(operator, steps_first, *names, hidden_size=arrays[1].shape[1], **more)
    return w.node("Transpose", w.node("Squeeze", states, w.ints([1])), perm=[1, 0, 2])
