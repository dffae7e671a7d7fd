"""Activations: functions of each value, and the soft maxima over the last axis.

Each is one row of the operation table; a class names the row and gives its attributes fields.
"""

from __future__ import annotations

from typing import Any

from llmbol_core.nn.declared import NotNegative, Positive
from llmbol_core.nn.layers.operation import Operation


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
