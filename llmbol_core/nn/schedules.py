"""Schedules: the learning rate of each epoch, with PyTorch's formulas.

A schedule is asked before each epoch, counted from 0, and told the watched loss after it.
"""

from __future__ import annotations

import math

from llmbol_core.nn.declared import Count, Declared, Fraction, NotNegative, Size


class Schedule(Declared, family="schedule"):
    """Base of all schedules: override ``rate``; one that remembers also ``observe``, ``memory``."""

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """Return the learning rate of an epoch out of so many; lr is the optimizer's own."""
        raise NotImplementedError

    def restart(self) -> None:
        """Forget all observations."""

    def observe(self, loss: float) -> None:
        """Take note of the watched loss after an epoch."""

    def memory(self) -> list[float]:
        """Return all that the schedule remembers."""
        return []

    def remember(self, memory: list[float]) -> None:
        """Take up what ``memory`` returned."""


class Step(Schedule):
    """Multiply the rate by gamma after every so many epochs (StepLR)."""

    step_size: Size
    gamma: NotNegative = 0.1

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """Return lr gamma^floor(epoch / step_size)."""
        return lr * self.gamma ** (epoch // self.step_size)


class Cosine(Schedule):
    """Lower the rate along half a cosine wave to a minimum (CosineAnnealingLR).

    The wave takes so many epochs, or the whole training.
    """

    epochs: Size | None = None
    minimum: NotNegative = 0.0

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """Return minimum + (lr - minimum) (1 + cos(pi epoch / epochs)) / 2."""
        wave = (1 + math.cos(math.pi * epoch / (self.epochs or epochs))) / 2
        return self.minimum + (lr - self.minimum) * wave


class WarmUp(Schedule):
    """Raise the rate in equal steps from a part of it (LinearLR), then follow another schedule."""

    epochs: Size = 5
    start: Fraction = 1 / 3
    then: Schedule | None = None

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """Return lr (start + (1 - start) epoch / epochs), or what the other schedule says."""
        if epoch < self.epochs:
            return lr * (self.start + (1 - self.start) * epoch / self.epochs)
        if self.then is None:
            return lr
        return self.then.rate(lr, epoch - self.epochs, max(1, epochs - self.epochs))

    def restart(self) -> None:
        """Forget all observations."""
        if self.then is not None:
            self.then.restart()

    def observe(self, loss: float) -> None:
        """Tell the other schedule."""
        if self.then is not None:
            self.then.observe(loss)

    def memory(self) -> list[float]:
        """Return what the other schedule remembers."""
        return [] if self.then is None else self.then.memory()

    def remember(self, memory: list[float]) -> None:
        """Remind the other schedule."""
        if self.then is not None:
            self.then.remember(memory)


class Plateau(Schedule):
    """Multiply the rate by a factor when the watched loss stops falling (ReduceLROnPlateau).

    It counts as falling if it is below the best one by more than the threshold's share of that;
    after more than ``patience`` epochs without that the rate is lowered.
    """

    factor: Fraction = 0.1
    patience: Count = 10
    threshold: Fraction = 1e-4
    minimum: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.restart()

    def restart(self) -> None:
        """Forget all observations."""
        self._best, self._stale, self._scale = math.inf, 0, 1.0

    def rate(self, lr: float, epoch: int, epochs: int) -> float:
        """Return lr times the factor for each time it was lowered, at least the minimum."""
        return max(lr * self._scale, min(lr, self.minimum))

    def observe(self, loss: float) -> None:
        """Count the epochs since the loss last fell."""
        if loss < self._best * (1 - self.threshold):
            self._best, self._stale = loss, 0
            return
        self._stale += 1
        if self._stale > self.patience:
            self._scale *= self.factor
            self._stale = 0

    def memory(self) -> list[float]:
        """Return the epochs since the best loss, the product of the factors, and that loss if any.

        JSON, which has no infinity, holds all of them.
        """
        return [self._stale, self._scale, *([self._best] if math.isfinite(self._best) else [])]

    def remember(self, memory: list[float]) -> None:
        """Take up what ``memory`` returned."""
        stale, self._scale, *best = memory
        self._best, self._stale = best[0] if best else math.inf, int(stale)
