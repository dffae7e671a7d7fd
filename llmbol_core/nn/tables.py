"""Modules that make, take and pass on tables: tuples of arrays, Torch7's way to several paths.

    ConcatTable: the same input to each layer      ParallelTable: each member to its layer
    SplitTable: slices of an array                 MapTable: each member to one layer
    SelectTable, JoinTable, CAddTable, CMulTable, Bilinear: a table to an array

``Concat`` and ``Residual`` stay with arrays. The shape of a table is a tuple of shapes.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.nn import layers as _layers  # noqa: F401 -- with them the registry is complete
from llmbol_core.nn.containers import Branches, Container, Sequential, joined_shape
from llmbol_core.nn.declared import Axis, Size
from llmbol_core.nn.layers.activation import Tanh
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.operation import uniform_parameters
from llmbol_core.nn.layers.shape import Identity
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Data, Form, Module, Shape, is_table
from llmbol_core.nn.randomness import Stream
from llmbol_core.nn.summary import shown

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class ConcatTable(Branches):
    """Give each layer the whole input; the outputs are a table."""

    takes = "anything"

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return a residual path: 4 numbers and a map of them, added."""
        return Sequential([cls(layers=[Identity(), Linear(4, 4)]), CAddTable()]), (4,)

    def output_shape(self, shape: Form) -> Form:
        """Return the layers' output shapes."""
        return tuple(self.shape_inside(index, shape) for index in range(len(self.layers)))

    def macs(self, shape: Form) -> int:
        """Return the sum over the layers."""
        return sum(layer.macs(shape) for layer in self.layers)

    def update_output(self, x: Data) -> Data:
        """Return the layers' outputs."""
        return tuple(self.inside(i, layer.forward, x) for i, layer in enumerate(self.layers))

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Return the sum of the layers' input gradients."""
        for layer, grad in zip(self.layers, grad_output, strict=True):
            layer.grad_input = layer.update_grad_input(x, grad)
        return functools.reduce(_added, (layer.grad_input for layer in self.layers))

    def acc_grad_parameters(self, x: Data, grad_output: Data, scale: float = 1.0) -> None:
        """Accumulate in all layers."""
        for layer, grad in zip(self.layers, grad_output, strict=True):
            layer.acc_grad_parameters(x, grad, scale)

    def lower(self, graph: Scope, x: Any) -> Any:
        """Lower the layers side by side."""
        return tuple(layer.lower(graph.child(i), x) for i, layer in enumerate(self.layers))


class Concat(ConcatTable):
    """Give each layer the whole input and join the outputs along an axis (the batch is axis 0)."""

    axis: Axis

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return two maps of 5 numbers."""
        return cls(1, layers=[Linear(5, 3), Sequential([Linear(5, 2), Tanh()])]), (5,)

    def output_shape(self, shape: Form) -> Form:
        """Return the joined outputs' shape."""
        return joined_shape(self, super().output_shape(shape), self.axis - 1)

    def details(self) -> str:
        """Return the axis."""
        return f"({self.axis})"

    def update_output(self, x: Data) -> Array:
        """Return the joined outputs."""
        return np.concatenate(super().update_output(x), axis=self.axis)

    def update_grad_input(self, x: Data, grad_output: Array) -> Data:
        """Return the sum of the layers' input gradients."""
        return super().update_grad_input(x, self._parts(grad_output))

    def acc_grad_parameters(self, x: Data, grad_output: Array, scale: float = 1.0) -> None:
        """Accumulate in all layers."""
        super().acc_grad_parameters(x, self._parts(grad_output), scale)

    def _parts(self, grad_output: Array) -> Data:
        """Return each layer's part of the output gradient."""
        ends = np.cumsum([layer.output.shape[self.axis] for layer in self.layers])
        return tuple(np.split(grad_output, ends[:-1], axis=self.axis))

    def lower(self, graph: Scope, x: Any) -> Value:
        """Lower the layers side by side and join them pair by pair."""
        return _joined(graph, super().lower(graph, x), self.axis)


class ParallelTable(Branches):
    """Give each layer its member of the input; the outputs are a table."""

    takes = "a table"

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return two maps, of the first and the second row of two, added."""
        both = cls(layers=[Linear(4, 3), Sequential([Linear(4, 3), Tanh()])])
        return Sequential([SplitTable(1), both, CAddTable()]), (2, 4)

    def output_shape(self, shape: Form) -> Form:
        """Return the layers' output shapes; there is one layer for each member."""
        if len(shape) != len(self.layers):
            raise ShapeError(self.label, f"{len(self.layers)} layers for {len(shape)} members")
        return tuple(self.shape_inside(index, part) for index, part in enumerate(shape))

    def macs(self, shape: Form) -> int:
        """Return the sum over the layers."""
        return sum(layer.macs(part) for layer, part in zip(self.layers, shape, strict=True))

    def update_output(self, x: Data) -> Data:
        """Return the layers' outputs."""
        return tuple(self.inside(i, layer.forward, x[i]) for i, layer in enumerate(self.layers))

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Return the layers' input gradients."""
        for layer, part, grad in zip(self.layers, x, grad_output, strict=True):
            layer.grad_input = layer.update_grad_input(part, grad)
        return tuple(layer.grad_input for layer in self.layers)

    def acc_grad_parameters(self, x: Data, grad_output: Data, scale: float = 1.0) -> None:
        """Accumulate in all layers."""
        for layer, part, grad in zip(self.layers, x, grad_output, strict=True):
            layer.acc_grad_parameters(part, grad, scale)

    def lower(self, graph: Scope, x: Any) -> Any:
        """Lower the layers side by side."""
        return tuple(layer.lower(graph.child(i), x[i]) for i, layer in enumerate(self.layers))


class MapTable(Container):
    """Give each member of the input to one and the same layer; the outputs are a table."""

    takes = "a table"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.layers) > 1:
            raise UsageError(f"MapTable.layers: expected one layer, got {len(self.layers)}")
        self._copies: list[Module] = []

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return one map for both of two rows, multiplied."""
        return Sequential([SplitTable(1), cls(layers=[Linear(4, 3)]), CMulTable()]), (2, 4)

    def output_shape(self, shape: Form) -> Form:
        """Return the layer's output shape for each member."""
        if not self.layers:
            raise ShapeError(self.label, "no layer inside")
        return tuple(self.shape_inside(0, part) for part in shape)

    def macs(self, shape: Form) -> int:
        """Return the sum over the members."""
        return sum(self.layers[0].macs(part) for part in shape)

    def forget(self) -> None:
        """Forget what the last calls left, the copies for the members too."""
        super().forget()
        self._copies = []

    def update_output(self, x: Data) -> Data:
        """Return the layer's output for each member."""
        (layer,) = self.layers
        while len(self._copies) < len(x):
            self._copies.append(_twin(layer))
        for copy in self._copies:
            copy.training() if layer.train else copy.evaluate()
        return tuple(self.inside(0, c.forward, p) for c, p in zip(self._copies, x, strict=False))

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Return the input gradient for each member."""
        copies = self._copies[: len(x)]
        for copy, part, grad in zip(copies, x, grad_output, strict=True):
            copy.grad_input = copy.update_grad_input(part, grad)
        return tuple(copy.grad_input for copy in copies)

    def acc_grad_parameters(self, x: Data, grad_output: Data, scale: float = 1.0) -> None:
        """Accumulate the gradients of all members in the one layer."""
        for copy, part, grad in zip(self._copies, x, grad_output, strict=False):
            copy.acc_grad_parameters(part, grad, scale)

    def lower(self, graph: Scope, x: Any) -> Any:
        """Lower the layer for each member, with the same weights."""
        return tuple(self.layers[0].lower(graph.child(0), part) for part in x)

    def tree(self) -> list[str]:
        """Return the layer."""
        return self.printed(0).split("\n") if self.layers else []


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
        """Join 4 numbers with a map of them."""
        return Sequential([ConcatTable(layers=[Identity(), Linear(4, 2)]), cls(1)]), (4,)

    def output_shape(self, shape: Form) -> Shape:
        """Return the joined shape."""
        return joined_shape(self, shape, self.axis - 1)

    def details(self) -> str:
        """Return the axis."""
        return f"({self.axis})"

    def lower(self, graph: Scope, x: Any) -> Value:
        """Emit one ``concat`` for each member but the first."""
        return _joined(graph, x, self.axis)


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
        """Combine 4 numbers with two maps of them."""
        paths = ConcatTable(layers=[Identity(), Linear(4, 4), Linear(4, 4)])
        return Sequential([paths, cls()]), (4,)

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


class Residual(Sequential):
    """Add the input to what the layers, in a row, make of it."""

    takes = "an array"

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return 4 numbers plus a map of them."""
        return cls([Linear(4, 4), Tanh()]), (4,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape; the layers must keep it."""
        output = super().output_shape(shape)
        if output != shape:
            why = f"the layers turn {shown(shape)} into {shown(output)}: it cannot be added"
            raise ShapeError(self.label, why)
        return shape

    def update_output(self, x: Array) -> Array:
        """Return the sum of input and last output."""
        self.output_shape(x.shape[1:])
        return np.asarray(x + super().update_output(x))

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the gradient through the layers plus the one past them."""
        return np.asarray(super().update_grad_input(x, grad_output) + grad_output)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Lower the layers and add the input."""
        return graph.op("add", x, super().lower(graph, x))

    def tree(self) -> list[str]:
        """Return the data's way and the layers."""
        way, *entries = super().tree()
        return [way.replace("output]", "+ input -> output]"), *entries]


def _added(first: Data, second: Data) -> Data:
    """Return the sum of data of one structure."""
    if isinstance(first, tuple):
        return tuple(_added(a, b) for a, b in zip(first, second, strict=True))
    return first + second


def _zeros(x: Data) -> Data:
    """Return zeros in the structure of data."""
    return tuple(map(_zeros, x)) if isinstance(x, tuple) else np.zeros_like(x)


def _joined(graph: Scope, parts: Any, axis: int) -> Value:
    """Emit one ``concat`` for each part but the first."""
    joined: Value = functools.reduce(lambda a, b: graph.op("concat", a, b, axis=axis), parts)
    return joined


def _twin(layer: Module) -> Module:
    """Return a copy of a layer that shares parameters, gradients, state and random numbers."""
    twin = layer.clone()
    for own, other in zip(layer.list_modules(), twin.list_modules(), strict=True):
        shared = {name: getattr(own, name) for name in ("params", "grads", "buffers", "_stream")}
        vars(other).update(shared)
    return twin


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
        """Map 4 numbers and a map of them to 3."""
        pair = ConcatTable(layers=[Linear(4, 4), Linear(4, 2)])
        return Sequential([pair, cls(4, 2, 3)]), (4,)

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
