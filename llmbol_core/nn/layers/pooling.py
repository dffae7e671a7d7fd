"""Pooling, in PyTorch's layout [N, channels, length] and [N, channels, height, width]."""

from __future__ import annotations

from typing import Any, ClassVar

from llmbol_core.nn.declared import Count, Size
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.module import Module, Shape


class Pooling(Operation, abstract=True):
    """Base: windows of one size slide along the axes after the channels.

    Without a stride they lie side by side. In ceil mode a last window may hang over the border.
    """

    rank: ClassVar[int]
    kernel_size: Size
    stride: Size | None = None
    padding: Count = 0
    ceil_mode: bool = False

    def attributes(self) -> dict[str, Any]:
        """Return the windows, one number for each axis in two dimensions, and the mode."""
        steps = {"kernel": self.kernel_size, "stride": self.stride or 0, "padding": self.padding}
        spread = steps if self.rank == 1 else {k: (v,) * self.rank for k, v in steps.items()}
        return {**spread, "ceil": self.ceil_mode}

    def macs(self, shape: Shape) -> int:
        """Return none: comparing and adding are no multiplications."""
        return 0

    def details(self) -> str:
        """Return the window, and all other fields that differ from their defaults."""
        text = "x".join([str(self.kernel_size)] * self.rank)
        text += f", stride {self.stride}" if self.stride else ""
        text += f", padding {self.padding}" if self.padding else ""
        return f"({text}{', ceil mode' if self.ceil_mode else ''})"


class MaxPool1d(Pooling):
    """Greatest value of each window; its gradient goes to the first of equal ones."""

    operation = "max_pool1d"
    rank = 1

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Take windows of 3, two steps apart, from 2 channels of 8 numbers."""
        return cls(3, 2, 1, ceil_mode=True), (2, 8)


class MaxPool2d(Pooling):
    """Greatest value of each square window; its gradient goes to the first of equal ones."""

    operation = "max_pool2d"
    rank = 2

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Halve 2 channels of 5 x 4 numbers."""
        return cls(2), (2, 5, 4)


class Averaging(Pooling, abstract=True):
    """Base: zeros around the input count as values, unless said otherwise."""

    count_include_pad: bool = True

    def attributes(self) -> dict[str, Any]:
        """Return the windows, the mode, and whether zeros count."""
        return super().attributes() | {"count_padding": self.count_include_pad}


class AvgPool1d(Averaging):
    """Mean of each window."""

    operation = "avg_pool1d"
    rank = 1

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Average windows of 3, two steps apart, of 2 channels of 8 numbers."""
        return cls(3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 8)


class AvgPool2d(Averaging):
    """Mean of each square window."""

    operation = "avg_pool2d"
    rank = 2

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Average windows of 3 x 3, two steps apart, of 2 channels of 5 x 4 numbers."""
        return cls(3, 2, 1), (2, 5, 4)


class AdaptiveAvgPool(Operation, abstract=True):
    """Base: the mean of so many windows that cover each axis evenly; a size of 1 pools it all."""

    operation = "adaptive_avg_pool"
    rank: ClassVar[int]
    output_size: Size

    def attributes(self) -> dict[str, Any]:
        """Return the size of each axis."""
        return {"size": (self.output_size,) * self.rank}

    def macs(self, shape: Shape) -> int:
        """Return none: adding is no multiplication."""
        return 0

    def details(self) -> str:
        """Return the size of the output."""
        return f"({'x'.join([str(self.output_size)] * self.rank)})"


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """Mean of so many windows that cover the length evenly."""

    rank = 1

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Average 2 channels of 7 numbers to 3."""
        return cls(3), (2, 7)


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """Mean of so many by so many windows that cover an image evenly."""

    rank = 2

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Average 2 channels of 5 x 4 numbers to 3 x 3."""
        return cls(3), (2, 5, 4)
