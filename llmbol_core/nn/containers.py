"""Containers: modules made of modules.

Errors from inside carry the path to the layer: ``2.conv1: expected 3 channels, got shape [1, 28]``.
Printing follows Torch7's tree, numbered from 0 as everywhere here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.nn.declared import Axis
from llmbol_core.nn.layers.activation import Tanh
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Data, Form, Module, Shape, is_table
from llmbol_core.nn.summary import Summary, shown, summarize

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Container(Module, abstract=True):
    """Base of the modules that hold others in ``layers``."""

    layers: list[Module] = dataclasses.field(default_factory=list, kw_only=True)

    def add(self, layer: Module) -> Self:
        """Append a layer; return this container."""
        return self.insert(layer, len(self.layers))

    def get(self, index: int) -> Module:
        """Return the layer at an index."""
        return self.layers[index]

    def insert(self, layer: Module, index: int) -> Self:
        """Put a layer before the one at an index."""
        if not isinstance(layer, Module):
            raise TypeError(f"expected a layer, got {layer!r}")
        self.layers.insert(index, layer)
        return self

    def remove(self, index: int = -1) -> Module:
        """Take out and return the layer at an index, the last by default."""
        return self.layers.pop(index)

    def size(self) -> int:
        """Return the number of layers directly inside."""
        return len(self.layers)

    def children(self) -> list[Module]:
        """Return the layers directly inside."""
        return self.layers

    def shape_inside(self, index: int, shape: Form) -> Form:
        """Return the output shape of the layer at an index."""
        return self.inside(index, self.layers[index].checked_shape, shape)

    def inside(self, index: int, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a method of the layer at an index; its ``ShapeError`` gets the index as prefix."""
        try:
            return function(*arguments)
        except ShapeError as error:
            raise ShapeError(f"{index}.{error.operation}", error.why) from error

    def __repr__(self) -> str:
        lines = [f"nn.{type(self).__name__}{self.details()} {{"]
        lines += [f"  {line}" for line in self.tree()]
        return "\n".join([*lines, "}"])

    def tree(self) -> list[str]:
        """Return the lines of the printed form between the braces."""
        raise NotImplementedError

    def printed(self, index: int) -> str:
        """Return ``(2): `` and the printed layer."""
        return f"({index}): {self.layers[index]!r}"


class Branches(Container, abstract=True):
    """Base of the containers whose layers stand side by side."""

    def tree(self) -> list[str]:
        """Return the branches as Torch7 draws them."""
        lines, last = ["input"], len(self.layers) - 1
        for index in range(len(self.layers)):
            first, *rest = self.printed(index).split("\n")
            lines.append(f"  {' ' if index == last else '|'}`-> {first}")
            lines += [f"  {' ' if index == last else '|'}    {line}" for line in rest]
        return [*lines, "   ... -> output"]


class Sequential(Container):
    """Feed each layer's output to the next."""

    takes = "anything"
    layers: list[Module] = dataclasses.field(default_factory=list)

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return two layers on five numbers."""
        return cls([Linear(5, 3), Tanh()]), (5,)

    def output_shape(self, shape: Form) -> Form:
        """Return the last layer's output shape."""
        for index in range(len(self.layers)):
            shape = self.shape_inside(index, shape)
        return shape

    def natural_input(self) -> Shape | None:
        """Return what the first layer that asks for a shape asks for."""
        shapes = (layer.natural_input() for layer in self.layers)
        return next((shape for shape in shapes if shape is not None), None)

    def summary(self, shape: Shape | None = None) -> Summary:
        """Return one row per layer and the totals, for inputs of this shape.

        Without a shape it is what the first layer that asks for one asks for.
        """
        shape = shape or self.natural_input()
        if shape is None:
            raise UsageError("summary: no layer says which input shape it takes, so give one")
        return summarize(self, self.label, shape)

    def macs(self, shape: Form) -> int:
        """Return the sum over the layers."""
        total = 0
        for layer in self.layers:
            total += layer.macs(shape)
            shape = layer.output_shape(shape)
        return total

    def update_output(self, x: Data) -> Data:
        """Return the last layer's output."""
        for index, layer in enumerate(self.layers):
            x = self.inside(index, layer.forward, x)
        return x

    def update_grad_input(self, x: Data, grad_output: Data) -> Data:
        """Pass the gradient back through all layers."""
        for layer, layer_input in self._backwards(x):
            grad_output = layer.grad_input = layer.update_grad_input(layer_input, grad_output)
        return grad_output

    def acc_grad_parameters(self, x: Data, grad_output: Data, scale: float = 1.0) -> None:
        """Accumulate in all layers, with the gradients that ``update_grad_input`` left."""
        for layer, layer_input in self._backwards(x):
            layer.acc_grad_parameters(layer_input, grad_output, scale)
            grad_output = layer.grad_input

    def _backwards(self, x: Data) -> list[tuple[Module, Data]]:
        """Return the layers with their inputs, last first."""
        inputs = [x, *(layer.output for layer in self.layers[:-1])]
        return list(zip(self.layers, inputs, strict=False))[::-1]

    def lower(self, graph: Scope, x: Any) -> Any:
        """Lower the layers one after another."""
        for index, layer in enumerate(self.layers):
            x = layer.lower(graph.child(index), x)
        return x

    def tree(self) -> list[str]:
        """Return the data's way and the layers."""
        way = " -> ".join(["input", *(f"({i})" for i in range(len(self.layers))), "output"])
        entries = [line for i in range(len(self.layers)) for line in self.printed(i).split("\n")]
        return [f"[{way}]", *entries]


class Parallel(Branches):
    """Give each layer one slice of the input and join the outputs.

    Slice i along ``input_axis``, with that axis gone, goes to layer i; the outputs are joined along
    ``output_axis``. Axes count the batch as axis 0 and cannot be that one. Torch7's ``Parallel``,
    which counts from 1.
    """

    input_axis: Axis
    output_axis: Axis

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Return two maps, of the first and the second row of two."""
        return cls(1, 1, layers=[Linear(5, 3), Sequential([Linear(5, 2), Tanh()])]), (2, 5)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the joined outputs' shape; there is one layer for each slice."""
        axis, out = self.input_axis - 1, self.output_axis - 1
        if len(shape) <= axis or shape[axis] != len(self.layers):
            raise self.shape_error(f"{len(self.layers)} slices on axis {self.input_axis}", shape)
        rest = shape[:axis] + shape[axis + 1 :]
        return joined_shape(self, [self.shape_inside(i, rest) for i in range(shape[axis])], out)

    def macs(self, shape: Shape) -> int:
        """Return the sum over the layers."""
        rest = _without(shape, self.input_axis - 1)
        return sum(layer.macs(rest) for layer in self.layers)

    def update_output(self, x: Array) -> Array:
        """Return the joined outputs."""
        self.output_shape(x.shape[1:])
        outputs = [
            self.inside(index, layer.forward, part)
            for index, (layer, part) in enumerate(zip(self.layers, self._slices(x), strict=True))
        ]
        return np.concatenate(outputs, axis=self.output_axis)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the layers' input gradients, put back in the slices' places."""
        grads = []
        for layer, part, grad in self._parts(x, grad_output):
            layer.grad_input = layer.update_grad_input(part, grad)
            grads.append(layer.grad_input)
        return np.stack(grads, axis=self.input_axis)

    def acc_grad_parameters(self, x: Array, grad_output: Array, scale: float = 1.0) -> None:
        """Accumulate in all layers."""
        for layer, part, grad in self._parts(x, grad_output):
            layer.acc_grad_parameters(part, grad, scale)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Cut, lower each layer, join pair by pair."""
        axis, joined = self.input_axis, None
        for index, layer in enumerate(self.layers):
            part = graph.op("slice", x, axis=axis, start=index, stop=index + 1)
            output = layer.lower(graph.child(index), graph.op("squeeze", part, axis=axis))
            if joined is None:
                joined = output
            else:
                joined = graph.op("concat", joined, output, axis=self.output_axis)
        return x if joined is None else joined

    def _slices(self, x: Array) -> list[Array]:
        return [np.take(x, i, axis=self.input_axis) for i in range(len(self.layers))]

    def _parts(self, x: Array, grad_output: Array) -> list[tuple[Module, Array, Array]]:
        """Return each layer with its part of the input and of the output gradient."""
        ends = np.cumsum([layer.output.shape[self.output_axis] for layer in self.layers])
        grads = np.split(grad_output, ends[:-1], axis=self.output_axis)
        return list(zip(self.layers, self._slices(x), grads, strict=True))

    def details(self) -> str:
        """Return the two axes."""
        return f"({self.input_axis} -> {self.output_axis})"


def joined_shape(layer: Module, parts: Sequence[Form], axis: int) -> Shape:
    """Return the shape of samples joined along an axis, counted from 0 without the batch."""
    for part in parts:
        fits = not is_table(part) and len(part) > axis
        if not fits or _without(part, axis) != _without(parts[0], axis):
            texts = " ".join(shown(p) for p in parts)
            raise ShapeError(layer.label, f"cannot join outputs on axis {axis + 1}: {texts}")
    return (*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])


def _without(shape: Shape, axis: int) -> Shape:
    """Return a shape without one axis."""
    return shape[:axis] + shape[axis + 1 :]
