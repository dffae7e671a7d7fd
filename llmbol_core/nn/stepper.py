"""Training steps in machine code: forward, loss and backward as one list of operations.

Made for layers in a row and a size of batch. A layer that has no stage computes by itself between
the lists. The gradients come to lie in the network's own arrays, each bit the same for any number
of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import training
from llmbol_core.ml.kernels.library import Program
from llmbol_core.ml.kernels.target import target
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.criterions import Criterion, CrossEntropy
from llmbol_core.nn.encoder_stage import ROWS, AttentionStage, EncoderStage
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.activation import GELU, ReLU
from llmbol_core.nn.layers.attention import Attention, TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.normalization import BatchNorm, LayerNorm
from llmbol_core.nn.layers.pooling import MaxPool1d, MaxPool2d
from llmbol_core.nn.layers.recurrent import Recurrent
from llmbol_core.nn.layers.shape import Flatten, Identity, Reshape
from llmbol_core.nn.module import Module, Shape, is_table
from llmbol_core.nn.parted_stages import (
    CACHED,
    ConvolutionStage,
    PartedStage,
    PoolStage,
    RunStage,
    ToChannels,
    ToVector,
    cuts,
)
from llmbol_core.nn.recurrent_stage import RecurrentStage
from llmbol_core.nn.row_stages import GeluStage, JoinStage, LayerNormStage, ReluStage, SplitStage
from llmbol_core.nn.stages import (
    DropoutStage,
    HostStage,
    LinearStage,
    NormStage,
    Stage,
    limit_gradient,
)
from llmbol_core.nn.tables import Residual

Array = NDArray[Any]
_Parted = Callable[[Sequence[tuple[Flow, Flow]]], PartedStage]

_HEAVY = (Linear, Conv1d, Conv2d, Recurrent, Attention)
"""Layers for which machine code is worth it."""


def make_stepper(
    network: Sequential, loss: Criterion, shape: Shape, batch: int, dtype: Any
) -> Stepper | None:
    """Return what takes steps with batches of this size, or None if NumPy is to do it."""
    if dtype != np.float32 or target() is None:
        return None
    layers = list(_flat(network))
    if not any(isinstance(layer, _HEAVY) for layer in layers):
        return None
    shapes: list[Any] = [shape]
    for layer in layers:
        shapes.append(layer.output_shape(shapes[-1]))
        if is_table(shapes[-1]):
            return None
    return Stepper(layers, shapes, loss, batch)


def _flat(network: Sequential) -> list[Any]:
    """Return the layers in a row, those of a row inside in its place, residual ones in marks."""
    found: list[Any] = []
    for layer in network.layers:
        if type(layer) is Sequential:
            found += _flat(layer)
        elif type(layer) is Residual and any(isinstance(x, _HEAVY) for x in _flat(layer)):
            found += [_Split(), *_flat(layer), _Join()]
        else:
            found.append(layer)
    return found


class _Mark:
    """Where a residual path begins or ends."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape as it is."""
        return shape


class _Split(_Mark):
    """Where a residual path begins."""


class _Join(_Mark):
    """Where a residual path ends."""


class Stepper:
    """Takes training steps: from a batch to its loss and to gradients."""

    def __init__(
        self, layers: Sequence[Module], shapes: Sequence[Shape], loss: Criterion, batch: int
    ) -> None:
        self.layers, self.shapes, self.batch, self.loss = layers, shapes, batch, loss
        self.stages: list[Stage] = []
        self._run: list[tuple[_Parted, Flow, Flow]] = []
        self._run_bytes = 0
        self._paths: list[tuple[int, Flow]] = []
        self.source = self.flow = Flow.vector(batch, shapes[0], needs=False)
        at = 0
        while at < len(layers):
            at = self._stage(at)
        self._to_vector()
        self._end_run()
        self._losses = room(batch)
        self._targets = np.zeros(batch, np.int64)
        loss_stage = Stage()
        self._plain = isinstance(loss, CrossEntropy) and not loss.label_smoothing
        self._plain &= getattr(loss, "weights", None) is None and len(shapes[-1]) == 1
        self._add_loss(loss_stage)
        self._forward = _runs([*self.stages, loss_stage], "forward")
        self._backward = _runs([loss_stage, *self.stages[::-1]], "backward")

    # ---- stages ----

    def _stage(self, at: int) -> int:
        """Append the stage that begins with a layer; return the number of the next layer."""
        layer, shape = self.layers[at], self.shapes[at + 1]
        limits = at + 1 < len(self.layers) and type(self.layers[at + 1]) is ReLU
        following = at + 1 + limits
        if type(layer) is Linear:
            self._linear(layer, shape, limits)
        elif isinstance(layer, Conv1d | Conv2d) and self._takes(layer):
            self._convolution(layer, shape, limits, following)
        elif isinstance(layer, MaxPool1d | MaxPool2d) and self._pools(layer):
            self._pool(layer, shape, at + 1)
            return at + 1
        elif isinstance(layer, BatchNorm) and self.batch * math.prod(shape[1:]) > 1:
            self._norm(layer, shape, limits, following)
        else:
            ways = (way for kinds, way in _WAYS if isinstance(layer, kinds))
            next(ways, Stepper._other)(self, layer, shape)
            return at + 1
        return following

    def _linear(self, layer: Linear, shape: Shape, limits: bool) -> None:
        source = self._to_vector()
        result = Flow.vector(self.batch, shape, needs=True)
        result.limited = limits
        self._push(LinearStage(layer, source, result), result)

    def _takes(self, layer: Any) -> bool:
        """Tell whether a convolution has a stage here."""
        simple = layer.groups == layer.dilation == 1 and layer.padding < layer.kernel_size
        return simple and (layer.stride == 1 or self.flow.gradient is None)

    def _convolution(self, layer: Any, shape: Shape, limits: bool, following: int) -> None:
        source = self._to_channels(layer.padding)
        outer = layer.kernel_size - 1 - layer.padding if source.gradient is not None else 0
        border = self._border(following)
        result = Flow.channels(self.batch, shape, True, border, outer)
        result.limited = limits
        self._push_parted(lambda parts: ConvolutionStage(layer, parts), source, result)

    def _border(self, at: int) -> int:
        """Return the border that the layer with a number wants around its source."""
        layer = self.layers[at] if at < len(self.layers) else None
        if isinstance(layer, Conv1d | Conv2d):
            simple = layer.groups == layer.dilation == layer.stride == 1
            return layer.padding if simple and layer.padding < layer.kernel_size else 0
        return 0

    def _pools(self, layer: Any) -> bool:
        """Tell whether a pooling has a stage here: windows side by side, of channels together."""
        side_by_side = layer.stride in (None, layer.kernel_size) and not layer.padding
        fits = all(n % layer.kernel_size == 0 for n in self.flow.shape[1:])
        return side_by_side and not self.flow.is_vector and (fits or not layer.ceil_mode)

    def _pool(self, layer: Any, shape: Shape, following: int) -> None:
        result = Flow.channels(self.batch, shape, True, self._border(following), 0)
        self._push_parted(lambda parts: PoolStage(layer, parts), self.flow, result)

    def _norm(self, layer: BatchNorm, shape: Shape, limits: bool, following: int) -> None:
        if len(shape) == 1:
            source = self._to_vector()
            result = Flow.vector(self.batch, shape, needs=True)
        else:
            source = self._to_channels(0) if self.flow.is_vector else self.flow
            result = Flow.channels(self.batch, shape, True, self._border(following), 0)
        self._push(NormStage(layer, source, result, limits), result)

    def _recurrent(self, layer: Recurrent, shape: Shape) -> None:
        source = self._to_vector()
        result = Flow.vector(self.batch, shape, needs=True)
        self._push(RecurrentStage(layer, source, result, self.batch), result)

    def _attention(self, layer: Attention, shape: Shape) -> None:
        source = self._to_vector()
        result = Flow.vector(self.batch, shape, needs=True)
        size = shape[0] * (CACHED // ROWS)
        if isinstance(layer, TransformerEncoderLayer):
            self._push_parted(lambda parts: EncoderStage(layer, parts), source, result, size)
        else:
            self._push_parted(lambda parts: AttentionStage(layer, parts), source, result, size)

    def _reshape(self, layer: Module, shape: Shape) -> None:
        source = self._to_vector()
        self._end_run()  # both have one gradient, which must not become one of parts
        rows = Flow.vector(0, shape, needs=False).grid.channels
        grid = type(source.grid)(1, 1, source.grid.size // rows, rows)
        self.flow = Flow(shape, grid, source.value, source.gradient, limited=source.limited)

    def _other(self, layer: Module, shape: Shape) -> None:
        source = self._to_vector()
        result = Flow.vector(self.batch, shape, needs=True)
        stage: Stage
        if type(layer) is Dropout and layer.p:
            stage = DropoutStage(layer, source, result, self.batch)
        elif type(layer) is LayerNorm:
            stage = LayerNormStage(layer, source, result)
        elif type(layer) is GELU:
            stage = GeluStage(source, result)
        elif type(layer) is ReLU:
            result.limited = True
            stage = ReluStage(source, result)
        else:
            stage = HostStage(layer, source, result, self.batch)
        self._push(stage, result)

    def _split(self, layer: _Split, shape: Shape) -> None:
        source = self._to_vector()
        self._end_run()
        self._paths.append((len(self.stages), source))

    def _join(self, layer: _Join, shape: Shape) -> None:
        inner = self._to_vector()
        self._end_run()
        place, source = self._paths.pop()
        result = Flow.vector(self.batch, shape, needs=True)
        self._push(JoinStage(source, inner, result), result)
        if source.gradient is not None:
            self.stages.insert(place, SplitStage(source, result))

    def _push(self, stage: Stage, result: Flow) -> None:
        self._end_run()
        self.stages.append(stage)
        self.flow = result

    def _push_parted(
        self, make: _Parted, source: Flow, result: Flow, sample_bytes: int = 0
    ) -> None:
        self._run_bytes += sample_bytes or 4 * result.grid.size // self.batch
        self._run.append((make, source, result))
        self.flow = result

    def _end_run(self) -> None:
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

    def _to_vector(self) -> Flow:
        """Return what flows in PyTorch's order."""
        source = self.flow
        if not source.is_vector:
            result = Flow.vector(self.batch, source.shape, source.gradient is not None)
            result.limited = source.limited
            self._push_parted(ToVector, source, result)
        return self.flow

    def _to_channels(self, border: int) -> Flow:
        """Return what flows with channels together and a border."""
        source = self.flow
        if source.is_vector or source.grid.border != border:
            source = self._to_vector()
            needs = source.gradient is not None
            result = Flow.channels(self.batch, source.shape, needs, border, 0)
            result.limited = source.limited
            self._push_parted(ToChannels, source, result)
        return self.flow

    def _add_loss(self, stage: Stage) -> None:
        """Append the loss of the last flow and its gradient."""
        flow = self.flow
        if self._plain:
            size, share = flow.grid.channels, 1 / self.batch
            given = (flow.value, self._targets, flow.gradient, self._losses, size, share)
            stage.add(stage.forward, training.cross_entropy, self.batch, *given)
        if flow.limited:
            limit_gradient(stage, flow)

    # ---- steps ----

    def step(self, x: Array, targets: Array) -> float:
        """Return the loss of a batch, having written all gradients unless it is not finite."""
        np.copyto(self.source.value.reshape(x.shape), x)
        for stage in self.stages:
            stage.begin()
        if self._plain:
            self.loss.check(self._output(), targets)
            self._targets[...] = targets
        for run in self._forward:
            run()
        if self._plain:
            value = float(self._losses.sum(dtype=np.float64) / self.batch)
        else:
            value = self.loss.forward(self._output(), targets)
        if np.isfinite(value):
            if not self._plain:
                assert self.flow.gradient is not None
                gradient = self.loss.backward(self._output(), targets)
                self.flow.gradient.reshape(gradient.shape)[...] = gradient
            for run in self._backward:
                run()
        return value

    def _output(self) -> Array:
        """Return the output of the last layer."""
        return self.flow.value.reshape(self.batch, *self.shapes[-1])


_WAYS: tuple[tuple[Any, Callable[[Stepper, Any, Shape], None]], ...] = (
    (Recurrent, Stepper._recurrent),
    (Attention, Stepper._attention),
    ((Flatten, Reshape, Identity), Stepper._reshape),
    (_Split, Stepper._split),
    (_Join, Stepper._join),
)
"""What makes the stages of layers, by their classes; others go through ``_other``."""


def _runs(stages: Sequence[Stage], way: str) -> list[Callable[[], None]]:
    """Return what to call for a way through the stages: lists of operations, and host's layers."""
    runs: list[Callable[[], None]] = []
    operations: list[Any] = []
    for stage in stages:
        if isinstance(stage, HostStage):
            if operations:
                runs.append(Program(operations).run)
            runs.append(getattr(stage, f"run_{way}"))
            operations = []
        else:
            operations += getattr(stage, way)
    if operations:
        runs.append(Program(operations).run)
    return runs
