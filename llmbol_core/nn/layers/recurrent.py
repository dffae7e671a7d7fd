"""Recurrent layers over sequences [N, T, features], with PyTorch's gates, names and initial values.

Each layer and direction has ``weight_ih_l0``, ``weight_hh_l0`` and two biases; those of the
direction from the end carry the suffix ``_reverse``. The states start at zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from llmbol_core.errors import ShapeError
from llmbol_core.nn.declared import Fraction, Range, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.operation import uniform_parameters
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


Depth = Annotated[int, Range(1, 1000)]


class Recurrent(Composite, abstract=True):
    """Base: layers of cells over a sequence, in one direction or both.

    The output is the last layer's state at each step, both directions side by side, or with
    ``sequence: false`` its final states alone, each direction's after its last step. Dropout acts
    between the layers.
    """

    gates: ClassVar[int]
    input_size: Size
    hidden_size: Size
    num_layers: Depth = 1
    bias: bool = True
    bidirectional: bool = False
    dropout: Fraction = 0.0
    sequence: bool = True

    def operation(self) -> str:
        """Return the operation that goes through a sequence."""
        return type(self).__name__.lower()

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Go through 4 steps of 3 numbers, in two layers and both directions."""
        return cls(3, 2, num_layers=2, bidirectional=True, dropout=0.3), (4, 3)

    def _suffixes(self) -> list[list[str]]:
        """Return for each layer the suffixes of its directions."""
        ways = ("", "_reverse") if self.bidirectional else ("",)
        return [[f"_l{layer}{way}" for way in ways] for layer in range(self.num_layers)]

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weights and biases: one block of hidden_size rows for each gate."""
        rows = self.gates * self.hidden_size
        shapes: dict[str, Shape] = {}
        for layer, suffixes in enumerate(self._suffixes()):
            width = self.hidden_size * len(suffixes) if layer else self.input_size
            for suffix in suffixes:
                shapes[f"weight_ih{suffix}"] = (rows, width)
                shapes[f"weight_hh{suffix}"] = (rows, self.hidden_size)
                if self.bias:
                    shapes |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
        return shapes

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return all parameters uniform within 1 / sqrt(hidden_size)."""
        return uniform_parameters(self, stream, self.hidden_size)

    def output_shape(self, shape: Shape) -> Shape:
        """Return [T, hidden_size], or [hidden_size]; twice that for both directions."""
        if len(shape) != 2 or shape[1] != self.input_size or not shape[0]:
            raise self.shape_error(f"[steps, {self.input_size}]", shape)
        return super().output_shape(shape)

    def natural_input(self) -> Shape | None:
        """Return one step."""
        return (1, self.input_size)

    def details(self) -> str:
        """Return the sizes, and all other fields that differ from their defaults."""
        text = f"{self.input_size} -> {self.hidden_size}"
        text += f", {self.num_layers} layers" if self.num_layers > 1 else ""
        text += ", both directions" if self.bidirectional else ""
        text += "" if self.sequence else ", final state"
        return f"({text})" if self.bias else f"({text}) without bias"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one operation for each layer and direction."""
        if len(x.shape) != 3:
            raise ShapeError(self.label, f"expected [steps, features], got {list(x.shape[1:])}")
        steps = x.shape[1]
        for layer, suffixes in enumerate(self._suffixes()):
            x = graph.dropout(x, self.dropout) if layer else x
            sides = [self._direction(graph, x, suffix) for suffix in suffixes]
            if layer == self.num_layers - 1 and not self.sequence:
                ends = (steps - 1, 0)
                sides = [
                    graph.op("slice", side, axis=1, start=end, stop=end + 1)
                    for side, end in zip(sides, ends, strict=False)
                ]
            x = graph.op("concat", *sides, axis=2) if len(sides) > 1 else sides[0]
        return x if self.sequence else graph.op("squeeze", x, axis=1)

    def _direction(self, graph: Scope, x: Value, suffix: str) -> Value:
        """Emit one layer in one direction."""
        kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if self.bias else 2]
        weights = [graph.weight(f"{kind}{suffix}") for kind in kinds]
        return graph.op(self.operation(), x, *weights, reverse=suffix.endswith("_reverse"))


class RNN(Recurrent):
    """Plain recurrent network: h' = tanh(W x + b + U h + c), or with relu."""

    gates = 1
    nonlinearity: Literal["tanh", "relu"] = "tanh"

    def operation(self) -> str:
        """Return the operation of the nonlinearity."""
        return f"rnn_{self.nonlinearity}"


class GRU(Recurrent):
    """Gated recurrent unit; gates in the order reset, update, new.

    n = tanh(W x + b + r (U h + c));  h' = (1 - z) n + z h.
    """

    gates = 3


class LSTM(Recurrent):
    """Long short-term memory; gates in the order input, forget, cell, output.

    c' = sigmoid(f) c + sigmoid(i) tanh(g);  h' = sigmoid(o) tanh(c').
    """

    gates = 4
