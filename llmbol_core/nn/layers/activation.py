"""Activations: functions of each value, and the soft maxima over the last axis.

Each is one row of the operation table; a class names the row and gives its attributes fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.nn.declared import NotNegative, Positive, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Activation(Operation, abstract=True):
    """Base of the operations without weights that keep the shape."""

    def details(self) -> str:
        """Return the attributes' values."""
        values = ", ".join(f"{value:g}" for value in self.attributes().values())
        return f"({values})" if values else ""


class ReLU(Activation):
    """max(x, 0); the derivative at 0 is 0."""

    operation = "relu"


class ReLU6(Activation):
    """x limited to 0 ... 6."""

    operation = "relu6"


class LeakyReLU(Activation):
    """x where it is positive, slope * x elsewhere."""

    operation = "leaky_relu"
    slope: NotNegative = 0.01

    def attributes(self) -> dict[str, Any]:
        """Return the slope."""
        return {"slope": self.slope}


class ELU(Activation):
    """x where it is positive, alpha (exp(x) - 1) elsewhere."""

    operation = "elu"
    alpha: Positive = 1.0

    def attributes(self) -> dict[str, Any]:
        """Return alpha."""
        return {"alpha": self.alpha}


class SELU(Activation):
    """ELU scaled so that activations keep mean 0 and variance 1."""

    operation = "selu"


class GELU(Activation):
    """x times the normal distribution function of x."""

    operation = "gelu"


class GELUTanh(Activation):
    """GELU approximated by a hyperbolic tangent, as GPT-2 has it."""

    operation = "gelu_tanh"


class SiLU(Activation):
    """x / (1 + exp(-x)), also called swish."""

    operation = "silu"


class Mish(Activation):
    """x tanh(log(1 + exp(x)))."""

    operation = "mish"


class Tanh(Activation):
    """Hyperbolic tangent."""

    operation = "tanh"


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    operation = "sigmoid"


class LogSigmoid(Activation):
    """Logarithm of the sigmoid."""

    operation = "log_sigmoid"


class SoftSign(Activation):
    """x / (1 + |x|)."""

    operation = "softsign"


class HardSigmoid(Activation):
    """x / 6 + 1/2, limited to 0 ... 1."""

    operation = "hard_sigmoid"


class HardSwish(Activation):
    """x times its hard sigmoid."""

    operation = "hard_swish"


class HardTanh(Activation):
    """x limited to low ... high."""

    operation = "clamp"
    low: float = -1.0
    high: float = 1.0

    def attributes(self) -> dict[str, Any]:
        """Return the two limits."""
        return {"low": self.low, "high": self.high}


class SoftPlus(Activation):
    """log(1 + exp(beta x)) / beta, and x itself where beta x is above the threshold."""

    operation = "softplus"
    beta: Positive = 1.0
    threshold: float = 20.0

    def attributes(self) -> dict[str, Any]:
        """Return beta and the threshold."""
        return {"beta": self.beta, "threshold": self.threshold}


class SoftMax(Activation):
    """exp(x) over its sum along the last axis: positive numbers that add up to 1."""

    operation = "softmax"


class LogSoftMax(Activation):
    """Logarithm of the soft maximum along the last axis."""

    operation = "log_softmax"


class PReLU(Composite):
    """x where it is positive, a learned slope times x elsewhere; slopes start at ``slope``.

    With several features each has a slope of its own; they lie on the first axis of a sample.
    """

    features: Size = 1
    slope: float = 0.25

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Give 3 features with 4 values each their slopes."""
        return cls(3), (3, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of the slopes."""
        return {"weight": (self.features,)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return the same slope for all features."""
        return {"weight": np.full(self.features, self.slope, np.float32)}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it has the features on its first axis."""
        if self.features > 1 and (not shape or shape[0] != self.features):
            raise self.shape_error(f"{self.features} features first", shape)
        return shape

    def details(self) -> str:
        """Return the number of slopes."""
        return f"({self.features})"

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit relu(x) - slope * relu(-x)."""
        slope = graph.weight("weight")
        if self.features > 1:
            beside = (self.features, *(1,) * (len(x.shape) - 2))
            slope = graph.op("reshape", slope, shape=beside)
        below = graph.op("relu", graph.op("neg", x))
        return graph.op("sub", graph.op("relu", x), graph.op("mul", below, slope))
