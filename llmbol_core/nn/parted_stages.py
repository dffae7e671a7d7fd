"""Stages that take a few samples at a time, so that data between them stay in the cache.

A run of such stages takes some samples all the way forward, then the next ones; backward the same.
What a layer does once for all samples comes before the first or after the last of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import averages, gradients, layouts, slopes, training
from llmbol_core.ml.kernels.elementwise import UNARY
from llmbol_core.nn.flows import Flow, Grid, room
from llmbol_core.nn.layers.activation import Activation
from llmbol_core.nn.layers.pooling import Pooling
from llmbol_core.nn.stages import (
    NO_LIMIT,
    NOTHING,
    Stage,
    add_over_grids,
    add_strided,
    gradient_of,
    limit_gradient,
    padded,
    sizes_of,
    value_of,
)

Array = NDArray[Any]

CACHED = 3 << 19
"""Bytes of values of one part that flow through all layers of a run."""


def cuts(batch: int, sample_bytes: int) -> list[tuple[int, int]]:
    """Return parts of a batch, as even as they can be: first sample and how many."""
    parts = -(-batch // max(1, min(batch, CACHED // max(1, sample_bytes))))
    ends = [batch * (number + 1) // parts for number in range(parts)]
    return [(start, end - start) for start, end in zip([0, *ends], ends, strict=False)]


class PartedStage(Stage):
    """A layer for parts of a batch: a stage for each, and what is done once.

    ``parts`` are pairs of source and result.
    """

    def __init__(self, parts: Sequence[tuple[Flow, Flow]]) -> None:
        super().__init__()
        self.before, self.after, self.parts = Stage(), Stage(), [Stage() for _ in parts]
        for number, (source, result) in enumerate(parts):
            self.parts[number].pool = self.pool
            self.cover(self.parts[number], source, result, number)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append to a stage what a part needs, which has a number."""
        raise NotImplementedError


class RunStage(Stage):
    """Parted stages in a row: each part goes through all of them."""

    def __init__(self, stages: Sequence[PartedStage]) -> None:
        super().__init__()
        self._stages = stages
        for stage in stages:
            self.forward += stage.before.forward
        for number in range(len(stages[0].parts)):
            for stage in stages:
                self.forward += stage.parts[number].forward
            for stage in reversed(stages):
                self.backward += stage.parts[number].backward
        for stage in stages:
            self.backward += stage.after.backward

    def begin(self) -> None:
        """Do what the stages have to do."""
        for stage in self._stages:
            stage.begin()


class ConvolutionStage(PartedStage):
    """A convolution of channels that lie together, followed by its ReLU."""

    def __init__(self, layer: Any, parts: Sequence[tuple[Flow, Flow]]) -> None:
        self.layer = layer
        high = layer.kernel_size if parts[0][0].grid.is_image else 1
        self.pieces, self.depth = high, layer.kernel_size * layer.in_channels
        outs, self.whole = layer.out_channels, high * self.depth
        shape = (outs, layer.in_channels, high, layer.kernel_size)
        self._order = np.arange(math.prod(shape)).reshape(shape)
        self._kernels, self._bias = room(self.whole * outs), padded(outs)
        self._made = room(self.whole * outs)
        self._phases = _phases_of(layer, *parts[0]) if parts[0][0].gradient is not None else []
        self._turned = [room(y.taps * x.taps * outs * layer.in_channels) for y, x in self._phases]
        super().__init__(parts)
        self._rearrange(self._kernels, self._order.transpose(2, 3, 1, 0))
        for (y, x), out in zip(self._phases, self._turned, strict=True):
            if len(out):
                turned = self._order[:, :, y.turned(high)][:, :, :, x.turned(layer.kernel_size)]
                self._rearrange(out, turned.transpose(2, 3, 0, 1))
        if layer.bias:
            before = self.before
            before.add(before.forward, layouts.copy, 1, layer.params["bias"], self._bias, outs)
        self._finish()

    def _rearrange(self, out: Array, order: Array) -> None:
        """Have the weights copied in another order of their axes."""
        table, stage = np.ascontiguousarray(order.reshape(-1)), self.before
        weight = np.asarray(self.layer.params["weight"])
        stage.add(stage.forward, training.gather, len(table), weight, out, table)

    def _finish(self) -> None:
        """Have the weights' gradient brought into their order."""
        outs, stage = self.layer.out_channels, self.after
        shape = (outs, *self._order.shape[2:], self.layer.in_channels)
        table = np.arange(outs * self.whole).reshape(shape).transpose(0, 3, 1, 2).reshape(-1)
        given = (self._made, self.layer.grads["weight"], np.ascontiguousarray(table))
        stage.add(stage.backward, training.gather, len(table), *given)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append the three products of a part."""
        x, y, outs = source.grid, result.grid, self.layer.out_channels
        scratch, share = stage.scratch_for(self.whole)
        low = 0.0 if result.limited else NO_LIMIT
        unused = x.border - self.layer.padding
        start = source.value[unused * (x.line * x.is_image + x.row) :]
        stage.add_panels(
            stage.forward, gradients.ROWS_PRODUCT[False], outs,
            start, *self._windows(x), x.line, self._kernels, outs, 1, result.values(),
            *y.steps, self._bias, y.samples, y.lines, y.rows, self.pieces, self.depth, outs, low,
            NOTHING, scratch, share,
        )  # fmt: skip
        g, layer = result.gradient_grid, self.layer
        stage.add_outer(
            stage.backward, (result.gradients(), *g.steps),
            (start, *self._windows(x), x.line), (self._made, self.whole),
            (g.samples, g.lines, g.rows), (self.pieces, self.depth, outs),
            layer.grads["bias"] if layer.bias else None, continued=number > 0,
        )  # fmt: skip
        if source.gradient is not None:
            self._source_gradient(stage, source, result)

    def _windows(self, grid: Grid) -> tuple[int, int, int]:
        """Return the numbers from window to window: of samples, lines and rows."""
        stride = self.layer.stride
        return grid.sample, grid.line * stride, grid.row * stride

    def _source_gradient(self, stage: Stage, source: Flow, result: Flow) -> None:
        """Append convolutions of the bordered gradient with the kernels turned around.

        Positions of the source that windows begin at alike have one of their own, with the part of
        the kernels that meets them.
        """
        alike = source.limited and source.grid.border == source.gradient_border
        for phases, kernels in zip(self._phases, self._turned, strict=True):
            self._phase_gradient(stage, source, result, phases, kernels, alike)
        if source.limited and not alike:
            limit_gradient(stage, source)

    def _phase_gradient(
        self, stage: Stage, source: Flow, result: Flow, phases: tuple[Phase, Phase],
        kernels: Array, alike: bool,
    ) -> None:  # fmt: skip
        """Append the gradient of the positions of a phase along both axes."""
        outs, ins = self.layer.out_channels, self.layer.in_channels
        g, to, (y, x) = result.gradient_grid, source.gradient_grid, phases
        stride = self.layer.stride
        place = y.first * to.line + x.first * to.row
        sizes = (to.samples, y.count, x.count)
        written = (source.gradients()[place:], to.sample, to.line * stride, to.row * stride)
        if not len(kernels):
            nothing, (array, *steps) = room(ins), written
            ends = ((nothing, (0, 0, 0)), (array, (steps[0], steps[1], steps[2])))
            add_strided(stage.backward, "copy", (*sizes, ins), *ends)
            return
        assert result.gradient is not None
        start = result.gradient[g.start + y.start * g.line + x.start * g.row :]
        scratch, share = stage.scratch_for(len(kernels) // ins)
        stage.add_panels(
            stage.backward, gradients.ROWS_PRODUCT[alike], ins,
            start, g.sample, g.line, g.row, g.line, kernels, ins, 1, *written, padded(ins),
            *sizes, y.taps, x.taps * outs, ins, NO_LIMIT, source.values()[place:], scratch, share,
        )  # fmt: skip


@dataclass(frozen=True)
class Phase:
    """Positions along an axis, a stride apart, and what of a kernel meets them."""

    first: int
    """The first position."""
    count: int
    tap: int
    """The first place of the kernel that meets them, and then each a stride further."""
    taps: int
    stride: int
    start: int
    """Where the gradients begin that the first position takes part in; may lie in the border."""

    def turned(self, size: int) -> Array:
        """Return the places of a kernel of a size, the last one first."""
        return np.arange(self.tap, size, self.stride)[::-1]


def phases(length: int, size: int, stride: int, padding: int) -> list[Phase]:
    """Return the phases of an axis under windows of a size: y[j] takes x[stride j + k - padding].

    So x[i] gets the gradients of all j with stride j + k = i + padding.
    """
    found = []
    for first in range(min(stride, length)):
        tap = (first + padding) % stride
        taps = len(range(tap, size, stride))
        start = (first + padding - tap) // stride - max(taps - 1, 0)
        found.append(Phase(first, len(range(first, length, stride)), tap, taps, stride, start))
    return found


def gradient_border(layer: Any, sides: Sequence[int], outputs: Sequence[int]) -> int:
    """Return the border that a convolution's gradient needs, so that its source's can be made."""
    border = 0
    for length, made in zip(sides, outputs, strict=True):
        for phase in phases(length, layer.kernel_size, layer.stride, layer.padding):
            end = phase.start + phase.count + phase.taps - 1
            border = max(border, -phase.start, end - made) if phase.taps else border
    return border


def _phases_of(layer: Any, source: Flow, result: Flow) -> list[tuple[Phase, Phase]]:
    """Return the phases along lines and rows, each with each."""
    of_rows = phases(source.shape[-1], layer.kernel_size, layer.stride, layer.padding)
    of_lines = [Phase(0, 1, 0, 1, 1, 0)]
    if source.grid.is_image:
        of_lines = phases(source.shape[1], layer.kernel_size, layer.stride, layer.padding)
    return list(itertools.product(of_lines, of_rows))


class ActivationStage(PartedStage):
    """An activation, where its source lies."""

    def __init__(self, layer: Activation, parts: Sequence[tuple[Flow, Flow]]) -> None:
        _, names = UNARY[layer.operation]
        self._kernels, attributes = slopes.KERNELS[layer.operation], layer.attributes()
        self._numbers = (*(float(attributes[name]) for name in names), 0.0, 0.0)[:2]
        super().__init__(parts)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append both ways of a part."""
        (value, gradient), sizes = self._kernels, sizes_of(source)
        places = (value_of(source), value_of(result))
        add_over_grids(stage.forward, value, sizes, places, *self._numbers)
        if source.gradient is not None:
            given = (*places, gradient_of(result), gradient_of(source))
            add_over_grids(stage.backward, gradient, sizes, given, *self._numbers)
            if source.limited:
                limit_gradient(stage, source)


class PoolStage(PartedStage):
    """Greatest values of windows that lie side by side."""

    def __init__(self, layer: Pooling, parts: Sequence[tuple[Flow, Flow]]) -> None:
        self.layer = layer
        super().__init__(parts)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append both ways of a part."""
        y, wide = result.grid, self.layer.kernel_size
        shared = (
            source.values(), *source.grid.steps, result.values(), *y.steps, y.lines, y.rows,
            wide if y.is_image else 1, wide, y.channels,
        )  # fmt: skip
        items = y.samples * y.lines
        stage.add(stage.forward, training.pool, items, *shared)
        if source.gradient is not None:
            given = (result.gradients(), *result.gradient_grid.steps)
            to = (source.gradients(), *source.gradient_grid.steps)
            above = 0.0 if source.limited else NO_LIMIT
            stage.add(stage.backward, training.pool_gradient, items, *shared, *given, *to, above)


class AverageStage(PartedStage):
    """Means of windows of a size that lie side by side."""

    def __init__(self, window: tuple[int, int], parts: Sequence[tuple[Flow, Flow]]) -> None:
        self._window = window
        super().__init__(parts)

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append both ways of a part."""
        y, (high, wide) = result.grid, self._window
        sizes = (y.lines, y.rows, high, wide, y.channels, 1 / (high * wide))
        items = y.samples * y.lines
        given = (source.values(), *source.grid.steps, result.values(), *y.steps)
        stage.add(stage.forward, averages.average, items, *given, *sizes)
        if source.gradient is not None:
            to = (source.gradients(), *source.gradient_grid.steps)
            given = (*to, result.gradients(), *result.gradient_grid.steps)
            stage.add(stage.backward, averages.average_gradient, items, *given, *sizes)
            if source.limited:
                limit_gradient(stage, source)


class ToVector(PartedStage):
    """Channels to PyTorch's order."""

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append the copies of a part."""
        _exchange(stage, stage.forward, source.grid, source.value, result.value, out=False)
        if source.gradient is not None:
            grid = source.gradient_grid
            _exchange(stage, stage.backward, grid, source.gradient, result.gradient, out=True)


class ToChannels(PartedStage):
    """PyTorch's order to channels that lie together."""

    def cover(self, stage: Stage, source: Flow, result: Flow, number: int) -> None:
        """Append the copies of a part."""
        _exchange(stage, stage.forward, result.grid, result.value, source.value, out=True)
        if source.gradient is not None:
            grid = result.gradient_grid
            _exchange(stage, stage.backward, grid, result.gradient, source.gradient, out=False)


def _exchange(
    stage: Stage, where: list[Any], grid: Grid, together: Any, plain: Any, out: bool
) -> None:
    """Append a copy from channels that lie together to PyTorch's order, or with ``out`` back."""
    size = grid.lines * grid.rows * grid.channels
    if grid.border == 0 and size >= 1 << 10 and grid.channels > 1:
        rows, columns = grid.lines * grid.rows, grid.channels
        inner, outer = (together, grid.sample, columns), (plain, size, rows)
        pair = (*outer, *inner, columns, rows) if out else (*inner, *outer, rows, columns)
        stage.add(where, training.transpose, grid.samples, *pair)
        return
    places, ordered = grid.places(), np.arange(size)
    source, to = (plain, together) if out else (together, plain)
    steps = (size, grid.sample) if out else (grid.sample, size)
    tables = (ordered, places) if out else (places, ordered)
    stage.add(where, layouts.scatter, grid.samples, source, to, *steps, size, *tables)
