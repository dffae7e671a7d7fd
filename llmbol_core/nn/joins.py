"""Modules between arrays and tables: what splits an array, and what makes one array of a table.

An axis counts with the batch as axis 0 and cannot be that one.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.nn.containers import Sequential, joined_shape
from llmbol_core.nn.declared import Axis, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.operation import uniform_parameters
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Data, Form, Module, Shape, is_table
from llmbol_core.nn.randomness import Stream
from llmbol_core.nn.summary import shown

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


_MOST_SLICES = 1024


class SplitTable(Module):
    """Turn an array into the table of its slices along an axis (the batch is axis 0)."""

    axis: Axis

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Split 2 rows of 3 numbers and join them again."""
        return Sequential([cls(1), JoinTable(1)]), (2, 3)

    def output_shape(self, shape: Shape) -> Form:
        """Return the shape without the axis, as often as the axis is long."""
        at = self.axis - 1
        if len(shape) <= at:
            raise self.shape_error(f"an axis {self.axis}", shape)
        if shape[at] > _MOST_SLICES:
            raise self.shape_error(f"at most {_MOST_SLICES} slices", shape)
        return ((*shape[:at], *shape[at + 1 :]),) * shape[at]

    def details(self) -> str:
        """Return the axis."""
        return f"({self.axis})"

    def update_output(self, x: Array) -> Data:
        """Return the slices."""
        self.output_shape(x.shape[1:])
        return tuple(np.moveaxis(x, self.axis, 0))

    def update_grad_input(self, x: Array, grad_output: Data) -> Array:
        """Return the gradients put back in the slices' places."""
        return np.stack(grad_output, axis=self.axis)

    def lower(self, graph: Scope, x: Value) -> Any:
        """Emit one slice for each member."""
        parts = (
            graph.op("slice", x, axis=self.axis, start=i, stop=i + 1)
            for i in range(x.shape[self.axis])
        )
        return tuple(graph.op("squeeze", part, axis=self.axis) for part in parts)


class JoinTable(Composite):
    """Join the arrays of a table along an axis (the batch is axis 0)."""

    takes = "a table"
    axis: Axis

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Join 2 rows of 3 numbers to one of 6."""
        return Sequential([SplitTable(1), cls(1)]), (2, 3)

    def output_shape(self, shape: Form) -> Shape:
        """Return the joined shape."""
        return joined_shape(self, shape, self.axis - 1)

    def details(self) -> str:
        """Return the axis."""
        return f"({self.axis})"

    def lower(self, graph: Scope, x: Any) -> Value:
        """Emit one ``concat`` for each member but the first."""
        return joined(graph, x, self.axis)


class SelectTable(Module):
    """Take one member of a table; they count from 0, negative ones from the end."""

    takes = "a table"
    index: int

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Take the last of two rows of 3."""
        return Sequential([SplitTable(1), cls(-1)]), (2, 3)

    def output_shape(self, shape: Form) -> Form:
        """Return the member's shape."""
        if not -len(shape) <= self.index < len(shape):
            raise ShapeError(self.label, f"no member {self.index} in a table of {len(shape)}")
        return shape[self.index]

    def details(self) -> str:
        """Return the index."""
        return f"({self.index})"

    def update_output(self, x: Data) -> Data:
        """Return the member."""
        return x[self.index]

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Return the gradient in the member's place, zeros elsewhere."""
        chosen = self.index % len(x)
        return tuple(grad_output if i == chosen else _zeros(part) for i, part in enumerate(x))

    def lower(self, graph: Scope, x: Any) -> Any:
        """Emit nothing."""
        return x[self.index]


class Elementwise(Composite, abstract=True):
    """Base of the modules that make one array of a table of arrays of one shape."""

    takes = "a table"

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Combine 3 rows of 4 numbers."""
        return Sequential([SplitTable(1), cls()]), (3, 4)

    def output_shape(self, shape: Form) -> Shape:
        """Return the shape that all members have."""
        if any(is_table(part) or part != shape[0] for part in shape):
            raise ShapeError(self.label, f"expected arrays of one shape, got {shown(shape)}")
        return tuple(shape[0])

    def combine(self, graph: Scope, operation: str, x: Any) -> Value:
        """Emit one operation for each member but the first."""
        self.output_shape(tuple(part.shape for part in x))
        combined: Value = functools.reduce(lambda a, b: graph.op(operation, a, b), x)
        return combined


class CAddTable(Elementwise):
    """Add the arrays of a table."""

    def lower(self, graph: Scope, x: Any) -> Value:
        """Emit additions."""
        return self.combine(graph, "add", x)


class CMulTable(Elementwise):
    """Multiply the arrays of a table, value by value."""

    def macs(self, shape: Form) -> int:
        """Return the multiplications."""
        return int((len(shape) - 1) * math.prod(shape[0]))

    def lower(self, graph: Scope, x: Any) -> Value:
        """Emit multiplications."""
        return self.combine(graph, "mul", x)


class Bilinear(Composite):
    """Bilinear map of a table of two vectors: y[k] = x1^T W[k] x2 + b[k].

    Starts as in PyTorch: W and b uniform within 1 / sqrt(in1_features).
    """

    takes = "a table"
    in1_features: Size
    in2_features: Size
    out_features: Size
    bias: bool = True

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Map 2 rows of 4 numbers to 3."""
        return Sequential([SplitTable(1), cls(4, 4, 3)]), (2, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        weight = (self.out_features, self.in1_features, self.in2_features)
        shapes: dict[str, Shape] = {"weight": weight}
        return shapes | ({"bias": (self.out_features,)} if self.bias else {})

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(in1_features)."""
        return uniform_parameters(self, stream, self.in1_features)

    def output_shape(self, shape: Form) -> Shape:
        """Return out_features for vectors of in1_features and in2_features."""
        if shape != ((self.in1_features,), (self.in2_features,)):
            raise self.shape_error(f"vectors of {self.in1_features} and {self.in2_features}", shape)
        return (self.out_features,)

    def macs(self, shape: Form) -> int:
        """Return the multiplications with the weight and with the first vector."""
        return self.out_features * self.in1_features * (self.in2_features + 1)

    def details(self) -> str:
        """Return the three sizes."""
        sizes = f"({self.in1_features}, {self.in2_features} -> {self.out_features})"
        return sizes if self.bias else f"{sizes} without bias"

    def lower(self, graph: Scope, x: tuple[Value, Value]) -> Value:
        """Emit the product with the second vector, then with the first, then the bias."""
        rows, columns = self.out_features * self.in1_features, self.in2_features
        weight = graph.op("reshape", graph.weight("weight"), shape=(rows, columns))
        maps = graph.op("linear", x[1], weight)
        maps = graph.op("reshape", maps, shape=(0, self.out_features, self.in1_features))
        column = graph.op("unsqueeze", x[0], axis=2)
        y = graph.op("squeeze", graph.op("matmul", maps, column), axis=2)
        return graph.op("add", y, graph.weight("bias")) if self.bias else y


def _zeros(x: Data) -> Data:
    """Return zeros in the structure of data."""
    return tuple(map(_zeros, x)) if isinstance(x, tuple) else np.zeros_like(x)


def joined(graph: Scope, parts: Any, axis: int) -> Value:
    """Emit one ``concat`` for each part but the first."""
    joined: Value = functools.reduce(lambda a, b: graph.op("concat", a, b, axis=axis), parts)
    return joined
