"""Losses and optimizers against PyTorch's own numbers, stored and, if it is there, fresh."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.nn.criterions import Criterion
from llmbol_core.nn.optim import Optimizer
from tests.nn.peer import CRITERIONS, OPTIMIZERS, PATH, STEPS, example, from_pytorch, slopes, start


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
