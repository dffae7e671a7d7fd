"""Transposed convolutions: each position adds a kernel to the output, steps apart.

A transposed convolution is the gradient of a convolution along its input: here ``Axis`` describes
the convolution that would lead from the output back to the input.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.convolution import windows_as_rows
from llmbol_core.ml.ops.sliding import Axis, shifts
from llmbol_core.ml.ops.table import Array, Ints, Out, Shape, contiguous, flat_rows, op, sample
from llmbol_core.ml.ops.tiles import product

_NUMBERS = 1 << 22
"""How many numbers of kernels are laid out at a time."""


def _axes(x: Shape, weight: Shape, **attributes: Any) -> list[Axis]:
    """Return the axes of the output, or raise ShapeError if there is none."""
    rank, name = len(weight) - 2, f"conv_transpose{len(weight) - 2}d"
    columns = []
    for key in ("stride", "padding", "output_padding", "dilation"):
        value = attributes[key]
        columns.append((value,) * rank if isinstance(value, int) else value)
        if len(columns[-1]) != rank:
            raise ShapeError(name, f"{key} needs {rank} numbers, not {value}")
    axes = []
    for length, kernel, stride, padding, extra, dilation in zip(
        x[2:], weight[2:], *columns, strict=True
    ):
        if min(stride, dilation, kernel, length) < 1 or min(padding, extra) < 0:
            raise ShapeError(name, "stride, dilation, kernel are at least 1, paddings at least 0")
        if extra >= max(stride, dilation):
            raise ShapeError(name, f"output_padding {extra} is not below stride or dilation")
        positions = (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
        if positions < 1:
            raise ShapeError(name, f"a padding of {padding} leaves nothing of {x}")
        axes.append(Axis(positions, kernel, stride, padding, dilation))
    return axes


def _shape_of(
    rank: int, x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any
) -> Shape:
    name, groups = f"conv_transpose{rank}d", attributes["groups"]
    if len(weight) != rank + 2 or len(x) != rank + 2 or groups < 1 or x[1] != weight[0]:
        why = f"{x} does not fit the weight {weight} in {groups} groups: [N, channels, positions]"
        raise ShapeError(name, why)
    if weight[0] % groups or (bias is not None and bias != (weight[1] * groups,)):
        raise ShapeError(name, f"bias {bias} and {groups} groups do not fit the weight {weight}")
    axes = _axes(x, weight, **attributes)
    return (x[0], weight[1] * groups, *(axis.length for axis in axes))


def _shape1d(x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any) -> Shape:
    return _shape_of(1, x, weight, bias, **attributes)


def _shape2d(x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any) -> Shape:
    return _shape_of(2, x, weight, bias, **attributes)


def _flops(
    output: Shape, x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any
) -> int:
    return 2 * math.prod(x) * math.prod(weight[1:]) + (bias is not None) * math.prod(output)


def _spread(x: Array, weight: Array, bias: Array | None, out: Out, **attributes: Any) -> Array:
    groups, axes = attributes["groups"], _axes(x.shape, weight.shape, **attributes)
    inside, outside = weight.shape[0] // groups, weight.shape[1]
    output = np.zeros((len(x), *(axis.length for axis in axes), outside * groups), x.dtype)
    last, box = np.moveaxis(x, 1, -1), [(0, n) for n in x.shape[2:]]
    step = max(1, _NUMBERS // max(1, math.prod(x.shape[2:]) * math.prod(weight.shape[1:])))
    for group in range(groups):
        source = slice(group * inside, (group + 1) * inside)
        target = slice(group * outside, (group + 1) * outside)
        matrix = weight[source].reshape(inside, math.prod(weight.shape[1:]))
        for start in range(0, len(x), step):
            part = last[start : start + step, ..., source]
            rows = part.reshape(math.prod(part.shape[:-1]), inside)
            kernels = product(rows, matrix).reshape(*part.shape[:-1], *weight.shape[1:])
            place = output[start : start + step, ..., target]
            for at, windows, sources in shifts(axes, box):
                place[(slice(None), *sources)] += kernels[(slice(None), *windows, slice(None), *at)]
    if bias is not None:
        output += bias
    return contiguous(np.moveaxis(output, -1, 1), out)


def _gradient(
    g: Array, y: Array, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
) -> tuple[Array, Array, Array | None]:
    groups, axes = attributes["groups"], _axes(x.shape, weight.shape, **attributes)
    inside, outside = weight.shape[0] // groups, weight.shape[1]
    box = [(0, n) for n in x.shape[2:]]
    last = np.moveaxis(g, 1, -1)
    along_x, along_weight = np.empty_like(x), np.empty_like(weight)
    for group in range(groups):
        source = slice(group * inside, (group + 1) * inside)
        target = slice(group * outside, (group + 1) * outside)
        matrix = weight[source].reshape(inside, math.prod(weight.shape[1:]))
        rows = np.moveaxis(x[:, source], 1, -1)
        flat = flat_rows(rows)
        columns = windows_as_rows(last[..., target], axes, box).reshape(len(flat), matrix.shape[1])
        along_x[:, source] = np.moveaxis((columns @ matrix.T).reshape(rows.shape), -1, 1)
        products = flat.T @ columns
        along_weight[source] = products.reshape(weight[source].shape)
    along_bias = None if bias is None else g.sum(axis=(0, *range(2, g.ndim)))
    return along_x, along_weight, along_bias


_EXAMPLE1D = sample((2, 4, 5), (4, 3, 3), (6,), stride=2, padding=1, output_padding=1, groups=2)
_EXAMPLE2D = sample(
    (2, 4, 3, 4), (4, 3, 3, 2), (6,), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
)


@op(_shape1d, _flops, _EXAMPLE1D, _gradient)
def conv_transpose1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    out: Out = None,
) -> Array:
    """Add a kernel [in, out / groups, K] for each position of [N, in, length], steps apart."""
    numbers = {"stride": stride, "padding": padding, "output_padding": output_padding}
    return _spread(x, weight, bias, out, **numbers, dilation=dilation, groups=groups)


@op(_shape2d, _flops, _EXAMPLE2D, _gradient)
def conv_transpose2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = (1, 1),
    padding: Ints = (0, 0),
    output_padding: Ints = (0, 0),
    dilation: Ints = (1, 1),
    groups: int = 1,
    out: Out = None,
) -> Array:
    """Add a kernel [in, out / groups, KH, KW] for each position of [N, in, height, width]."""
    numbers = {"stride": stride, "padding": padding, "output_padding": output_padding}
    return _spread(x, weight, bias, out, **numbers, dilation=dilation, groups=groups)
