"""Criterions: the loss of a batch and its gradient, with PyTorch's definitions.

Every loss is a mean over the batch. Class targets are integers from 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmbol_core.errors import ShapeError, UsageError
from llmbol_core.ml import ops
from llmbol_core.nn.declared import Declared, Fraction, Positive

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class Criterion(Declared, family="loss"):
    """Base of all losses: override ``update_output`` and ``update_grad_input``."""

    @property
    def classifies(self) -> bool:
        """Whether the targets are class numbers."""
        return False

    def target_shape(self, output: Shape) -> Shape:
        """Return the shape of one target for this shape of one output."""
        return output

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

    @property
    def classifies(self) -> bool:
        """Whether the targets are class numbers: they are."""
        return True

    def target_shape(self, output: Shape) -> Shape:
        """Return the shape of one number."""
        return ()

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


class L1(Criterion):
    """Mean of the absolute differences over all elements."""

    def update_output(self, x: Array, target: Array) -> float:
        """Return mean |x - target|."""
        return float(np.abs(x - target).mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return sign(x - target) / n."""
        return np.asarray(np.sign(x - target) / x.dtype.type(x.size))


class SmoothL1(Criterion):
    """Mean of d^2 / (2 beta) for differences d below beta, else |d| - beta / 2."""

    beta: Positive = 1.0

    def update_output(self, x: Array, target: Array) -> float:
        """Return the mean over all elements."""
        d = np.abs(x - target)
        losses = np.where(d < self.beta, d * d / (2 * self.beta), d - self.beta / 2)
        return float(losses.mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return d / beta, limited to -1 ... 1, over n."""
        d = (x - target) / x.dtype.type(self.beta)
        return np.asarray(np.clip(d, -1, 1) / x.dtype.type(x.size))


class BCE(Criterion):
    """Binary cross-entropy of probabilities: mean of -(y log x + (1 - y) log(1 - x)).

    Logarithms are cut off at -100, as PyTorch does it.
    """

    def update_output(self, x: Array, target: Array) -> float:
        """Return the mean over all elements."""
        with np.errstate(divide="ignore", invalid="ignore"):
            yes, no = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
        return float(-(target * yes + (1 - target) * no).mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return (x - y) / (x (1 - x)) / n, the divisor at least 1e-12."""
        divisor = np.maximum(x * (1 - x), x.dtype.type(1e-12)) * x.dtype.type(x.size)
        return np.asarray((x - target) / divisor)


class BCEWithLogits(Criterion):
    """Binary cross-entropy of the sigmoid of scores, computed without the sigmoid.

    ``pos_weight`` counts the share of the targets that are 1, one number for each output.
    """

    pos_weight: tuple[float, ...] | None = None

    def update_output(self, x: Array, target: Array) -> float:
        """Return mean of (1 - y) x + (1 + (p - 1) y) log(1 + exp(-x))."""
        softplus = np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x)))
        losses = (1 - target) * x + self._shares(x, target) * softplus
        return float(losses.mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return the derivative, 1 - y - (1 + (p - 1) y) sigmoid(-x), over n."""
        below = np.exp(-np.maximum(x, 0) - np.log1p(np.exp(-np.abs(x))))  # sigmoid(-x)
        gradient = (1 - target) - self._shares(x, target) * below
        return np.asarray(gradient / x.dtype.type(x.size))

    def _shares(self, x: Array, target: Array) -> Array:
        """Return 1 + (p - 1) y."""
        if self.pos_weight is None:
            return np.ones((), x.dtype)
        weights = np.asarray(self.pos_weight, x.dtype)
        if weights.shape != x.shape[-1:]:
            found = f"{weights.size} numbers for {x.shape[-1]} outputs"
            raise UsageError(f"BCEWithLogits.pos_weight: {found}")
        return np.asarray(1 + (weights - 1) * target)


class KLDiv(Criterion):
    """Divergence of a distribution y from the one whose logarithm is x: sum of y (log y - x).

    The sum is over the number of samples, which is the mathematical definition; with
    ``batch_mean: false`` over that of all elements, which is what PyTorch's "mean" does.
    """

    batch_mean: bool = True

    def update_output(self, x: Array, target: Array) -> float:
        """Return the divergence; where y is 0 it adds nothing."""
        logarithm = np.log(np.where(target > 0, target, 1))
        return float((target * (logarithm - x)).sum(dtype=np.float64) / self._count(x))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return -y over the count."""
        return np.asarray(-target / x.dtype.type(self._count(x)), x.dtype)

    def _count(self, x: Array) -> int:
        return len(x) if self.batch_mean else x.size


class Margin(Criterion):
    """Hinge loss of scores against targets of -1 and 1: mean of max(0, margin - x y)."""

    margin: float = 1.0

    def update_output(self, x: Array, target: Array) -> float:
        """Return the mean over all elements."""
        return float(np.maximum(0, self.margin - x * target).mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return -y / n where the margin is not kept."""
        return np.asarray(-target * (x * target < self.margin) / x.dtype.type(x.size), x.dtype)


class CosineEmbedding(Criterion):
    """Likeness of two vectors ``[N, 2, D]`` by their cosine c, against targets of -1 and 1.

    Mean of 1 - c for pairs that are alike (1), of max(0, c - margin) for the others (-1).
    """

    margin: float = 0.0

    def target_shape(self, output: Shape) -> Shape:
        """Return the shape of one number."""
        return ()

    def check(self, x: Array, target: Array) -> None:
        """Raise ``ShapeError`` unless x holds pairs of vectors and target one number for each."""
        if x.ndim != 3 or x.shape[1] != 2 or target.shape != x.shape[:1]:
            why = f"expected [N, 2, D] against [N], got {list(x.shape)} and {list(target.shape)}"
            raise ShapeError("CosineEmbedding", why)

    def update_output(self, x: Array, target: Array) -> float:
        """Return the mean over the pairs."""
        cosine = self._cosine(x)[0]
        losses = np.where(target > 0, 1 - cosine, np.maximum(0, cosine - self.margin))
        return float(losses.mean(dtype=np.float64))

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return the derivative of the cosine times its sign in the loss, over N."""
        cosine, squares = self._cosine(x)
        slope = np.where(target > 0, -1, cosine > self.margin) / x.dtype.type(len(x))
        other = x[:, ::-1] / np.sqrt(squares[:, :1] * squares[:, 1:])[..., None]
        along = other - x * (cosine[:, None] / squares)[..., None]
        return np.asarray(along * slope[:, None, None], x.dtype)

    @staticmethod
    def _cosine(x: Array) -> tuple[Array, Array]:
        """Return the cosines [N] and the squared lengths [N, 2], 1e-12 added to each."""
        squares = np.square(x).sum(axis=2) + x.dtype.type(1e-12)
        return (x[:, 0] * x[:, 1]).sum(axis=1) / np.sqrt(squares[:, 0] * squares[:, 1]), squares


class MultiCriterion(Criterion):
    """Weighted sum of losses of the same outputs and targets; weights are 1 if not given."""

    criterions: list[Criterion]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.criterions or len({c.classifies for c in self.criterions}) > 1:
            raise UsageError("MultiCriterion.criterions: expected losses with alike targets")
        if self.weights is not None and len(self.weights) != len(self.criterions):
            found = f"{len(self.weights)} numbers for {len(self.criterions)} losses"
            raise UsageError(f"MultiCriterion.weights: {found}")

    @property
    def classifies(self) -> bool:
        """Whether the targets are class numbers."""
        return self.criterions[0].classifies

    def target_shape(self, output: Shape) -> Shape:
        """Return the shape that the losses' targets have."""
        return self.criterions[0].target_shape(output)

    def check(self, x: Array, target: Array) -> None:
        """Let each loss check."""
        for criterion in self.criterions:
            criterion.check(x, target)

    def update_output(self, x: Array, target: Array) -> float:
        """Return the weighted sum."""
        return sum(w * c.update_output(x, target) for w, c in self._weighted())

    def update_grad_input(self, x: Array, target: Array) -> Array:
        """Return the weighted sum of the gradients."""
        gradient = np.zeros_like(x)
        for weight, criterion in self._weighted():
            gradient += x.dtype.type(weight) * criterion.update_grad_input(x, target)
        return gradient

    def _weighted(self) -> list[tuple[float, Criterion]]:
        weights = self.weights or (1.0,) * len(self.criterions)
        return list(zip(weights, self.criterions, strict=True))
