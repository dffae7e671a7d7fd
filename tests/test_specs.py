"""Every spec in specs/ builds, trains a step, survives a checkpoint and runs."""

from __future__ import annotations

import glob
import os

import numpy as np
import pytest

from llmbol_core.nn.checkpoint import load, load_for_inference, save
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.train import train
from tests.nn.signals import signals

SPECS = sorted(glob.glob("specs/*.yaml"))

ACCURACY = {
    "digits-mlp": 0.965,
    "digits-cnn": 0.965,
    "digits-conv1d": 0.945,
    "digits-lstm": 0.915,
    "digits-transformer": 0.935,
    "signals-conv1d": 0.9,
}
"""What the trained model reaches at least, on the held-out samples."""
QUICK = "specs/digits-mlp.yaml"


def test_there_are_specs():
    assert {os.path.splitext(os.path.basename(path))[0] for path in SPECS} == set(ACCURACY)


@pytest.mark.parametrize("path", SPECS)
def test_spec_trains_a_step_and_runs(path, tmp_path):
    model = read_spec(path).seeded()
    assert model.train is not None
    data = load_data(model)
    model.train.epochs = 1
    few = Dataset(
        data.train_inputs[:64], data.train_targets[:64], data.test_inputs, data.test_targets
    )
    train(model, few)
    target = str(tmp_path / "model.gguf")
    save(model, target)
    assert load(target).layers[0].config() == model.layers[0].config()
    outputs = load_for_inference(target).run(data.test_inputs[:5])
    assert outputs.shape == (5, *model.output_shape)
    assert np.isfinite(outputs).all()


@pytest.mark.parametrize(
    "path", [p if p == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in SPECS]
)
def test_spec_reaches_its_accuracy(path):
    model = read_spec(path).seeded()
    run = train(model, load_data(model))
    assert run.accuracy is not None
    assert run.accuracy >= ACCURACY[model.name]


def test_signals_are_those_of_their_recipe():
    stored = np.load("specs/data/signals.npz")
    waves, forms = signals()
    # Sines differ in their last bit from processor to processor, rounded hundredths by one.
    assert abs(stored["signals"].astype(int) - waves).max() <= 1
    np.testing.assert_array_equal(stored["forms"], forms)
