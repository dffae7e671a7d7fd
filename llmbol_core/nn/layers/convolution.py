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
        kernel = (self.kernel_size,) * self.rank
        weight = (self.out_channels, self.in_channels // self.groups, *kernel)
        shapes: dict[str, Shape] = {"weight": weight}
        return shapes | ({"bias": (self.out_channels,)} if self.bias else {})

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(fan in)."""
        return uniform_parameters(self, stream, self._fan_in)

    @property
    def _fan_in(self) -> int:
        return math.prod(self.parameter_shapes()["weight"][1:])

    def attributes(self) -> dict[str, Any]:
        """Return the steps, one number for each axis in two dimensions, and the groups."""
        steps = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        spread = steps if self.rank == 1 else {k: (v,) * self.rank for k, v in steps.items()}
        return {**spread, "groups": self.groups}

    def output_shape(self, shape: Shape) -> Shape:
        """Return [out, ...] with floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1."""
        axes = ("channels", "length") if self.rank == 1 else ("channels", "height", "width")
        if len(shape) != len(axes) or shape[0] != self.in_channels:
            expected = f"{self.in_channels} channels as [{', '.join(axes)}]"
            raise self.shape_error(expected, shape)
        return super().output_shape(shape)

    def macs(self, shape: Shape) -> int:
        """Return the fan in for each output value."""
        return math.prod(self.output_shape(shape)) * self._fan_in

    def details(self) -> str:
        """Return channels and kernel, and of the rest what is not the default."""
        kernel = "x".join([str(self.kernel_size)] * self.rank)
        text = f"({self.in_channels} -> {self.out_channels}, {kernel}"
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)):
            value = getattr(self, name)
            text += f", {name} {value}" if value != default else ""
        return f"{text})" if self.bias else f"{text}) without bias"


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
        kernel = (self.kernel_size,) * self.rank
        weight = (self.in_channels, self.out_channels // self.groups, *kernel)
        shapes: dict[str, Shape] = {"weight": weight}
        return shapes | ({"bias": (self.out_channels,)} if self.bias else {})

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight and bias within 1 / sqrt(fan in)."""
        return uniform_parameters(self, stream, math.prod(self.parameter_shapes()["weight"][1:]))

    def attributes(self) -> dict[str, Any]:
        """Return the steps, one number for each axis in two dimensions, and the groups."""
        names = ("stride", "padding", "output_padding", "dilation")
        steps = {name: getattr(self, name) for name in names}
        spread = steps if self.rank == 1 else {k: (v,) * self.rank for k, v in steps.items()}
        return {**spread, "groups": self.groups}

    def output_shape(self, shape: Shape) -> Shape:
        """Return [out, ...], each length by the rule of the class."""
        axes = ("channels", "length") if self.rank == 1 else ("channels", "height", "width")
        if len(shape) != len(axes) or shape[0] != self.in_channels:
            expected = f"{self.in_channels} channels as [{', '.join(axes)}]"
            raise self.shape_error(expected, shape)
        return super().output_shape(shape)

    def macs(self, shape: Shape) -> int:
        """Return one kernel for each input value."""
        return math.prod(shape) * math.prod(self.parameter_shapes()["weight"][1:])

    def details(self) -> str:
        """Return channels and kernel, and of the rest what is not the default."""
        kernel = "x".join([str(self.kernel_size)] * self.rank)
        text = f"({self.in_channels} -> {self.out_channels}, {kernel}"
        for name, value in self.fields_config().items():
            if name in ("stride", "padding", "output_padding", "dilation", "groups"):
                text += f", {name.replace('_', ' ')} {value}"
        return f"{text})" if self.bias else f"{text}) without bias"


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
