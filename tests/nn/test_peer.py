"""Losses and optimizers against PyTorch's own numbers, stored and, if it is there, fresh."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.nn.criterions import Criterion
from llmbol_core.nn.layers.attention import TransformerEncoderLayer
from llmbol_core.nn.layers.convolution import Conv1d, Conv2d
from llmbol_core.nn.layers.linear import Linear
from llmbol_core.nn.layers.recurrent import LSTM
from llmbol_core.nn.optim import Optimizer
from tests.nn.peer import CRITERIONS, OPTIMIZERS, PATH, STEPS, example, from_pytorch, slopes, start
from tests.nn.pytorch_random import PyTorchRandom


@pytest.fixture(scope="module")
def stored():
    with np.load(PATH) as file:
        return dict(file)


@pytest.mark.parametrize("kernels", ["", "none"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_give_pytorchs_parameters_over_100_steps(name, kernels, stored, monkeypatch):
    monkeypatch.setenv("LLMBOL_KERNELS", kernels)
    optimizer, w, kept = OPTIMIZERS[name][0], start(), []
    optimizer.restart()
    for number in range(STEPS):
        optimizer.step(w, slopes()[number])
        if number % 10 == 9:
            kept.append(w.copy())
    np.testing.assert_allclose(np.array(kept), stored[f"optimizer {name}"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CRITERIONS)
def test_losses_give_pytorchs_values_and_gradients(name, stored):
    criterion, _, _, kind = CRITERIONS[name]
    x, target = example(kind)
    assert criterion.forward(x, target) == pytest.approx(float(stored[f"value {name}"]), rel=1e-6)
    gradient = criterion.backward(x, target)
    np.testing.assert_allclose(gradient, stored[f"gradient {name}"], rtol=1e-5, atol=1e-7)


def test_all_are_there():
    assert {type(row[0]) for row in OPTIMIZERS.values()} == set(Optimizer.table.values())
    tried = {type(row[0]).__name__ for row in CRITERIONS.values()}
    # PyTorch has no hinge loss of this form and no sum of losses.
    assert tried == set(Criterion.table) - {"Margin", "MultiCriterion"}


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # PyTorch advises another mean
def test_stored_numbers_are_pytorchs(stored):
    pytest.importorskip("torch")
    fresh = from_pytorch()
    assert set(fresh) == set(stored)
    for name, array in fresh.items():
        np.testing.assert_allclose(array, stored[name], rtol=1e-6, atol=1e-7)


def test_known_start_values_and_orders():
    unit = np.zeros(3)
    PyTorchRandom(0).fill(unit, 1.0)
    # torch.manual_seed(0) and torch.rand(3), torch.randperm(10)
    np.testing.assert_allclose((unit + 1) / 2, [0.4963, 0.7682, 0.0885], atol=5e-5)
    assert PyTorchRandom(0).permutation(10).tolist() == [4, 1, 7, 5, 3, 9, 0, 8, 6, 2]


LAYERS = [
    (Linear(5, 3), "Linear", (5, 3)),
    (Conv1d(2, 3, 5), "Conv1d", (2, 3, 5)),
    (Conv2d(2, 4, 3), "Conv2d", (2, 4, 3)),
    (LSTM(4, 6, num_layers=2, bidirectional=True), "LSTM", (4, 6, 2, True, False, 0.0, True)),
    (TransformerEncoderLayer(8, 2, 6), "TransformerEncoderLayer", (8, 2, 6)),
]


@pytest.mark.parametrize(("own", "name", "arguments"), LAYERS)
def test_start_values_and_orders_are_pytorchs(own, name, arguments):
    torch = pytest.importorskip("torch")
    PyTorchRandom(7).start(own)
    torch.manual_seed(7)
    theirs = getattr(torch.nn, name)(*arguments).state_dict()
    assert set(theirs) == set(own.state())
    for key, value in own.state().items():
        np.testing.assert_allclose(value, theirs[key].numpy(), rtol=2e-7, err_msg=key)
    torch.manual_seed(7)
    assert PyTorchRandom(7).permutation(99).tolist() == torch.randperm(99).tolist()
