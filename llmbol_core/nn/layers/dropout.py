"""Layers that are random in training and do nothing in evaluation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.nn.declared import Fraction
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream
from llmbol_core.nn.sharing import current_share

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


def draw_kept(stream: Stream, shape: Shape, p: float, dtype: Any) -> Array:
    """Return 0 with probability p, else 1 / (1 - p); of a shared batch, for the own rows."""
    threshold = np.uint32(min(round(p * 2**32), 2**32 - 1))
    share = current_share()
    if share is None:
        kept = stream.bits(math.prod(shape)).reshape(shape) >= threshold
    else:
        # Layers may have made several rows of one.
        each = shape[0] // (share.stop - share.start)
        whole = (share.total * each, *shape[1:])
        drawn = stream.bits(math.prod(whole)).reshape(whole)
        kept = drawn[share.start * each : share.stop * each] >= threshold
    factors: Array = np.multiply(kept, np.dtype(dtype).type(1 / (1 - p)), dtype=dtype)
    return factors


class Dropout(Module):
    """In training, set each value to zero with probability p and divide the others by 1 - p."""

    p: Fraction = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._kept: Array | None = None

    def details(self) -> str:
        """Return the probability."""
        return f"({self.p:g})"

    def update_output(self, x: Array) -> Array:
        """Draw which values are kept, and scale those; in evaluation return the input."""
        self._kept = None
        if not self.train or not self.p:
            return x
        self._kept = draw_kept(self._stream, x.shape, self.p, x.dtype)
        return np.asarray(x * self._kept)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return the gradient times what ``forward`` drew."""
        return grad_output if self._kept is None else np.asarray(grad_output * self._kept)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit nothing: evaluation drops nothing."""
        return x
