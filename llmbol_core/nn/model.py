"""A model: the content of a spec or a checkpoint, with its layers ready to run.

    name, input (shape, scale), layers, labels, train (data, split, loss, optimizer, ...), output

The same classes are the sections of the YAML file; ``spec.py`` only reads them.
"""

from __future__ import annotations

import dataclasses
import math
import os
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np

from llmbol_core.errors import ModelError, UsageError
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.criterions import Criterion, CrossEntropy
from llmbol_core.nn.data import conform, scaled
from llmbol_core.nn.declared import (
    Count,
    FieldError,
    Fraction,
    Name,
    NotNegative,
    Positive,
    Section,
    Seed,
    Size,
    convert,
)
from llmbol_core.nn.metrics import MetricName, check_metrics
from llmbol_core.nn.module import Array, Form, Module, Shape, is_table
from llmbol_core.nn.optim import Adam, Optimizer
from llmbol_core.nn.schedules import Schedule
from llmbol_core.nn.summary import DEPTH, Summary, shown, summarize

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Graph


_MOST_PARAMETERS = 1 << 38


class Input(Section):
    """What the model takes: the shape of one sample, and a factor for its values.

    In a spec ``normalize`` with mean and std stands for a ``Normalize`` layer in front.
    """

    shorthands = ("normalize",)
    shape: tuple[Size, ...]
    scale: Positive = 1.0


class Output(Section):
    """How answers are shown: the labels of the ``top_k`` highest values, or with 0 all values."""

    top_k: Count = 0


class Split(Section):
    """Which part of the data is held out: in proportion by class, in random order.

    ``validation`` is the share of the rest that is watched instead of trained on: early stopping
    and a plateau schedule go by it, or without one by the held-out part.
    """

    test: Fraction = 0.2
    seed: Seed = 0
    stratify: bool = True
    validation: Fraction = 0.0


class EarlyStopping(Section):
    """Stop when the watched loss has not fallen for more than ``patience`` epochs.

    It must fall by more than ``min_delta``. The weights of the best epoch are restored.
    """

    patience: Count = 5
    min_delta: NotNegative = 0.0
    restore: bool = True


class Training(Section):
    """How the model is trained; the data's path is relative to the file that says so.

    ``metrics`` are measured beside the loss, after each epoch and by evaluation.
    """

    data: Name
    inputs: Name = "inputs"
    targets: Name = "targets"
    split: Split = dataclasses.field(default_factory=Split)
    loss: Criterion = dataclasses.field(default_factory=CrossEntropy)
    optimizer: Optimizer = dataclasses.field(default_factory=Adam)
    schedule: Schedule | None = None
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    early_stopping: EarlyStopping | None = None
    metrics: tuple[MetricName, ...] = ()
    epochs: Size = 10
    batch_size: Size = 32
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_metrics(self.metrics, self.loss.classifies)


class Model(Section):
    """Layers in a row, with a name, a declared input, and labels and training if they are known.

    ``path`` is the file that the model was read from, or empty.
    """

    name: Name
    input: Input
    layers: list[Module]
    labels: tuple[Name, ...] = ()
    train: Training | None = None
    output: Output | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.path = ""
        if not self.layers:
            raise ModelError(self.name, "a model needs at least one layer")
        if (parameters := self.network.parameter_count()) > _MOST_PARAMETERS:
            raise ModelError(self.name, f"{parameters} parameters are more than fit into memory")
        classes = math.prod(self.output_shape)
        if self.labels and len(self.labels) != classes:
            why = f"{len(self.labels)} labels for an output of {classes} values"
            raise ModelError(self.name, why)

    @cached_property
    def network(self) -> Sequential:
        """The layers as one module."""
        return Sequential(self.layers)

    @property
    def data_path(self) -> str:
        """Where the data that the training section names are; empty without such a section."""
        if self.train is None:
            return ""
        return os.path.normpath(os.path.join(os.path.dirname(self.path), self.train.data))

    @cached_property
    def output_shape(self) -> Shape:
        """The shape of one output sample; raises ``ShapeError`` if the layers do not fit."""
        shape: Form = self.network.output_shape(self.input.shape)
        if is_table(shape):
            raise ModelError(self.name, f"the last layer gives a table, {shown(shape)}: join it")
        return tuple(shape)

    def prepare(self, x: Array) -> Array:
        """Return a batch of inputs as the first layer takes it: float, scaled."""
        return scaled(conform(x, self.input.shape, self.name), self.input.scale)

    def forward(self, x: Array) -> Array:
        """Return the output for a sample or for a batch of samples."""
        output: Array = self.network.forward(self.prepare(x))
        return output[0] if np.ndim(x) == len(self.input.shape) else output

    def backward(self, x: Array, grad_output: Array) -> Array:
        """Add parameter gradients for a batch; return the gradient at the first layer's input."""
        return np.asarray(self.network.backward(self.prepare(x), grad_output))

    __call__ = forward

    def training(self) -> Self:
        """Switch all layers to training."""
        self.network.training()
        return self

    def evaluate(self) -> Self:
        """Switch all layers to evaluation."""
        self.network.evaluate()
        return self

    def reset(self, seed: int = 0) -> Self:
        """Give all layers the initial values that belong to a seed."""
        self.network.reset(seed)
        return self

    def seeded(self, seed: int | None = None) -> Self:
        """Give all layers the initial values of a seed, by default the one of the training section.

        A seed that is given becomes that of the training section.
        """
        if seed is None:
            return self.reset(0 if self.train is None else self.train.seed)
        try:
            convert(Seed, seed)
        except FieldError as error:
            raise UsageError(f"seed: {error}") from None
        if self.train is not None:
            self.train.seed = seed
        return self.reset(seed)

    def summary(self, depth: int = DEPTH) -> Summary:
        """Return one row per layer with its shapes, parameters and cost, and the totals."""
        return summarize(self.network, self.name, self.input.shape, depth)

    def lower(self) -> Graph:
        """Return what the model does in evaluation mode as a graph over the operation table."""
        from llmbol_core.ml.graph import Graph
        from llmbol_core.nn.lowering import Scope

        graph = Graph()
        x = graph.input("input", self.input.shape)
        if self.input.scale != 1.0:
            x = graph.op("scale", x, factor=self.input.scale)
        graph.output(self.network.lower(Scope(graph, self.network.state_shapes()), x))
        return graph

    def __repr__(self) -> str:
        return f"{self.name}: {self.network!r}"
