"""Convolutions, in PyTorch's layout [N, channels, length] and [N, channels, height, width]."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from llmbol_core.errors import UsageError
from llmbol_core.nn.declared import Count, Size
from llmbol_core.nn.layers.operation import Operation, uniform_parameters
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream


class Convolution(Operation, abstract=True):
    """Base: kernels slide along the axes after the channels, with zeros around the input.

    Starts as in PyTorch: uniform within 1 / sqrt(fan in), the values that one output sums.
    """

    rank: ClassVar[int]
    in_channels: Size
    out_channels: Size
    kernel_size: Size
    stride: Size = 1
    padding: Count = 0
    dilation: Size = 1
    groups: Size = 1
    bias: bool = True

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight, [out, in / groups, kernel...], and bias."""
        return _parameter_shapes(self, self.out_channels, self.in_channels // self.groups)

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(fan in)."""
        return uniform_parameters(self, stream, self._fan_in)

    @property
    def _fan_in(self) -> int:
        return math.prod(self.parameter_shapes()["weight"][1:])

    def attributes(self) -> dict[str, Any]:
        """Return the steps, one number for each axis in two dimensions, and the groups."""
        return _attributes(self, "stride", "padding", "dilation")

    def output_shape(self, shape: Shape) -> Shape:
        """Return [out, ...] with floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1."""
        _check_axes(self, shape)
        return super().output_shape(shape)

    def macs(self, shape: Shape) -> int:
        """Return the fan in for each output value."""
        return math.prod(self.output_shape(shape)) * self._fan_in

    def details(self) -> str:
        """Return channels and kernel, and all other fields that differ from their defaults."""
        return _details(self)


class Conv1d(Convolution):
    """Cross-correlation along the last axis, zeros around it.

    y[n, o, t] = b[o] + sum over c, k of W[o, c, k] x[n, c, t stride + k dilation - padding].
    """

    operation = "conv1d"
    rank = 1

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Convolve 2 channels of 9 numbers with kernels of 3, two steps at a time."""
        return cls(2, 4, 3, stride=2, padding=1, groups=2), (2, 9)


class Conv2d(Convolution):
    """Cross-correlation along the last two axes with square kernels, zeros around the image."""

    operation = "conv2d"
    rank = 2

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Convolve 2 channels of 5 x 4 numbers with kernels of 3 x 3."""
        return cls(2, 3, 3, padding=1), (2, 5, 4)


class ConvTranspose(Operation, abstract=True):
    """Base: each value spreads a kernel over the output, the gradient of a convolution.

    The length becomes (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1. Starts as
    in PyTorch: uniform within 1 / sqrt(fan in), where fan in is out / groups times the kernel.
    """

    rank: ClassVar[int]
    in_channels: Size
    out_channels: Size
    kernel_size: Size
    stride: Size = 1
    padding: Count = 0
    output_padding: Count = 0
    dilation: Size = 1
    groups: Size = 1
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.in_channels % self.groups or self.out_channels % self.groups:
            name, sizes = type(self).__name__, f"{self.in_channels} and {self.out_channels}"
            raise UsageError(f"{name}.groups: {self.groups} do not divide {sizes} channels")

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight, [in, out / groups, kernel...], and bias."""
        return _parameter_shapes(self, self.in_channels, self.out_channels // self.groups)

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(fan in)."""
        return uniform_parameters(self, stream, math.prod(self.parameter_shapes()["weight"][1:]))

    def attributes(self) -> dict[str, Any]:
        """Return the steps, one number for each axis in two dimensions, and the groups."""
        return _attributes(self, "stride", "padding", "output_padding", "dilation")

    def output_shape(self, shape: Shape) -> Shape:
        """Return [out, ...], each length by the rule of the class."""
        _check_axes(self, shape)
        return super().output_shape(shape)

    def macs(self, shape: Shape) -> int:
        """Return one kernel for each input value."""
        return math.prod(shape) * math.prod(self.parameter_shapes()["weight"][1:])

    def details(self) -> str:
        """Return channels and kernel, and all other fields that differ from their defaults."""
        return _details(self)


class ConvTranspose1d(ConvTranspose):
    """Transposed convolution along the last axis: a learned way to enlarge a sequence."""

    operation = "conv_transpose1d"
    rank = 1

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Double 2 channels of 4 numbers."""
        return cls(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4)


class ConvTranspose2d(ConvTranspose):
    """Transposed convolution along the last two axes: a learned way to enlarge an image."""

    operation = "conv_transpose2d"
    rank = 2

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Double 2 channels of 3 x 2 numbers."""
        return cls(2, 3, 2, stride=2), (2, 3, 2)


_Layer = Convolution | ConvTranspose
_STEPS = ("stride", "padding", "output_padding", "dilation", "groups")


def _parameter_shapes(layer: _Layer, *channels: int) -> dict[str, Shape]:
    """Return the shapes of weight and bias, given the weight's channels."""
    shapes: dict[str, Shape] = {"weight": (*channels, *(layer.kernel_size,) * layer.rank)}
    return shapes | ({"bias": (layer.out_channels,)} if layer.bias else {})


def _attributes(layer: _Layer, *names: str) -> dict[str, Any]:
    """Return fields by name, one number for each axis in two dimensions, and the groups."""
    steps = {name: getattr(layer, name) for name in names}
    spread = steps if layer.rank == 1 else {k: (v,) * layer.rank for k, v in steps.items()}
    return {**spread, "groups": layer.groups}


def _check_axes(layer: _Layer, shape: Shape) -> None:
    """Raise ShapeError unless the channels are the layer's, on the first of all axes."""
    axes = ("channels", "length") if layer.rank == 1 else ("channels", "height", "width")
    if len(shape) != len(axes) or shape[0] != layer.in_channels:
        expected = f"{layer.in_channels} channels as [{', '.join(axes)}]"
        raise layer.shape_error(expected, shape)


def _details(layer: _Layer) -> str:
    """Return channels and kernel, and all other fields that differ from their defaults."""
    kernel = "x".join([str(layer.kernel_size)] * layer.rank)
    text = f"({layer.in_channels} -> {layer.out_channels}, {kernel}"
    for name, value in layer.fields_config().items():
        text += f", {name.replace('_', ' ')} {value}" if name in _STEPS else ""
    return f"{text})" if layer.bias else f"{text}) without bias"
