"""What is measured beside the loss: a table of functions of outputs and targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.nn.module import Array

MetricName = Literal["accuracy", "top_3", "top_5", "f1", "mae", "rmse", "r2"]


@dataclass(frozen=True)
class Metric:
    """One measure; ``classes`` tells whether its targets are class numbers."""

    classes: bool
    measure: Callable[[Array, Array], float]


def _among(count: int) -> Callable[[Array, Array], float]:
    """Return the share of samples whose class is among so many highest outputs.

    Of classes with the same output the first ones count as higher, as ``argmax`` has it.
    """

    def share(outputs: Array, targets: Array) -> float:
        classes, target = np.arange(outputs.shape[1]), targets[:, None]
        own = np.take_along_axis(outputs, target, axis=1)
        behind = (outputs < own) | ((outputs == own) & (classes >= target))
        return float(((~behind).sum(axis=1) < count).mean())

    return share


def _macro_f1(outputs: Array, targets: Array) -> float:
    """Return the mean over the classes of 2 right / (samples + answers)."""
    answers, scores = outputs.argmax(axis=1), []
    for number in np.unique(targets):
        of_class, answered = targets == number, answers == number
        scores.append(2 * (of_class & answered).sum() / (of_class.sum() + answered.sum()))
    return float(np.mean(scores))


def _explained(outputs: Array, targets: Array) -> float:
    """Return the share of the targets' variance that the outputs explain."""
    rest, whole = np.square(outputs - targets).sum(), np.square(targets - targets.mean(0)).sum()
    return float(1 - rest / whole) if whole else 0.0


def _mse(outputs: Array, targets: Array) -> float:
    return float(np.square(outputs - targets).mean())


# fmt: off
METRICS: dict[str, Metric] = {
    # name           of classes
    "accuracy": Metric(True,  _among(1)),
    "top_3":    Metric(True,  _among(3)),
    "top_5":    Metric(True,  _among(5)),
    "f1":       Metric(True,  _macro_f1),
    "mae":      Metric(False, lambda outputs, targets: float(np.abs(outputs - targets).mean())),
    "rmse":     Metric(False, lambda outputs, targets: float(np.sqrt(_mse(outputs, targets)))),
    "r2":       Metric(False, _explained),
}
# fmt: on


def check_metrics(names: tuple[str, ...], classes: bool) -> None:
    """Raise ``UsageError`` if a metric does not go with the kind of targets."""
    for name in names:
        if METRICS[name].classes != classes:
            found = "values" if METRICS[name].classes else "classes"
            fitting = ", ".join(n for n, metric in METRICS.items() if metric.classes == classes)
            raise UsageError(f"metrics: {name!r} is none for {found}: expected some of {fitting}")
