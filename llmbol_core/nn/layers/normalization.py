"""Normalization over the batch or over each sample, with PyTorch's formulas and initial values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.declared import Fraction, Positive, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream
from llmbol_core.nn.sharing import current_share

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class BatchNorm(Module):
    """Normalize each feature (axis 1) over the batch, and over what follows the feature axis.

    In training the batch's mean and biased variance are used, and the running ones move towards
    them (the variance unbiased) by ``momentum``; evaluation uses the running ones. A batch with one
    value per feature has no variance: it is normalized as in evaluation, as Torch7 does it.
    It takes vectors, sequences and images alike; ``BatchNorm1d`` and ``BatchNorm2d`` are the same
    for those who want the shape checked. Torch7 starts the weight at random, PyTorch and this
    layer at 1.
    """

    features: Size
    eps: Positive = 1e-5
    momentum: Fraction = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._normal: Array = np.zeros(0, np.float32)
        self._rate: Array = np.zeros(0, np.float32)
        self._by_batch = False

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Normalize 3 features with 4 values each."""
        return cls(3), (3, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        return {"weight": (self.features,), "bias": (self.features,)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight 1 and bias 0."""
        return _start_values(self)

    def initial_buffers(self) -> dict[str, Array]:
        """Return running mean 0 and variance 1."""
        size = self.features
        return {
            "running_mean": np.zeros(size, np.float32),
            "running_var": np.ones(size, np.float32),
        }

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it has the features on its first axis."""
        return _with_features_first(self, self.features, shape)

    def natural_input(self) -> Shape:
        """Return one value per feature."""
        return (self.features,)

    def macs(self, shape: Shape) -> int:
        """Return one multiplication with addition for each value."""
        return math.prod(shape)

    def details(self) -> str:
        """Return the number of features."""
        return f"({self.features})"

    def update_output(self, x: Array) -> Array:
        """Return the normalized batch; in training also move the running values."""
        self.output_shape(x.shape[1:])
        share = current_share()
        count = x.size // self.features
        if share is not None:
            count = count // len(x) * share.total
        self._by_batch = self.train and count > 1
        if not self._by_batch:
            return self._by_running_values(x)
        axes = self._axes(x)
        mean = _mean(x, axes, count)
        normal = x - self._broad(mean, x)
        variance = _mean(np.square(normal), axes, count)
        self._move_running(mean, variance * x.dtype.type(count / (count - 1)))
        self._rate = 1 / np.sqrt(variance + x.dtype.type(self.eps))
        normal *= self._broad(self._rate, x)
        self._normal = normal
        output = normal * self._broad(self.params["weight"], x)
        output += self._broad(self.params["bias"], x)
        return output

    def _by_running_values(self, x: Array) -> Array:
        """Return what the operation gives; keep what the gradients need."""
        running = self.buffers.values()
        self._rate = 1 / np.sqrt(self.buffers["running_var"] + x.dtype.type(self.eps))
        self._normal = x - self._broad(self.buffers["running_mean"], x)
        self._normal *= self._broad(self._rate, x)
        return OPS["batch_norm"].run(x, *self.params.values(), *running, eps=self.eps)

    def update_grad_input(self, x: Array, grad_output: Array) -> Array:
        """Return w r (g - mean g - n mean(g n)) for the normalized n; in evaluation w r g."""
        factor = self._broad(self.params["weight"] * self._rate, x)
        if not self._by_batch:
            return grad_output * factor
        axes, share = self._axes(x), current_share()
        count = x.size // self.features
        if share is not None:
            count = count // len(x) * share.total
        if share is None:
            mean = _mean(grad_output, axes, count)
            along = _mean(grad_output * self._normal, axes, count)
        else:
            # Both at once: what takes time is to wait for the others.
            sums = [g.sum(axis=axes) for g in (grad_output, grad_output * self._normal)]
            mean, along = share.added(np.stack(sums)) / x.dtype.type(count)
        grad = grad_output - self._broad(mean, x)
        grad -= self._normal * self._broad(along, x)
        return np.asarray(grad * factor)

    def acc_grad_parameters(self, x: Array, grad_output: Array, scale: float = 1.0) -> None:
        """Add the sums of g n and of g."""
        axes, factor = self._axes(x), x.dtype.type(scale)
        self.grads["weight"] += factor * (grad_output * self._normal).sum(axis=axes)
        self.grads["bias"] += factor * grad_output.sum(axis=axes)

    def _move_running(self, mean: Array, variance: Array) -> None:
        """Move the running values towards those of the batch."""
        for name, value in (("running_mean", mean), ("running_var", variance)):
            running = self.buffers[name]
            running *= running.dtype.type(1 - self.momentum)
            running += running.dtype.type(self.momentum) * value

    @staticmethod
    def _axes(x: Array) -> tuple[int, ...]:
        """Return all axes but the features'."""
        return (0, *range(2, x.ndim))

    @staticmethod
    def _broad(values: Array, x: Array) -> Array:
        """Return one value per feature in a shape that fits beside x."""
        return values.reshape(-1, *(1,) * (x.ndim - 2))

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit one ``batch_norm`` with the running values."""
        weights = ("weight", "bias", "running_mean", "running_var")
        return graph.op("batch_norm", x, *map(graph.weight, weights), eps=self.eps)


def _start_values(layer: Module) -> dict[str, Array]:
    """Return weight 1 and bias 0."""
    fill = {"weight": np.ones, "bias": np.zeros}
    return {n: fill[n](shape, np.float32) for n, shape in layer.parameter_shapes().items()}


def _with_features_first(layer: Module, features: int, shape: Shape) -> Shape:
    """Return a shape; raises ShapeError unless its first axis has so many features."""
    if shape[:1] != (features,):
        raise layer.shape_error(f"{features} features first", shape)
    return shape


def _mean(x: Array, axes: tuple[int, ...], count: int) -> Array:
    """Return the means over the whole batch, which has so many values for each feature."""
    share = current_share()
    if share is None:
        return np.asarray(x.mean(axis=axes))
    return np.asarray(share.added(x.sum(axis=axes)) / x.dtype.type(count))


class BatchNorm1d(BatchNorm):
    """Batch normalization of vectors [features] or sequences [features, length]."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it is one of those."""
        if len(shape) not in (1, 2):
            raise self.shape_error("[features] or [features, length]", shape)
        return super().output_shape(shape)


class BatchNorm2d(BatchNorm):
    """Batch normalization of images [features, height, width]."""

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Normalize 3 features of 2 x 2 values each."""
        return cls(3), (3, 2, 2)

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it is an image's."""
        if len(shape) != 3:
            raise self.shape_error("[features, height, width]", shape)
        return super().output_shape(shape)

    def natural_input(self) -> Shape:
        """Return an image of one point."""
        return (self.features, 1, 1)


class GroupNorm(Operation):
    """Normalize each group of neighbouring features of a sample over all of its values.

    y = weight (x - mean) / sqrt(variance + eps) + bias, variance biased; features lie on the first
    axis of a sample. One group is layer norm over everything, as many as features instance norm.
    """

    operation = "group_norm"
    groups: Size
    features: Size
    eps: Positive = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features % self.groups:
            raise UsageError(f"GroupNorm.groups: {self.groups} do not divide {self.features}")

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Normalize 4 features of 3 values each in 2 groups."""
        return cls(2, 4), (4, 3)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        return {"weight": (self.features,), "bias": (self.features,)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight 1 and bias 0."""
        return _start_values(self)

    def attributes(self) -> dict[str, Any]:
        """Return groups and eps."""
        return {"groups": self.groups, "eps": self.eps}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it has the features on its first axis."""
        return _with_features_first(self, self.features, shape)

    def macs(self, shape: Shape) -> int:
        """Return one multiplication with addition for each value."""
        return math.prod(shape)

    def details(self) -> str:
        """Return groups and features."""
        return f"({self.features} in {self.groups} groups)"


class Normalize(Composite):
    """Subtract known means and divide by known deviations: how inputs are brought to a scale.

    One number serves all values; several serve the features on the first axis of a sample, such as
    the colours of an image. They are part of the model and not trained.
    """

    mean: tuple[float, ...]
    std: tuple[Positive, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.mean) != len(self.std) or not self.mean:
            found = f"{len(self.mean)} means and {len(self.std)} deviations"
            raise UsageError(f"Normalize.std: expected as many deviations as means, got {found}")

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Normalize 3 features of 2 values each."""
        return cls((0.5, 0.4, -0.3), (0.2, 0.5, 2.0)), (3, 2)

    def initial_buffers(self) -> dict[str, Array]:
        """Return means and deviations."""
        return {"mean": np.array(self.mean, np.float32), "std": np.array(self.std, np.float32)}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if it has the features on its first axis."""
        count = len(self.mean)
        return _with_features_first(self, count, shape) if count > 1 else shape

    def macs(self, shape: Shape) -> int:
        """Return one multiplication with addition for each value."""
        return math.prod(shape)

    def lower(self, graph: Scope, x: Value) -> Value:
        """Emit a subtraction and a division."""
        beside = (len(self.mean), *(1,) * max(0, len(x.shape) - 2))
        mean, std = (
            graph.op("reshape", graph.weight(name), shape=beside) for name in ("mean", "std")
        )
        return graph.op("div", graph.op("sub", x, mean), std)


class RowNorm(Operation, abstract=True):
    """Base of the layers that normalize the last axis of each sample by itself."""

    features: Size
    eps: Positive = 1e-5

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Normalize 2 rows of 4 numbers."""
        return cls(4), (2, 4)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of the weight."""
        return {"weight": (self.features,)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return weight 1 and bias 0."""
        return _start_values(self)

    def attributes(self) -> dict[str, Any]:
        """Return eps."""
        return {"eps": self.eps}

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape if its last axis has the features."""
        if not shape or shape[-1] != self.features:
            raise self.shape_error(f"{self.features} features on the last axis", shape)
        return shape

    def natural_input(self) -> Shape:
        """Return one vector of features."""
        return (self.features,)

    def macs(self, shape: Shape) -> int:
        """Return one multiplication with addition for each value."""
        return math.prod(shape)

    def details(self) -> str:
        """Return the number of features."""
        return f"({self.features})"


class LayerNorm(RowNorm):
    """y = weight (x - mean) / sqrt(variance + eps) + bias over the last axis, variance biased."""

    operation = "layer_norm"

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of weight and bias."""
        return {"weight": (self.features,), "bias": (self.features,)}


class RMSNorm(RowNorm):
    """y = weight x / sqrt(mean of x^2 + eps) over the last axis."""

    operation = "rms_norm"
