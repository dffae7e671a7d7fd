"""Containers that make and take tables: tuples of arrays, Torch7's way to several paths.

    ConcatTable: the same input to each layer      ParallelTable: each member to its layer
    MapTable: each member to one and the same layer

``Concat`` and ``Residual`` stay with arrays; ``joins.py`` has what splits and joins. The shape of a
table is a tuple of shapes.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.nn import layers as _layers  # noqa: F401 -- with them the registry is complete
from llmbol_core.nn.containers import Branches, Container, Sequential, joined_shape
from llmbol_core.nn.declared import Axis
from llmbol_core.nn.joins import CAddTable, CMulTable, SplitTable, joined
from llmbol_core.nn.layers.activation import Tanh
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.shape import Identity
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Data, Form, Module, Shape
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
        if not self.layers:
            raise ShapeError(self.label, "no layer inside")
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
        return joined(graph, super().lower(graph, x), self.axis)


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
            self._copies.append(layer.clone())
        for copy in self._copies:
            _share(layer, copy)
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


def _share(layer: Module, copy: Module) -> None:
    """Let a copy of a layer use its parameters, gradients, state, random numbers and mode."""
    for own, other in zip(layer.list_modules(), copy.list_modules(), strict=True):
        names = ("params", "grads", "buffers", "_stream", "train")
        vars(other).update({name: getattr(own, name) for name in names})
