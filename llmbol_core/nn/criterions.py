"""Criterions: the loss of a batch and its gradient, with PyTorch's definitions.

Every loss is a mean over the batch. Class targets are integers from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.ml import ops
from llmbol_core.nn.declared import Declared, Fraction

Array = npt.NDArray[Any]


class Criterion(Declared, family="loss"):
    """Base of all losses: override ``update_output`` and ``update_grad_input``."""

    def update_output(self, x: Array, target: Array) -> float:
        """Return the loss of outputs x against targets."""
        raise NotImplementedError

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return the gradient of the loss with respect to x."""
        raise NotImplementedError

    def forward(self, x: Array, target: Array) -> float:
        """Check the shapes and return the loss."""
        self.check(x, target)
        return self.update_output(x, target)

    def backward(self, x: Array, target: Array) -> Array:
        """Return the gradient; call after ``forward``."""
        return self.update_grad_input(x, target)

    __call__ = forward

    def check(self, x: Array, target: Array) -> None:
        """Raise ``ShapeError`` if outputs and targets do not fit together."""
        if x.shape != target.shape:
            name = type(self).__name__
            raise ShapeError(name, f"outputs {list(x.shape)} against targets {list(target.shape)}")


class ClassCriterion(Criterion, abstract=True):
    """Base of the losses that compare ``[N, K]`` scores with N class numbers."""

    def check(self, x: Array, target: Array) -> None:
        """Raise an error unless x is ``[N, K]`` and target holds N numbers from 0 to K - 1."""
        name = type(self).__name__
        if x.ndim != 2 or target.shape != x.shape[:1]:
            why = f"expected [N, classes] against [N], got {list(x.shape)} and {list(target.shape)}"
            raise ShapeError(name, why)
        classes = x.shape[1]
        if target.dtype.kind not in "iu" or target.size == 0:
            raise UsageError(f"{name}: expected class numbers, got {target.dtype} targets")
        if target.min() < 0 or target.max() >= classes:
            wrong = next(int(t) for t in target if not 0 <= t < classes)
            raise UsageError(f"{name}: class {wrong} in the targets, the model has {classes}")

    def class_weights(self, weights: tuple[float, ...] | None, classes: int) -> Array:
        """Return one weight per class."""
        if weights is None:
            return np.ones(classes, np.float32)
        if len(weights) != classes:
            name = type(self).__name__
            raise UsageError(f"{name}.weights: expected {classes} numbers, got {len(weights)}")
        return np.asarray(weights, np.float32)


class CrossEntropy(ClassCriterion):
    """Negative log-likelihood of the softmax of the scores.

    With label smoothing e, the target distribution is (1 - e) for the class and e/K for each of the
    K classes. With weights, each target's share counts by its class's weight and the mean is
    weighted.
    """

    label_smoothing: Fraction = 0.0
    weights: tuple[float, ...] | None = None

    def update_output(self, x: Array, target: Array) -> float:
        """Return -sum(t * log softmax(x)) / sum(w)."""
        t, total = self._targets(x, target)
        return float(-(t * ops.log_softmax(x)).sum(dtype=np.float64) / total)

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return (softmax(x) * sum of t - t) / sum(w)."""
        t, total = self._targets(x, target)
        gradient = np.exp(ops.log_softmax(x))
        gradient *= t.sum(axis=1, keepdims=True)
        gradient -= t
        gradient /= x.dtype.type(total)
        return gradient

    def _targets(self, x: Array, target: Array) -> tuple[Array, float]:
        """Return the weighted target distributions and the sum of the targets' weights."""
        classes = x.shape[1]
        weights = self.class_weights(self.weights, classes).astype(x.dtype)
        t = np.empty_like(x)
        t[:] = weights * x.dtype.type(self.label_smoothing / classes)
        own = weights[target]
        t[np.arange(len(x)), target] += own * x.dtype.type(1 - self.label_smoothing)
        return t, float(own.sum(dtype=np.float64))


class NLL(ClassCriterion):
    """Negative log-likelihood of log-probabilities, such as ``LogSoftMax`` gives."""

    weights: tuple[float, ...] | None = None

    def update_output(self, x: Array, target: Array) -> float:
        """Return -sum(w * x[i, target]) / sum(w)."""
        own = self.class_weights(self.weights, x.shape[1])[target]
        picked = x[np.arange(len(x)), target]
        return float(-(own * picked).sum(dtype=np.float64) / own.sum(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return -w / sum(w) at each target and zero elsewhere."""
        own = self.class_weights(self.weights, x.shape[1])[target]
        gradient = np.zeros_like(x)
        gradient[np.arange(len(x)), target] = -own / own.sum(dtype=np.float64)
        return gradient


class MSE(Criterion):
    """Mean of the squared differences over all elements."""

    def update_output(self, x: Array, target: Array) -> float:
        """Return mean((x - target)^2)."""
        return float(np.square(x - target).mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return 2 (x - target) / n."""
        return np.asarray((x - target) * x.dtype.type(2 / x.size))
