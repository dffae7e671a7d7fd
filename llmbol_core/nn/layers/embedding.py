"""Learned vectors: one for each word of a vocabulary, or for each place of a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.nn.declared import NotNegative, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Embedding(Composite):
    """Replace each whole number by its row of a learned table; rows start normally distributed.

    Inputs are numbers from 0 to rows - 1, one axis of features comes last. They have no gradient.
    """

    rows: Size
    features: Size

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Look up 3 words of a vocabulary of 5."""
        return cls(5, 2), (3,)

    @classmethod
    def example_batch(cls, rng: np.random.Generator, count: int) -> Array:
        """Return numbers of rows."""
        return rng.integers(0, 5, (count, 3)).astype(np.float64)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of the table."""
        return {"weight": (self.rows, self.features)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return rows of mean 0 and variance 1."""
        return {"weight": stream.normal((self.rows, self.features))}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape, with the features as the last axis."""
        return (*shape, self.features)

    def macs(self, shape: Shape) -> int:
        """Return none: rows are only picked."""
        return 0

    def details(self) -> str:
        """Return the size of the table."""
        return f"({self.rows} -> {self.features})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit the look-up of rounded numbers."""
        return graph.op("get_rows", graph.weight("weight"), graph.op("to_indices", x))


class PositionalEmbedding(Composite):
    """Add a learned vector to each step of a sequence [steps, features].

    The vectors start normally distributed with this deviation. Shorter sequences take the first.
    """

    steps: Size
    features: Size
    deviation: NotNegative = 0.0

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Add to 3 steps of 2 features the first 3 of 4 vectors."""
        return cls(4, 2, 0.5), (3, 2)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of the vectors."""
        return {"weight": (self.steps, self.features)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return vectors of mean 0 and the deviation asked for."""
        normal = stream.normal((self.steps, self.features))
        return {"weight": normal * np.float32(self.deviation)}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if there are vectors for all steps."""
        if len(shape) != 2 or shape[1] != self.features or not 0 < shape[0] <= self.steps:
            raise self.shape_error(f"[up to {self.steps} steps, {self.features}]", shape)
        return shape

    def natural_input(self) -> Shape | None:
        """Return a sequence with all steps."""
        return (self.steps, self.features)

    def details(self) -> str:
        """Return steps and features."""
        return f"({self.steps} x {self.features})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit the sum with the first vectors."""
        if len(x.shape) != 3 or x.shape[1] > self.steps or x.shape[2] != self.features:
            raise ShapeError(self.label, f"expected [steps, features], got {list(x.shape[1:])}")
        weight = graph.weight("weight")
        if x.shape[1] < self.steps:
            weight = graph.op("slice", weight, axis=0, start=0, stop=x.shape[1])
        return graph.op("add", x, weight)
