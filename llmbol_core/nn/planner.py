"""A network's layers as stages of training in machine code, in their order.

Layers form rows; the layers of an inner row become part of the outer one. What flows between
them is one flow, or a table of flows; ``paths.py`` handles containers with several paths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from llmbol_core.ml.kernels import slopes
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.encoder_stage import ROWS, AttentionStage, EncoderStage
from llmbol_core.nn.flows import Flow
from llmbol_core.nn.layers.activation import Activation, ReLU
from llmbol_core.nn.layers.attention import Attention, TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.normalization import BatchNorm, LayerNorm
from llmbol_core.nn.layers.pooling import AdaptiveAvgPool, Averaging, MaxPool1d, MaxPool2d
from llmbol_core.nn.layers.recurrent import Recurrent
from llmbol_core.nn.layers.shape import Flatten, Identity, Reshape
from llmbol_core.nn.module import Form, Module, Shape, is_table
from llmbol_core.nn.parted_stages import (
    CACHED,
    ActivationStage,
    AverageStage,
    ConvolutionStage,
    PartedStage,
    PoolStage,
    RunStage,
    ToChannels,
    ToVector,
    cuts,
    gradient_border,
)
from llmbol_core.nn.recurrent_stage import RecurrentStage
from llmbol_core.nn.row_stages import LayerNormStage
from llmbol_core.nn.stages import DropoutStage, HostStage, LinearStage, NormStage, Stage
from llmbol_core.nn.table_stages import ForkStage, ReluStage
from llmbol_core.nn.tables import Concat, ConcatTable, Residual

_T = TypeVar("_T")
Flows = Any
"""What flows: a ``Flow``, or for a table a tuple of flows."""
_Parted = Callable[[Sequence[tuple[Flow, Flow]]], PartedStage]


@dataclass(frozen=True)
class Behind:
    """What follows a layer."""

    limits: bool
    """A ReLU, which the layer may do itself."""
    border: int
    """A layer that wants such a border around its source."""


Path = Callable[["Planner", Any, Flows, Behind], Flows]
"""Plans a container: from what flows in to what flows out."""


def flat(layers: Sequence[Module]) -> list[Module]:
    """Return layers in a row, with those of rows inside in their places."""
    found: list[Module] = []
    for layer in layers:
        found += flat(layer.layers) if type(layer) is Sequential else [layer]
    return found


class Planner:
    """Makes the stages of layers for batches of one size."""

    def __init__(self, batch: int, paths: Mapping[type[Module], Path]) -> None:
        self.batch, self.paths = batch, paths
        self.stages: list[Stage] = []
        self._run: list[tuple[_Parted, Flow, Flow]] = []
        self._run_bytes = 0

    def plan(self, layers: Sequence[Module], source: Flow) -> Flow:
        """Make all stages of a network; return what flows out, a vector."""
        flow = self.vector(self.row(layers, source))
        self.end_run()
        for stage in self.stages:
            if isinstance(stage, ForkStage):
                stage.finish()
        return flow

    def row(self, layers: Sequence[Module], flows: Flows) -> Flows:
        """Plan layers in a row; a ReLU becomes part of what is before it where that can be."""
        rest = flat(layers)
        while rest:
            layer, *rest = rest
            limits = bool(rest) and type(rest[0]) is ReLU
            flows = self._layer(layer, flows, Behind(limits, wanted_border(rest[limits:])))
            if limits and isinstance(flows, Flow) and flows.limited:
                del rest[0]
        return flows

    def _layer(self, layer: Module, flows: Flows, behind: Behind) -> Flows:
        """Plan one layer."""
        if type(layer) in self.paths:
            return self.paths[type(layer)](self, layer, flows, behind)
        shape = layer.output_shape(shape_of(flows))
        if isinstance(flows, tuple) or is_table(shape):
            return self._host(layer, flows, shape)
        if isinstance(layer, Conv1d | Conv2d) and _takes(layer):
            return self._convolution(layer, flows, shape, behind)
        if isinstance(layer, MaxPool1d | MaxPool2d) and _pools(layer, flows):
            return self._pool(layer, flows, shape, behind)
        if isinstance(layer, Averaging | AdaptiveAvgPool) and (window := _means(layer, flows)):
            return self._average(window, flows, shape, behind)
        if isinstance(layer, BatchNorm) and self.batch * math.prod(shape[1:]) > 1:
            return self._norm(layer, flows, shape, behind)
        ways = (way for kinds, way in _WAYS if isinstance(layer, kinds))
        return next(ways, Planner._other)(self, layer, flows, shape, behind)

    # ---- layers ----

    def _linear(self, layer: Linear, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        source, result = self.vector(flow), Flow.vector(self.batch, shape, needs=True)
        result.limited = behind.limits
        return self.push(LinearStage(layer, source, result), result)

    def _convolution(self, layer: Any, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        source = self._channels(flow, layer.padding)
        outer = 0
        if source.gradient is not None:
            outer = gradient_border(layer, flow.shape[1:], shape[1:])
        result = Flow.channels(self.batch, shape, True, behind.border, outer)
        result.limited = behind.limits
        return self._push_parted(lambda parts: ConvolutionStage(layer, parts), source, result)

    def _pool(self, layer: Any, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        result = Flow.channels(self.batch, shape, True, behind.border, 0)
        return self._push_parted(lambda parts: PoolStage(layer, parts), flow, result)

    def _average(self, window: tuple[int, int], flow: Flow, shape: Shape, behind: Behind) -> Flow:
        result = Flow.channels(self.batch, shape, True, behind.border, 0)
        return self._push_parted(lambda parts: AverageStage(window, parts), flow, result)

    def _norm(self, layer: BatchNorm, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        if len(shape) == 1:
            source, result = self.vector(flow), Flow.vector(self.batch, shape, needs=True)
        else:
            source = self._channels(flow, 0)
            result = Flow.channels(self.batch, shape, True, behind.border, 0)
        result.limited = behind.limits
        return self.push(NormStage(layer, source, result), result)

    def _recurrent(self, layer: Recurrent, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        source, result = self.vector(flow), Flow.vector(self.batch, shape, needs=True)
        return self.push(RecurrentStage(layer, source, result, self.batch), result)

    def _attention(self, layer: Attention, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        source, result = self.vector(flow), Flow.vector(self.batch, shape, needs=True)
        size = shape[0] * (CACHED // ROWS)
        kind: Any = EncoderStage if isinstance(layer, TransformerEncoderLayer) else AttentionStage
        return self._push_parted(lambda parts: kind(layer, parts), source, result, size)

    def _reshape(self, layer: Module, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        if shape == flow.shape:
            return flow
        source = self.vector(flow)
        self.end_run()  # both have one gradient, which must not become one of parts
        rows = Flow.vector(0, shape, needs=False).grid.channels
        grid = type(source.grid)(1, 1, source.grid.size // rows, rows)
        return Flow(shape, grid, source.value, source.gradient, limited=source.limited)

    def _relu(self, layer: ReLU, flow: Flow, shape: Shape, behind: Behind) -> Flow:
        self.end_run()
        result = self.like(flow, behind.border)
        result.limited = True
        return self.push(ReluStage(flow, result), result)

    def _activation(self, layer: Activation, flow: Flow, shape: Shape, behind: Behind) -> Flows:
        if layer.operation not in slopes.KERNELS:
            return self._host(layer, flow, shape)
        result = self.like(flow, behind.border)
        return self._push_parted(lambda parts: ActivationStage(layer, parts), flow, result)

    def _other(self, layer: Module, flow: Flow, shape: Shape, behind: Behind) -> Flows:
        source, result = self.vector(flow), Flow.vector(self.batch, shape, needs=True)
        if type(layer) is Dropout and layer.p:
            return self.push(DropoutStage(layer, source, result, self.batch), result)
        if type(layer) is LayerNorm:
            return self.push(LayerNormStage(layer, source, result), result)
        return self._host(layer, source, shape)

    def _host(self, layer: Module, flows: Flows, shape: Form) -> Flows:
        """Let a layer compute in Python."""
        source = self._vectors(flows)
        result = self._results(shape)
        return self.push(HostStage(layer, source, result, self.batch), result)

    # ---- flows ----

    def like(self, flow: Flow, border: int = 0) -> Flow:
        """Return a new flow that lies as another."""
        if flow.is_vector:
            return Flow.vector(self.batch, flow.shape, needs=True)
        return Flow.channels(self.batch, flow.shape, True, border, 0)

    def _results(self, shape: Form) -> Flows:
        """Return new vectors of a shape, or of the shapes of a table."""
        if is_table(shape):
            return tuple(map(self._results, shape))
        return Flow.vector(self.batch, shape, needs=True)

    def _vectors(self, flows: Flows) -> Flows:
        if isinstance(flows, tuple):
            return tuple(map(self._vectors, flows))
        return self.vector(flows)

    def vector(self, source: Flow) -> Flow:
        """Return what flows in PyTorch's order."""
        if source.is_vector:
            return source
        result = Flow.vector(self.batch, source.shape, source.gradient is not None)
        result.limited = source.limited
        return self._push_parted(ToVector, source, result)

    def _channels(self, source: Flow, border: int) -> Flow:
        """Return what flows with channels together and a border, or a wider one."""
        if not source.is_vector and source.grid.border >= border:
            return source
        source = self.vector(source)
        result = Flow.channels(self.batch, source.shape, source.gradient is not None, border, 0)
        result.limited = source.limited
        return self._push_parted(ToChannels, source, result)

    # ---- stages ----

    def push(self, stage: Stage, result: _T) -> _T:
        """Append a stage; return its result."""
        self.end_run()
        self.stages.append(stage)
        return result

    def _push_parted(
        self, make: _Parted, source: Flow, result: Flow, sample_bytes: int = 0
    ) -> Flow:
        """Append a stage for parts of the batch to the run that its source is the end of."""
        if self._run and self._run[-1][2] is not source:
            self.end_run()
        self._run_bytes += sample_bytes or 4 * result.grid.size // self.batch
        self._run.append((make, source, result))
        return result

    def end_run(self) -> None:
        """Append the parted stages in a row that were pushed last as one stage."""
        parts = cuts(self.batch, self._run_bytes)
        for _, _, result in self._run[:-1]:
            result.keep_gradient_of(max(count for _, count in parts), self.batch)
        stages = []
        for make, source, result in self._run:
            pairs = [(source.part(*p, self.batch), result.part(*p, self.batch)) for p in parts]
            stages.append(make(pairs))
        if stages:
            self.stages.append(RunStage(stages))
        self._run, self._run_bytes = [], 0


_WAYS: tuple[tuple[Any, Callable[[Planner, Any, Flow, Shape, Behind], Flows]], ...] = (
    (Linear, Planner._linear),
    (Recurrent, Planner._recurrent),
    (Attention, Planner._attention),
    ((Flatten, Reshape, Identity), Planner._reshape),
    (ReLU, Planner._relu),
    (Activation, Planner._activation),
)
"""What plans layers, by their classes; others go through ``_other``."""


def shape_of(flows: Flows) -> Form:
    """Return the shape of one sample of what flows."""
    return tuple(map(shape_of, flows)) if isinstance(flows, tuple) else flows.shape


def wanted_border(rest: Sequence[Module]) -> int:
    """Return the border that the first of some layers in a row wants around its source."""
    if not rest:
        return 0
    layer = rest[0]
    if isinstance(layer, Conv1d | Conv2d):
        simple = layer.groups == layer.dilation == 1
        return layer.padding if simple and layer.padding < layer.kernel_size else 0
    if type(layer) is Residual:
        return wanted_border(flat(layer.layers))
    if type(layer) in (Concat, ConcatTable):
        return max((wanted_border(flat([way])) for way in layer.children()), default=0)
    return 0


def _takes(layer: Any) -> bool:
    """Tell whether a convolution has a stage."""
    return bool(layer.groups == layer.dilation == 1 and layer.padding < layer.kernel_size)


def _pools(layer: Any, flow: Flow) -> bool:
    """Tell whether a pooling has a stage: windows side by side, of channels together."""
    side_by_side = layer.stride in (None, layer.kernel_size) and not layer.padding
    fits = all(n % layer.kernel_size == 0 for n in flow.shape[1:])
    return side_by_side and not flow.is_vector and (fits or not layer.ceil_mode)


def _means(layer: Any, flow: Flow) -> tuple[int, int] | None:
    """Return the window of an averaging that has a stage, as ``_pools`` tells: height and width."""
    if isinstance(layer, Averaging):
        size = layer.kernel_size
        return (size if flow.grid.is_image else 1, size) if _pools(layer, flow) else None
    sides = flow.shape[1:]
    if flow.is_vector or any(n % layer.output_size for n in sides):
        return None
    high, wide = (1, *(n // layer.output_size for n in sides))[-2:]
    return high, wide
