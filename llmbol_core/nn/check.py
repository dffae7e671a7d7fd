"""Checking a spec before it is trained: its layers, its gradients, its data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmbol_core.errors import ModelError
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.model import Model
from llmbol_core.nn.module import Array
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.summary import shown

_STEP = 1e-6
_TOLERANCE = 1e-4
"""The greatest relative error of a gradient: kinks such as relu's cost some digits."""
_LARGEST = 2_000_000
"""Parameters up to which gradients are checked, in float64."""


@dataclass(frozen=True)
class CheckRow:
    """One thing that was checked and found right."""

    checked: str
    found: str


def check_spec(path: str) -> list[CheckRow]:
    """Check a spec and its data, or raise what is wrong with them."""
    model = read_spec(path)
    summary = model.summary()
    shapes = f"{shown(model.input.shape)} to {shown(model.output_shape)}"
    sizes = f"{len(summary.layers)} layers, {summary.parameters:,} parameters"
    rows = [CheckRow("layers", f"{shapes}, {sizes}, {summary.macs:,} MACs")]
    if model.train is not None:
        data = load_data(model)
        count, held = len(data.train_inputs), len(data.test_inputs)
        rows.append(CheckRow("data", f"{count} samples to train on, {held} held out"))
        model.train.loss.check(
            np.zeros((1, *model.output_shape), np.float32), data.train_targets[:1]
        )
        rows.append(CheckRow("loss", f"{type(model.train.loss).__name__} fits the targets"))
    if summary.parameters <= _LARGEST:
        error = gradient_error(model)
        if not error < _TOLERANCE:
            raise ModelError(path, f"its gradients are off by {error:.1e} of their size")
        rows.append(CheckRow("gradients", f"right to {error:.0e} of their size"))
    return rows


def gradient_error(model: Model) -> float:
    """Return how far gradients and differences lie apart along one direction, relative.

    In float64 and evaluation mode, on samples of random values between 0 and 1; the model keeps
    initial values of its own in the end.
    """
    network = model.seeded().network.double().evaluate()
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (2, *model.input.shape))
    weights, gradients = network.get_parameters()
    direction: Array = rng.normal(size=weights.shape)
    factors = rng.normal(size=network.forward(x).shape)
    gradients.fill(0)
    network.backward(x, factors)
    slope = float(gradients @ direction)
    start, ends = weights.copy(), []
    for sign in (1, -1):
        weights[:] = start + sign * _STEP * direction
        ends.append(float((network.forward(x) * factors).sum()))
    weights[:] = start
    network.clear_state().float()
    numeric = (ends[0] - ends[1]) / (2 * _STEP)
    return abs(slope - numeric) / max(abs(slope), abs(numeric), 1e-3)
