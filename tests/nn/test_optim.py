"""Optimizers and criterions: PyTorch's numbers."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from llmbol_core.errors import LlmbolError, UsageError
from llmbol_core.ml import ops
from llmbol_core.nn.criterions import (
    BCE,
    L1,
    MSE,
    NLL,
    BCEWithLogits,
    CosineEmbedding,
    Criterion,
    CrossEntropy,
    KLDiv,
    Margin,
    MultiCriterion,
    SmoothL1,
)
from llmbol_core.nn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop, clip
from llmbol_core.nn.schedules import Cosine, Plateau, Schedule, Step, WarmUp

CRITERIONS = {
    "CrossEntropy": CrossEntropy(),
    "smoothed": CrossEntropy(label_smoothing=0.1),
    "weighted": CrossEntropy(label_smoothing=0.2, weights=(1.0, 0.5, 2.0, 1.5)),
    "NLL": NLL(),
    "weighted NLL": NLL(weights=(1.0, 0.5, 2.0, 1.5)),
    "MSE": MSE(),
    "L1": L1(),
    "SmoothL1": SmoothL1(beta=0.7),
    "BCE": BCE(),
    "BCEWithLogits": BCEWithLogits(),
    "weighted BCE": BCEWithLogits(pos_weight=(1.0, 0.5, 2.0, 3.0)),
    "KLDiv": KLDiv(),
    "KLDiv of elements": KLDiv(batch_mean=False),
    "Margin": Margin(0.7),
    "CosineEmbedding": CosineEmbedding(-0.3),
    "MultiCriterion": MultiCriterion([MSE(), SmoothL1()], (0.3, 2.0)),
    "MultiCriterion of classes": MultiCriterion([CrossEntropy(), CrossEntropy()]),
}


def outputs_and_targets(criterion: Criterion) -> tuple[np.ndarray, np.ndarray]:
    """Return 5 samples that the criterion takes."""
    rng = np.random.default_rng(0)
    x, signs = rng.normal(size=(5, 4)), np.where(rng.normal(size=(5, 4)) > 0, 1.0, -1.0)
    if isinstance(criterion, BCE):
        return rng.uniform(0.1, 0.9, (5, 4)), rng.uniform(0, 1, (5, 4))
    if isinstance(criterion, BCEWithLogits):
        return 3 * x, rng.uniform(0, 1, (5, 4))
    if isinstance(criterion, KLDiv):
        return ops.log_softmax(x), rng.dirichlet(np.ones(4), 5)
    if isinstance(criterion, CosineEmbedding):
        return rng.normal(size=(5, 2, 3)), signs[:, 0]
    if isinstance(criterion, Margin):
        return x, signs
    return x, np.array([0, 3, 1, 1, 2]) if criterion.classifies else rng.normal(size=(5, 4))


@pytest.mark.parametrize("criterion", CRITERIONS.values(), ids=CRITERIONS)
def test_criterion_gradient(criterion):
    x, target = outputs_and_targets(criterion)
    criterion.forward(x, target)
    assert criterion.target_shape(x.shape[1:]) == target.shape[1:]
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
    if name not in ("SGD", "Adam", "AdamW"):
        return reference_by_roots(name, steps)
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


def reference_by_roots(name: str, steps: int) -> np.ndarray:
    """Return the same for the two that divide by roots of squares."""
    c, path = 0.3, np.linspace(-1, 1, 7)
    v, mean, b = np.zeros(7), np.zeros(7), np.zeros(7)
    for t in range(1, steps + 1):
        g = c * path + 0.02 * path
        if name == "Adagrad":
            v = v + g * g
            path = path - 0.05 / (1 + (t - 1) * 0.1) * g / (np.sqrt(v) + 1e-10)
            continue
        v, mean = 0.9 * v + 0.1 * g * g, 0.9 * mean + 0.1 * g
        spread = v - mean * mean if "centered" in name else v
        b = 0.5 * b + g / (np.sqrt(spread) + 1e-2)
        path = path - 1e-2 * b
    return path


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("RMSprop", RMSprop(alpha=0.9, eps=1e-2, momentum=0.5, weight_decay=0.02)),
        (
            "RMSprop centered",
            RMSprop(alpha=0.9, eps=1e-2, momentum=0.5, weight_decay=0.02, centered=True),
        ),
        ("Adagrad", Adagrad(lr=0.05, lr_decay=0.1, weight_decay=0.02)),
        ("SGD", SGD(lr=1e-2, momentum=0.9, weight_decay=0.1, nesterov=True)),
        ("Adam", Adam(lr=1e-2, weight_decay=0.01)),
        ("AdamW", AdamW(lr=1e-2, weight_decay=0.05)),
    ],
)
def test_optimizers_follow_their_formulas(name, optimizer):
    for kind, tolerance in (("f8", 1e-12), ("f4", 1e-6)):
        optimizer.restart()
        w: np.ndarray = np.linspace(-1, 1, 7).astype(kind)
        for _ in range(100):
            optimizer.step(w, (0.3 * w).astype(kind))
        np.testing.assert_allclose(w, reference(name, 100), rtol=1e-5, atol=tolerance)
    assert optimizer.steps == 100
    optimizer.restart()
    assert not optimizer.state


def test_every_optimizer_is_tried():
    assert set(Optimizer.table) == {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad"}


def test_nesterov_needs_momentum():
    with pytest.raises(UsageError, match="needs momentum"):
        SGD(nesterov=True)


# By hand: -(0.3 log 0.8 + 0.7 log 0.2); log(1 + e^-2); 1 - 0.6 and 0.6 - 0.1 for c = 3 / 5.
VALUES = [
    (L1(), [[1.0, -2.0]], [[0.0, 1.0]], 2.0),
    (SmoothL1(), [[0.5, 3.0]], [[0.0, 0.0]], (0.125 + 2.5) / 2),
    (BCE(), [[0.8]], [[0.3]], 1.1935491),
    (BCE(), [[0.0]], [[1.0]], 100.0),
    (BCEWithLogits(), [[2.0]], [[1.0]], 0.1269280),
    (BCEWithLogits(pos_weight=(3.0,)), [[2.0]], [[1.0]], 3 * 0.1269280),
    (KLDiv(), [np.log([0.5, 0.5])], [[1.0, 0.0]], np.log(2)),
    (KLDiv(batch_mean=False), [np.log([0.5, 0.5])], [[1.0, 0.0]], np.log(2) / 2),
    (Margin(), [[0.4, 3.0]], [[-1.0, 1.0]], 0.7),
    (CosineEmbedding(0.1), [[[1.0, 0.0], [3.0, 4.0]]], [1.0], 0.4),
    (CosineEmbedding(0.1), [[[1.0, 0.0], [3.0, 4.0]]], [-1.0], 0.5),
    (MultiCriterion([MSE(), L1()], (1.0, 0.5)), [[3.0]], [[1.0]], 5.0),
]


@pytest.mark.parametrize(("criterion", "x", "target", "value"), VALUES)
def test_criterion_values(criterion, x, target, value):
    assert criterion.forward(np.array(x), np.array(target)) == pytest.approx(value, rel=1e-6)


# 0.5 / (1e-9 (1 - 1e-9)), which is far from 0; no slope where the margin is just kept.
SLOPES = [
    (BCE(), 1e-9, 0.5 + 1e-9, -5e8),
    (BCE(), 0.0, 1.0, -1e12),
    (Margin(0.5), 0.5, 1.0, 0.0),
    (Margin(0.5), 0.25, 1.0, -1.0),
    (SmoothL1(2.0), 1.0, 0.0, 0.5),
    (SmoothL1(2.0), 3.0, 0.0, 1.0),
]


@pytest.mark.parametrize(("criterion", "x", "target", "slope"), SLOPES)
def test_criterion_slopes(criterion, x, target, slope):
    found = criterion.backward(np.array([[x]]), np.array([[target]]))
    assert found.item() == pytest.approx(slope)


def test_criterions_that_do_not_fit():
    with pytest.raises(UsageError, match="expected losses with alike targets"):
        MultiCriterion([MSE(), CrossEntropy()])
    with pytest.raises(UsageError, match="1 numbers for 2 losses"):
        MultiCriterion([MSE(), L1()], (1.0,))
    with pytest.raises(LlmbolError, match=r"expected \[N, 2, D\]"):
        CosineEmbedding().forward(np.zeros((2, 3)), np.zeros(2))
    with pytest.raises(UsageError, match="2 numbers for 3 outputs"):
        BCEWithLogits(pos_weight=(1.0, 2.0)).forward(np.zeros((1, 3)), np.zeros((1, 3)))


def rates(schedule: Schedule, epochs: int, losses: tuple[float, ...] = ()) -> list[float]:
    """Return the rate of each epoch, the losses observed after them."""
    found = []
    for epoch in range(epochs):
        found.append(schedule.rate(0.1, epoch, epochs))
        schedule.observe(losses[epoch] if losses else 0.0)
    return found


SCHEDULES = {
    # StepLR(3, 0.5), CosineAnnealingLR(4, 0.02), LinearLR(0.25, 4) of PyTorch from a rate of 0.1.
    "Step": (Step(3, 0.5), [0.1, 0.1, 0.1, 0.05, 0.05, 0.05]),
    "Cosine": (Cosine(4, 0.02), [0.1, 0.0882842712, 0.06, 0.0317157288]),
    "WarmUp": (WarmUp(4, 0.25), [0.025, 0.04375, 0.0625, 0.08125, 0.1, 0.1]),
    "both": (WarmUp(2, 0.0, Step(1, 0.1)), [0.0, 0.05, 0.1, 0.01]),
    "two": (WarmUp(1, 0.0, WarmUp(1, 0.5)), [0.0, 0.05, 0.1]),
    "rest": (WarmUp(2, 0.0, Cosine()), [0.0, 0.05, 0.1, 0.05]),
}


@pytest.mark.parametrize(("schedule", "expected"), SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_give_pytorchs_rates(schedule, expected):
    assert rates(schedule, len(expected)) == pytest.approx(expected)


def test_plateau_lowers_the_rate_and_remembers():
    # ReduceLROnPlateau(factor=0.5, patience=1): lowered after the second epoch without progress.
    losses = (1.0, 0.9, 0.9, 0.95, 0.8, 0.8, 0.8, 0.8)
    expected = [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025]
    schedule = Plateau(0.5, patience=1)
    assert rates(schedule, 8, losses) == pytest.approx(expected)
    assert Plateau(minimum=0.5).rate(0.1, 0, 1) == 0.1
    schedule.remember([0, 0.01])
    schedule.minimum = 0.05
    assert schedule.rate(0.1, 0, 1) == 0.05
    schedule.restart()
    assert schedule.rate(0.1, 0, 1) == 0.1
    assert set(Schedule.table) == {"Step", "Cosine", "WarmUp", "Plateau"}


@pytest.mark.parametrize("losses", [(), (math.nan,) * 3, (0.5, 0.6), (-1.0, -0.5, -2.0)], ids=str)
def test_a_plateau_goes_on_where_it_stood(losses):
    whole, again = Plateau(0.5, patience=0), Plateau(0.5, patience=0)
    for loss in losses:
        whole.observe(loss)
    again.remember(json.loads(json.dumps(whole.memory(), allow_nan=False)))
    for loss in (0.7, -0.9, -0.9, -1.5):
        assert again.rate(0.1, 0, 1) == whole.rate(0.1, 0, 1)
        whole.observe(loss)
        again.observe(loss)
    assert again.memory() == whole.memory()


def test_gradients_are_clipped():
    gradients = np.array([3.0, -4.0], np.float32)
    clip(gradients, norm=10.0)
    assert gradients.tolist() == [3.0, -4.0]
    one = np.ones(1, np.float32)
    clip(one, norm=1.0)
    assert one[0] == np.float32(1 / (1 + 1e-6))
    clip(gradients, norm=1.0)
    np.testing.assert_allclose(gradients, [0.6, -0.8], rtol=1e-6)
    clip(gradients, norm=100.0, value=0.5)
    assert gradients.tolist() == [0.5, -0.5]
