"""Layers as stages of training in machine code: operations forward, operations backward.

A stage reads its source's value and writes its result's; backward it reads the result's gradient,
writes the gradients of its parameters and, if somebody needs it, its source's gradient. A source
that is ``limited`` gets 0 where its value is not above 0: that is the gradient of the ReLU before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import gradients, layouts, strided, training
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.kernels.tiles import rows_of
from llmbol_core.native.team import team
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.dropout import Dropout, draw_kept
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.normalization import BatchNorm
from llmbol_core.nn.module import Module

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.library import Operation

Array = NDArray[Any]

NO_LIMIT = float("-inf")
_PARTS = 8
"""Into how many chunks items that cost alike are cut for the team."""


class Stage:
    """Some operations, and what the host does before them."""

    def __init__(self) -> None:
        self.forward: list[Operation] = []
        self.backward: list[Operation] = []
        self.pool: dict[int, Array] = {}
        """Room that an operation may use as it likes, by size: they run one after the other."""
        self._lanes = lanes()

    def begin(self) -> None:
        """Do what has to be done before each step; nothing by default."""

    def scratch(self, count: int) -> Array:
        """Return room for so many numbers that nobody keeps anything in."""
        if count not in self.pool:
            self.pool[count] = room(count)
        return self.pool[count]

    def scratch_for(self, depth: int) -> tuple[Array, int]:
        """Return room in which each thread packs panels of this depth, and the numbers for each."""
        share = depth * 2 * self._lanes + 16
        return self.scratch(share * team().threads), share

    def add(self, where: list[Operation], kernel: Kernel, items: int, *arguments: Any) -> None:
        """Append an operation whose items are cut into even chunks."""
        chunk = max(1, -(-items // _PARTS))
        where.append(kernel.operation(items, *arguments, chunk=chunk))

    def add_panels(
        self, where: list[Operation], kernel: Kernel, columns: int, *rest: Any, pieces: int = 1
    ) -> None:
        """Append an operation whose items are panels of two vectors of columns."""
        items = pieces * -(-columns // (2 * self._lanes))
        where.append(kernel.operation(items, *rest, chunk=1))

    def add_outer(
        self, where: list[Operation], a: tuple[Any, ...], b: tuple[Any, ...], c: tuple[Any, ...],
        positions: tuple[int, int, int], sizes: tuple[int, int, int], sums: Array | None,
        continued: bool = False,
    ) -> None:  # fmt: skip
        """Append the products of gradients a and values b, and the sums of a if they are wanted.

        Sizes are pieces, depth and height. ``continued``, they are added to what is there.
        """
        chosen = target()
        assert chosen is not None
        threads = team().threads
        plan = gradients.plan_outer(chosen.lanes, rows_of(chosen), threads, positions, sizes)
        totals = padded(sizes[2]) if sums is None else sums
        scratch = self.scratch(plan.room * threads)
        more = (totals, plan.group, plan.span, scratch, plan.room, int(continued))
        given = (*a, *b, *c, *positions, *sizes, *more)
        where.append(gradients.outer.operation(plan.items, *given, chunk=1))


def lanes() -> int:
    """Return how many numbers a vector of this machine has."""
    chosen = target()
    assert chosen is not None
    return chosen.lanes


def padded(count: int) -> Array:
    """Return zeros for so many columns and what a panel has more."""
    return room(-(-count // (2 * lanes())) * 2 * lanes())


NOTHING = np.zeros(16, np.float32)


Sizes = tuple[int, int, int, int]
"""Samples, lines, rows and numbers in a row."""
Place = tuple[Array, tuple[int, int, int]]
"""Where numbers lie: an array from the first one on, and the steps over samples, lines and rows."""


def sizes_of(flow: Flow) -> Sizes:
    """Return how a flow is gone through; the rows of vectors count as lines."""
    grid = flow.grid
    if flow.is_vector:
        return 1, grid.rows, 1, grid.channels
    return grid.samples, grid.lines, grid.rows, grid.channels


def value_of(flow: Flow) -> Place:
    """Return where a flow's value lies."""
    return flow.values(), (0, flow.grid.channels, 0) if flow.is_vector else flow.grid.steps


def gradient_of(flow: Flow) -> Place:
    """Return where a flow's gradient lies."""
    grid = flow.gradient_grid
    return flow.gradients(), (0, grid.channels, 0) if flow.is_vector else grid.steps


def add_strided(
    where: list[Operation], name: str, sizes: Sizes, *places: Place, low: float = NO_LIMIT
) -> None:
    """Append an operation of ``strided``; the place that it writes comes last."""
    add_over_grids(where, strided.KERNELS[name], sizes, places, low)


def add_over_grids(
    where: list[Operation], kernel: Kernel, sizes: Sizes, places: Sequence[Place], *numbers: float
) -> None:
    """Append an operation on places in grids, the one that it writes last, and numbers."""
    samples, lines, rows, size = sizes
    if all(steps[2] == size for _, steps in places):
        rows, size = 1, rows * size
    given: list[Any] = [part for array, steps in places for part in (array, *steps)]
    chunk = max(1, -(-samples * lines // _PARTS))
    given += [lines, rows, size, *numbers]
    where.append(kernel.operation(samples * lines, *given, chunk=chunk))


class LinearStage(Stage):
    """A linear map of rows, followed by its ReLU."""

    def __init__(self, layer: Linear, source: Flow, result: Flow) -> None:
        super().__init__()
        rows, depth, columns = source.grid.rows, layer.in_features, layer.out_features
        weight, bias = layer.params["weight"], padded(columns)
        scratch, share = self.scratch_for(depth)
        if layer.bias:
            self.add(self.forward, layouts.copy, 1, layer.params["bias"], bias, columns)
        low = 0.0 if result.limited else NO_LIMIT
        self.add_panels(
            self.forward, gradients.ROWS_PRODUCT[False], columns,
            source.value, 0, 0, depth, 0, weight, 1, depth, result.value, 0, 0, columns, bias,
            1, 1, rows, 1, depth, columns, low, NOTHING, scratch, share,
        )  # fmt: skip
        g, bias_gradient = result.gradient, layer.grads["bias"] if layer.bias else None
        self.add_outer(
            self.backward, (g, 0, 0, columns), (source.value, 0, 0, depth, 0),
            (layer.grads["weight"], depth), (1, 1, rows), (1, depth, columns), bias_gradient,
        )  # fmt: skip
        if source.gradient is not None:
            back, part = self.scratch_for(columns)
            self.add_panels(
                self.backward, gradients.ROWS_PRODUCT[source.limited], depth,
                g, 0, 0, columns, 0, weight, depth, 1, source.gradient, 0, 0, depth, padded(depth),
                1, 1, rows, 1, columns, depth, NO_LIMIT, source.value, back, part,
            )  # fmt: skip


def limit_gradient(stage: Stage, flow: Flow) -> None:
    """Append what makes a gradient 0 where the value is not above 0."""
    gradient = gradient_of(flow)
    add_strided(stage.backward, "keep", sizes_of(flow), gradient, value_of(flow), gradient)


class NormStage(Stage):
    """Batch norm of vectors or channels, followed by its ReLU."""

    def __init__(self, layer: BatchNorm, source: Flow, result: Flow) -> None:
        super().__init__()
        x, y = source.grid, result.grid
        positions, columns = x.positions, x.channels
        normal, rate = room(positions * columns), room(columns)
        weights = (layer.params["weight"], layer.params["bias"])
        running = (layer.buffers["running_mean"], layer.buffers["running_var"])
        unbiased = positions / (positions - 1)
        numbers = (layer.eps, layer.momentum, 1 - layer.momentum, unbiased)
        sizes = (x.samples, x.lines, x.rows, columns)
        low = 0.0 if result.limited else NO_LIMIT
        items = -(-columns // self._lanes)
        given = (source.values(), *x.steps, result.values(), *y.steps)
        made = (normal, rate, *weights, *running, *sizes, *numbers, low)
        self.forward.append(training.batch_norm.operation(items, *given, *made, chunk=1))
        grid = x if source.gradient is None else source.gradient_grid
        to = room(grid.size)[grid.start :] if source.gradient is None else source.gradients()
        grads = (layer.grads["weight"], layer.grads["bias"])
        back = (result.gradients(), *result.gradient_grid.steps, normal, rate, weights[0])
        masked = (result.values(), *y.steps, to, *grid.steps, *grads, *sizes, low)
        self.backward.append(training.batch_norm_gradient.operation(items, *back, *masked, chunk=1))
        if source.limited and source.gradient is not None:
            limit_gradient(self, source)


class DropoutStage(Stage):
    """A mask that is drawn anew for each step."""

    def __init__(self, layer: Dropout, source: Flow, result: Flow, batch: int) -> None:
        super().__init__()
        self.layer, self.shape = layer, (batch, *source.shape)
        size = source.grid.size
        self.mask = room(size)
        rows, each = source.grid.rows, source.grid.channels
        steps = (each, each, each, each, 0)
        self.add(self.forward, training.masked, rows, source.value, self.mask, result.value, *steps)
        if source.gradient is not None:
            given = (result.gradient, self.mask, source.gradient)
            self.add(self.backward, training.masked, rows, *given, *steps)
            if source.limited:
                limit_gradient(self, source)

    def begin(self) -> None:
        """Draw the mask."""
        drawn = draw_kept(self.layer._stream, self.shape, self.layer.p, np.float32)
        self.mask[...] = drawn.reshape(-1)


class HostStage(Stage):
    """A layer that computes by itself, in NumPy; source and result may be tables of vectors."""

    def __init__(self, layer: Module, source: Any, result: Any, batch: int) -> None:
        super().__init__()
        self.layer, self._sources = layer, _leaves(source)
        self._x, self._y, self._g = (
            _views(flow, kind, batch)
            for flow, kind in ((source, "value"), (result, "value"), (result, "gradient"))
        )

    def run_forward(self) -> None:
        """Compute the result."""
        for y, made in zip(_leaves(self._y), _leaves(self.layer.forward(self._x)), strict=True):
            y[...] = made

    def run_backward(self) -> None:
        """Compute the gradients; those of the parameters begin at zero."""
        self.layer.zero_grad_parameters()
        gradients = _leaves(self.layer.backward(self._x, self._g))
        for flow, x, made in zip(self._sources, _leaves(self._x), gradients, strict=True):
            if flow.gradient is not None:
                to = flow.gradient.reshape(x.shape)
                to[...] = made
                if flow.limited:
                    to[x <= 0] = 0


def _leaves(data: Any) -> list[Any]:
    """Return what a table holds, or the one thing that is none."""
    return [leaf for part in data for leaf in _leaves(part)] if isinstance(data, tuple) else [data]


def _views(flows: Any, kind: str, batch: int) -> Any:
    """Return values or gradients of vectors as layers see them."""
    if isinstance(flows, tuple):
        return tuple(_views(part, kind, batch) for part in flows)
    return getattr(flows, kind).reshape(batch, *flows.shape)
