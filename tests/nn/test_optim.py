"""Optimizers and criterions: PyTorch's numbers."""

from __future__ import annotations

import numpy as np
import pytest

from llmbol_core.errors import LlmbolError, UsageError
from llmbol_core.ml import ops
from llmbol_core.nn.criterions import MSE, NLL, Criterion, CrossEntropy
from llmbol_core.nn.optim import SGD, Adam, AdamW, Optimizer

RNG = np.random.default_rng(0)
CRITERIONS = {
    "CrossEntropy": CrossEntropy(),
    "smoothed": CrossEntropy(label_smoothing=0.1),
    "weighted": CrossEntropy(label_smoothing=0.2, weights=(1.0, 0.5, 2.0, 1.5)),
    "NLL": NLL(),
    "weighted NLL": NLL(weights=(1.0, 0.5, 2.0, 1.5)),
    "MSE": MSE(),
}


@pytest.mark.parametrize("criterion", CRITERIONS.values(), ids=CRITERIONS)
def test_criterion_gradient(criterion):
    x = RNG.normal(size=(5, 4))
    target = RNG.normal(size=(5, 4)) if isinstance(criterion, MSE) else np.array([0, 3, 1, 1, 2])
    criterion.forward(x, target)
    gradient = criterion.backward(x, target)
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        slope = (criterion.forward(x + step, target) - criterion.forward(x - step, target)) / 2e-6
        assert gradient[index] == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_every_criterion_is_tried():
    assert {type(c) for c in CRITERIONS.values()} == set(Criterion.table.values())


def test_cross_entropy_values():
    # Scores and losses computed by hand: -log(e^2 / (e^1 + e^2)) and the smoothed mean of both.
    x, target = np.array([[1.0, 2.0]]), np.array([1])
    right, wrong = np.log1p(np.exp(-1.0)), np.log1p(np.exp(1.0))
    assert CrossEntropy().forward(x, target) == pytest.approx(right)
    smoothed = 0.9 * right + 0.05 * (right + wrong)
    assert CrossEntropy(label_smoothing=0.1).forward(x, target) == pytest.approx(smoothed)
    assert NLL().forward(ops.log_softmax(x), target) == pytest.approx(right)
    assert np.isfinite(CrossEntropy().forward(np.array([[1e4, -1e4]], np.float32), target))


@pytest.mark.parametrize(
    ("x", "target", "said"),
    [
        ((2, 3), [0, 3], "class 3 in the targets, the model has 3"),
        ((2, 3), [0, -1], "class -1"),
        ((2, 3), [0], "expected [N, classes] against [N]"),
        ((2, 3), [0.0, 1.0], "expected class numbers"),
    ],
)
def test_targets_that_do_not_fit(x, target, said):
    with pytest.raises(LlmbolError) as caught:
        CrossEntropy().forward(np.zeros(x), np.array(target))
    assert said in str(caught.value)


def test_sgd_with_dampening_gives_pytorchs_numbers():
    w, optimizer = np.ones(1), SGD(lr=0.1, momentum=0.9, dampening=0.5)
    path = []
    for _ in range(2):
        optimizer.step(w, np.ones(1))
        path.append(float(w[0]))
    assert path == pytest.approx([0.90, 0.76])


def reference(name: str, steps: int) -> np.ndarray:
    """Return w after steps along g = w * c, by the formulas written out for one number."""
    c, path = 0.3, np.linspace(-1, 1, 7)
    m, v, b = np.zeros(7), np.zeros(7), np.zeros(7)
    for t in range(1, steps + 1):
        g = c * path
        if name == "Adam":
            g = g + 0.01 * path
        if name == "AdamW":
            path = path * (1 - 1e-2 * 0.05)
        if name.startswith("Adam"):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            path = path - 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            g = g + 0.1 * path
            b = g if t == 1 else 0.9 * b + g
            path = path - 1e-2 * (g + 0.9 * b)
    return path


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("SGD", SGD(lr=1e-2, momentum=0.9, weight_decay=0.1, nesterov=True)),
        ("Adam", Adam(lr=1e-2, weight_decay=0.01)),
        ("AdamW", AdamW(lr=1e-2, weight_decay=0.05)),
    ],
)
def test_optimizers_follow_their_formulas(name, optimizer):
    w = np.linspace(-1, 1, 7).astype(np.float32)
    for _ in range(100):
        optimizer.step(w, np.float32(0.3) * w)
    np.testing.assert_allclose(w, reference(name, 100), rtol=1e-5, atol=1e-6)
    assert optimizer.steps == 100
    optimizer.restart()
    assert not optimizer.state


def test_every_optimizer_is_tried():
    assert set(Optimizer.table) == {"SGD", "Adam", "AdamW"}


def test_nesterov_needs_momentum():
    with pytest.raises(UsageError, match="needs momentum"):
        SGD(nesterov=True)
