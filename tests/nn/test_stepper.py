"""Training steps in machine code against the layers' own NumPy."""

# ruff: noqa: E501 -- the table has one network on a line or two

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from llmbol_core.ml.kernels import slopes
from llmbol_core.ml.kernels.elementwise import UNARY
from llmbol_core.ml.kernels.target import target
from llmbol_core.nn.containers import Parallel, Sequential
from llmbol_core.nn.criterions import MSE, Criterion, CrossEntropy
from llmbol_core.nn.joins import Bilinear, CAddTable, CMulTable, JoinTable, SelectTable, SplitTable
from llmbol_core.nn.layers.activation import GELU, Activation, ReLU, SiLU, Tanh
from llmbol_core.nn.layers.attention import MultiHeadAttention, TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.dropout import Dropout
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.normalization import BatchNorm, BatchNorm1d, BatchNorm2d, LayerNorm
from llmbol_core.nn.layers.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AvgPool1d,
    AvgPool2d,
    MaxPool1d,
    MaxPool2d,
)
from llmbol_core.nn.layers.recurrent import GRU, LSTM, RNN
from llmbol_core.nn.layers.reduction import Mean
from llmbol_core.nn.layers.shape import Flatten, Identity, Permute, Reshape
from llmbol_core.nn.module import Module
from llmbol_core.nn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from llmbol_core.nn.stepper import make_stepper
from llmbol_core.nn.tables import Concat, ConcatTable, MapTable, ParallelTable, Residual

pytestmark = pytest.mark.skipif(target() is None, reason="there are no kernels here")

# fmt: off
NETWORKS: dict[str, tuple[tuple[int, ...], list[Module]]] = {
    "one linear": ((5,), [Linear(5, 3)]),
    "odd sizes": ((37,), [Linear(37, 41), ReLU(), Linear(41, 33, bias=False), ReLU(), Linear(33, 7)]),
    "wide": ((70,), [Linear(70, 130), ReLU(), Linear(130, 2)]),
    "norm and dropout": ((19,), [Linear(19, 35), BatchNorm(35), ReLU(), Dropout(0.4), Linear(35, 35),
                                 ReLU(), Dropout(0.3), BatchNorm(35, eps=1e-3, momentum=0.3), Linear(35, 4)]),
    "nested": ((6,), [Sequential([Linear(6, 8), ReLU()]), Identity(), Sequential([Linear(8, 3)])]),
    "sequence": ((4, 6), [Linear(6, 5), ReLU(), Flatten(), Linear(20, 3)]),
    "others between": ((6,), [Linear(6, 8), Tanh(), Linear(8, 9), ReLU(), GELU(), Linear(9, 5), ReLU(),
                              Reshape((5, 1)), Permute((2, 1)), Flatten(), Linear(5, 3)]),
    "ends limited": ((6,), [Linear(6, 8), ReLU()]),
    "sequence of states": ((4, 6), [LSTM(6, 5, sequence=False), Linear(5, 3)]),
    "states both ways": ((5, 7), [LSTM(7, 9, 2, bidirectional=True), Linear(18, 6), ReLU(), LSTM(6, 33, sequence=False),
                                  Linear(33, 3)]),
    "last states both ways": ((5, 7), [Linear(7, 7), ReLU(), LSTM(7, 20, 2, bias=False, bidirectional=True, sequence=False),
                                       Linear(40, 3)]),
    "gated units": ((4, 6), [GRU(6, 17, sequence=False), Linear(17, 3)]),
    "gated units both ways": ((5, 7), [Linear(7, 7), ReLU(), GRU(7, 9, 2, bidirectional=True), GRU(18, 5, bias=False),
                                       GRU(5, 20, bidirectional=True, sequence=False), Linear(40, 3)]),
    "plain states": ((4, 6), [RNN(6, 5, 2, bidirectional=True), RNN(10, 35, nonlinearity="relu"), ReLU(),
                              RNN(35, 4, bias=False, sequence=False), Linear(4, 3)]),
    "one step of each": ((1, 3), [GRU(3, 4, bidirectional=True), RNN(8, 4, sequence=False), Linear(4, 2)]),
    "one step": ((1, 3), [LSTM(3, 4, sequence=False), Linear(4, 2)]),
    "states with dropout": ((4, 3), [LSTM(3, 4, 3, dropout=0.5), GRU(4, 5, 2, dropout=0.3, bidirectional=True),
                                     RNN(10, 4, 2, dropout=0.4, sequence=False), Linear(4, 2)]),
    "attention": ((5, 12), [MultiHeadAttention(12, 3), Linear(12, 6), ReLU(), MultiHeadAttention(6, 2, causal=True),
                            Flatten(), Linear(30, 3)]),
    "encoder": ((4, 6), [Linear(6, 8), ReLU(), TransformerEncoderLayer(8, 2, 20, dropout=0.0), Mean(1), Linear(8, 3)]),
    "encoder with dropout": ((4, 6), [Linear(6, 8), TransformerEncoderLayer(8, 2, 20, dropout=0.3, activation="gelu"),
                                      TransformerEncoderLayer(8, 1, 7, dropout=0.2), Flatten(), Linear(32, 3)]),
    "norm first": ((3, 10), [TransformerEncoderLayer(10, 5, 9, dropout=0.0, activation="gelu", norm_first=True),
                             TransformerEncoderLayer(10, 2, 33, dropout=0.4, norm_first=True), Flatten(), Linear(30, 3)]),
    "long sequence": ((150, 40), [TransformerEncoderLayer(40, 2, 70, eps=1e-3), Mean(1), Linear(40, 3)]),
    "conv1d": ((2, 23), [Conv1d(2, 3, 3), ReLU(), MaxPool1d(2), Conv1d(3, 5, 4), MaxPool1d(3), Flatten(),
                         Linear(10, 3)]),
    "conv1d with borders": ((1, 20), [Conv1d(1, 18, 5, padding=2), ReLU(), MaxPool1d(2),
                                      Conv1d(18, 35, 3, padding=1), ReLU(), MaxPool1d(2), Flatten(), Linear(175, 3)]),
    "conv2d": ((1, 9, 8), [Conv2d(1, 4, 3), ReLU(), MaxPool2d(2), Conv2d(4, 6, 2), ReLU(), Flatten(), Linear(24, 3)]),
    "conv2d with borders": ((3, 8, 8), [Conv2d(3, 5, 3, padding=1), ReLU(), MaxPool2d(2),
                                        Conv2d(5, 33, 3, padding=1), ReLU(), MaxPool2d(2), Flatten(), Linear(132, 3)]),
    "conv2d in a row": ((2, 6, 7), [Conv2d(2, 4, 3, padding=1), ReLU(), Conv2d(4, 5, 3, padding=2), ReLU(),
                                    Conv2d(5, 3, 2, bias=False), Flatten(), Linear(3 * 7 * 8, 3)]),
    "conv2d, stride and norm": ((2, 9, 9), [Conv2d(2, 4, 3, stride=2), BatchNorm2d(4), ReLU(),
                                            Conv2d(4, 3, 2, stride=2), Flatten(), Linear(12, 3)]),
    "conv2d, strides in a row": ((1, 9, 12), [Conv2d(1, 5, 3, padding=1), ReLU(), Conv2d(5, 18, 3, stride=2, padding=1), ReLU(), Conv2d(18, 4, 1, stride=2), ReLU(),
                                              Conv2d(4, 3, 2, stride=3, padding=1), Flatten(), Linear(12, 3)]),
    "conv1d, strides in a row": ((2, 23), [Conv1d(2, 5, 3), Tanh(), Conv1d(5, 18, 5, stride=3, padding=2), ReLU(), Conv1d(18, 3, 2, stride=4), Flatten(), Linear(6, 3)]),
    "residual of strides": ((3, 8, 8), [Conv2d(3, 4, 3, padding=1), ReLU(), ConcatTable(layers=[Conv2d(4, 6, 1, stride=2), Sequential([Conv2d(4, 6, 3, stride=2, padding=1),
                                        BatchNorm2d(6), ReLU(), Conv2d(6, 6, 3, padding=1)])]), CAddTable(), ReLU(), AdaptiveAvgPool2d(1), Flatten(), Linear(6, 3)]),
    "conv2d and norm": ((2, 9, 9), [BatchNorm2d(2), Conv2d(2, 20, 3, padding=1), BatchNorm2d(20), ReLU(), MaxPool2d(2),
                                    Conv2d(20, 33, 3, padding=1), BatchNorm2d(33, momentum=0.3), ReLU(),
                                    Conv2d(33, 5, 2), BatchNorm2d(5), Flatten(), Linear(45, 3)]),
    "conv1d and norm": ((1, 20), [Conv1d(1, 18, 5, padding=2), BatchNorm1d(18), ReLU(), Conv1d(18, 3, 3, padding=1), ReLU(),
                                  BatchNorm1d(3), MaxPool1d(2), Flatten(), Linear(30, 3)]),
    "grouped": ((4, 6, 6), [Conv2d(4, 6, 3, groups=2), ReLU(), MaxPool2d(2, padding=1), Flatten(), Linear(54, 3)]),
    "reshaped": ((64,), [Reshape((1, 8, 8)), Conv2d(1, 3, 3), ReLU(), MaxPool2d(4), Flatten(), Linear(3, 3)]),
    "residual": ((6,), [Linear(6, 8), ReLU(), Residual([Linear(8, 9), ReLU(), Linear(9, 8), ReLU()]), ReLU(),
                        Residual([Residual([Linear(8, 8)]), LayerNorm(8), GELU(), Linear(8, 8)]), Dropout(0.3), Linear(8, 3)]),
    "residual first": ((4, 6), [Residual([LayerNorm(6), MultiHeadAttention(6, 2)]), Residual([LayerNorm(6), Linear(6, 9), GELU(),
                                Linear(9, 6)]), Residual([Tanh()]), Flatten(), Linear(24, 3)]),
    "residual of images": ((2, 6, 6), [Conv2d(2, 5, 3, padding=1), BatchNorm2d(5), ReLU(),
                                       Residual([Conv2d(5, 5, 3, padding=1), BatchNorm2d(5), ReLU(), Conv2d(5, 5, 3, padding=1)]),
                                       ReLU(), MaxPool2d(2), Flatten(), Linear(45, 3)]),
    "reshaped between": ((1, 8, 8), [Conv2d(1, 4, 3), ReLU(), Flatten(), Reshape((4, 6, 6)), Conv2d(4, 2, 3), Flatten(), Linear(32, 3)]),
    "attention reshaped": ((4, 6), [MultiHeadAttention(6, 2), Reshape((3, 8)), MultiHeadAttention(8, 2), Flatten(), Linear(24, 3)]),
    "pooling first": ((2, 8), [MaxPool1d(2), Conv1d(2, 3, 3), Flatten(), Linear(6, 3)]),
    "concat": ((5,), [Linear(5, 6), ReLU(), Concat(1, layers=[Sequential([Linear(6, 3), ReLU()]), Identity(), Tanh(), Linear(6, 18)]),
                      ReLU(), Linear(33, 3)]),
    "concat of steps": ((4, 6), [Concat(2, layers=[Linear(6, 3), Sequential([Linear(6, 5), ReLU()]), Identity()]), LSTM(14, 5, sequence=False),
                                 Linear(5, 3)]),
    "concat along steps": ((4, 6), [Concat(1, layers=[Linear(6, 6), Identity()]), GRU(6, 5, sequence=False), Linear(5, 3)]),
    "parallel": ((3, 6), [Parallel(1, 1, layers=[Linear(6, 3), Sequential([Linear(6, 5), ReLU()]), Identity()]), ReLU(), Linear(14, 3)]),
    "parallel slices behind": ((6, 3), [Linear(3, 3), ReLU(), Parallel(2, 1, layers=[Linear(6, 3), Identity(), Tanh()]), Linear(15, 3)]),
    "gate": ((6,), [Linear(6, 8), ReLU(), ConcatTable(layers=[Linear(8, 9), Sequential([Linear(8, 9), ReLU()]), Sequential([Linear(8, 9), Tanh()])]),
                    CMulTable(), ReLU(), Linear(9, 3)]),
    "sum of ways": ((6,), [Linear(6, 8), ConcatTable(layers=[Identity(), Identity(), Sequential([Linear(8, 8), ReLU()]), Linear(8, 8)]), CAddTable(),
                           ReLU(), Linear(8, 3)]),
    "sum of limited": ((6,), [Linear(6, 8), ReLU(), ConcatTable(layers=[ReLU(), Identity(), Flatten()]), CAddTable(), Linear(8, 3)]),
    "map": ((3, 6), [SplitTable(1), MapTable(layers=[Sequential([Linear(6, 8), BatchNorm(8), ReLU(), Dropout(0.3), Linear(8, 4)])]), CAddTable(), Linear(4, 3)]),
    "map of one": ((1, 6), [SplitTable(1), MapTable(layers=[Linear(6, 4)]), JoinTable(1), Linear(4, 3)]),
    "map of states": ((2, 4, 5), [SplitTable(1), MapTable(layers=[LSTM(5, 4, dropout=0.2, num_layers=2)]), JoinTable(2), Flatten(), Linear(32, 3)]),
    "map of ways": ((2, 6), [SplitTable(1), MapTable(layers=[Residual([Linear(6, 6), ReLU(), Tanh()])]), JoinTable(1), Linear(12, 3)]),
    "tables": ((2, 6), [Linear(6, 6), ReLU(), SplitTable(1), ConcatTable(layers=[ParallelTable(layers=[Linear(6, 5), Identity()]), SelectTable(-1)]),
                        ParallelTable(layers=[JoinTable(1), Linear(6, 4)]), JoinTable(1), Linear(15, 3)]),
    "unused ways": ((6,), [Linear(6, 5), ConcatTable(layers=[Linear(5, 4), Linear(5, 3)]), SelectTable(0), Linear(4, 3)]),
    "slices of numbers": ((4,), [Linear(4, 4), SplitTable(1), CMulTable(), Reshape((1,)), Linear(1, 3)]),
    "bilinear": ((2, 4), [Linear(4, 4), ReLU(), SplitTable(1), Bilinear(4, 4, 6), ReLU(), Linear(6, 3)]),
    "sum of images": ((2, 6, 6), [Conv2d(2, 5, 3, padding=1), ReLU(), ConcatTable(layers=[Conv2d(5, 4, 3, padding=1), Sequential([Conv2d(5, 4, 5, padding=2), ReLU()]),
                                  Conv2d(5, 4, 1)]), CAddTable(), ReLU(), Conv2d(4, 3, 3, padding=1), Flatten(), Linear(108, 3)]),
    "joined images": ((2, 6, 6), [Conv2d(2, 5, 3, padding=1), ReLU(), Concat(1, layers=[Sequential([Conv2d(5, 4, 3, padding=1), ReLU()]), Identity(),
                                  Sequential([Conv2d(5, 18, 1), ReLU(), Conv2d(18, 3, 5, padding=2)])]), ReLU(),
                                  Conv2d(12, 4, 3, padding=1), MaxPool2d(2), Flatten(), Linear(36, 3)]),
    "joined sequences": ((2, 12), [Conv1d(2, 5, 3, padding=1), Concat(1, layers=[MaxPool1d(2), Sequential([Conv1d(5, 4, 3, padding=1), MaxPool1d(2), ReLU()])]),
                                   Conv1d(9, 3, 1), Flatten(), Linear(18, 3)]),
    "images multiplied": ((2, 6, 6), [ConcatTable(layers=[Conv2d(2, 5, 3, padding=1), Sequential([Conv2d(2, 5, 1), ReLU()])]), CMulTable(),
                                      Residual([Conv2d(5, 5, 3, padding=1), ReLU(), Residual([Conv2d(5, 5, 1)])]), ReLU(), Flatten(), Linear(180, 3)]),
    "images and not": ((4, 4, 4), [Conv2d(4, 4, 3, padding=1), ReLU(), ConcatTable(layers=[Tanh(), Conv2d(4, 4, 1), Identity()]), CAddTable(), ReLU(),
                                   ConcatTable(layers=[Tanh(), Conv2d(4, 4, 1), Identity()]), JoinTable(1), Flatten(), Linear(192, 3)]),
    "means": ((2, 9, 6), [Conv2d(2, 5, 3, padding=1), ReLU(), AvgPool2d(2), Conv2d(5, 18, 3, padding=1), Tanh(), AdaptiveAvgPool2d(1), Flatten(), Linear(18, 3)]),
    "means of sequences": ((2, 23), [Conv1d(2, 5, 3, padding=1), ReLU(), AvgPool1d(2), Conv1d(5, 18, 3, padding=1), SiLU(), AvgPool1d(3, ceil_mode=True),
                                     Conv1d(18, 5, 1), AdaptiveAvgPool1d(2), Flatten(), Linear(10, 3)]),
    "means with borders": ((2, 6, 6), [Conv2d(2, 5, 3, padding=1), ReLU(), AvgPool2d(3, 1, 1), Conv2d(5, 3, 3, padding=1), AdaptiveAvgPool2d(4), Flatten(),
                                       Linear(48, 3)]),
    "large": ((1, 28, 28), [Conv2d(1, 32, 3), ReLU(), MaxPool2d(2), Conv2d(32, 64, 3), ReLU(), MaxPool2d(2),
                            Flatten(), Linear(1600, 10)]),
}
# fmt: on
for _name, _layer in Module.table.items():
    if issubclass(_layer, Activation) and _layer.operation in slopes.KERNELS:
        NETWORKS[f"{_name} after each"] = (
            (2, 6, 6),
            [
                *(Conv2d(2, 5, 3, padding=1), ReLU(), _layer(), Conv2d(5, 18, 3, padding=2)),
                *(_layer(), MaxPool2d(2), Flatten(), Linear(288, 7), _layer(), Linear(7, 3)),
            ],
        )


def test_every_slope_has_its_operation():
    learning = {cls.operation for cls in Module.table.values() if issubclass(cls, Activation)}
    assert set(slopes.SLOPES) == (learning & set(UNARY)) - {"relu"}


def gradients(name: str, loss: Criterion, batch: int, native: bool) -> tuple[float, Any, Any]:
    """Return the loss, the gradients and all values after one step."""
    shape, layers = NETWORKS[name]
    network = Sequential(layers).clone().reset(3).training()
    network.seed_training(4)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(batch, *shape)).astype(np.float32)
    out = network.output_shape(shape)
    targets = rng.integers(0, out[0], batch)
    if not loss.classifies:
        targets = rng.normal(size=(batch, *out)).astype(np.float32)
    flat, grads = network.get_parameters()
    if native:
        stepper = make_stepper(network, loss, shape, batch, flat.dtype)
        assert stepper is not None
        grads.fill(np.nan)
        value = stepper.step(x, targets)
        network.seed_training(4)
        for module, again in zip(network.list_modules(), _running(layers), strict=True):
            for key, buffer in module.buffers.items():
                buffer[...] = again[key]
        grads.fill(np.nan)
        assert stepper.step(x, targets) == value
    else:
        grads.fill(0)
        value = loss.forward(network.forward(x), targets)
        network.backward(x, loss.backward(network.output, targets))
    return value, grads, network.state()


def _running(layers: list[Module]) -> list[dict[str, np.ndarray]]:
    """Return the buffers of a fresh network."""
    return [m.initial_buffers() for m in Sequential(layers).list_modules()]


@pytest.mark.parametrize("batch", [1, 6, 13])
@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(label_smoothing=0.1), MSE()])
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_the_layers(name, loss, batch):
    value, got, state = gradients(name, loss, batch, native=True)
    wanted, expected, after = gradients(name, loss, batch, native=False)
    assert value == pytest.approx(wanted, rel=1e-5)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=2e-5 * scale)
    for key, array in state.items():
        np.testing.assert_allclose(array, after[key], rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_leaves_gradients_alone():
    network = Sequential([Linear(3, 2)]).reset(1).training()
    flat, grads = network.get_parameters()
    stepper = make_stepper(network, CrossEntropy(), (3,), 4, flat.dtype)
    assert stepper is not None
    x = np.full((4, 3), np.inf, np.float32)
    grads.fill(7)
    assert not np.isfinite(stepper.step(x, np.zeros(4, np.int64)))
    assert (grads == 7).all()


def test_numpy_adds_up_what_two_layers_share():
    first, second = Linear(3, 3), Linear(3, 3)
    vars(second).update(params=first.params, grads=first.grads)
    network = Sequential([first, ReLU(), second])
    flat, _ = network.get_parameters()
    assert flat.size == 12
    assert make_stepper(network, CrossEntropy(), (3,), 4, flat.dtype) is None


def test_numpy_does_what_there_is_no_stage_for(monkeypatch):
    network = Sequential([Linear(3, 2)])
    assert make_stepper(network, CrossEntropy(), (3,), 4, np.dtype(np.float64)) is None
    assert make_stepper(Sequential([Tanh()]), CrossEntropy(), (3,), 4, np.dtype("f4")) is None
    monkeypatch.setenv("LLMBOL_KERNELS", "none")
    assert make_stepper(network, CrossEntropy(), (3,), 4, np.dtype("f4")) is None


OPTIMIZERS = [
    *(SGD(lr=0.1), SGD(lr=0.1, momentum=0.9), SGD(lr=0.1, momentum=0.9, dampening=0.5)),
    *(SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1), SGD(lr=0.1, weight_decay=0.1)),
    *(Adam(lr=0.1), Adam(lr=0.1, beta1=0.5, weight_decay=0.1), AdamW(lr=0.1, weight_decay=0.2)),
    *(RMSprop(), Adagrad()),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_optimizers_have_the_bits_of_numpy(optimizer: Optimizer, monkeypatch, rng):
    size = 100_003
    start, slopes = rng.normal(size=(2, size)).astype(np.float32)
    results = []
    for kernels in ("", "none"):
        monkeypatch.setenv("LLMBOL_KERNELS", kernels)
        optimizer.restart()
        w = start.copy()
        for step in range(4):
            optimizer.step(w, slopes * np.float32(step - 1.5))
        results.append(w)
    np.testing.assert_array_equal(*results)


SCRIPT = """
import numpy as np
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.train import train
for name in ("digits-mlp", "digits-cnn", "digits-transformer"):
    model = read_spec(f"specs/{name}.yaml", ["train.epochs=1"]).seeded()
    train(model, load_data(model, None))
    print(np.concatenate([v.ravel() for v in model.network.state().values()]).tobytes().hex())
from llmbol_core.nn.criterions import CrossEntropy
from tests.nn.test_stepper import NETWORKS, gradients
for name in NETWORKS:
    print(gradients(name, CrossEntropy(), 13, True)[1].tobytes().hex())
"""


def test_bits_are_the_same_for_any_number_of_threads():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=os.environ | {"LLMBOL_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "2", "3")
    ]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) > 100_000
