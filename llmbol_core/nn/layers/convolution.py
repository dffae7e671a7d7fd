"""Convolutions and pooling along one axis; PyTorch's layout [N, channels, length]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llmbol_core.nn.declared import Count, Size
from llmbol_core.nn.layers.linear import uniform_parameters
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Conv1d(Module):
    """Cross-correlation along the last axis, zeros around it.

    y[n, o, t] = b[o] + sum over c, k of W[o, c, k] x[n, c, t * stride + k - padding]. Starts as in
    PyTorch: uniform within 1 / sqrt(in_channels * kernel_size).
    """

    in_channels: Size
    out_channels: Size
    kernel_size: Size
    stride: Size = 1
    padding: Count = 0
    bias: bool = True

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Convolve 2 channels of 9 numbers with kernels of 3, two steps at a time."""
        return cls(2, 3, 3, stride=2, padding=1), (2, 9)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        weight = (self.out_channels, self.in_channels, self.kernel_size)
        shapes: dict[str, Shape] = {"weight": weight}
        return shapes | ({"bias": (self.out_channels,)} if self.bias else {})

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(fan in)."""
        return uniform_parameters(self, stream, self.in_channels * self.kernel_size)

    def output_shape(self, shape: Shape) -> Shape:
        """Return [out_channels, floor((length + 2 padding - kernel_size) / stride) + 1]."""
        if len(shape) != 2 or shape[0] != self.in_channels:
            raise self.shape_error(f"{self.in_channels} channels [C, length]", shape)
        return (self.out_channels, window_count(self, shape, 2 * self.padding))

    def macs(self, shape: Shape) -> int:
        """Return in_channels * kernel_size for each output value."""
        return math.prod(self.output_shape(shape)) * self.in_channels * self.kernel_size

    def details(self) -> str:
        """Return channels, kernel and what is not the default."""
        more = f", {self.stride}" if self.stride != 1 or self.padding else ""
        more += f", {self.padding}" if self.padding else ""
        text = f"({self.in_channels} -> {self.out_channels}, {self.kernel_size}{more})"
        return text if self.bias else f"{text} without bias"

    def update_output(self, x: Array) -> Array:
        """Return the sums over the windows."""
        self.output_shape(x.shape[1:])
        weight = self.params["weight"].reshape(self.out_channels, -1)
        output = weight @ self._columns(x)
        if self.bias:
            output += self.params["bias"][:, None]
        return np.asarray(output)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Add each window's gradient back to where the window lay."""
        weight = self.params["weight"].reshape(self.out_channels, -1)
        columns = (weight.T @ grad_output).reshape(
            len(x), self.in_channels, self.kernel_size, grad_output.shape[2]
        )
        length = x.shape[2]
        grad = np.zeros((len(x), self.in_channels, length + 2 * self.padding), x.dtype)
        span = self.stride * (grad_output.shape[2] - 1) + 1
        for k in range(self.kernel_size):
            grad[:, :, k : k + span : self.stride] += columns[:, :, k]
        return grad[:, :, self.padding : self.padding + length]

    def acc_grad_parameters(self, x: Array, grad_output: Array, scale: float = 1.0) -> None:
        """Add the products of output gradients and windows, and the sums of output gradients."""
        real = grad_output.dtype.type
        products = (grad_output @ self._columns(x).transpose(0, 2, 1)).sum(axis=0)
        self.grads["weight"] += real(scale) * products.reshape(self.grads["weight"].shape)
        if self.bias:
            self.grads["bias"] += real(scale) * grad_output.sum(axis=(0, 2))

    def _columns(self, x: Array) -> Array:
        """Return the windows as columns: [N, in_channels * kernel_size, windows]."""
        padded = np.pad(x, ((0, 0), (0, 0), (self.padding, self.padding))) if self.padding else x
        windows = sliding_window_view(padded, self.kernel_size, axis=2)[:, :, :: self.stride]
        columns = windows.transpose(0, 1, 3, 2)
        return columns.reshape(len(x), -1, columns.shape[3])

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one ``conv1d``."""
        bias = [graph.weight("bias")] if self.bias else []
        weight = graph.weight("weight")
        return graph.op("conv1d", x, weight, *bias, stride=self.stride, padding=self.padding)


def window_count(layer: Conv1d, shape: Shape, padding: int) -> int:
    """Return how many windows fit along the last axis, at least one."""
    count = (shape[-1] + padding - layer.kernel_size) // layer.stride + 1
    if count < 1:
        raise layer.shape_error(f"a length of at least {layer.kernel_size - padding}", shape)
    return count
