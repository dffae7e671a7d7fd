"""A trainer among several that train one model together: every one takes the same steps.

Each computes its rows of every batch; outputs and gradients are added up over all, and everybody
makes the same step with them. When the others change in the middle of a step it is begun again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from llmbol_core.errors import ModelError
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Array
from llmbol_core.nn.optim import clip
from llmbol_core.nn.sharing import Share, sharing
from llmbol_core.nn.trainer import Trainer


class Regrouped(Exception):
    """The trainers are others now: the step must be begun again."""


class Others(Protocol):
    """What a trainer knows of those that train with it."""

    rank: int
    """Its own number, from 0."""
    world: int
    """How many there are."""

    def sum(self, step: int, part: int, own: Array) -> Array:
        """Return the sum of everybody's array for a part of a step; may raise ``Regrouped``.

        A sum that was known before the trainers changed stays the same.
        """


class SharedTrainer(Trainer):
    """A trainer that shares each batch with others."""

    def __init__(self, model: Model, data: Dataset, others: Others) -> None:
        super().__init__(model, data)
        self._others = others

    def _step(self, x: Array, targets: Array) -> float:
        """Take one step with the others on one batch; return the batch's loss before it."""
        back = self._mark()
        while True:
            try:
                return self._attempt(x, targets)
            except Regrouped:
                back()

    def _attempt(self, x: Array, targets: Array) -> float:
        network, settings = self.model.network, self.settings
        step, parts = settings.optimizer.steps, iter(range(1 << 30))
        share = Share.of(
            len(x), self._others.rank, self._others.world,
            lambda own: self._others.sum(step, next(parts), own),
        )  # fmt: skip
        rows = slice(share.start, share.stop)
        parameters, gradients = network.get_parameters()
        gradients.fill(0)
        with sharing(share):
            outputs = share.gathered(network.forward(x[rows]))
            value = settings.loss.forward(outputs, targets)
            if not np.isfinite(value):
                rate = settings.optimizer.rate
                why = f"the loss became {value}: is a learning rate of {rate} too high?"
                raise ModelError(self.model.name, why)
            network.backward(x[rows], settings.loss.backward(outputs, targets)[rows])
            gradients[...] = share.added(gradients)
        clip(gradients, settings.clip_norm, settings.clip_value)
        settings.optimizer.step(parameters, gradients)
        return value

    def _mark(self) -> Callable[[], None]:
        """Return a function that takes back what an attempt at a step has changed."""
        modules = self.model.network.list_modules()
        kept = [
            ({name: value.copy() for name, value in module.buffers.items()}, module._stream.calls)
            for module in modules
        ]

        def back() -> None:
            for module, (buffers, calls) in zip(modules, kept, strict=True):
                module._stream.calls = calls
                for name, value in buffers.items():
                    module.buffers[name][...] = value

        return back
