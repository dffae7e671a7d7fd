"""Accuracy on the handwritten digits beside PyTorch's: the same recipe, five seeds each.

All train 30 epochs with batches of 64, on 1437 samples; 360 are held out. PyTorch's means and
deviations are those of five seeds, with its own start values and orders of the samples.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from llmbol_core.nn.checkpoint import save
from llmbol_core.nn.evaluate import evaluate_file, load_data
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.nn.spec import parse_spec
from llmbol_core.nn.train import train

pytestmark = pytest.mark.slow

SAMPLE = 100 / 360
"""What one held-out sample counts for, in percent."""

ADAM = {"Adam": {"lr": 1e-3}}
SGD = {"SGD": {"lr": 0.05, "momentum": 0.9}}


def linear(ins: int, outs: int) -> dict[str, dict[str, int]]:
    return {"Linear": {"in_features": ins, "out_features": outs}}


def conv(rank: int, ins: int, outs: int, size: int) -> dict[str, dict[str, int]]:
    fields = {"in_channels": ins, "out_channels": outs, "kernel_size": size, "padding": size // 2}
    return {f"Conv{rank}d": fields}


def norm(size: int) -> list[object]:
    return [{"BatchNorm": {"features": size}}, "ReLU", {"Dropout": {"p": 0.5}}]


@dataclass(frozen=True)
class Recipe:
    """A model, and what PyTorch reached with it: mean and deviation, in percent."""

    layers: list[object]
    mean: float
    deviation: float
    optimizer: dict[str, dict[str, float]]
    loss: float = 0.4
    """What four bits may cost in the mean, in percent."""


MLP = [linear(64, 128), "ReLU", linear(128, 64), "ReLU", linear(64, 10)]
POOL = {"kernel_size": 2}
CNN = [
    *({"Reshape": {"shape": [1, 8, 8]}}, conv(2, 1, 32, 3), "ReLU", {"MaxPool2d": POOL}),
    *(conv(2, 32, 64, 3), "ReLU", {"MaxPool2d": POOL}, "Flatten", linear(256, 64), "ReLU"),
    linear(64, 10),
]
ENCODER = {"features": 64, "heads": 4, "feedforward": 128, "dropout": 0.0}
RECIPES = {
    "mlp": Recipe(["Flatten", *MLP], 96.78, 0.42, ADAM),
    "mlp sgd": Recipe(["Flatten", *MLP], 97.06, 0.42, SGD),
    "norm": Recipe(
        ["Flatten", linear(64, 128), *norm(128), linear(128, 64), *norm(64), linear(64, 10)],
        *(97.83, 0.36, ADAM),
    ),
    "cnn": Recipe([*CNN], 97.89, 0.70, ADAM),
    "cnn sgd": Recipe([*CNN], 98.06, 0.44, SGD),
    "conv1d": Recipe(
        [
            *({"Reshape": {"shape": [1, 64]}}, conv(1, 1, 16, 5), "ReLU", {"MaxPool1d": POOL}),
            *(conv(1, 16, 32, 5), "ReLU", {"MaxPool1d": POOL}, "Flatten", linear(512, 10)),
        ],
        *(96.39, 0.52, ADAM),
    ),
    "lstm": Recipe(
        [{"LSTM": {"input_size": 8, "hidden_size": 64, "sequence": False}}, linear(64, 10)],
        *(93.89, 0.71, ADAM, 1.2),
    ),
    "transformer": Recipe(
        [
            *(linear(8, 64), {"PositionalEmbedding": {"steps": 8, "features": 64}}),
            *({"TransformerEncoderLayer": ENCODER}, {"Mean": {"axis": 1}}, linear(64, 10)),
        ],
        *(96.72, 0.80, ADAM),
    ),
}


def reached(recipe: Recipe, seed: int, path: str) -> dict[str, float]:
    """Return the accuracy in percent of a model trained from a seed, and of its quantized forms."""
    training = {
        "data": "specs/data/digits.npz",
        "inputs": "images",
        "targets": "labels",
        "split": {"test": 0.2, "seed": 0, "stratify": True},
        "optimizer": recipe.optimizer,
        "epochs": 30,
        "batch_size": 64,
        "seed": seed,
    }
    spec = {"name": "digits", "input": {"shape": [8, 8], "scale": 0.0625}}
    model = parse_spec(json.dumps({**spec, "layers": recipe.layers, "train": training})).seeded()
    run = train(model, load_data(model))
    assert run.accuracy is not None
    save(model, path)
    found = {"f32": 100 * run.accuracy}
    for kind in ("q8_0", "q4_0"):
        quantize_checkpoint(path, f"{path}.{kind}", kind)
        accuracy = evaluate_file(f"{path}.{kind}", None).accuracy
        assert accuracy is not None
        found[kind] = 100 * accuracy
    return found


@pytest.mark.parametrize("name", RECIPES)
def test_accuracy_is_pytorchs(name, tmp_path):
    recipe = RECIPES[name]
    rows = [reached(recipe, seed, str(tmp_path / "m.gguf")) for seed in range(5)]
    means = {kind: float(np.mean([row[kind] for row in rows])) for kind in rows[0]}
    # A mean of five counts in fifths of a sample; less than one of those is no difference.
    assert means["f32"] >= recipe.mean - recipe.deviation - SAMPLE / 5
    for row in rows:
        assert abs(row["q8_0"] - row["f32"]) <= SAMPLE + 1e-9
    assert means["q4_0"] - means["f32"] >= -recipe.loss
