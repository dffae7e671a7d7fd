"""Convolutions: windows are laid out as rows, some at a time, and multiplied with the kernels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.sliding import Axis, Box, shifts
from llmbol_core.ml.ops.table import Array, Ints, Out, Shape, flat_rows, op, sample
from llmbol_core.ml.ops.tiles import product_with_columns

_WINDOWS = 1 << 20
"""How many numbers of windows are laid out at a time."""


def _axes(x: Shape, weight: Shape, **attributes: Any) -> list[Axis]:
    """Return the axes of a convolution, or raise ShapeError if a kernel does not fit."""
    rank, name = len(weight) - 2, f"conv{len(weight) - 2}d"
    columns = []
    for key in ("stride", "padding", "dilation"):
        value = attributes[key]
        columns.append((value,) * rank if isinstance(value, int) else value)
        if len(columns[-1]) != rank:
            raise ShapeError(name, f"{key} needs {rank} numbers, not {value}")
    axes = [Axis(*numbers) for numbers in zip(x[2:], weight[2:], *columns, strict=True)]
    for axis in axes:
        if min(axis.stride, axis.dilation, axis.kernel) < 1 or axis.padding < 0:
            raise ShapeError(name, "stride, dilation, kernel are at least 1, padding at least 0")
        if axis.outputs < 1:
            raise ShapeError(name, f"a kernel of {weight[2:]} does not fit into {x}")
    return axes


def _conv_shape(x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any) -> Shape:
    rank, groups = len(weight) - 2, attributes["groups"]
    name = f"conv{rank}d"
    if rank < 1 or len(x) != rank + 2 or groups < 1 or x[1] != weight[1] * groups:
        why = f"{x} does not fit the weight {weight} in {groups} groups: [N, channels, positions]"
        raise ShapeError(name, why)
    if weight[0] % groups or (bias is not None and bias != weight[:1]):
        raise ShapeError(name, f"bias {bias} and {groups} groups do not fit the weight {weight}")
    return (x[0], weight[0], *(axis.outputs for axis in _axes(x, weight, **attributes)))


def _conv1d_shape(x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any) -> Shape:
    if len(weight) != 3:
        raise ShapeError("conv1d", f"the weight must be [out, in / groups, K], not {weight}")
    return _conv_shape(x, weight, bias, **attributes)


def _conv2d_shape(x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any) -> Shape:
    if len(weight) != 4:
        raise ShapeError("conv2d", f"the weight must be [out, in / groups, KH, KW], not {weight}")
    return _conv_shape(x, weight, bias, **attributes)


def _conv_flops(
    output: Shape, x: Shape, weight: Shape, bias: Shape | None = None, **attributes: Any
) -> int:
    return math.prod(output) * (2 * math.prod(weight[1:]) + (bias is not None))


def _blocks(counts: Shape, limit: int) -> Iterator[Box]:
    """Yield boxes of at most so many cells (at least one) that cover a grid, in order."""
    sides = []
    for count in reversed(counts):
        sides.append(max(1, min(count, limit)))
        limit = limit // sides[-1] if sides[-1] == count else 1
    ranges = zip(counts, reversed(sides), strict=True)
    steps = [[(i, min(i + side, n)) for i in range(0, n, side)] for n, side in ranges]
    for box in itertools.product(*steps):
        yield list(box)


def windows_as_rows(x: Array, axes: list[Axis], box: Box) -> Array:
    """Return the windows of a box as [N, windows, C, kernel positions], x as [N, positions, C]."""
    counts = [stop - start for start, stop in box]
    kernel = [axis.kernel for axis in axes]
    columns = np.zeros((len(x), *counts, x.shape[-1], *kernel), x.dtype)
    for place, windows, sources in shifts(axes, box):
        columns[(slice(None), *windows, slice(None), *place)] = x[(slice(None), *sources)]
    return columns


def _windows_as_columns(x: Array, axes: list[Axis], box: Box) -> Array:
    """Return the windows of a box as [C, kernel positions, N, windows], x as [C, N, positions]."""
    counts = [stop - start for start, stop in box]
    kernel = [axis.kernel for axis in axes]
    columns = np.zeros((len(x), *kernel, x.shape[1], *counts), x.dtype)
    for place, windows, sources in shifts(axes, box):
        columns[(slice(None), *place, slice(None), *windows)] = x[(slice(None),) * 2 + sources]
    return columns


def _convolve(x: Array, weight: Array, bias: Array | None, out: Out, **attributes: Any) -> Array:
    groups, axes = attributes["groups"], _axes(x.shape, weight.shape, **attributes)
    counts = tuple(axis.outputs for axis in axes)
    output = np.empty((len(x), len(weight), *counts), x.dtype) if out is None else out
    first = x.swapaxes(0, 1)
    for group in range(groups):
        made = slice(group * len(weight) // groups, (group + 1) * len(weight) // groups)
        channels = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        matrix = weight[made].reshape(made.stop - made.start, math.prod(weight.shape[1:]))
        limit = max(1, _WINDOWS // max(1, matrix.shape[1]))
        for (start, stop), *box in _blocks((len(x), *counts), limit):
            columns = _windows_as_columns(first[channels, start:stop], axes, box)
            width = math.prod(columns.shape[1 + len(axes) :])
            products = product_with_columns(matrix, columns.reshape(matrix.shape[1], width))
            shape = (len(matrix), stop - start, *(end - begin for begin, end in box))
            place = (slice(start, stop), made, *(slice(*ends) for ends in box))
            output[place] = products.reshape(shape).swapaxes(0, 1)
    if bias is not None:
        output += bias.reshape(-1, *(1,) * len(axes))
    return output


def _conv_gradient(
    g: Array, y: Array, x: Array, weight: Array, bias: Array | None = None, **attributes: Any
) -> tuple[Array, Array, Array | None]:
    groups, axes = attributes["groups"], _axes(x.shape, weight.shape, **attributes)
    box = [(0, axis.outputs) for axis in axes]
    last, along_last = np.moveaxis(x, 1, -1), np.zeros_like(np.moveaxis(x, 1, -1))
    along_weight = np.empty_like(weight)
    for group in range(groups):
        out = slice(group * len(weight) // groups, (group + 1) * len(weight) // groups)
        channels = slice(group * weight.shape[1], (group + 1) * weight.shape[1])
        matrix = weight[out].reshape(out.stop - out.start, math.prod(weight.shape[1:]))
        columns = windows_as_rows(last[..., channels], axes, box)
        rows = flat_rows(np.moveaxis(g[:, out], 1, -1))
        products = rows.T @ columns.reshape(len(rows), matrix.shape[1])
        along_weight[out] = products.reshape(weight[out].shape)
        spread = (rows @ matrix).reshape(columns.shape)
        for place, windows, sources in shifts(axes, box):
            part = spread[(slice(None), *windows, slice(None), *place)]
            along_last[(slice(None), *sources, channels)] += part
    along_bias = None if bias is None else g.sum(axis=(0, *range(2, g.ndim)))
    return np.moveaxis(along_last, -1, 1), along_weight, along_bias


_CONV1D = sample((2, 4, 9), (6, 2, 3), (6,), stride=2, padding=1, dilation=2, groups=2)
_CONV2D = sample(
    (2, 4, 7, 8), (6, 2, 3, 2), (6,), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2
)


@op(_conv1d_shape, _conv_flops, _CONV1D, _conv_gradient)
def conv1d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    out: Out = None,
) -> Array:
    """Slide kernels [out, in / groups, K] over [N, in, length], zeros at the borders."""
    return _convolve(
        x, weight, bias, out, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@op(_conv2d_shape, _conv_flops, _CONV2D, _conv_gradient)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: Ints = (1, 1),
    padding: Ints = (0, 0),
    dilation: Ints = (1, 1),
    groups: int = 1,
    out: Out = None,
) -> Array:
    """Slide kernels [out, in / groups, KH, KW] over [N, in, height, width], zeros at borders."""
    return _convolve(
        x, weight, bias, out, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
