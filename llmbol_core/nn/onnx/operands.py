"""What the operands of ONNX nodes are: constants, and values that depend on the input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


class Unsupported(Exception):
    """What keeps a node from being imported, said without the node's name."""


@dataclass(frozen=True)
class Constant:
    """A tensor whose values the file gives, or that follows from such tensors."""

    array: Array
    name: str = ""
    """Of the tensor in the file that it comes from; empty if several make it."""

    @property
    def shape(self) -> Shape:
        """Its shape."""
        return self.array.shape

    @property
    def whole(self) -> bool:
        """Whether it holds integers or truth values."""
        return self.array.dtype.kind in "iub"

    def with_array(self, array: Array) -> Constant:
        """Return the same tensor in another form."""
        return replace(self, array=array)


@dataclass(frozen=True)
class Traced:
    """A value that depends on the input, with its shape for the batch of a prime."""

    name: str
    shape: Shape
    whole: bool = False
    """Whether its values are integers or truth values in the file."""
    is_index: bool = False
    """Whether its step gives I32."""
    outer: int = 1
    """Of the axis with the batch, how many values lie outside of the batch, before it."""


@dataclass(frozen=True)
class Unavailable:
    """A result that there is no step for; whoever needs it cannot be imported."""

    why: str


Operand = Constant | Traced
