"""Optimizers on the flat parameter vector, with PyTorch's formulas and defaults.

``step`` changes the parameters in place; ``state`` and ``steps`` are all that an optimizer
remembers. The vectors are processed in blocks that stay in the processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import UsageError
from llmbol_core.nn.declared import Declared, Fraction, NotNegative, Positive

Array = npt.NDArray[Any]

_BLOCK = 1 << 15


class Optimizer(Declared, family="optimizer"):
    """Base of all optimizers: override ``update``.

    ``rate`` is the learning rate of the next step: ``lr``, until a schedule sets another.
    """

    lr: Positive = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.steps = 0
        self.rate = self.lr
        self.state: dict[str, Array] = {}

    def step(self, parameters: Array, gradients: Array) -> None:
        """Change the flat parameters by one step along the flat gradients."""
        self.steps += 1
        self.update(parameters, gradients)

    def restart(self) -> None:
        """Forget all steps."""
        self.steps = 0
        self.rate = self.lr
        self.state.clear()

    def update(self, parameters: Array, gradients: Array) -> None:
        """Take step number ``self.steps``, counted from 1."""
        raise NotImplementedError

    def vector(self, name: str, like: Array) -> Array:
        """Return the remembered vector of this name, zero at first."""
        if name not in self.state:
            self.state[name] = np.zeros_like(like)
        return self.state[name]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, dampening, Nesterov's variant and L2 decay.

    g += decay * w;  buffer = momentum * buffer + (1 - dampening) * g  (the first time: g);
    w -= lr * buffer, or with Nesterov  w -= lr * (g + momentum * buffer).
    Torch7 had dampening = momentum by default; PyTorch and this class have 0.
    """

    lr: Positive = 1e-3
    momentum: Fraction = 0.0
    dampening: Fraction = 0.0
    weight_decay: NotNegative = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise UsageError("SGD.nesterov: needs momentum and no dampening")

    def update(self, parameters: Array, gradients: Array) -> None:
        """Apply the formula of the class."""
        real = parameters.dtype.type
        if fused(parameters, gradients) and (self.momentum or not self.weight_decay):
            self._update_fused(parameters, gradients)
            return
        buffer = self.vector("momentum", parameters) if self.momentum else parameters
        for w, gradient, b in _blocks(parameters, gradients, buffer):
            g = gradient
            if self.weight_decay:
                g = gradient + real(self.weight_decay) * w
            if self.momentum:
                if self.steps == 1:
                    b[...] = g
                else:
                    b *= real(self.momentum)
                    b += real(1 - self.dampening) * g
                g = g + real(self.momentum) * b if self.nesterov else b
            w -= real(self.rate) * g

    def _update_fused(self, parameters: Array, gradients: Array) -> None:
        """Do the same in one pass."""
        from llmbol_core.ml.kernels import optimizers

        size, chunk = parameters.size, optimizers.CHUNK
        if not self.momentum:
            optimizers.descend.run(size, parameters, gradients, self.rate, chunk=chunk)
            return
        numbers = (self.rate, self.weight_decay, self.momentum, 1 - self.dampening)
        flags = (int(self.steps == 1), int(self.nesterov))
        buffer = self.vector("momentum", parameters)
        given = (parameters, gradients, buffer, *numbers, *flags)
        optimizers.momentum.run(size, *given, chunk=chunk)


class Adam(Optimizer):
    """Adam (Kingma and Ba) as PyTorch computes it; weight decay is added to the gradient.

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;
    w -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps).
    """

    lr: Positive = 1e-3
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0

    def update(self, parameters: Array, gradients: Array) -> None:
        """Apply the formula of the class."""
        real = parameters.dtype.type
        beta1, beta2 = real(self.beta1), real(self.beta2)
        rate = real(self.rate / (1 - self.beta1**self.steps))
        correction = real(1 / math.sqrt(1 - self.beta2**self.steps))
        mean, square = self.vector("mean", parameters), self.vector("square", parameters)
        if fused(parameters, gradients):
            from llmbol_core.ml.kernels import optimizers

            numbers = (self.beta1, 1 - self.beta1, self.beta2, 1 - self.beta2)
            more = (float(correction), self.eps, *self.decays())
            given = (parameters, gradients, mean, square, float(rate), *numbers, *more)
            optimizers.adam.run(parameters.size, *given, chunk=optimizers.CHUNK)
            return
        for w, gradient, m, v in _blocks(parameters, gradients, mean, square):
            g = self.decayed(w, gradient)
            m *= beta1
            m += real(1 - self.beta1) * g
            v *= beta2
            v += real(1 - self.beta2) * g * g
            divisor = np.sqrt(v)
            divisor *= correction
            divisor += real(self.eps)
            np.divide(m, divisor, out=divisor)
            divisor *= rate
            w -= divisor

    def decays(self) -> tuple[float, float]:
        """Return how much of the weights is added to the gradient, and what they are scaled by."""
        return self.weight_decay, 1.0

    def decayed(self, w: Array, g: Array) -> Array:
        """Return the gradient with weight decay, or decay the weights themselves."""
        return g + w.dtype.type(self.weight_decay) * w if self.weight_decay else g


class AdamW(Adam):
    """Adam with the weights themselves decayed: w *= 1 - lr * decay before each step."""

    weight_decay: NotNegative = 1e-2

    def decays(self) -> tuple[float, float]:
        """Return that nothing is added, and what the weights are scaled by."""
        return 0.0, 1 - self.rate * self.weight_decay

    def decayed(self, w: Array, g: Array) -> Array:
        """Decay the weights in place; the gradient stays as it is."""
        w *= w.dtype.type(1 - self.rate * self.weight_decay)
        return g


class RMSprop(Optimizer):
    """Gradients over the root of their running mean square (Tieleman and Hinton), as in PyTorch.

    v = alpha v + (1 - alpha) g^2, for the centred form less the square of g's running mean;
    b = momentum b + g / (sqrt(v) + eps);  w -= lr b.
    """

    lr: Positive = 1e-2
    alpha: Fraction = 0.99
    eps: Positive = 1e-8
    momentum: Fraction = 0.0
    weight_decay: NotNegative = 0.0
    centered: bool = False

    def update(self, parameters: Array, gradients: Array) -> None:
        """Apply the formula of the class."""
        real = parameters.dtype.type
        alpha, rest = real(self.alpha), real(1 - self.alpha)
        square = self.vector("square", parameters)
        mean = self.vector("mean", parameters) if self.centered else square
        buffer = self.vector("momentum", parameters) if self.momentum else square
        for w, gradient, v, m, b in _blocks(parameters, gradients, square, mean, buffer):
            g = gradient + real(self.weight_decay) * w if self.weight_decay else gradient
            v *= alpha
            v += rest * g * g
            spread = v
            if self.centered:
                m *= alpha
                m += rest * g
                spread = v - m * m
            step = g / (np.sqrt(spread) + real(self.eps))
            if self.momentum:
                b *= real(self.momentum)
                b += step
                step = b
            w -= real(self.rate) * step


class Adagrad(Optimizer):
    """Gradients over the root of the sum of their squares (Duchi et al.), as in PyTorch.

    s += g^2;  w -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps).
    """

    lr: Positive = 1e-2
    lr_decay: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    eps: Positive = 1e-10

    def update(self, parameters: Array, gradients: Array) -> None:
        """Apply the formula of the class."""
        real = parameters.dtype.type
        rate = real(self.rate / (1 + (self.steps - 1) * self.lr_decay))
        for w, gradient, s in _blocks(parameters, gradients, self.vector("sum", parameters)):
            g = gradient + real(self.weight_decay) * w if self.weight_decay else gradient
            s += g * g
            w -= rate * g / (np.sqrt(s) + real(self.eps))


def fused(*vectors: Array) -> bool:
    """Whether kernels can update vectors: contiguous float32, and a processor they are made for."""
    if any(v.dtype != np.float32 or not v.flags.c_contiguous for v in vectors):
        return False
    from llmbol_core.ml.kernels.target import target

    return target() is not None


def clip(gradients: Array, norm: float | None = None, value: float | None = None) -> None:
    """Limit flat gradients in place: each one to +-value, then all together to a length of norm.

    As PyTorch's ``clip_grad_norm_``, they are divided by their length plus 1e-6.
    """
    if value is not None:
        np.clip(gradients, -value, value, out=gradients)
    if norm is not None:
        length = math.sqrt(np.square(gradients, dtype=np.float64).sum())
        if length + 1e-6 > norm:
            gradients *= gradients.dtype.type(norm / (length + 1e-6))


def _blocks(*vectors: Array) -> Iterator[tuple[Array, ...]]:
    """Yield the same slice of each vector, piece by piece."""
    for start in range(0, vectors[0].size, _BLOCK):
        yield tuple(vector[start : start + _BLOCK] for vector in vectors)
