"""Importers of matrix products, convolutions, pooling, resizing and normalizations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmbol_core.nn.onnx.arithmetic import constant, product_of, sum_of
from llmbol_core.nn.onnx.importers import Outcome, row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Constant, Operand, Traced, Unavailable, Unsupported
from llmbol_core.nn.onnx.shapes import reduce_axes
from llmbol_core.nn.onnx.tracing import Tracer

_LOWEST = -float(np.finfo(np.float32).max)


@row("MatMul")
def matmul(tracer: Tracer, node: Node) -> Operand:
    """Emit ``linear`` for a constant matrix, else a product of matrices."""
    x, y = node[0], node[1]
    if isinstance(y, Constant) and len(y.shape) <= 2 and isinstance(x, Traced):
        matrix = y.with_array(y.array.reshape(len(y.array), -1).T)
        product = tracer.op("linear", x, matrix)
        return product if len(y.shape) == 2 else tracer.squeeze(product, len(x.shape) - 1)
    if len(x.shape) == 1 and isinstance(x, Constant):
        product = tracer.op("matmul", x.with_array(x.array[None]), y)
        return tracer.squeeze(product, len(y.shape) - 2)
    if min(len(x.shape), len(y.shape)) < 2:
        raise Unsupported("a vector that depends on the input")
    return tracer.op("matmul", _beside(tracer, x, y), _beside(tracer, y, x))


def _beside(tracer: Tracer, x: Operand, other: Operand) -> Operand:
    """Return a constant with length 1 where the other matrices have the batch in front of them."""
    if isinstance(x, Traced) or isinstance(other, Constant):
        return x
    axis = tracer.batch_axis(other)
    if axis is None or axis >= len(other.shape) - 2:
        return x
    place = len(x.shape) - len(other.shape) + axis
    return x if place < 0 else tracer.unbatched(x, place)


@row("Gemm")
def gemm(tracer: Tracer, node: Node) -> Operand:
    """Emit ``linear`` for a constant matrix, else the product and the sum."""
    x, y = node[0], node[1]
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    if node.attr("transA", 0):
        x = _transposed(tracer, x)
    if not isinstance(y, Constant) or isinstance(x, Constant):
        y = _transposed(tracer, y) if node.attr("transB", 0) else y
        product = product_of(tracer, tracer.op("matmul", x, y), constant(alpha))
        return _added(tracer, product, node, beta)
    array = y.array if node.attr("transB", 0) else y.array.T
    matrix = y.with_array(array if alpha == 1.0 else array * np.float32(alpha))
    bias = node[2] if node.has(2) else None
    if isinstance(bias, Constant) and bias.shape in ((len(array),), (1, len(array)), (1,), ()):
        row_of = np.broadcast_to(np.asarray(bias.array).reshape(-1), (len(array),))
        values = row_of if beta == 1.0 else row_of * np.float32(beta)
        return tracer.op("linear", x, matrix, bias.with_array(values))
    return _added(tracer, tracer.op("linear", x, matrix), node, beta)


def _added(tracer: Tracer, product: Operand, node: Node, beta: float) -> Operand:
    """Emit the sum with the third operand times beta, if there is one."""
    if not node.has(2):
        return product
    other = node[2]
    if beta != 1.0:
        other = (
            other.with_array(other.array * np.float32(beta))
            if isinstance(other, Constant)
            else product_of(tracer, other, constant(beta))
        )
    return sum_of(tracer, product, other)


def _transposed(tracer: Tracer, x: Operand) -> Operand:
    return x.with_array(x.array.T) if isinstance(x, Constant) else tracer.permute(x, (1, 0))


# ---- windows ----


def _windows(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> dict[str, list[int]]:
    """Return strides, dilations, and the borders before and after each axis."""
    rank = len(kernel)
    strides = list(node.attr("strides") or [1] * rank)
    dilations = list(node.attr("dilations") or [1] * rank)
    node.needs("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    mode = node.attr("auto_pad", "NOTSET")
    pads = list(node.attr("pads") or [0] * 2 * rank)
    before, after = pads[:rank], pads[rank:]
    if mode.startswith("SAME"):
        for i, size in enumerate(sizes):
            reach = dilations[i] * (kernel[i] - 1) + 1
            total = max((-(-size // strides[i]) - 1) * strides[i] + reach - size, 0)
            halves = (total // 2, total - total // 2)
            before[i], after[i] = halves if mode == "SAME_UPPER" else halves[::-1]
    elif mode == "VALID":
        before, after = [0] * rank, [0] * rank
    return {"strides": strides, "dilations": dilations, "before": before, "after": after}


def _ranked(node: Node, x: Traced) -> int:
    """Return along how many axes windows slide: 1 or 2."""
    rank = len(x.shape) - 2
    if rank not in (1, 2):
        raise Unsupported(f"{rank} axes to slide along: expected 1 or 2")
    return rank


def _spread(rank: int, numbers: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return attributes as the operations of 1 and of 2 axes take them."""
    return {k: tuple(v) if rank == 2 else v[0] for k, v in numbers.items()}


@row("Conv")
def convolution(tracer: Tracer, node: Node) -> Operand:
    """Emit a convolution, after a border where it is not the same on both sides."""
    x = node.traced(0)
    rank, weight = _ranked(node, x), node[1]
    w = _windows(node, x.shape[2:], weight.shape[2:])
    if w["before"] != w["after"]:
        pairs = zip(w["before"], w["after"], strict=True)
        x = tracer.pad(x, [(0, 0), (0, 0), *pairs])
        w["before"] = [0] * rank
    numbers = {"stride": w["strides"], "padding": w["before"], "dilation": w["dilations"]}
    attributes = {**_spread(rank, numbers), "groups": node.attr("group", 1)}
    return tracer.op(f"conv{rank}d", x, weight, *_bias(node), **attributes)


def _bias(node: Node) -> list[Operand]:
    return [node[2]] if node.has(2) else []


@row("ConvTranspose")
def transposed_convolution(tracer: Tracer, node: Node) -> Operand:
    """Emit a transposed convolution, cut where the border is not the same on both sides."""
    x = node.traced(0)
    rank, weight = _ranked(node, x), node[1]
    kernel = weight.shape[2:]
    node.needs("auto_pad", "NOTSET", "VALID")
    if node.attr("output_shape"):
        raise Unsupported("output_shape is given: expected pads")
    w = _windows(node, x.shape[2:], kernel)
    extra = list(node.attr("output_padding") or [0] * rank)
    numbers = {"stride": w["strides"], "dilation": w["dilations"], "output_padding": extra}
    is_even = w["before"] == w["after"]
    numbers["padding"] = w["before"] if is_even else [0] * rank
    attributes = {**_spread(rank, numbers), "groups": node.attr("group", 1)}
    y = tracer.op(f"conv_transpose{rank}d", x, weight, *_bias(node), **attributes)
    if is_even:
        return y
    sides = zip(w["before"], w["after"], strict=True)
    return tracer.pad(y, [(0, 0), (0, 0), *((-before, -after) for before, after in sides)])


@row("MaxPool")
def max_pool(tracer: Tracer, node: Node) -> Outcome:
    """Emit a pooling, after a border of lowest values where its own would not do."""
    x, kernel = node.traced(0), node.attr("kernel_shape")
    _ranked(node, x)
    w = _windows(node, x.shape[2:], kernel)
    if any(d != 1 for d in w["dilations"]):
        raise Unsupported(f"dilations {w['dilations']}: expected 1")
    places = Unavailable("it needs the places of a MaxPool")
    if _fits(w, kernel):
        return _pooled(tracer, node, x, "max", w), places
    x = tracer.pad(x, _pairs(w), _LOWEST)
    return _pooled(tracer, node, x, "max", _without_borders(w)), places


def _fits(w: dict[str, list[int]], kernel: Sequence[int]) -> bool:
    """Tell whether the operation's own borders do: alike, and at most half a kernel."""
    return w["before"] == w["after"] and all(
        2 * b <= k for b, k in zip(w["before"], kernel, strict=True)
    )


def _pairs(w: dict[str, list[int]]) -> list[tuple[int, int]]:
    return [(0, 0), (0, 0), *zip(w["before"], w["after"], strict=True)]


def _without_borders(w: dict[str, list[int]]) -> dict[str, list[int]]:
    return w | {"before": [0] * len(w["before"]), "after": [0] * len(w["after"])}


def _pooled(
    tracer: Tracer, node: Node, x: Traced, kind: str, w: dict[str, list[int]], **more: Any
) -> Traced:
    kernel = node.attr("kernel_shape")
    usual = [0] * len(kernel)  # steps as long as the kernel
    strides = usual if list(kernel) == w["strides"] else w["strides"]
    numbers = {"kernel": kernel, "stride": strides, "padding": w["before"]}
    attributes = _spread(len(kernel), numbers) | more
    ceil = bool(node.attr("ceil_mode", 0))
    return tracer.op(f"{kind}_pool{len(kernel)}d", x, ceil=ceil, **attributes)


@row("AveragePool")
def average_pool(tracer: Tracer, node: Node) -> Operand:
    """Emit a pooling, after a border of zeros where its own would not do."""
    x, kernel = node.traced(0), node.attr("kernel_shape")
    _ranked(node, x)
    w = _windows(node, x.shape[2:], kernel)
    if any(d != 1 for d in w["dilations"]):
        raise Unsupported(f"dilations {w['dilations']}: expected 1")
    counts = bool(node.attr("count_include_pad", 0))
    if _fits(w, kernel):
        return _pooled(tracer, node, x, "avg", w, count_padding=counts)
    if node.attr("ceil_mode", 0):
        raise Unsupported("ceil_mode with borders that are not alike")
    bare = _without_borders(w)
    y = _pooled(tracer, node, tracer.pad(x, _pairs(w)), "avg", bare, count_padding=True)
    if counts:
        return y
    covered = [
        _covered(x.shape[2 + i], kernel[i], w["strides"][i], w["before"][i], y.shape[2 + i])
        for i in range(len(kernel))
    ]
    shares = covered[0] if len(kernel) == 1 else covered[0][:, None] * covered[1]
    return tracer.op("div", y, Constant((shares / math.prod(kernel)).astype(np.float32)))


def _covered(size: int, kernel: int, stride: int, before: int, outputs: int) -> Any:
    """Return for each window how many of its places lie inside of the input."""
    starts = np.arange(outputs) * stride - before
    return np.minimum(starts + kernel, size) - np.maximum(starts, 0)


@row("GlobalAveragePool", "GlobalMaxPool")
def global_pool(tracer: Tracer, node: Node) -> Operand:
    """Emit one reduction for each axis after the channels."""
    op = "mean" if node.operator == "GlobalAveragePool" else "max"
    x = node.traced(0)
    return reduce_axes(tracer, x, op, range(2, len(x.shape)), True)


@row("Resize")
def resize(tracer: Tracer, node: Node) -> Operand:
    """Emit the nearest value or a linear mean."""
    x = node.traced(0)
    sizes = _new_sizes(tracer, node, x)
    if tuple(sizes) == x.shape[2:]:
        return x
    mode, way = (
        node.attr("mode", "nearest"),
        node.attr("coordinate_transformation_mode", "half_pixel"),
    )
    node.needs("antialias", 0)
    node.needs("exclude_outside", 0)
    if mode == "linear":
        node.needs("coordinate_transformation_mode", "half_pixel", *_LINEAR)
        corners = way == "align_corners"
        return tracer.op("upsample_linear", x, size=tuple(sizes), corners=corners)
    node.needs("mode", "nearest", "linear")
    is_multiple = all(n % old == 0 for n, old in zip(sizes, x.shape[2:], strict=True))
    rounding = node.attr("nearest_mode", "round_prefer_floor")
    is_simple = (way, rounding) == ("asymmetric", "floor")
    if not is_simple and not (is_multiple and (way, rounding) in _LIKE_FLOOR):
        raise Unsupported(f"{way} with {rounding}: expected asymmetric with floor")
    return tracer.op("upsample_nearest", x, size=tuple(sizes))


_LINEAR = ("pytorch_half_pixel", "align_corners")
_LIKE_FLOOR = (("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"))


def _new_sizes(tracer: Tracer, node: Node, x: Traced) -> list[int]:
    """Return the sizes of the axes after the channels."""
    scales = node.constant(2, "the scales").tolist() if node.has(2) else []
    sizes = node.ints(3, "the sizes") if node.has(3) else []
    axes = node.attr("axes")
    rank = len(x.shape)
    full = list(x.shape)
    places = [axis % rank for axis in axes] if axes else list(range(rank))
    for place, value in zip(places, scales or sizes, strict=True):
        if place < 2:
            if value not in ((1,) if scales else (1, x.shape[place])):
                raise Unsupported("it resizes the batch or the channels")
            continue
        full[place] = math.floor(x.shape[place] * value) if scales else int(value)
        if scales and abs(full[place] / x.shape[place] - value) > 1e-6:
            raise Unsupported(f"a scale of {value:g} gives no whole size")
    return full[2:]


# ---- normalizations ----


@row("Softmax", "LogSoftmax")
def softmax(tracer: Tracer, node: Node) -> Operand:
    """Emit ``softmax`` or its logarithm."""
    op = "softmax" if node.operator == "Softmax" else "log_softmax"
    return tracer.op(op, node[0], axis=tracer.check_axis(node[0], node.attr("axis", -1), "it is"))


@row("BatchNormalization")
def batch_norm(tracer: Tracer, node: Node) -> Outcome:
    """Emit ``batch_norm`` with running values."""
    node.needs("training_mode", 0)
    x, gains, running = node.traced(0), [node[1], node[2]], [node[3], node[4]]
    held = [Constant(c.array) if isinstance(c, Constant) else c for c in running]
    y = tracer.op("batch_norm", x, *gains, *held, eps=node.attr("epsilon", 1e-5))
    return y, *[Unavailable("it needs the running values of a BatchNormalization")] * 2


@row("InstanceNormalization")
def instance_norm(tracer: Tracer, node: Node) -> Operand:
    """Emit ``group_norm`` with one group for each channel."""
    x = node.traced(0)
    eps = node.attr("epsilon", 1e-5)
    return tracer.op("group_norm", x, node[1], node[2], groups=x.shape[1], eps=eps)


@row("GroupNormalization", since=18)
def group_norm_by_group(tracer: Tracer, node: Node) -> Operand:
    """Emit ``group_norm``; there is a gain for each group."""
    return _group_norm(tracer, node, node.traced(0).shape[1] // node.attr("num_groups"))


@row("GroupNormalization", since=21)
def group_norm(tracer: Tracer, node: Node) -> Operand:
    """Emit ``group_norm``; there is a gain for each channel."""
    return _group_norm(tracer, node, 1)


def _group_norm(tracer: Tracer, node: Node, times: int) -> Operand:
    gains = [Constant(np.repeat(node.constant(i, "a gain"), times)) for i in (1, 2)]
    named = [
        c if times > 1 or not isinstance(n := node[i], Constant) else n
        for i, c in zip((1, 2), gains, strict=True)
    ]
    groups, eps = node.attr("num_groups"), node.attr("epsilon", 1e-5)
    return tracer.op("group_norm", node.traced(0), *named, groups=groups, eps=eps)


@row("LayerNormalization", since=17)
def layer_norm(tracer: Tracer, node: Node) -> Outcome:
    """Emit ``layer_norm``, the normalized axes joined to one."""
    x = node.traced(0)
    shape = x.shape
    axis = tracer.check_axis(x, node.attr("axis", -1), "it normalizes")
    width = math.prod(shape[axis:])
    gains = [_flat_row(node[i], shape[axis:], width) for i in (1, 2) if node.has(i)]
    flat = tracer.reshape(x, [*shape[:axis], width])
    y = tracer.op("layer_norm", flat, *gains, eps=node.attr("epsilon", 1e-5))
    rest = [Unavailable("it needs the statistics of a LayerNormalization")] * 2
    return tracer.reshape(y, shape), *rest


def _flat_row(gain: Operand, shape: Sequence[int], width: int) -> Operand:
    """Return a constant gain as a row."""
    if not isinstance(gain, Constant):
        raise Unsupported("a gain depends on the input")
    return gain.with_array(np.broadcast_to(gain.array, shape).reshape(width))


@row("LpNormalization")
def length_norm(tracer: Tracer, node: Node) -> Operand:
    """Emit a division by the length of the rows."""
    axis = tracer.check_axis(node[0], node.attr("axis", -1), "it normalizes")
    x = node[0]
    if node.attr("p", 2) == 1:
        length = tracer.op("sum", tracer.op("abs", x), axis=axis, keepdims=True)
    else:
        total = tracer.op("sum_squares", x, axis=axis, keepdims=True)
        length = tracer.op("sqrt", total)
    return tracer.op("div", x, length)
