"""Linear maps."""

from __future__ import annotations

import math

from llmbol_core.nn.declared import Size
from llmbol_core.nn.layers.operation import Operation, uniform_parameters
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream


class Linear(Operation):
    """Affine map of the last axis: y = x W^T + b, with W of shape [out_features, in_features].

    Starts as in PyTorch and Torch7: W and b uniform within 1 / sqrt(in_features).
    """

    operation = "linear"
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
        return super().output_shape(shape)

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
