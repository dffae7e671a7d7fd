"""Layers that move values without changing them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from llmbol_core.errors import ShapeError
from llmbol_core.nn.declared import Axis, Count, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Identity(Module):
    """Return the input, an array or a table."""

    takes = "anything"

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
        """Emit one ``flatten``, or ``unsqueeze`` for samples that are single numbers."""
        if len(x.shape) == 1:
            return graph.op("unsqueeze", x, axis=1)
        return graph.op("flatten", x)


class Permute(Operation):
    """Put the axes of each sample into another order; they count from 1, the batch is axis 0."""

    operation = "permute"
    axes: tuple[Axis, ...]

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Put the channels of an image last."""
        return cls((2, 3, 1)), (2, 3, 4)

    def attributes(self) -> dict[str, Any]:
        """Return the order with the batch first."""
        return {"axes": (0, *self.axes)}

    def details(self) -> str:
        """Return the order."""
        return f"({', '.join(map(str, self.axes))})"


class Padding(Composite):
    """Add borders along an axis: a value, or what mirrors, repeats or continues the values."""

    axis: Axis
    before: Count = 0
    after: Count = 0
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: float = 0.0

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Mirror 2 rows of 4 numbers at both ends."""
        return cls(2, 1, 2, mode="reflect"), (2, 4)

    def details(self) -> str:
        """Return the axis, the widths and the mode."""
        return f"({self.axis}, {self.before} + {self.after}, {self.mode})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one padding operation."""
        numbers = {"axis": self.axis, "before": self.before, "after": self.after}
        if self.mode == "constant":
            return graph.op("pad", x, **numbers, value=self.value)
        return graph.op(f"pad_{self.mode}", x, **numbers)


class Upsample(Composite):
    """Enlarge [channels, length] or [channels, height, width] by a factor along each length.

    Each value is repeated, or in the mode ``linear`` (for images bilinear) values between are
    interpolated, each value in the middle of its cell.
    """

    factor: Size
    mode: Literal["nearest", "linear"] = "nearest"

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Double 2 channels of 2 x 3 numbers."""
        return cls(2, "linear"), (2, 2, 3)

    def details(self) -> str:
        """Return factor and mode."""
        return f"({self.factor}, {self.mode})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one resize."""
        size = tuple(length * self.factor for length in x.shape[2:])
        return graph.op(f"upsample_{self.mode}", x, size=size)


class Select(Composite):
    """Take one slice along an axis, which goes; axes count from 1, the batch is axis 0.

    Negative positions count from the end: -1 on axis 1 is the last step of a sequence.
    """

    axis: Axis
    index: int

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Take the last of 3 steps."""
        return cls(1, -1), (3, 2)

    def details(self) -> str:
        """Return axis and position."""
        return f"({self.axis}, {self.index})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit a slice of one and drop its axis."""
        length = x.shape[self.axis] if self.axis < len(x.shape) else 0
        if not -length <= self.index < length:
            why = f"expected {self.index} on axis {self.axis}, got shape {list(x.shape[1:])}"
            raise ShapeError(self.label, why)
        at = self.index % length
        part = graph.op("slice", x, axis=self.axis, start=at, stop=at + 1)
        return graph.op("squeeze", part, axis=self.axis)
