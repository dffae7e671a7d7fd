"""Training as a state that goes from epoch to epoch, and can be written down and taken up again.

Everything that decides what comes next is in ``Trainer.snapshot``: weights, running values, the
optimizer's vectors, the places in the random streams, what the schedule and early stopping
remember. A trainer that takes it up goes on bit for bit like the one that wrote it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmbol_core.errors import ModelError
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.nn.data import Dataset, scaled
from llmbol_core.nn.evaluate import measure, training_of
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Array
from llmbol_core.nn.optim import clip
from llmbol_core.nn.randomness import ORDER_LANE, Stream
from llmbol_core.nn.stepper import Stepper, make_stepper


@dataclass(frozen=True)
class Epoch:
    """One pass over the data: mean loss on the way, the rate, and the fit of the watched samples.

    Models that do not classify have no accuracy.
    """

    epoch: int
    rate: float
    train_loss: float
    loss: float
    accuracy: float | None
    metrics: dict[str, float]


@dataclass(frozen=True)
class Snapshot:
    """All that a trainer is: plain values as JSON has them, and arrays by name."""

    values: dict[str, Any]
    arrays: dict[str, Array]


class Trainer:
    """Trains a model in place on data as its spec says, one epoch at a time."""

    def __init__(self, model: Model, data: Dataset) -> None:
        """Begin with the weights as they are; nothing is drawn or measured yet."""
        self.model, self.data = model, data
        self.settings = settings = training_of(model)
        self.inputs = scaled(data.train_inputs, model.input.scale)
        self.batches = -(-len(self.inputs) // settings.batch_size)
        model.network.seed_training(settings.seed)
        settings.optimizer.restart()
        if settings.schedule is not None:
            settings.schedule.restart()
        self.order = Stream(settings.seed, ORDER_LANE)
        self.history: list[Epoch] = []
        self._best: tuple[int, float] = (0, math.inf)
        self._best_state: dict[str, Array] = {}
        self._steppers: dict[int, Stepper | None] = {}
        self._steppers_of: Array | None = None

    @property
    def done(self) -> bool:
        """Whether all epochs are over, or the watched loss has not fallen for too long."""
        stopping = self.settings.early_stopping
        epochs = len(self.history)
        if stopping is not None and epochs - self._best[0] > stopping.patience:
            return True
        return epochs >= self.settings.epochs

    def run_epoch(self, progress: Progress = lambda done, total, note: None) -> Epoch:
        """Take all batches in a new order, then measure; ``progress`` is told batches."""
        number, settings = len(self.history), self.settings
        if settings.schedule is not None:
            rate = settings.schedule.rate(settings.optimizer.lr, number, settings.epochs)
            settings.optimizer.rate = rate
        self.model.training()
        places, losses = self.order.permutation(len(self.inputs)), 0.0
        for batch in range(self.batches):
            chosen = places[batch * settings.batch_size : (batch + 1) * settings.batch_size]
            loss = self._step(self.inputs[chosen], self.data.train_targets[chosen])
            losses += loss * len(chosen)
            note = f"epoch {number + 1}/{settings.epochs}  loss {loss:.4f}"
            progress(number * self.batches + batch + 1, self.batches * settings.epochs, note)
        self.model.evaluate()
        fit = measure(self.model.forward, self.model, self.data.watched)
        rate, mean = settings.optimizer.rate, losses / len(self.inputs)
        epoch = Epoch(number + 1, rate, mean, fit.loss, fit.accuracy, fit.metrics)
        self.history.append(epoch)
        self._observe(epoch)
        return epoch

    def finish(self) -> None:
        """Restore the best weights if early stopping asks for it; leave the model evaluating."""
        stopping = self.settings.early_stopping
        if stopping is not None and stopping.restore and self._best_state:
            self.model.network.load_state(self._best_state)
        self.model.evaluate().network.clear_state()

    def _step(self, x: Array, targets: Array) -> float:
        """Take one step on one batch; return the batch's loss before it."""
        network, settings = self.model.network, self.settings
        parameters, gradients = network.get_parameters()
        stepper = self._stepper(len(x), parameters)
        if stepper is not None:
            value = stepper.step(x, targets)
        else:
            gradients.fill(0)
            output = network.forward(x)
            value = settings.loss.forward(output, targets)
        if not np.isfinite(value):
            rate = settings.optimizer.rate
            why = f"the loss became {value}: is a learning rate of {rate} too high?"
            raise ModelError(self.model.name, why)
        if stepper is None:
            network.backward(x, settings.loss.backward(output, targets))
        clip(gradients, settings.clip_norm, settings.clip_value)
        settings.optimizer.step(parameters, gradients)
        return value

    def _stepper(self, batch: int, parameters: Array) -> Stepper | None:
        """Return what takes steps with batches of this size in machine code, if anything does."""
        if self._steppers_of is not parameters:
            self._steppers, self._steppers_of = {}, parameters
        if batch not in self._steppers:
            network, loss = self.model.network, self.settings.loss
            shape, dtype = self.model.input.shape, parameters.dtype
            self._steppers[batch] = make_stepper(network, loss, shape, batch, dtype)
        return self._steppers[batch]

    def _observe(self, epoch: Epoch) -> None:
        """Let schedule and early stopping see the watched loss."""
        if self.settings.schedule is not None:
            self.settings.schedule.observe(epoch.loss)
        stopping = self.settings.early_stopping
        if stopping is not None and epoch.loss < self._best[1] - stopping.min_delta:
            self._best = (epoch.epoch, epoch.loss)
            if stopping.restore:
                state = self.model.network.state()
                self._best_state = {name: value.copy() for name, value in state.items()}

    def snapshot(self) -> Snapshot:
        """Return all that the trainer is; the arrays are its own, not copies."""
        settings, network = self.settings, self.model.network
        values = {
            "history": [asdict(epoch) for epoch in self.history],
            "steps": settings.optimizer.steps,
            "order": self.order.calls,
            "streams": [module._stream.calls for module in network.list_modules()],
            "schedule": [] if settings.schedule is None else settings.schedule.memory(),
            "best": None if not self._best[0] else list(self._best),
        }
        groups = {
            "model": network.state(),
            "optimizer": settings.optimizer.state,
            "best": self._best_state,
        }
        arrays = {
            f"{kind}/{n}": value for kind, group in groups.items() for n, value in group.items()
        }
        return Snapshot(values, arrays)

    def take_up(self, snapshot: Snapshot) -> None:
        """Become the trainer whose snapshot this is; model and settings must be the same."""
        values, settings, network = snapshot.values, self.settings, self.model.network
        groups: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "best": {}}
        for path, array in snapshot.arrays.items():
            kind, _, name = path.partition("/")
            groups[kind][name] = np.array(array)
        network.get_parameters()
        network.load_state(groups["model"])
        settings.optimizer.restart()
        settings.optimizer.state.update(groups["optimizer"])
        settings.optimizer.steps = values["steps"]
        self.order.calls = values["order"]
        for module, calls in zip(network.list_modules(), values["streams"], strict=True):
            module._stream.calls = calls
        if settings.schedule is not None:
            settings.schedule.remember(values["schedule"])
        self.history = [Epoch(**epoch) for epoch in values["history"]]
        self._best = tuple(values["best"]) if values["best"] else (0, math.inf)
        self._best_state = groups["best"]
