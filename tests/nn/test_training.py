"""Training from epoch to epoch: exact resume, early stopping, schedules, curves."""

from __future__ import annotations

import json
import os
import shutil
from typing import get_args

import numpy as np
import pytest

from llmbol_core.errors import LlmbolError, ModelError, UsageError
from llmbol_core.ml import gguf
from llmbol_core.nn import resume
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import load, load_for_inference
from llmbol_core.nn.criterions import CosineEmbedding
from llmbol_core.nn.data import Dataset
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.infer import infer
from llmbol_core.nn.metrics import METRICS, MetricName
from llmbol_core.nn.model import Input, Model, Training
from llmbol_core.nn.optim import SGD
from llmbol_core.nn.spec import parse_spec
from llmbol_core.nn.train import Options, run_to_end, train, train_file
from llmbol_core.nn.trainer import Epoch, Trainer

SPEC = """\
name: waves
input: {shape: [8], scale: 0.5}
layers:
  - Linear: {in_features: 8, out_features: 12}
  - BatchNorm: {features: 12}
  - PReLU
  - Dropout: {p: 0.3}
  - Reshape: {shape: [3, 4]}
  - GRU: {input_size: 4, hidden_size: 6, num_layers: 2, dropout: 0.2, sequence: false}
  - Linear: {in_features: 6, out_features: 3}
train:
  data: waves.npz
  split: {test: 0.2, validation: 0.25}
  optimizer: {RMSprop: {lr: 1e-2, momentum: 0.5}}
  schedule: {WarmUp: {epochs: 2, then: {Plateau: {patience: 0, factor: 0.5}}}}
  early_stopping: {patience: 6}
  clip_norm: 1.0
  epochs: 6
  batch_size: 16
"""


@pytest.fixture
def spec(tmp_path):
    rng = np.random.default_rng(0)
    targets = np.arange(120) % 3
    inputs = rng.normal(size=(120, 8)) + targets[:, None]
    np.savez(tmp_path / "waves.npz", inputs=inputs.astype(np.float32), targets=targets)
    path = tmp_path / "waves.yaml"
    path.write_text(SPEC)
    return str(path)


class Interrupted(Exception):
    """Somebody pressed a key."""


def test_resumed_run_gives_the_same_weights_bit_for_bit(spec, tmp_path):
    whole, parts = str(tmp_path / "whole.gguf"), str(tmp_path / "parts.gguf")
    run = train_file(spec, whole)

    def interrupt(done, total, note):
        if note.startswith("epoch 4/6") and done % 5 == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupted:
        train_file(spec, parts, progress=interrupt, options=Options(keep_every=1))
    assert "--resume" in interrupted.value.__notes__[0]
    assert not os.path.exists(parts)
    assert os.path.exists(resume.resume_path(parts))
    moved = shutil.copy(tmp_path / "waves.npz", tmp_path / "moved.npz")
    again = train_file(spec, parts, options=Options(resume=True, settings=(f"train.data={moved}",)))
    assert again.history == run.history
    assert (again.steps, again.loss, again.accuracy) == (run.steps, run.loss, run.accuracy)
    first, second = load(whole).network.state(), load(parts).network.state()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert not os.path.exists(resume.resume_path(parts))
    assert run.history[1].rate == pytest.approx(0.01 * 2 / 3)


def test_resume_without_a_file_starts_and_with_another_spec_refuses(spec, tmp_path):
    target = str(tmp_path / "x.gguf")
    run = train_file(spec, target, changes={"epochs": 1}, options=Options(resume=True))
    assert len(run.history) == 1

    def interrupt(done, total, note):
        if note.startswith("epoch 2"):
            raise Interrupted

    with pytest.raises(Interrupted):
        train_file(spec, target, progress=interrupt, options=Options(keep_every=1))
    with pytest.raises(ModelError, match="belongs to another spec or seed"):
        train_file(spec, target, changes={"seed": 5}, options=Options(resume=True))
    np.savez(tmp_path / "other.npz", inputs=np.eye(120, 8), targets=np.arange(120) % 3)
    other = str(tmp_path / "other.npz")
    with pytest.raises(ModelError, match="it belongs to other data"):
        train_file(spec, target, other, options=Options(resume=True))
    kept = resume.resume_path(target)
    found = gguf.read(kept)
    (key,) = [key for key, value in found.metadata.items() if str(value).startswith("{")]
    gguf.write(kept, found.metadata | {key: "[" * 100_000}, found.tensors)
    with pytest.raises(ModelError, match="no interrupted training is in it"):
        train_file(spec, target, options=Options(resume=True))
    with open(kept, "r+b") as file:
        file.truncate(100)
    with pytest.raises(LlmbolError):
        train_file(spec, target, options=Options(resume=True))


def test_a_loss_that_stays_is_not_better(spec):
    model = parse_spec(SPEC.replace("patience: 6", "patience: 1, min_delta: 0.5"), spec).seeded()
    trainer = Trainer(model, load_data(model))
    done = []
    for number, loss in enumerate((3.0, 2.0, 1.5, 1.5), 1):
        trainer.history.append(Epoch(number, 0.1, loss, loss, None, {}))
        trainer._observe(trainer.history[-1])
        done.append((trainer._best, trainer.done))
    assert done == [((1, 3.0), False), ((2, 2.0), False), ((2, 2.0), False), ((2, 2.0), True)]


def test_early_stopping_restores_the_best_weights(spec):
    text = SPEC.replace("patience: 6", "patience: 1").replace("epochs: 6", "epochs: 60")
    model = parse_spec(text.replace("lr: 1e-2", "lr: 0.1"), spec).seeded(1)
    data = load_data(model)
    assert data.watched[0].shape == (24, 8)
    assert len(data.train_inputs) == 72
    trainer = Trainer(model, data)
    run = run_to_end(trainer)
    losses = [epoch.loss for epoch in run.history]
    assert len(losses) < 60
    assert len(losses) == int(np.argmin(losses)) + 3
    watched = trainer.settings.loss.forward(model.forward(data.watched[0]), data.watched[1])
    assert watched == pytest.approx(min(losses), rel=1e-6)


def test_pairs_are_compared_by_their_cosine():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2, 3)).astype(np.float32), np.where(np.arange(60) % 2, 1, -1)
    x[1::2, 1] = x[1::2, 0] + 0.1
    data = Dataset(x[:40], y[:40], x[40:], y[40:])
    training = Training("none", loss=CosineEmbedding(), optimizer=SGD(lr=0.05), epochs=5)
    built = build_model("pairs", [2, 3]).linear(3, 4)
    model = Model("pairs", Input((2, 3)), built.build().layers, train=training).seeded(0)
    run = train(model, data)
    assert run.history[-1].train_loss < run.history[0].train_loss
    assert run.accuracy is None
    json.dumps([epoch.__dict__ for epoch in run.history])


def test_metrics_by_hand():
    scores = np.array([[0.1, 0.7, 0.2, 0.0], [0.5, 0.2, 0.3, 0.0], [0.3, 0.2, 0.4, 0.1]])
    classes = np.array([1, 1, 0])
    values = {"accuracy": 1 / 3, "top_3": 1.0, "top_5": 1.0, "f1": (0 + 2 / 3) / 2}
    for name, value in values.items():
        assert METRICS[name].measure(scores, classes) == pytest.approx(value)
    outputs, targets = np.array([[1.0], [2.0], [6.0]]), np.array([[1.0], [4.0], [4.0]])
    for name, value in {"mae": 4 / 3, "rmse": (8 / 3) ** 0.5, "r2": 1 - 8 / 6}.items():
        assert METRICS[name].measure(outputs, targets) == pytest.approx(value)
    assert set(METRICS) == set(get_args(MetricName)) == {*values, "mae", "rmse", "r2"}
    pairs = np.array([[0.0, 10.0], [2.0, 10.0]])
    assert METRICS["r2"].measure(pairs + np.array([[0.5, 0.0]]), pairs) == 1 - 0.5 / 2


def test_what_is_no_decision_is_not_taken_for_one():
    same, nothing = np.zeros((6, 6)), np.full((6, 6), np.nan)
    for name, right in {"accuracy": 1 / 6, "top_3": 3 / 6, "top_5": 5 / 6}.items():
        assert METRICS[name].measure(same, np.arange(6)) == pytest.approx(right)
        assert METRICS[name].measure(nothing, np.arange(6)) == 0


def test_metrics_are_measured_in_every_epoch(spec, tmp_path):
    text = SPEC.replace("epochs: 6", "epochs: 2\n  metrics: [accuracy, f1]")
    run = train(parse_spec(text, spec).seeded(), load_data(parse_spec(text, spec)))
    assert [set(epoch.metrics) for epoch in run.history] == [{"accuracy", "f1"}] * 2
    assert run.history[0].metrics["accuracy"] == run.history[0].accuracy
    with pytest.raises(LlmbolError, match="'mae' is none for classes: expected some of accuracy"):
        parse_spec(text.replace("[accuracy, f1]", "[mae]"), spec)
    with pytest.raises(LlmbolError, match="metrics: expected one of accuracy, top_3"):
        parse_spec(text.replace("[accuracy, f1]", "[speed]"), spec)


WORDS = """\
name: m
input: {shape: [2]}
layers: [{Linear: {in_features: 2, out_features: 2}}]
labels: [low, high]
train: {data: d.csv, targets: kind, epochs: 30, optimizer: {Adam: {lr: 0.1}}}
"""


def test_classes_may_be_words(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 2))
    rows = [f"{a},{'high' if a > b else 'low'},{b}" for a, b in x]
    (tmp_path / "d.csv").write_text("\n".join(["a,kind,b", *rows]))
    spec, model = tmp_path / "m.yaml", str(tmp_path / "m.gguf")
    spec.write_text(WORDS)
    run = train_file(str(spec), model)
    assert run.accuracy is not None
    assert run.accuracy > 0.8
    found = infer(load_for_inference(model), str(tmp_path / "d.csv"))
    assert np.mean(found.argmax(1) == (x[:, 0] > x[:, 1])) > 0.8
    for labels, said in (
        ("", r"words: say in which order, as labels: \[high, low\]"),
        ("labels: [low, hight]\n", r"no label is 'high' \(did you mean 'hight'\?\)"),
    ):
        spec.write_text(WORDS.replace("labels: [low, high]\n", labels))
        with pytest.raises(UsageError, match=said):
            train_file(str(spec), model)
