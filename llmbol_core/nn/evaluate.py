"""Evaluation: the data that a model names, and how well its outputs fit the held-out part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import FileError, ModelError, UsageError, nearest
from llmbol_core.ml.gguf.writer import Progress
from llmbol_core.nn.checkpoint import load_for_inference
from llmbol_core.nn.criterions import Criterion
from llmbol_core.nn.data import (
    Dataset,
    conform,
    pick,
    random_split,
    read_arrays,
    read_samples,
    stratified_split,
)
from llmbol_core.nn.metrics import METRICS
from llmbol_core.nn.model import Model, Training
from llmbol_core.nn.module import Array

_BATCH = 256
_SHOWN = 20


@dataclass(frozen=True)
class ClassScore:
    """How a class was recognized: how many of its samples, the accuracy or recall, and the rest.

    ``precision`` is the share of the answers with this class that were right, ``f1`` the
    harmonic mean of both; ``answers`` counts its samples by the class they were taken for.
    """

    label: str
    samples: int
    correct: int
    accuracy: float
    precision: float
    f1: float
    answers: list[int]


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy on the held-out samples; models that do not classify have no accuracy."""

    model: str
    samples: int
    loss: float
    accuracy: float | None
    classes: list[ClassScore]
    metrics: dict[str, float]

    def confusion(self) -> str:
        """Return what the samples of each class were taken for, a row for each class."""
        header = ["", *(score.label for score in self.classes)]
        rows = [header, *([s.label, *map(str, s.answers)] for s in self.classes)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(f"{word:>{width}}" for word, width in zip(row, widths, strict=True))
            for row in rows
        )

    def table(self) -> list[EvaluationRow]:
        """Return one row per class and one for all samples, with the loss."""
        rows = [
            EvaluationRow(c.label, c.samples, c.correct, c.accuracy, None) for c in self.classes
        ]
        correct = sum(score.correct for score in self.classes) if self.classes else None
        return [*rows, EvaluationRow("all", self.samples, correct, self.accuracy, self.loss)]


@dataclass(frozen=True)
class EvaluationRow:
    """A class, or all samples, in one row."""

    label: str
    samples: int
    correct: int | None
    accuracy: float | None
    loss: float | None


def training_of(model: Model) -> Training:
    """Return the training section, or say that the model has none."""
    if model.train is None:
        raise ModelError(model.path or model.name, "its spec has no 'train' section")
    return model.train


def load_data(model: Model, path: str | None = None) -> Dataset:
    """Return the data that the model's spec names, or those of another file, split as it says."""
    training = training_of(model)
    path = model.data_path if path is None else path
    try:
        arrays = read_arrays(path)
    except FileError as error:
        if path == model.data_path:
            why = f"{error.why} (the data that {model.path or model.name} names; --data says else)"
            raise FileError(error.path, why) from error
        raise
    shape = model.input.shape
    targets = pick(arrays, training.targets, path, "train.targets")
    inputs = conform(
        read_samples(arrays, training.inputs, training.targets, shape, path), shape, path
    )
    if targets.shape[:1] != inputs.shape[:1]:
        found = f"targets of shape {list(targets.shape)}"
        raise UsageError(f"{path}: {len(inputs)} samples but {found}")
    finite = np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim)))
    if not finite.all():
        why = f"sample {finite.argmin()} of 0 to {len(inputs) - 1} has values that are not finite"
        raise UsageError(f"{path}: {why}")
    by_class = training.loss.classifies
    targets = _ready_targets(targets, model, by_class, path)
    split = training.split
    divide = stratified_split if split.stratify and by_class else random_split
    train, held = divide(targets, split.test, split.seed)
    watched = train[:0]
    if split.validation:
        kept, watched = divide(targets[train], split.validation, split.seed)
        train, watched = train[kept], train[watched]
    parts = [part for places in (train, held) for part in (inputs[places], targets[places])]
    return Dataset(*parts, *((inputs[watched], targets[watched]) if split.validation else ()))


def _numbered(names: Array, labels: tuple[str, ...], path: str) -> Array:
    """Return the numbers of classes that are given by their labels."""
    found, places = np.unique(names, return_inverse=True)
    if not labels:
        shown = ", ".join(map(str, found[:_SHOWN])) + ", ..." * (len(found) > _SHOWN)
        why = f"the targets are words: say in which order, as labels: [{shown}]"
        raise UsageError(f"{path}: {why}")
    for name in found:
        if name not in labels:
            known = nearest(str(name), labels) or f": expected one of {', '.join(labels)}"
            raise UsageError(f"{path}: no label is {str(name)!r}{known}")
    return np.array([labels.index(str(name)) for name in found])[places]


def _ready_targets(targets: Array, model: Model, by_class: bool, path: str) -> Array:
    """Return class numbers as integers, other targets as float32 in the output's shape."""
    if by_class:
        if targets.dtype.kind == "U" and targets.ndim == 1:
            targets = _numbered(targets, model.labels, path)
        if targets.dtype.kind not in "iub" or targets.ndim != 1:
            found = f"{targets.dtype} of shape {list(targets.shape)}"
            raise UsageError(f"{path}: expected one class number per sample as target, got {found}")
        return targets.astype(np.int64)
    loss = training_of(model).loss
    shape = (len(targets), *loss.target_shape(model.output_shape))
    if targets.size != math.prod(shape):
        why = f"targets of shape {list(targets.shape)} for outputs of shape {list(shape)}"
        raise UsageError(f"{path}: {why}")
    return targets.astype(np.float32).reshape(shape)


def evaluate(
    run: Callable[[Array], Array],
    model: Model,
    data: Dataset,
    progress: Progress = lambda done, total, note: None,
) -> Evaluation:
    """Return how well the outputs of ``run`` fit the held-out samples of the data."""
    return measure(run, model, (data.test_inputs, data.test_targets), progress)


def measure(
    run: Callable[[Array], Array],
    model: Model,
    samples: tuple[Array, Array],
    progress: Progress = lambda done, total, note: None,
) -> Evaluation:
    """Return how well the outputs of ``run`` fit samples, given with their targets."""
    inputs, targets = samples
    parts = []
    for start in range(0, len(inputs), _BATCH):
        progress(start, len(inputs), "evaluating")
        parts.append(run(inputs[start : start + _BATCH]))
    progress(len(inputs), len(inputs), "evaluating")
    return score(np.concatenate(parts), targets, model, training_of(model).loss)


def score(outputs: Array, targets: Array, model: Model, loss: Criterion) -> Evaluation:
    """Return the loss and, if that is one of classes, the accuracy in all and of each class."""
    value = loss.forward(outputs, targets)
    names = training_of(model).metrics
    metrics: dict[str, float] = {name: METRICS[name].measure(outputs, targets) for name in names}
    if not loss.classifies:
        return Evaluation(model.name, len(targets), value, None, [], metrics)
    answers, count = outputs.argmax(axis=1), outputs.shape[1]
    confusion = np.bincount(targets * count + answers, minlength=count * count)
    confusion = confusion.reshape(count, count)
    classes = [_class_score(confusion, number, model) for number in range(count)]
    accuracy = float((answers == targets).mean())
    return Evaluation(model.name, len(targets), value, accuracy, classes, metrics)


def _class_score(confusion: Array, number: int, model: Model) -> ClassScore:
    """Return how one class was recognized, from the counts of samples by class and answer."""
    row = confusion[number]
    samples, correct, answered = int(row.sum()), int(row[number]), int(confusion[:, number].sum())
    label = model.labels[number] if model.labels else str(number)
    accuracy = correct / samples if samples else 0.0
    precision = correct / answered if answered else 0.0
    f1 = 2 * correct / (samples + answered) if correct else 0.0
    return ClassScore(label, samples, correct, accuracy, precision, f1, row.tolist())


def evaluate_file(
    source: str,
    data: str | None = None,
    progress: Progress = lambda done, total, note: None,
) -> Evaluation:
    """Evaluate a checkpoint, quantized or not, with the engine that inference uses."""
    model = load_for_inference(source)
    return evaluate(model.run, model.model, load_data(model.model, data), progress)
