"""Attention over sequences [N, T, features], with PyTorch's names and initial values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.nn.declared import Fraction, Positive, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Attention(Composite, abstract=True):
    """Base of the layers with self-attention over features in several heads."""

    features: Size
    heads: Size

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features % self.heads:
            name = type(self).__name__
            raise UsageError(f"{name}.heads: {self.heads} heads cannot share {self.features}")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape, [T, features]."""
        if len(shape) != 2 or shape[1] != self.features or not shape[0]:
            raise self.shape_error(f"[steps, {self.features}]", shape)
        return super().output_shape(shape)

    def natural_input(self) -> Shape | None:
        """Return one step."""
        return (1, self.features)

    def attend(self, graph: Scope, x: Value, path: str, causal: bool, dropout: float) -> Value:
        """Emit softmax(q k^T / sqrt(features / heads)) v for each head, and the projection.

        Dropout acts on the soft maxima; causal attention has none.
        """
        if len(x.shape) != 3:
            raise ShapeError(self.label, f"expected [steps, features], got {list(x.shape[1:])}")
        projected = graph.op("linear", x, *_pair(graph, f"{path}in_proj_", "weight", "bias"))
        width = self.features // self.heads
        parts = []
        for number in range(3):
            start = number * self.features
            part = graph.op("slice", projected, axis=2, start=start, stop=start + self.features)
            part = graph.op("reshape", part, shape=(0, 0, self.heads, width))
            parts.append(graph.op("permute", part, axes=(0, 2, 1, 3)))
        if graph.drops and dropout:
            mixed = _mix(graph, parts, dropout)
        else:
            mixed = graph.op("attention", *parts, causal=causal)
        mixed = graph.op("permute", mixed, axes=(0, 2, 1, 3))
        mixed = graph.op("reshape", mixed, shape=(0, 0, self.features))
        return graph.op("linear", mixed, *_pair(graph, f"{path}out_proj.", "weight", "bias"))

    def attention_shapes(self, path: str) -> dict[str, Shape]:
        """Return the shapes of the projections to query, key and value, and from them."""
        size = self.features
        return {
            f"{path}in_proj_weight": (3 * size, size),
            f"{path}in_proj_bias": (3 * size,),
            f"{path}out_proj.weight": (size, size),
            f"{path}out_proj.bias": (size,),
        }

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return initial values by the parameters' names; biases of projections are 0.

        The projection to query, key and value is uniform within sqrt(6 / (4 features)), others
        within 1 / sqrt(fan in).
        """
        values = {}
        for name, shape in self.parameter_shapes().items():
            if "norm" in name or name.endswith(("in_proj_bias", "out_proj.bias")):
                values[name] = np.full(shape, float("norm" in name and "weight" in name), "f4")
                continue
            fan_in = self.feedforward_size if name == "linear2.bias" else self.features
            bound = 1 / math.sqrt(shape[1] if len(shape) > 1 else fan_in)
            if name.endswith("in_proj_weight"):
                bound = math.sqrt(6 / (4 * self.features))
            values[name] = stream.uniform(shape, -bound, bound)
        return values

    @property
    def feedforward_size(self) -> int:
        """The width of the layer in the middle, where there is one."""
        return self.features


def _pair(graph: Scope, prefix: str, *names: str) -> list[Value]:
    return [graph.weight(f"{prefix}{name}") for name in names]


def _mix(graph: Scope, parts: list[Value], dropout: float) -> Value:
    """Emit attention whose weights pass through dropout."""
    query, key, value = parts
    columns = graph.op("permute", key, axes=(0, 1, 3, 2))
    scores = graph.op("matmul", query, columns)
    scores = graph.op("scale", scores, factor=1 / math.sqrt(query.shape[-1]))
    weights = graph.dropout(graph.op("softmax", scores), dropout)
    return graph.op("matmul", weights, value)


class MultiHeadAttention(Attention):
    """Self-attention: each step takes from all steps, by the likeness of query and key.

    Causal attention takes only from the steps up to its own.
    """

    causal: bool = False

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Attend with 2 heads to 3 steps of 4 features."""
        return cls(4, 2, causal=True), (3, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of the two projections."""
        return self.attention_shapes("")

    def details(self) -> str:
        """Return features and heads."""
        return f"({self.features}, {self.heads} heads{', causal' if self.causal else ''})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit the projections and the attention."""
        return self.attend(graph, x, "", self.causal, dropout=0.0)


class TransformerEncoderLayer(Attention):
    """Self-attention and a feed-forward network, each with a residual path and layer norm.

    y = norm1(x + attention(x));  z = norm2(y + linear2(activation(linear1(y)))); with
    ``norm_first`` each norm stands before its block instead.
    """

    feedforward: Size = 2048
    dropout: Fraction = 0.1
    activation: Literal["relu", "gelu"] = "relu"
    eps: Positive = 1e-5
    norm_first: bool = False

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Encode 3 steps of 4 features with 2 heads."""
        return cls(4, 2, feedforward=6, activation="gelu"), (3, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of attention, feed-forward layers and norms."""
        size, middle = self.features, self.feedforward
        norms = [f"norm{n}.{kind}" for n in (1, 2) for kind in ("weight", "bias")]
        return {
            **self.attention_shapes("self_attn."),
            "linear1.weight": (middle, size),
            "linear1.bias": (middle,),
            "linear2.weight": (size, middle),
            "linear2.bias": (size,),
            **dict.fromkeys(norms, (size,)),
        }

    @property
    def feedforward_size(self) -> int:
        """The width of the layer in the middle."""
        return self.feedforward

    def details(self) -> str:
        """Return features, heads and the width in the middle."""
        return f"({self.features}, {self.heads} heads, {self.feedforward} in the middle)"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit both blocks with their residual paths."""
        for number, block in enumerate((self._attended, self._fed), 1):
            inner = block(graph, self._norm(graph, x, number) if self.norm_first else x)
            x = graph.op("add", x, graph.dropout(inner, self.dropout))
            x = x if self.norm_first else self._norm(graph, x, number)
        return x

    def _attended(self, graph: Scope, x: Value) -> Value:
        return self.attend(graph, x, "self_attn.", causal=False, dropout=self.dropout)

    def _fed(self, graph: Scope, x: Value) -> Value:
        """Emit the feed-forward network."""
        middle = graph.op("linear", x, *_pair(graph, "linear1.", "weight", "bias"))
        middle = graph.dropout(graph.op(self.activation, middle), self.dropout)
        return graph.op("linear", middle, *_pair(graph, "linear2.", "weight", "bias"))

    def _norm(self, graph: Scope, x: Value, number: int) -> Value:
        weights = _pair(graph, f"norm{number}.", "weight", "bias")
        return graph.op("layer_norm", x, *weights, eps=self.eps)
