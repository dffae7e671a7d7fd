"""Importers of operators that move values, and that reduce along axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from llmbol_core.nn.onnx.arithmetic import constant
from llmbol_core.nn.onnx.importers import Outcome, row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Constant, Operand, Traced, Unavailable, Unsupported
from llmbol_core.nn.onnx.tracing import Tracer


@row("Identity")
def identity(tracer: Tracer, node: Node) -> Operand:
    """Emit nothing."""
    return node[0]


@row("Dropout")
def dropout(tracer: Tracer, node: Node) -> Outcome:
    """Emit nothing: an imported model is evaluated."""
    return node[0], Unavailable("it needs the mask of a Dropout")


@row("Reshape")
def reshape(tracer: Tracer, node: Node) -> Operand:
    """Emit a reshape to the shape that the second operand gives."""
    x, target = node.traced(0), node.ints(1, "the shape")
    if not node.attr("allowzero", 0):
        target = [x.shape[i] if n == 0 and i < len(x.shape) else n for i, n in enumerate(target)]
    return tracer.reshape(x, target)


@row("Flatten")
def flatten(tracer: Tracer, node: Node) -> Operand:
    """Emit a reshape to two axes."""
    x = node.traced(0)
    axis = node.attr("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return tracer.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


@row("Transpose")
def transpose(tracer: Tracer, node: Node) -> Operand:
    """Emit a permutation of the axes."""
    x = node.traced(0)
    return tracer.permute(x, node.attr("perm") or range(len(x.shape))[::-1])


@row("Squeeze")
def squeeze(tracer: Tracer, node: Node) -> Operand:
    """Emit one step for each axis."""
    x = node.traced(0)
    if not node.has(1) and node.attr("axes") is None:
        axes = [i for i, n in enumerate(x.shape) if n == 1]
    else:
        axes = node.axes(len(x.shape))
    for axis in reversed(axes):
        x = tracer.squeeze(x, axis)
    return x


@row("Unsqueeze")
def unsqueeze(tracer: Tracer, node: Node) -> Operand:
    """Emit one step for each axis."""
    x = node.traced(0)
    given = node.attr("axes") if node.attr("axes") is not None else node.ints(1, "axes")
    rank = len(x.shape) + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = tracer.op("unsqueeze", x, axis=axis, whole=x.whole)
    return x


@row("Concat")
def concat(tracer: Tracer, node: Node) -> Operand:
    """Emit one step for each operand but the first; constants are repeated for each sample."""
    operands = [tracer.numbers(x) for x in node.given()]
    like = next(x for x in operands if isinstance(x, Traced))
    axis = tracer.check_axis(like, node.attr("axis"), "it joins along")
    batch = tracer.batch_axis(like)
    ready: list[Operand] = []
    for x in operands:
        if isinstance(x, Constant) and batch is not None:
            kept = tracer.unbatched(x, batch)
            x = tracer.repeated(kept, like) if kept.shape[batch] == 1 else kept
        if math.prod(x.shape):
            ready.append(x)
    return tracer.chain("concat", ready, axis=axis)


@row("Split")
def split(tracer: Tracer, node: Node) -> Outcome:
    """Emit a slice for each output."""
    x = node.traced(0)
    axis = tracer.check_axis(x, node.attr("axis", 0), "it splits")
    size = x.shape[axis]
    if node.has(1):
        sizes = node.ints(1, "split")
    else:
        count = node.attr("num_outputs", len(node.outputs))
        step = -(-size // count)
        sizes = [min(step, size - start) for start in range(0, size, step)]
    if sum(sizes) != size or len(sizes) != len(node.outputs):
        raise Unsupported(f"parts of {sizes} for {len(node.outputs)} outputs of {size}")
    ends = np.cumsum(sizes).tolist()
    return tuple(
        tracer.part(x, axis, end - n, end) if n else Unavailable("it needs an empty part")
        for end, n in zip(ends, sizes, strict=True)
    )


@row("Slice")
def cut(tracer: Tracer, node: Node) -> Operand:
    """Emit a slice for each axis; backwards ones pick."""
    x = node.traced(0)
    starts, ends = node.ints(1, "starts"), node.ints(2, "ends")
    axes = node.ints(3, "axes") if node.has(3) else list(range(len(starts)))
    steps = node.ints(4, "steps") if node.has(4) else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= len(x.shape)
        places = range(x.shape[axis])[slice(start, end, step)]
        if len(places) == x.shape[axis] and step == 1:
            continue
        tracer.check_axis(x, axis, "it cuts")
        if not places:
            raise Unsupported(f"nothing is left of axis {axis}")
        if step > 0:
            x = tracer.part(x, axis, places[0], places[-1] + 1, step)
        else:
            x = tracer.take(x, axis, places)
    return x


@row("Expand")
def expand(tracer: Tracer, node: Node) -> Operand:
    """Emit repetitions where the shape asks for more than is there."""
    x, target = node.traced(0), tracer.beside(node.ints(1, "the shape"), node.traced(0))
    wanted = list(np.broadcast_shapes(x.shape, tuple(target)))
    while len(x.shape) < len(wanted):
        x = tracer.op("unsqueeze", x, axis=0, whole=x.whole)
    return _repeated(tracer, x, [1 if n == h else n for n, h in zip(wanted, x.shape, strict=True)])


@row("Tile")
def tile(tracer: Tracer, node: Node) -> Operand:
    """Emit one repetition for each axis."""
    return _repeated(tracer, node.traced(0), node.ints(1, "the repeats"))


def _repeated(tracer: Tracer, x: Traced, times: Sequence[int]) -> Traced:
    for axis, count in enumerate(times):
        if tracer.is_batched(count):
            raise Unsupported("it repeats a value for each sample of the batch")
        if count != 1:
            axis = tracer.check_axis(x, axis, "it repeats")
            x = tracer.op("repeat", x, axis=axis, times=count, whole=x.whole)
    return x


@row("Pad")
def pad(tracer: Tracer, node: Node) -> Operand:
    """Emit borders for each axis."""
    x, widths = node.traced(0), node.ints(1, "the widths")
    axes = node.ints(3, "axes") if node.has(3) else list(range(len(x.shape)))
    mode = node.attr("mode", "constant")
    sides = {axis % len(x.shape): widths[i :: len(axes)] for i, axis in enumerate(axes)}
    if mode == "constant":
        value = node.scalar(2, 0.0, "the value")
        pairs = [tuple(sides.get(axis, (0, 0))) for axis in range(len(x.shape))]
        limit = float(np.finfo(np.float32).max)
        return tracer.pad(x, pairs, max(-limit, min(limit, value)))  # type: ignore[arg-type]  # pairs have two members
    modes = {"reflect": "pad_reflect", "edge": "pad_replicate", "wrap": "pad_circular"}
    node.needs("mode", *modes)
    for axis, (before, after) in sides.items():
        if before or after:
            tracer.check_axis(x, axis, "it pads")
            x = tracer.op(modes[mode], x, axis=axis, before=before, after=after, whole=x.whole)
    return x


@row("DepthToSpace")
def depth_to_space(tracer: Tracer, node: Node) -> Operand:
    """Emit reshape, permute, reshape."""
    x, b = node.traced(0), node.attr("blocksize")
    n, c, h, w = x.shape
    node.needs("mode", "DCR", "CRD")
    if node.attr("mode", "DCR") == "DCR":
        parts, order = [n, b, b, c // b**2, h, w], (0, 3, 4, 1, 5, 2)
    else:
        parts, order = [n, c // b**2, b, b, h, w], (0, 1, 4, 2, 5, 3)
    y = tracer.permute(tracer.reshape(x, parts), order)
    return tracer.reshape(y, [n, c // b**2, h * b, w * b])


@row("SpaceToDepth")
def space_to_depth(tracer: Tracer, node: Node) -> Operand:
    """Emit reshape, permute, reshape."""
    x, b = node.traced(0), node.attr("blocksize")
    n, c, h, w = x.shape
    y = tracer.permute(tracer.reshape(x, [n, c, h // b, b, w // b, b]), (0, 3, 5, 1, 2, 4))
    return tracer.reshape(y, [n, c * b * b, h // b, w // b])


@row("Trilu", since=14)
def triangle(tracer: Tracer, node: Node) -> Operand:
    """Emit a choice between the values and 0."""
    x = node.traced(0)
    rows = tracer.check_axis(x, -2, "it cuts")
    ones = np.ones((x.shape[rows], x.shape[-1]), np.int8)
    diagonal = int(node.scalar(1, 0, "k"))
    kept = np.triu(ones, diagonal) if node.attr("upper", 1) else np.tril(ones, diagonal)
    return tracer.op("where", Constant(kept), x, constant(0.0), whole=x.whole)


# ---- reductions ----


@row(
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare", "ReduceL1"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
)
def reduction(tracer: Tracer, node: Node) -> Operand:
    """Emit one reduction for each axis, with what comes before and after."""
    x = node[0]
    named = node.attr("axes") is not None or (node.has(1) and bool(len(node.ints(1, "axes"))))
    if not named and node.attr("noop_with_empty_axes", 0):
        return x
    axes = node.axes(len(x.shape))
    keeps = bool(node.attr("keepdims", 1))
    kind = node.operator.removeprefix("Reduce")
    if kind == "LogSumExp":
        return _log_sum_exp(tracer, x, axes, keeps)
    before = {"SumSquare": "square", "L1": "abs", "L2": "square"}
    after = {"L2": "sqrt", "LogSum": "log"}
    op = {"Mean": "mean", "Max": "max", "Min": "min"}.get(kind, "sum")
    if kind in before:
        x = tracer.op(before[kind], x, whole=x.whole)
    x = reduce_axes(tracer, x, op, axes, keeps)
    return tracer.op(after[kind], x) if kind in after else x


def reduce_axes(tracer: Tracer, x: Any, op: str, axes: Sequence[int], keeps: bool) -> Traced:
    """Emit one reduction for each axis, the last one first."""
    for axis in sorted(axes, reverse=True):
        tracer.check_axis(x, axis, "it reduces")
        x = tracer.op(op, x, axis=axis, keepdims=keeps, whole=x.whole and op != "mean")
    return x  # type: ignore[no-any-return]  # there is at least one axis


def _log_sum_exp(tracer: Tracer, x: Operand, axes: Sequence[int], keeps: bool) -> Operand:
    """Emit max + log(sum(exp(x - max)))."""
    top = reduce_axes(tracer, x, "max", axes, True)
    total = reduce_axes(tracer, tracer.op("exp", tracer.op("sub", x, top)), "sum", axes, True)
    y: Traced = tracer.op("add", tracer.op("log", total), top)
    for axis in sorted(axes, reverse=True) if not keeps else ():
        y = tracer.squeeze(y, axis)
    return y


@row("ArgMax", "ArgMin")
def place(tracer: Tracer, node: Node) -> Operand:
    """Emit the place of the first extreme."""
    node.needs("select_last_index", 0)
    axis = tracer.check_axis(node[0], node.attr("axis", 0), "it searches")
    keeps = bool(node.attr("keepdims", 1))
    return tracer.op(node.operator.lower(), node[0], axis=axis, keepdims=keeps, whole=True)


@row("CumSum")
def running_sum(tracer: Tracer, node: Node) -> Operand:
    """Emit running sums."""
    node.needs("exclusive", 0)
    node.needs("reverse", 0)
    axis = tracer.check_axis(node[0], int(node.scalar(1, 0, "the axis")), "it sums along")
    return tracer.op("cumsum", node[0], axis=axis, whole=node[0].whole)
