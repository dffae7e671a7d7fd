"""Transposed convolutions by themselves: one convolution for each phase of the output.

For an output position Y, counted with the padding, Y mod stride tells which taps of a kernel meet
it: those whose distance has the same remainder. So each phase is a convolution with stride 1,
and their results are interleaved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import planes
from llmbol_core.ml.plan.packing import aligned
from llmbol_core.ml.plan.rooms import At
from llmbol_core.ml.plan.sliding import several
from llmbol_core.ml.single.convolution import cut, emit
from llmbol_core.ml.single.draft import Draft, Input, Shape, Shapes, Single

Array = NDArray[Any]

_MOST_PHASES = 64
_SPACIOUS = 1 << 16
"""Numbers that a sample may take with its border, beside twice as many as it has."""
_LARGEST = 1 << 20
"""Numbers of a weight up to which a table of them pays."""


@dataclass(frozen=True)
class _Phase:
    """Some outputs of a side: the first, how many; where windows begin; which taps meet them."""

    first: int
    count: int
    start: int
    taps: tuple[tuple[int, int], ...]
    """Numbers of a kernel, each with how many positions before the window's own it lies."""


@dataclass(frozen=True)
class _Side:
    """One side: lengths of input and output, kernel, stride, padding, dilation."""

    length: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def border(self) -> int:
        """How many positions before the first one a window may begin."""
        return (self.kernel - 1) * self.dilation // self.stride

    @property
    def room(self) -> int:
        """How many positions there are with borders."""
        return self.border + (self.outputs - 1 + self.padding) // self.stride + 1

    def phases(self) -> list[_Phase]:
        """Return all phases that have outputs."""
        found = []
        for rest in range(self.stride):
            first = (rest - self.padding) % self.stride
            count = -(-(self.outputs - first) // self.stride)
            far = [(k, k * self.dilation) for k in range(self.kernel)]
            taps = tuple((k, n // self.stride) for k, n in far if n % self.stride == rest)
            if count > 0:
                start = (first + self.padding) // self.stride
                found.append(_Phase(first, count, start, taps))
        return found


def convolve(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a transposed convolution."""
    x, weight = shapes[:2]
    assert x is not None
    assert weight is not None
    rank, groups = len(weight) - 2, attributes["groups"]
    keys = ("stride", "padding", "dilation", "output_padding")
    numbers = [several(attributes[key], rank) for key in keys]
    sides = [
        _Side(n, (n - 1) * s - 2 * p + d * (k - 1) + extra + 1, k, s, p, d)
        for n, k, s, p, d, extra in zip(x[2:], weight[2:], *numbers, strict=True)
    ]
    rows, columns = [_Side(1, 1, 1, 1, 0, 1)] * (2 - rank) + sides
    if not math.prod(x) or not math.prod(weight) or math.prod(weight) > _LARGEST:
        return None
    if rows.stride * columns.stride > _MOST_PHASES:
        return None
    if x[1] * rows.room * columns.room > _SPACIOUS + 2 * math.prod(x[1:]):
        return None
    result = (x[0], weight[1] * groups, *(side.outputs for side in sides))
    draft = Draft(shapes, x[0], 1, lanes)
    out = draft.room(math.prod(result[1:]))
    given = _bordered(draft, x[1], rows, columns)
    for pair in product(rows.phases(), columns.phases()):
        _emit(draft, given, out, weight, groups, (rows, columns), pair)
    return draft.finish(out, result)


def _bordered(draft: Draft, channels: int, rows: _Side, columns: _Side) -> At:
    """Return planes with borders of zeros."""
    x, plane = draft.inputs[0], rows.room * columns.room
    assert x is not None
    laid = draft.room(channels * plane, is_kept=True)
    lines, width = (min(s.length, s.room - s.border) for s in (rows, columns))
    place = rows.border * columns.room + columns.border
    table = draft.emitter.keep(np.array([place, 0, lines, width], np.int64))
    area = rows.length * columns.length
    draft.call(
        planes.lay_out,
        *(x, laid, channels * area, laid.room.size, channels, area, plane, 1, table),
        *(columns.length, columns.room, 1),
        items=channels,
    )
    return laid


def _emit(
    draft: Draft, given: At, out: At, weight: Shape, groups: int, sides: tuple[_Side, _Side],
    pair: tuple[_Phase, _Phase],
) -> None:  # fmt: skip
    """Emit the convolution of a phase, and what puts it where it belongs."""
    (rows, columns), (down, across) = sides, pair
    inside, outside = weight[0] // groups, weight[1]
    pitch, plane = columns.room, rows.room * columns.room
    taps = [(i * math.prod(weight[3:]) + j, (rows.border - m) * pitch + columns.border - n)
            for i, m in down.taps for j, n in across.taps]  # fmt: skip
    places = np.array([place for place, _ in taps], np.int64)
    offsets = np.array([offset for _, offset in taps], np.int64)
    offsets = (np.arange(inside)[:, None] * plane + offsets).reshape(-1)
    numbers = np.arange(math.prod(weight[:2])).reshape(groups, inside, outside).swapaxes(1, 2)
    table = (numbers[..., None] * math.prod(weight[2:]) + places).reshape(-1)
    packed = aligned(table.size)
    draft.kept(packed)
    draft.pack(planes.gather, table.size, Input(1), packed, draft.emitter.keep(table))
    zeros = draft.emitter.keep(np.zeros(outside * groups, np.float32))
    window = At(given.room, down.start * pitch + across.start)
    is_whole = rows.stride == columns.stride == 1
    made = out if is_whole else draft.room(outside * groups * down.count * across.count)
    emit(
        draft, window, (packed, draft.inputs[2] or zeros), made,
        (inside * plane, outside, len(offsets), groups), draft.emitter.keep(offsets),
        cut(draft.lanes, down.count, across.count, pitch),
    )  # fmt: skip
    if not is_whole:
        draft.call(
            planes.weave,
            *(made, out, made.room.size, out.room.size, outside * groups),
            *(rows.outputs * columns.outputs, down.count, across.count),
            *(down.first * columns.outputs + across.first, rows.stride * columns.outputs),
            columns.stride,
            items=outside * groups,
        )
