"""Models: built in Python, trained, saved, quantized, run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmbol_core
from llmbol_core import nn
from llmbol_core.errors import (
    DtypeError,
    FileError,
    LlmbolError,
    ModelError,
    ShapeError,
    UsageError,
)
from llmbol_core.ml import gguf
from llmbol_core.ml.text import format_rows
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import load, load_for_inference, open_model, save
from llmbol_core.nn.containers import Sequential
from llmbol_core.nn.data import Dataset, conform
from llmbol_core.nn.evaluate import evaluate, evaluate_file, load_data
from llmbol_core.nn.infer import infer, save_outputs, top_candidates
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.shape import Reshape
from llmbol_core.nn.model import Input, Model, Training
from llmbol_core.nn.optim import SGD
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.train import train, train_file

DIGITS = "specs/digits-mlp.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of the digits model after 3 epochs."""
    path = str(tmp_path_factory.mktemp("digits") / "digits.gguf")
    run = train_file(DIGITS, path, changes={"epochs": 3, "seed": 0})
    return path, run


def test_builder_makes_a_model():
    model = build_model("my-model", [784]).linear(784, 128).relu().dropout(0.2).linear(128, 10)
    built = model.build()
    assert repr(built).startswith("my-model: nn.Sequential {\n  [input -> (0) -> (1) -> (2)")
    assert built.forward(np.zeros(784)).shape == (10,)
    assert built.forward(np.zeros((5, 784))).shape == (5, 10)
    assert built.summary().parameters == 784 * 128 + 128 + 128 * 10 + 10
    assert "total" in str(built.summary())
    again = model.build()
    np.testing.assert_array_equal(
        built.network.get_parameters()[0], again.network.get_parameters()[0]
    )


def test_builder_says_what_does_not_fit():
    with pytest.raises(ModelError, match=r"m: 1.Linear: expected 3 features .* got shape \[5\]"):
        build_model("m", [4]).linear(4, 5).linear(3, 2)
    with pytest.raises(AttributeError, match="'liner'"):
        build_model("m", [4]).liner(4, 5)
    assert "batchnorm" in dir(build_model("m", [4]))
    assert build_model("m", [4]).batch_norm(4).build().layers[0].label == "BatchNorm"


def test_numbers_of_numpy_are_numbers():
    shape = np.zeros((3, 8)).shape[1:]
    width = np.int64(4)
    numbers: Any = np.array(shape)
    builder = build_model("m", numbers)
    builder = builder.linear(np.uint8(8), width, bias=np.bool_(False)).dropout(np.float32(0.25))
    made = builder.reshape([width // 2, 2]).build()
    halves: Any = np.array([2, 2])
    assert Reshape(halves).shape == (2, 2)
    linear, dropout, _ = made.layers
    assert isinstance(linear, Linear)
    assert isinstance(dropout, Dropout)
    assert [type(n) for n in (linear.out_features, dropout.p)] == [int, float]
    assert made.layers[2].config() == {"Reshape": {"shape": [2, 2]}}
    with pytest.raises(UsageError, match=r"in_features: expected an integer, got 4\.5"):
        build_model("m", [8]).linear(np.float64(4.5), 2)


def test_package_is_a_function_and_holds_the_layers():
    network = nn().add(nn.linear(784, 128)).add(llmbol_core.relu())  # type: ignore[operator]
    assert network.size() == 2
    assert network.summary().parameters == 784 * 128 + 128
    with pytest.raises(UsageError, match="so give one"):
        nn().summary()  # type: ignore[operator]
    assert nn.Linear is nn.linear is nn.module.Module.table["Linear"]
    with pytest.raises(AttributeError):
        _ = nn.liner
    code = "import sys; from llmbol_core import nn; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_inputs_are_conformed():
    assert conform([1, 2], (2,), "m").shape == (1, 2)
    assert conform(np.zeros((3, 2), np.uint8), (2,), "m").dtype == np.float32
    with pytest.raises(ShapeError) as caught:
        conform(np.zeros((3, 5)), (2, 2), "m")
    assert str(caught.value) == "m: expected input of shape [2, 2] or [N, 2, 2], got [3, 5]"
    with pytest.raises(ShapeError, match="expected numbers"):
        conform(np.array(["a"]), (1,), "m")


def test_training_is_deterministic_and_learns(trained, tmp_path):
    path, run = trained
    assert run.accuracy > 0.85
    assert run.steps == 3 * 23
    assert len(run.history) == 3
    again = str(tmp_path / "again.gguf")
    calls = []
    train_file(DIGITS, again, changes={"epochs": 3, "seed": 0}, progress=lambda *a: calls.append(a))
    first, second = gguf.read(path).tensors, gguf.read(again).tensors
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert [done for done, _, _ in calls] == list(range(1, 70))
    assert calls[-1][1] == 69
    assert "epoch 3/3" in calls[-1][2]


def test_building_then_training_is_training_the_spec(trained, tmp_path):
    path, _ = trained
    built = str(tmp_path / "built.gguf")
    save(read_spec(DIGITS).seeded(0), built)
    train_file(built, changes={"epochs": 3})
    first, second = gguf.read(path).tensors, gguf.read(built).tensors
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_checkpoint_carries_everything(trained):
    path, run = trained
    model = load(path)
    assert model.labels == tuple("0123456789")
    assert model.train is not None
    assert (model.train.epochs, model.train.seed) == (3, 0)
    result = evaluate_file(path)
    assert result.accuracy == run.accuracy
    assert result.loss == pytest.approx(run.loss, rel=1e-5)
    assert sum(score.samples for score in result.classes) == 360
    assert result.table()[-1].correct == round(360 * run.accuracy)
    images = load_data(model).test_inputs[:7]
    np.testing.assert_allclose(
        load_for_inference(path).run(images), model.evaluate().forward(images), rtol=1e-4, atol=1e-5
    )
    assert open_model(path).summary() == open_model(DIGITS).summary()


def test_quantized_checkpoints(trained, tmp_path):
    path, run = trained
    reports = {}
    for kind, loss in (("q8_0", 0.003), ("q4_0", 0.012), ("F16", 0.003)):
        target = str(tmp_path / f"{kind}.gguf")
        reports[kind] = quantize_checkpoint(path, target, kind)
        assert evaluate_file(target).accuracy >= run.accuracy - loss
    rows = {row.tensor: row for row in reports["q8_0"].tensors}
    assert (rows["1.weight"].after, rows["1.weight"].bytes_after) == ("Q8_0", 64 * 128 * 34 // 32)
    assert rows["1.bias"].kept_because == "a vector"
    assert rows["1.weight"].rmse
    assert reports["q8_0"].bytes_after < 0.35 * reports["q8_0"].bytes_before
    with pytest.raises(ModelError, match="a quantized model cannot be trained"):
        load(str(tmp_path / "q8_0.gguf"))
    with pytest.raises(ModelError, match="is Q8_0 already"):
        quantize_checkpoint(str(tmp_path / "q8_0.gguf"), str(tmp_path / "x"), "q4_0")


def test_quantized_convolution_is_stored_as_a_matrix(tmp_path):
    model = build_model("c", [8, 9]).conv1d(8, 6, 4).relu().conv1d(6, 2, 3).build()
    source, target = str(tmp_path / "c.gguf"), str(tmp_path / "q.gguf")
    save(model, source)
    report = quantize_checkpoint(source, target, "q8_0")
    kept = {row.tensor: row.kept_because for row in report.tensors}
    assert kept["0.weight"] == ""
    assert kept["2.weight"] == "a row of 18 is no multiple of 32"
    assert gguf.read(target).tensors["0.weight"].shape == (6, 32)
    x = np.random.default_rng(0).normal(size=(3, 8, 9))
    np.testing.assert_allclose(
        load_for_inference(target).run(x), load_for_inference(source).run(x), atol=0.02
    )


def test_data_paths_follow_the_file(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    np.savez(tmp_path / "data.npz", inputs=np.eye(8), targets=np.arange(8) % 2)
    text = "name: t\ninput: {shape: [8]}\nlayers: [{Linear: {in_features: 8, out_features: 2}}]\n"
    (tmp_path / "a" / "t.yaml").write_text(
        text + "train: {data: ../data.npz, split: {test: 0.5}}\n"
    )
    target = str(tmp_path / "a" / "b" / "t.gguf")
    save(read_spec(str(tmp_path / "a" / "t.yaml")), target)
    model = load(target)
    assert model.train is not None
    assert model.train.data == os.path.join("..", "..", "data.npz")
    assert len(load_data(model).test_inputs) == 4
    (tmp_path / "data.npz").unlink()
    with pytest.raises(FileError, match=r"no such file or directory \(the data that .* names"):
        load_data(model)


def test_checkpoints_that_do_not_fit(tmp_path):
    model = build_model("m", [3]).linear(3, 2).build()
    path = str(tmp_path / "m.gguf")
    save(model, path)
    file = gguf.read(path)
    cases = [
        ({}, dict(file.tensors), "a GGUF file without 'llmbol.spec'"),
        (file.metadata, {"0.bias": file.tensors["0.bias"]}, "the tensor '0.weight' is missing"),
        (
            file.metadata,
            {**file.tensors, "0.bias": file.tensors["0.weight"]},
            r"0.bias has shape \[2, 3\], expected \[2\]",
        ),
        ({**file.metadata, "llmbol.spec": "{"}, file.tensors, "its spec is no JSON"),
    ]
    for metadata, tensors, said in cases:
        broken = str(tmp_path / "broken.gguf")
        gguf.write(broken, metadata, tensors)
        with pytest.raises(LlmbolError, match=said):
            load_for_inference(broken)


def test_regression_with_mse_and_a_loss_that_explodes():
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    y = 3 * x + 1
    data = Dataset(x[:32], y[:32], x[32:], y[32:])
    training = Training("none", loss=nn.criterions.MSE(), optimizer=SGD(lr=0.1), epochs=200)
    model = Model("line", Input((1,)), [nn.linear(1, 1)], train=training).seeded(1)
    assert train(model, data).loss < 0.01
    assert evaluate(model.forward, model, data).accuracy is None
    training.optimizer = SGD(lr=1e30)
    with pytest.raises(ModelError, match="the loss became"):
        train(model, data)


def test_inference_on_files(trained, tmp_path):
    path, _ = trained
    model = load_for_inference(path)
    images = np.load("specs/data/digits.npz")["images"][:3]
    np.save(tmp_path / "x.npy", images)
    np.savetxt(tmp_path / "x.csv", images.reshape(3, 64), fmt="%d", delimiter=",")
    outputs = infer(model, str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(outputs, infer(model, str(tmp_path / "x.csv")))
    np.testing.assert_array_equal(outputs, infer(model, "specs/data/digits.npz")[:3])
    np.testing.assert_array_equal(outputs, infer(model, "-", (tmp_path / "x.npy").read_bytes()))
    best = top_candidates(model, outputs, 2)
    assert [(c.sample, c.rank) for c in best] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert best[0].label == "0"
    assert best[0].value == outputs[0].max()
    save_outputs([outputs[:2], outputs[2:]], str(tmp_path / "y.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), outputs)
    with pytest.raises(UsageError, match="no array 'labls'"):
        infer(model, "specs/data/digits.npz", name="labls")


def test_rows_as_text():
    values = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32) * np.float32(1e-6)
    lines = format_rows(values).splitlines()
    again = np.array([[float(word) for word in line.split("\t")] for line in lines], np.float32)
    np.testing.assert_array_equal(again, values)
    assert format_rows(np.zeros((0, 3))) == ""
    assert format_rows(np.array(1.5)) == "1.5\n"
    assert format_rows(np.zeros((1, 2, 2))) == "0.0\t0.0\t0.0\t0.0\n"


def test_targets_must_fit_the_loss(tmp_path):
    text = "name: t\ninput: {shape: [2]}\nlayers: [{Linear: {in_features: 2, out_features: 1}}]\n"
    np.savez(
        tmp_path / "d.npz", inputs=np.ones((9, 2)), targets=np.arange(9), halves=np.ones(9) / 2
    )
    spec = tmp_path / "t.yaml"
    spec.write_text(text + "train: {data: d.npz, loss: MSE, targets: targets}\n")
    data = load_data(read_spec(str(spec)))
    assert data.train_targets.shape == (7, 1)
    assert data.train_targets.dtype == np.float32
    spec.write_text(text + "train: {data: d.npz, loss: CrossEntropy, targets: halves}\n")
    with pytest.raises(UsageError, match="expected one class number per sample as target"):
        load_data(read_spec(str(spec)))
    spec.write_text(text + "train: {data: d.npz, loss: MSE, targets: inputs}\n")
    with pytest.raises(
        UsageError, match=r"targets of shape \[9, 2\] for outputs of shape \[9, 1\]"
    ):
        load_data(read_spec(str(spec)))


def test_seeds_are_held_to_what_a_spec_takes():
    model = read_spec("specs/digits-mlp.yaml")
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match="seed: expected an integer of at least 0 and at most"):
            model.seeded(seed)
    assert model.seeded(2**32 - 1).config()["train"]["seed"] == 2**32 - 1
    with pytest.raises(UsageError, match="seed"):
        build_model("m", [2]).relu().build(seed=-1)


def test_only_layers_are_added():
    with pytest.raises(TypeError, match="expected a layer, got 3"):
        Sequential().add(3)  # type: ignore[arg-type]


def test_a_run_that_cannot_end_well_does_not_start(tmp_path):
    def progress(done, total, note):
        pytest.fail("it started")

    spec = tmp_path / "m.yaml"
    text = Path("specs/digits-mlp.yaml").read_text()
    text = text.replace("data/digits.npz", os.path.abspath("specs/data/digits.npz"))
    spec.write_text(text.replace("name: digits-mlp", "name: ../up"))
    for target, said in {
        None: "the name '../up' makes no file name: give --output",
        str(spec): "this file is read, so it cannot be written",
        str(tmp_path / "none" / "m.gguf"): "no such file or directory",
        "": "^'': is a directory",
    }.items():
        with pytest.raises(LlmbolError, match=said):
            train_file(str(spec), target, progress=progress)
    images = np.zeros((20, 8, 8), np.float32)
    images[7, 1, 2] = np.nan
    np.savez(tmp_path / "nan.npz", images=images, labels=np.arange(20) % 2)
    with pytest.raises(UsageError, match="sample 7 of 0 to 19 has values that are not finite"):
        train_file(str(spec), os.devnull, str(tmp_path / "nan.npz"), progress=progress)


def test_huge_inputs_warn_nobody():
    model = build_model("m", [2]).relu().build()
    model.input.scale = 1e30
    assert np.isinf(model.forward(np.full(2, 1e30))).all()


def test_no_samples_have_no_candidates(trained):
    model = load_for_inference(trained[0])
    assert top_candidates(model, model.run(np.zeros((0, 8, 8))), 3) == []


def test_quantizing_refuses_types_that_nothing_can_have(trained, tmp_path):
    with pytest.raises(DtypeError, match="IQ4_XS: weights cannot be converted"):
        quantize_checkpoint(trained[0], str(tmp_path / "q.gguf"), "iq4_xs")
    with pytest.raises(FileError, match="this file is read"):
        quantize_checkpoint(trained[0], trained[0], "q8_0")
