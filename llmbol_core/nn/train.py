"""Training: epochs over shuffled batches, the same bits for the same seed."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.native.files import STANDARD_INPUT, check_target
from llmbol_core.native.threads import single_threaded_blas
from llmbol_core.nn.checkpoint import load, save
from llmbol_core.nn.container import is_container
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.evaluate import evaluate, load_data, training_of
from llmbol_core.nn.model import Model
from llmbol_core.nn.resume import (
    forget_progress,
    resume_path,
    take_up_progress,
    write_progress,
)
from llmbol_core.nn.spec import changed_model, read_spec
from llmbol_core.nn.trainer import Epoch, Trainer


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
    """A training run with what each epoch gave."""

    history: list[Epoch]

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
    return run_to_end(Trainer(model, data), progress)


def run_to_end(
    trainer: Trainer,
    progress: Progress = lambda done, total, note: None,
    keep: Callable[[Trainer], None] = lambda trainer: None,
) -> TrainingRun:
    """Let a trainer run all epochs that are left; ``keep`` is called after each."""
    started = time.perf_counter()
    # A loss that overflows is reported once, as an error, not as NumPy's warnings.
    with single_threaded_blas(), np.errstate(all="ignore"):
        while not trainer.done:
            trainer.run_epoch(progress)
            keep(trainer)
        trainer.finish()
        result = evaluate(trainer.model.forward, trainer.model, trainer.data)
    trainer.model.network.clear_state()
    history = trainer.history
    return TrainingRun(
        model=trainer.model.name,
        epochs=len(history),
        steps=trainer.settings.optimizer.steps,
        train_loss=history[-1].train_loss,
        loss=result.loss,
        accuracy=result.accuracy,
        seconds=time.perf_counter() - started,
        history=history,
    )


@dataclass(frozen=True)
class Options:
    """How a file is trained."""

    settings: tuple[str, ...] = ()
    """Changes to the spec, such as ``train.epochs=10``."""
    keep_every: int = 0
    """After how many epochs, again and again, is written down where training stands."""
    resume: bool = False
    """Whether it goes on where an interrupted run stopped, if there is one."""


def train_file(
    source: str,
    target: str | None = None,
    data: str | None = None,
    changes: Mapping[str, int | None] | None = None,
    progress: Progress = lambda done, total, note: None,
    options: Options = Options(),
) -> TrainingRun:
    """Train a checkpoint, or a spec from its initial values, and write the checkpoint.

    ``changes`` are fields of the training section to set first, such as ``epochs``. Without a
    target a checkpoint is replaced, and a spec gives ``NAME.gguf``. A run that is kept can be taken
    up after an interruption and gives the same weights, bit for bit.
    """
    trained_before = is_container(source)
    model = (_loaded if trained_before else read_spec)(source, options.settings)
    settings = training_of(model)
    if target is None:
        target = _in_place(source) if trained_before else _own_file(model, source)
    check_target(target, data or model.data_path, *([] if trained_before else [source]))
    for name, value in (changes or {}).items():
        if value is not None:
            setattr(settings, name, value)
    settings.check_fields()
    if not trained_before:
        model.seeded()
    trainer = Trainer(model, load_data(model, data))
    if options.resume:
        take_up_progress(trainer, target)

    def keep(trainer: Trainer) -> None:
        if options.keep_every and len(trainer.history) % options.keep_every == 0:
            write_progress(trainer, target)

    try:
        run = run_to_end(trainer, progress, keep)
    except KeyboardInterrupt as interruption:
        if os.path.exists(resume_path(target)):
            interruption.add_note(f"{target}: not done; the same command with --resume goes on")
        raise
    save(model, target)
    forget_progress(target)
    return run


def _loaded(source: str, settings: Sequence[str]) -> Model:
    """Return a trained model whose training section is changed."""
    model = load(source)
    if settings:
        changed = changed_model(model, settings, source)
        if changed.config() | {"train": None} != model.config() | {"train": None}:
            raise UsageError(f"{source}: of a trained model only 'train' can be changed")
        model.train = changed.train
    return model


def _in_place(source: str) -> str:
    """Return the file that a checkpoint gives if none is named: the same."""
    if source == STANDARD_INPUT:
        raise UsageError("standard input cannot be replaced: give --output")
    return source


def _own_file(model: Model, source: str) -> str:
    """Return the file that a spec gives if none is named: one in the current directory."""
    if not model.name or os.sep in model.name:
        raise UsageError(f"{source}: the name {model.name!r} makes no file name: give --output")
    return f"{model.name}.gguf"
