"""What PyTorch gives for the same losses and optimizers; ``python -m tests.nn.peer`` stores it.

``data/peer.npz`` holds the parameters after each tenth of 100 steps by optimizer, and the value and
gradient of each loss.
"""

# ruff: noqa: E501 -- the tables have one row for each optimizer and loss

from __future__ import annotations

from typing import Any

import numpy as np

from llmbol_core.nn import criterions as c
from llmbol_core.nn import optim as o

PATH = "tests/nn/data/peer.npz"
STEPS, SIZE = 100, 40

# fmt: off
OPTIMIZERS: dict[str, tuple[o.Optimizer, str, dict[str, Any]]] = {
    # ours, PyTorch's and its arguments
    "sgd":      (o.SGD(lr=0.1), "SGD", {"lr": 0.1}),
    "momentum": (o.SGD(lr=0.05, momentum=0.9), "SGD", {"lr": 0.05, "momentum": 0.9}),
    "damped":   (o.SGD(lr=0.05, momentum=0.9, dampening=0.3), "SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.3}),
    "nesterov": (o.SGD(lr=0.05, momentum=0.9, nesterov=True), "SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "decayed":  (o.SGD(lr=0.05, momentum=0.9, weight_decay=0.1), "SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}),
    "adam":     (o.Adam(lr=0.01), "Adam", {"lr": 0.01}),
    "adam l2":  (o.Adam(lr=0.01, weight_decay=0.1), "Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adamw":    (o.AdamW(lr=0.01, weight_decay=0.1), "AdamW", {"lr": 0.01, "weight_decay": 0.1}),
    "rmsprop":  (o.RMSprop(lr=0.01), "RMSprop", {"lr": 0.01}),
    "centered": (o.RMSprop(lr=0.01, centered=True, momentum=0.9, weight_decay=0.1), "RMSprop",
                 {"lr": 0.01, "centered": True, "momentum": 0.9, "weight_decay": 0.1}),
    "adagrad":  (o.Adagrad(lr=0.05), "Adagrad", {"lr": 0.05}),
    "adagrad d": (o.Adagrad(lr=0.05, lr_decay=0.1, weight_decay=0.1), "Adagrad", {"lr": 0.05, "lr_decay": 0.1, "weight_decay": 0.1}),
}
CRITERIONS: dict[str, tuple[c.Criterion, str, dict[str, Any], str]] = {
    # ours, PyTorch's and its arguments, the kind of outputs and targets
    "ce":        (c.CrossEntropy(), "CrossEntropyLoss", {}, "classes"),
    "ce smooth": (c.CrossEntropy(label_smoothing=0.1), "CrossEntropyLoss", {"label_smoothing": 0.1}, "classes"),
    "ce weights": (c.CrossEntropy(weights=(1.0, 2.0, 0.5, 3.0)), "CrossEntropyLoss", {"weight": (1.0, 2.0, 0.5, 3.0)}, "classes"),
    "nll":       (c.NLL(), "NLLLoss", {}, "log classes"),
    "nll w":     (c.NLL(weights=(1.0, 2.0, 0.5, 3.0)), "NLLLoss", {"weight": (1.0, 2.0, 0.5, 3.0)}, "log classes"),
    "mse":       (c.MSE(), "MSELoss", {}, "numbers"),
    "l1":        (c.L1(), "L1Loss", {}, "numbers"),
    "smooth l1": (c.SmoothL1(), "SmoothL1Loss", {}, "numbers"),
    "smooth b":  (c.SmoothL1(beta=0.3), "SmoothL1Loss", {"beta": 0.3}, "numbers"),
    "bce":       (c.BCE(), "BCELoss", {}, "shares"),
    "bce x":     (c.BCEWithLogits(), "BCEWithLogitsLoss", {}, "logits"),
    "bce p":     (c.BCEWithLogits(pos_weight=(1.0, 2.0, 0.5, 3.0)), "BCEWithLogitsLoss", {"pos_weight": (1.0, 2.0, 0.5, 3.0)}, "logits"),
    "kl":        (c.KLDiv(), "KLDivLoss", {"reduction": "batchmean"}, "distributions"),
    "kl mean":   (c.KLDiv(batch_mean=False), "KLDivLoss", {"reduction": "mean"}, "distributions"),
    "cosine":    (c.CosineEmbedding(margin=0.2), "CosineEmbeddingLoss", {"margin": 0.2}, "pairs"),
}
# fmt: on


def slopes() -> np.ndarray:
    """Return a gradient for each step: noise around a slope."""
    rng = np.random.default_rng(8)
    return (rng.normal(size=(STEPS, SIZE)) + rng.normal(size=SIZE)).astype(np.float32)


def start() -> np.ndarray:
    """Return the first parameters."""
    return np.random.default_rng(9).normal(size=SIZE).astype(np.float32)


def example(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs and targets of a kind."""
    rng = np.random.default_rng(10)
    x = rng.normal(size=(6, 4)).astype(np.float32)
    log = x - np.log(np.exp(x).sum(1, keepdims=True))
    share = rng.uniform(size=(6, 4)).astype(np.float32)
    return {
        "classes": (x, rng.integers(0, 4, 6)),
        "log classes": (log, rng.integers(0, 4, 6)),
        "numbers": (x, rng.normal(size=(6, 4)).astype(np.float32)),
        "shares": (1 / (1 + np.exp(-x)), np.round(share)),
        "logits": (x, share),
        "distributions": (log, share / share.sum(1, keepdims=True)),
        "pairs": (rng.normal(size=(6, 2, 5)).astype(np.float32), np.array([1, -1] * 3)),
    }[kind]


def from_pytorch() -> dict[str, np.ndarray]:
    """Return what PyTorch gives for all of it."""
    import torch

    found: dict[str, np.ndarray] = {}
    for name, (_, kind, arguments) in OPTIMIZERS.items():
        w = torch.nn.Parameter(torch.tensor(start()))
        optimizer = getattr(torch.optim, kind)([w], **arguments)
        kept = []
        for number, slope in enumerate(slopes()):
            w.grad = torch.tensor(slope)
            optimizer.step()
            if number % 10 == 9:
                kept.append(w.detach().numpy().copy())
        found[f"optimizer {name}"] = np.array(kept)
    for name, (_, kind, arguments, inputs) in CRITERIONS.items():
        given = {k: torch.tensor(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
        loss = getattr(torch.nn, kind)(**given)
        output, target = (torch.tensor(part) for part in example(inputs))
        output.requires_grad_()
        pair = (output[:, 0], output[:, 1]) if inputs == "pairs" else (output,)
        value = loss(*pair, target)
        value.backward()
        found[f"value {name}"] = np.array(value.item())
        found[f"gradient {name}"] = output.grad.numpy()
    return found


if __name__ == "__main__":
    arrays: Any = from_pytorch()
    np.savez_compressed(PATH, **arrays)
