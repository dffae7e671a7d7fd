"""Convolutions by themselves: vectors hold neighbouring positions, or of small planes samples.

For planes with few positions, those of many samples are put side by side, which makes lines
as long as those of large planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import planes
from llmbol_core.ml.ops.sliding import Axis
from llmbol_core.ml.plan.rooms import At
from llmbol_core.ml.plan.sliding import several
from llmbol_core.ml.single.draft import Draft, Shapes, Single
from llmbol_core.native.threads import thread_count

Array = NDArray[Any]

_MUCH = 1 << 23
"""Numbers that all samples may take side by side."""
_GAIN = 1.3
"""How much fuller vectors must be for putting samples side by side to pay."""
_SPACIOUS = 1 << 16
"""Numbers that a sample may take laid out, beside twice as many as it has."""
_DEEPEST = 1 << 18
"""Numbers of a window up to which a table of them pays."""
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
    def is_plain(self) -> bool:
        """Whether positions lie as they should."""
        return self.axis.padding == 0 and self.axis.stride == 1

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


@dataclass(frozen=True)
class _Work:
    """What is to be convolved; a position takes ``unit`` numbers, one for each sample in it."""

    draft: Draft
    unit: int
    channels: int
    weight: tuple[int, ...]
    groups: int
    rows: _Side
    columns: _Side

    @property
    def outputs(self) -> int:
        """How many positions the result has."""
        return self.rows.axis.outputs * self.columns.axis.outputs

    @property
    def is_dense(self) -> bool:
        """Whether there is nothing between the lines of windows."""
        return self.rows.axis.outputs == 1 or self.columns.length == self.columns.axis.outputs

    def given(self, x: At) -> At:
        """Return planes as windows want them: copied unless they lie so."""
        plain = self.rows.is_plain and self.columns.is_plain
        # Vectors must not reach over the end of an array that is not ours.
        if plain and (x.room.external is None or self._ends_with_vectors()):
            return x
        rows, columns, draft, unit = self.rows, self.columns, self.draft, self.unit
        laid = draft.room(self.channels * self.size, is_kept=True)
        step, pieces = columns.axis.stride, self._pieces()
        if unit > 1 and step > 1:  # position by position
            pieces = [
                (to + i * unit, source + i * step * unit, lines, unit)
                for to, source, lines, width in pieces
                for i in range(width // unit)
            ]
            step = 1
        table = draft.emitter.keep(np.array(pieces, np.int64).reshape(-1))
        area = rows.axis.length * columns.axis.length * unit
        draft.call(
            planes.lay_out,
            *(x, laid, self.channels * area, laid.room.size, self.channels, area, self.size),
            *(len(pieces), table, rows.axis.stride * columns.axis.length * unit),
            *(columns.length * unit, step),
            items=self.channels,
        )
        return laid

    def _ends_with_vectors(self) -> bool:
        return self.is_dense and self.outputs * self.unit % self.draft.lanes == 0

    def _pieces(self) -> list[tuple[int, ...]]:
        """Return for each phase where it goes, where it comes from, how many lines, how wide."""
        plane, wide, unit = self.rows.length * self.columns.length, self.columns.length, self.unit
        sides = product(self.rows.pieces(), self.columns.pieces())
        return [
            (
                (number * plane + to * wide + right) * unit,
                (source * self.columns.axis.length + left) * unit,
                *(lines, count * unit),
            )
            for number, ((to, source, lines), (right, left, count)) in enumerate(sides)
            if lines > 0 and count > 0
        ]

    @property
    def size(self) -> int:
        """How many numbers a channel takes when it is laid out."""
        return self.rows.room * self.columns.room * self.unit

    def offsets(self) -> Array:
        """Return where each number of a window lies from its beginning."""
        columns, plane = self.columns, self.rows.length * self.columns.length
        kernel = np.array([
            [(r * len(columns.phases) + c) * plane + down * columns.length + across
             for c, across in columns.taps]
            for r, down in self.rows.taps
        ])  # fmt: skip
        places = np.arange(self.weight[1])[:, None] * self.size + kernel.reshape(-1) * self.unit
        return np.ascontiguousarray(places.reshape(-1), np.int64)

    def convolve(self, given: At, out: At) -> None:
        """Emit the convolution of planes that are laid out."""
        draft, unit = self.draft, self.unit
        side = self.rows.axis.outputs, self.columns.axis.outputs * unit
        lines = cut(draft.lanes, *side, self.columns.length * unit, unit == 1)
        depth = math.prod(self.weight[1:])
        zeros = draft.emitter.keep(np.zeros(self.weight[0], np.float32))
        matrix = draft.inputs[1], draft.inputs[2] or zeros
        sizes = self.weight[1] * self.size, self.weight[0] // self.groups, depth, self.groups
        emit(draft, given, matrix, out, sizes, draft.emitter.keep(self.offsets()), lines)


@dataclass(frozen=True)
class Lines:
    """Windows as lines: how many, how long, how far apart, how many of them an item has."""

    height: int
    width: int
    pitch: int
    total: int
    """Positions from the first window to the last."""
    lines: int
    plane: int
    """Numbers of a channel of the result."""


def cut(lanes: int, height: int, width: int, pitch: int, several: bool = True) -> Lines:
    """Return lines as items take them: ``several`` at a time, or one."""
    total, plane, lines = (height - 1) * pitch + width, height * width, 1
    if height == 1 or width == pitch:  # lines do not matter: they are as long as they should be
        pitch = width = min(planes.MOST, -(-total // lanes) * lanes)
        height = -(-total // pitch)
    elif several:
        lines = max(1, planes.MOST // pitch)
        lines = -(-height // -(-height // lines))
    return Lines(height, width, pitch, total, lines, plane)


def emit(
    draft: Draft, given: At, matrix: tuple[Any, Any], out: At, sizes: tuple[int, int, int, int],
    offsets: Array, lines: Lines,
) -> None:  # fmt: skip
    """Emit a convolution; the sizes are those of an input group, channels, depth, and groups."""
    of_group, channels, depth, groups = sizes
    blocks = -(-lines.height // lines.lines)
    size = planes.scratch_size(draft.lanes, 0 if lines.lines == 1 else lines.lines * lines.pitch)
    parts = 1 if thread_count() == 1 else max(1, channels // _PART)
    draft.call(
        planes.convolve,
        *(given, *matrix, out, draft.scratch(size), size, given.room.size, of_group),
        *(out.room.size, channels, depth, offsets, groups, blocks, parts, lines.lines),
        *(lines.height, lines.width, lines.pitch, lines.total, lines.plane),
        items=groups * blocks * parts,
        flops=lines.total * channels * groups * depth,
    )


def convolve(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a convolution."""
    x, weight = shapes[:2]
    assert x is not None
    assert weight is not None
    rank = len(weight) - 2
    numbers = [several(attributes[key], rank) for key in ("stride", "padding", "dilation")]
    axes = [Axis(*each) for each in zip(x[2:], weight[2:], *numbers, strict=True)]
    rows, columns = (_Side(axis) for axis in [*[Axis(1, 1, 1, 0, 1)] * (2 - rank), *axes])
    if not math.prod(x) or not math.prod(weight) or math.prod(weight[1:]) > _DEEPEST:
        return None
    if x[1] * rows.room * columns.room > _SPACIOUS + 2 * math.prod(x[1:]):
        return None
    result = (x[0], weight[0], *(axis.outputs for axis in axes))
    of_channels: tuple[Any, ...] = (x[1], weight, attributes["groups"], rows, columns)
    taken = x[0] * x[1] * rows.room * columns.room + math.prod(result)
    if taken <= _MUCH and _is_small(x[0], result, rows, columns, lanes):
        return _side_by_side(Draft(shapes, 1, 1, lanes), x, result, of_channels)
    work = _Work(Draft(shapes, x[0], 1, lanes), 1, *of_channels)
    out = work.draft.room(math.prod(result[1:]))
    first = work.draft.inputs[0]
    assert first is not None
    work.convolve(work.given(first), out)
    return work.draft.finish(out, result)


def _is_small(
    samples: int, result: tuple[int, ...], rows: _Side, columns: _Side, lanes: int
) -> bool:
    """Return whether vectors of samples would be fuller than those of positions."""
    outputs = math.prod(result[2:])
    total = (rows.axis.outputs - 1) * columns.length + columns.axis.outputs
    full = outputs / (-(-total // lanes) * lanes)
    return samples / (-(-samples // lanes) * lanes) > _GAIN * full


def _side_by_side(
    draft: Draft, x: tuple[int, ...], result: tuple[int, ...], of_channels: tuple[Any, ...]
) -> Single:
    """Prepare a convolution of planes whose positions have all samples in them."""
    lanes, samples = draft.lanes, x[0]
    unit = -(-samples // lanes) * lanes
    work = _Work(draft, unit, *of_channels)
    given, made = math.prod(x[1:]), math.prod(result[1:])
    turned, sums = draft.room(given * unit), draft.room(made * unit)
    out = draft.room(made * samples)
    first = draft.inputs[0]
    numbers = (samples, given, given, unit)
    draft.call(planes.turn, first, turned, *numbers, items=-(-given // lanes))
    work.convolve(work.given(turned), sums)
    numbers = (made, samples, unit, made)
    draft.call(planes.turn, sums, out, *numbers, items=-(-samples // lanes))
    return draft.finish(out, result)
