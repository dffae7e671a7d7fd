"""Convolutions by themselves."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import planes
from llmbol_core.ml.ops.sliding import Axis
from llmbol_core.ml.plan.rooms import At
from llmbol_core.ml.plan.sliding import several
from llmbol_core.ml.single.draft import Draft, Shape, Shapes, Single
from llmbol_core.native.threads import thread_count

Array = NDArray[Any]

_FEWEST = 4
"""Positions below which vectors of them are too empty."""
_SPACIOUS = 1 << 16
"""Numbers that a sample may take laid out, beside twice as many as it has."""
_DEEPEST = 1 << 18
"""Numbers of a window up to which it is worth it to have a table of them."""
_PART = 64
"""Output channels that a thread takes at a time where several share."""


class _Side:
    """One side of planes: windows along it, and how positions are laid out for them.

    Positions that windows meet with the same part of their kernel, a phase, lie together.
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        taps = [place * axis.dilation for place in range(axis.kernel)]
        self.phases = sorted({tap % axis.stride for tap in taps})
        self.taps = [(self.phases.index(tap % axis.stride), tap // axis.stride) for tap in taps]
        self.length = axis.outputs + max(step for _, step in self.taps)

    @property
    def room(self) -> int:
        """How many positions all phases have."""
        return self.length * len(self.phases)

    def pieces(self) -> list[tuple[int, int, int]]:
        """Return for each phase where its positions go, where the first comes from, how many."""
        found = []
        for phase in self.phases:
            first = max(0, -(-(self.axis.padding - phase) // self.axis.stride))
            source = first * self.axis.stride + phase - self.axis.padding
            most = max(0, -(-(self.axis.length - source) // self.axis.stride))
            found.append((first, source, min(most, self.length - first)))
        return found


def convolve(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a convolution; few positions are left to products of whole windows."""
    x, weight = shapes[:2]
    assert x is not None
    assert weight is not None
    rank = len(weight) - 2
    numbers = [several(attributes[key], rank) for key in ("stride", "padding", "dilation")]
    axes = [Axis(*each) for each in zip(x[2:], weight[2:], *numbers, strict=True)]
    rows, columns = (_Side(axis) for axis in [*[Axis(1, 1, 1, 0, 1)] * (2 - rank), *axes])
    outputs = rows.axis.outputs * columns.axis.outputs
    if outputs < _FEWEST or not math.prod(x) or not math.prod(weight):
        return None
    if x[1] * rows.room * columns.room > _SPACIOUS + 2 * math.prod(x[1:]):
        return None
    if math.prod(weight[1:]) > _DEEPEST:
        return None
    draft = Draft(shapes, x[0], 1, lanes)
    result = (x[0], weight[0], *(axis.outputs for axis in axes))
    out = draft.room(math.prod(result[1:]))
    given, channel, offsets = _given(draft, x[1], rows, columns)
    kernel = _offsets(weight[1], channel, offsets)
    _call(draft, given, out, weight, attributes["groups"], rows, columns, channel, kernel)
    return draft.finish(out, result)


def _given(draft: Draft, channels: int, rows: _Side, columns: _Side) -> tuple[At, int, Array]:
    """Return planes as windows want them, the numbers of a plane, and where those of a window are.

    They are copied unless they lie so.
    """
    width, plane = columns.length, rows.length * columns.length
    offsets = np.array([
        [(r * len(columns.phases) + c) * plane + down * width + across
         for c, across in columns.taps]
        for r, down in rows.taps
    ])  # fmt: skip
    sides, x = (rows.axis, columns.axis), draft.inputs[0]
    assert x is not None
    is_plain = all(not a.padding and a.stride == 1 for a in sides)
    dense = width == columns.axis.outputs or rows.axis.outputs == 1
    # Vectors must not reach over the end of an array that is not ours.
    if is_plain and dense and (rows.axis.outputs * columns.axis.outputs) % draft.lanes == 0:
        return x, plane, offsets
    size = plane * len(rows.phases) * len(columns.phases)
    laid = draft.room(channels * size, is_kept=True)
    pieces = [
        (number * plane + to * width + right, source * columns.axis.length + left, lines, count)
        for number, ((to, source, lines), (right, left, count)) in enumerate(
            product(rows.pieces(), columns.pieces())
        )
        if lines > 0 and count > 0
    ]
    table = draft.emitter.keep(np.array(pieces, np.int64).reshape(-1))
    area = rows.axis.length * columns.axis.length
    draft.call(
        planes.lay_out,
        *(x, laid, channels * area, channels * size, channels, area, size, len(pieces), table),
        *(rows.axis.stride * columns.axis.length, width, columns.axis.stride),
        items=channels,
    )
    return laid, size, offsets


def _offsets(channels: int, channel: int, kernel: Array) -> Array:
    places = np.arange(channels)[:, None] * channel + kernel.reshape(-1)
    return np.ascontiguousarray(places.reshape(-1), np.int64)


def _call(
    draft: Draft, given: At, out: At, weight: Shape, groups: int, rows: _Side, columns: _Side,
    channel: int, offsets: Array,
) -> None:  # fmt: skip
    height, width, pitch = rows.axis.outputs, columns.axis.outputs, columns.length
    total = (height - 1) * pitch + width
    dense = width == pitch or height == 1
    if dense:  # lines do not matter: blocks are as long as they should be
        pitch = width = min(planes.MOST, -(-total // draft.lanes) * draft.lanes)
        height, lines = -(-total // pitch), 1
    else:
        lines = max(1, planes.MOST // pitch)
        lines = -(-height // -(-height // lines))
    blocks = -(-height // lines)
    size = planes.scratch_size(draft.lanes, 0 if dense else lines * pitch)
    channels = weight[0] // groups
    parts = 1 if thread_count() == 1 else max(1, channels // _PART)
    depth = math.prod(weight[1:])
    zeros = draft.emitter.keep(np.zeros(weight[0], np.float32))
    bias = draft.inputs[2] or zeros
    draft.call(
        planes.convolve,
        *(given, draft.inputs[1], bias, out, draft.scratch(size), size),
        *(given.room.size, weight[1] * channel, out.room.size, channels, depth),
        *(draft.emitter.keep(offsets), groups, blocks, parts, lines, height, width, pitch, total),
        int(dense),
        items=groups * blocks * parts,
        flops=total * weight[0] * depth,
    )
