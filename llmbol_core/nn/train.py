"""Training: epochs over shuffled batches, the same bits for the same seed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import ModelError, UsageError
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.native.files import check_target
from llmbol_core.native.threads import single_threaded_blas
from llmbol_core.nn.checkpoint import is_checkpoint, load, save
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.evaluate import evaluate, load_data, training_of
from llmbol_core.nn.model import Model, Training, scaled
from llmbol_core.nn.module import Array
from llmbol_core.nn.randomness import ORDER_LANE, Stream
from llmbol_core.nn.spec import read_spec


@dataclass(frozen=True)
class RunRow:
    """A training run in one row: mean loss of the last epoch, fit of the held-out samples."""

    model: str
    epochs: int
    steps: int
    train_loss: float
    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class TrainingRun(RunRow):
    """A training run with the mean loss of each epoch."""

    history: list[float]

    def row(self) -> RunRow:
        """Return the run without its history."""
        return RunRow(*(getattr(self, field.name) for field in dataclasses.fields(RunRow)))


def train(
    model: Model,
    data: Dataset,
    progress: Progress = lambda done, total, note: None,
) -> TrainingRun:
    """Train a model in place as its spec says and evaluate it; leave it in evaluation mode.

    Seed, data and starting weights decide every bit of the result, whatever the machine's load and
    the number of threads. ``progress`` is told batches. A loss that is not finite ends the run.
    """
    settings = training_of(model)
    batches = -(-len(data.train_inputs) // settings.batch_size)
    total = batches * settings.epochs
    inputs, started = scaled(data.train_inputs, model.input.scale), time.perf_counter()
    model.training().network.seed_training(settings.seed)
    settings.optimizer.restart()
    order, history = Stream(settings.seed, ORDER_LANE), []
    # A loss that overflows is reported once, as an error, not as NumPy's warnings.
    with single_threaded_blas(), np.errstate(all="ignore"):
        for epoch in range(settings.epochs):
            places, losses = order.permutation(len(inputs)), 0.0
            for batch in range(batches):
                chosen = places[batch * settings.batch_size : (batch + 1) * settings.batch_size]
                loss = _step(model, settings, inputs[chosen], data.train_targets[chosen])
                losses += loss * len(chosen)
                note = f"epoch {epoch + 1}/{settings.epochs}  loss {loss:.4f}"
                progress(epoch * batches + batch + 1, total, note)
            history.append(losses / len(inputs))
        model.evaluate()
        result = evaluate(model.forward, model, data)
    model.network.clear_state()
    seconds = time.perf_counter() - started
    return TrainingRun(
        model=model.name,
        epochs=settings.epochs,
        steps=total,
        train_loss=history[-1],
        loss=result.loss,
        accuracy=result.accuracy,
        seconds=seconds,
        history=history,
    )


def _step(model: Model, settings: Training, x: Array, targets: Array) -> float:
    """Take one step on one batch; return the batch's loss before it."""
    network, loss = model.network, settings.loss
    parameters, gradients = network.get_parameters()
    gradients.fill(0)
    output = network.forward(x)
    value = loss.forward(output, targets)
    if not np.isfinite(value):
        rate = getattr(settings.optimizer, "lr", None)
        raise ModelError(
            model.name, f"the loss became {value}: is a learning rate of {rate} too high?"
        )
    network.backward(x, loss.backward(output, targets))
    settings.optimizer.step(parameters, gradients)
    return value


def train_file(
    source: str,
    target: str | None = None,
    data: str | None = None,
    changes: Mapping[str, int | None] | None = None,
    progress: Progress = lambda done, total, note: None,
) -> TrainingRun:
    """Train a checkpoint, or a spec from its start values, and write the checkpoint.

    ``changes`` are fields of the training section to set first, such as ``epochs``. Without a
    target a checkpoint is replaced, and a spec gives ``NAME.gguf``.
    """
    trained_before = is_checkpoint(source)
    model = load(source) if trained_before else read_spec(source)
    settings = training_of(model)
    if target is None:
        target = source if trained_before else _own_file(model, source)
    check_target(target, *([] if trained_before else [source]))
    for name, value in (changes or {}).items():
        if value is not None:
            setattr(settings, name, value)
    settings.check_fields()
    if not trained_before:
        model.seeded()
    run = train(model, load_data(model, data), progress)
    save(model, target)
    return run


def _own_file(model: Model, source: str) -> str:
    """Return the file that a spec gives if none is named: one in the current directory."""
    if not model.name or os.sep in model.name:
        raise UsageError(f"{source}: the name {model.name!r} makes no file name: give --output")
    return f"{model.name}.gguf"
