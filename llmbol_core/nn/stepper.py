"""Training steps in machine code: forward, loss and backward as one list of operations.

Made for a network and a size of batch. A layer that has no stage computes by itself between
the lists. The gradients come to lie in the network's own arrays, each bit the same for any number
of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import training
from llmbol_core.ml.kernels.library import Program
from llmbol_core.ml.kernels.target import target
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.criterions import Criterion, CrossEntropy
from llmbol_core.nn.flows import Flow, room
from llmbol_core.nn.layers.attention import Attention
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.recurrent import Recurrent
from llmbol_core.nn.module import Shape, is_table
from llmbol_core.nn.paths import PATHS
from llmbol_core.nn.planner import Planner
from llmbol_core.nn.stages import HostStage, Stage, limit_gradient

Array = NDArray[Any]

_HEAVY = (Linear, Conv1d, Conv2d, Recurrent, Attention)
"""Layers for which machine code is worth it."""


def make_stepper(
    network: Sequential, loss: Criterion, shape: Shape, batch: int, dtype: Any
) -> Stepper | None:
    """Return what takes steps with batches of this size, or None if NumPy is to do it."""
    if dtype != np.float32 or target() is None:
        return None
    modules = network.list_modules()
    if not any(isinstance(module, _HEAVY) for module in modules):
        return None
    # Stages write gradients, so a parameter that several layers share cannot be theirs.
    gradients = [id(array) for module in modules for array in module.grads.values()]
    if len(gradients) > len(set(gradients)) or is_table(network.output_shape(shape)):
        return None
    return Stepper(network, loss, shape, batch)


class Stepper:
    """Takes training steps: from a batch to its loss and to gradients."""

    def __init__(self, network: Sequential, loss: Criterion, shape: Shape, batch: int) -> None:
        self.batch, self.loss = batch, loss
        planner = Planner(batch, PATHS)
        self.source = Flow.vector(batch, shape, needs=False)
        self.flow = planner.plan(network.layers, self.source)
        self.stages = planner.stages
        self._losses = room(batch)
        self._targets = np.zeros(batch, np.int64)
        loss_stage = Stage()
        self._plain = isinstance(loss, CrossEntropy) and not loss.label_smoothing
        self._plain &= getattr(loss, "weights", None) is None and len(self.flow.shape) == 1
        self._add_loss(loss_stage)
        self._forward = _runs([*self.stages, loss_stage], "forward")
        self._backward = _runs([loss_stage, *self.stages[::-1]], "backward")

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
        return self.flow.value.reshape(self.batch, *self.flow.shape)


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
