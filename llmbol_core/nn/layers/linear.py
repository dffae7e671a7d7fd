"""Linear maps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from llmbol_core.nn.declared import Size
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Linear(Module):
    """Affine map of the last axis: y = x W^T + b, with W of shape [out_features, in_features].

    Starts as in PyTorch and Torch7: W and b uniform within 1 / sqrt(in_features).
    """

    in_features: Size
    out_features: Size
    bias: bool = True

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Map 5 numbers to 3."""
        return cls(5, 3), (5,)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        shapes: dict[str, Shape] = {"weight": (self.out_features, self.in_features)}
        return shapes | ({"bias": (self.out_features,)} if self.bias else {})

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(in_features)."""
        return uniform_parameters(self, stream, self.in_features)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape with the last axis out_features long."""
        if not shape or shape[-1] != self.in_features:
            raise self.shape_error(f"{self.in_features} features on the last axis", shape)
        return (*shape[:-1], self.out_features)

    def natural_input(self) -> Shape:
        """Return a vector of in_features."""
        return (self.in_features,)

    def macs(self, shape: Shape) -> int:
        """Return in_features for each output value."""
        return math.prod(self.output_shape(shape)) * self.in_features

    def details(self) -> str:
        """Return the two sizes."""
        sizes = f"({self.in_features} -> {self.out_features})"
        return sizes if self.bias else f"{sizes} without bias"

    def update_output(self, x: Array) -> Array:
        """Return x W^T + b."""
        self.output_shape(x.shape)
        output = x @ self.params["weight"].T
        if self.bias:
            output += self.params["bias"]
        return np.asarray(output)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return grad_output W."""
        return np.asarray(grad_output @ self.params["weight"])

    def acc_grad_parameters(self, x: Array, grad_output: Array, scale: float = 1.0) -> None:
        """Add the products of output gradients and inputs, and the sums of output gradients."""
        grads = grad_output.reshape(-1, self.out_features)
        scaled = grads if scale == 1.0 else grads * grads.dtype.type(scale)
        self.grads["weight"] += scaled.T @ x.reshape(-1, self.in_features)
        if self.bias:
            self.grads["bias"] += scaled.sum(axis=0)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one ``linear``."""
        bias = [graph.weight("bias")] if self.bias else []
        return graph.op("linear", x, graph.weight("weight"), *bias)


def uniform_parameters(layer: Module, stream: Stream, fan_in: int) -> dict[str, Array]:
    """Return each parameter uniform within 1 / sqrt(fan_in), as PyTorch starts its layers."""
    bound = 1 / math.sqrt(fan_in)
    shapes = layer.parameter_shapes().items()
    return {name: stream.uniform(shape, -bound, bound) for name, shape in shapes}
