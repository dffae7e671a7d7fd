"""Layers that move values without changing them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmbol_core.nn.declared import Size
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Identity(Module):
    """Return the input."""

    def update_output(self, x: Array) -> Array:
        """Return the input itself."""
        return x

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the gradient itself."""
        return grad_output

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit nothing."""
        return x


class Reshape(Module):
    """Give each sample another shape with as many values."""

    shape: tuple[Size, ...]

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Turn 6 numbers into 2 rows of 3."""
        return cls((2, 3)), (6,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape asked for, if the values fill it."""
        if math.prod(shape) != math.prod(self.shape):
            raise self.shape_error(f"{math.prod(self.shape)} values", shape)
        return self.shape

    def details(self) -> str:
        """Return the shape as Torch7 writes it."""
        return f"({'x'.join(map(str, self.shape))})"

    def update_output(self, x: Array) -> Array:
        """Return the values in the new shape."""
        return x.reshape(len(x), *self.output_shape(x.shape[1:]))

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the gradient in the input's shape."""
        return grad_output.reshape(x.shape)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one ``reshape``."""
        return graph.op("reshape", x, shape=(0, *self.shape))


class Flatten(Module):
    """Turn each sample into one vector."""

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Flatten 2 rows of 3."""
        return cls(), (2, 3)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the number of values."""
        return (math.prod(shape),)

    def update_output(self, x: Array) -> Array:
        """Return one row per sample."""
        return x.reshape(len(x), -1)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the gradient in the input's shape."""
        return grad_output.reshape(x.shape)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one ``flatten``."""
        return graph.op("flatten", x)
