"""Layers that are one row of the operation table, with the layer's parameters as weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value

Gradients = tuple[Array | None, ...]

_NOTHING: tuple[None, Gradients] = (None, ())


class Operation(Module, abstract=True):
    """Base: the table says shape, output and gradients; the subclass names a row.

    The operation's inputs are the layer's, then its parameters in the order in which
    ``parameter_shapes`` has them. So the output in training is, bit for bit, that of the graph.
    """

    operation: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._kept: tuple[Array | None, Gradients] = _NOTHING

    def attributes(self) -> dict[str, Any]:
        """Return the operation's attributes; none by default."""
        return {}

    def output_shape(self, shape: Shape) -> Shape:
        """Return what the table's rule says, the complaint in this layer's name."""
        shapes = self.parameter_shapes().values()
        row = OPS[self.operation]
        rest = [None] * (len(row.inputs) - 1 - len(shapes))
        try:
            return row.shape((1, *shape), *shapes, *rest, **row.conform(self.attributes()))[1:]
        except ShapeError as error:
            raise ShapeError(self.label, error.why) from error

    def update_output(self, x: Array) -> Array:
        """Run the operation."""
        self.output_shape(x.shape[1:])
        return OPS[self.operation].run(x, *self.params.values(), **self.attributes())

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the operation's gradient for the input; keep those for the parameters."""
        self._kept = (grad_output, self._gradients(x, grad_output))
        gradient = self._kept[1][0]
        assert gradient is not None
        return np.asarray(gradient)

    def acc_grad_parameters(self, x: Array, grad_output: Array, scale: float = 1.0) -> None:
        """Add the operation's gradients for the parameters."""
        if self.grads:
            kept_for, gradients = self._kept
            if kept_for is not grad_output:
                gradients = self._gradients(x, grad_output)
            for own, gradient in zip(self.grads.values(), gradients[1:], strict=False):
                own += gradient if scale == 1.0 else gradient * own.dtype.type(scale)
        self._kept = _NOTHING

    def _gradients(self, x: Array, grad_output: Array) -> Gradients:
        """Return the gradients for all of the operation's inputs."""
        row = OPS[self.operation]
        assert row.gradient is not None
        attributes = row.conform(self.attributes())
        return row.gradient(grad_output, self.output, x, *self.params.values(), **attributes)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit the operation."""
        weights = [graph.weight(name) for name in self.parameter_shapes()]
        return graph.op(self.operation, x, *weights, **self.attributes())


def uniform_parameters(layer: Module, stream: Stream, fan_in: int) -> dict[str, Array]:
    """Return each parameter uniform within 1 / sqrt(fan_in), as PyTorch starts its layers."""
    bound = 1 / math.sqrt(fan_in)
    shapes = layer.parameter_shapes().items()
    return {name: stream.uniform(shape, -bound, bound) for name, shape in shapes}
