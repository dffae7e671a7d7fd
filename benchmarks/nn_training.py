"""Training steps beside PyTorch: one process for each, in turns, best of many.

    python -m benchmarks.nn_training                       all models, SGD, one thread
    python -m benchmarks.nn_training c g --optimizer adam  some models, Adam; PyTorch's is fused
    python -m benchmarks.nn_training --threads 2           two threads

A step is forward, loss, backward and update of a batch of 64. A cell is the least time of one in
microseconds; ``ratio`` is ours to PyTorch's, beside what is wanted. ``error`` is the relative
difference of the losses before the first step; e drops out at random, each side in its own way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.nn import MODELS, Side, best, importable, own_model, sample, torch_model

Step = Callable[[Any], float]
SIDES = ("llmbol", "torch")
BATCH = 64
SECONDS = 0.25
WANTED = {
    "sgd": {"a": 0.45, "b": 1.0, "c": 0.5, "d": 1.0, "d2": 0.45, "e": 0.6, "f": 1.0, "g": 1.0},
    "adam": dict.fromkeys(("a", "b", "c", "d", "d2", "e", "f", "g"), 1.0),
}
RATES = {"sgd": 1e-3, "adam": 1e-4}


def targets(name: str) -> Any:
    """Return classes, or for the encoder what its output is to be."""
    rng = np.random.default_rng(0)
    if name == "g":
        return rng.standard_normal((BATCH, *MODELS[name][0]), np.float32)
    return rng.integers(0, 10, BATCH)


def llmbol_side(name: str, optimizer: str) -> Step:
    """Return our trainer's step."""
    from llmbol_core.nn.criterions import MSE, CrossEntropy
    from llmbol_core.nn.data import Dataset
    from llmbol_core.nn.model import Training
    from llmbol_core.nn.optim import SGD, Adam
    from llmbol_core.nn.trainer import Trainer

    model, x, y = own_model(name), sample(name, BATCH), targets(name)
    made = SGD(lr=RATES["sgd"]) if optimizer == "sgd" else Adam(lr=RATES["adam"])
    loss = MSE() if name == "g" else CrossEntropy()
    model.train = Training("none", loss=loss, optimizer=made, batch_size=BATCH)
    trainer = Trainer(model, Dataset(x, y, x, y))
    model.training()
    return lambda x: trainer._step(x, y)


def torch_side(name: str, optimizer: str) -> Step:
    """Return PyTorch's step, eager."""
    import torch

    model, y = torch_model(name).train(), torch.from_numpy(targets(name))
    functions = torch.nn.functional
    loss = functions.mse_loss if name == "g" else functions.cross_entropy
    if optimizer == "sgd":
        made: Any = torch.optim.SGD(model.parameters(), RATES["sgd"])
    else:
        made = torch.optim.Adam(model.parameters(), RATES["adam"], fused=True)

    def step(x: Any) -> float:
        made.zero_grad()
        value = loss(model(torch.from_numpy(x)), y)
        value.backward()
        made.step()
        return float(value)

    return step


def serve(side: str, threads: int) -> None:
    """Answer requests ``model optimizer seconds`` on standard input: first loss, least time."""
    from llmbol_core.native.threads import single_threaded_blas

    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    if side == "torch":
        import torch

        torch.set_num_threads(threads)
    quiet = single_threaded_blas() if side == "llmbol" else contextlib.nullcontext()
    steps: dict[tuple[str, str], tuple[Step, float]] = {}
    with quiet, np.errstate(all="ignore"):
        for line in sys.stdin:
            name, optimizer, seconds = line.split()
            x, key = sample(name, BATCH), (name, optimizer)
            if key not in steps:
                steps.clear()
                step = globals()[f"{side}_side"](name, optimizer)
                steps[key] = step, step(x)
            step, loss = steps[key]
            print(loss, best(step, x, float(seconds)), file=replies, flush=True)


def measure(
    models: list[str], optimizer: str, sides: list[str], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each model, printing them as they come."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        running = [Side(name, folder, threads, "benchmarks.nn_training") for name in sides]
        print("model opt  " + " ".join(f"{name:>12}" for name in sides) + "   ratio  error")
        for model in models:
            times, losses = dict.fromkeys(sides, math.inf), {}
            for number in range(rounds):
                for side in running if number % 2 == 0 else running[::-1]:
                    loss, least = side.ask(model, optimizer, SECONDS)
                    losses[side.name] = loss
                    times[side.name] = min(times[side.name], least)
            rows.append(row(model, optimizer, times, losses))
            print(shown(rows[-1]), flush=True)
        for side in running:
            side.close()
    return rows


def row(
    model: str, optimizer: str, times: dict[str, float], losses: dict[str, float]
) -> dict[str, Any]:
    """Return what was measured: microseconds, the ratio and what is wanted of it."""
    made: dict[str, Any] = {"model": model, "optimizer": optimizer}
    made["us"] = {name: 1e6 * seconds for name, seconds in times.items()}
    if len(times) == len(SIDES):
        made["ratio"] = times["llmbol"] / times["torch"]
        made["wanted"] = WANTED[optimizer][model]
        made["error"] = abs(losses["llmbol"] / losses["torch"] - 1)
    return made


def shown(row: dict[str, Any]) -> str:
    """Return a row as text."""
    cells = " ".join(f"{value:12.1f}" for value in row["us"].values())
    line = f"{row['model']:5} {row['optimizer']:4} {cells}"
    if "ratio" not in row:
        return line
    verdict = "yes" if row["ratio"] <= row["wanted"] else "NO"
    return f"{line}   {row['ratio']:5.3f}  {row['error']:.0e}  at most {row['wanted']}: {verdict}"


def main() -> None:
    """Parse the command line; measure, or serve as one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(WANTED["sgd"]))
    parser.add_argument("--optimizer", choices=list(WANTED), default="sgd")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--json")
    parser.add_argument("--serve")
    parser.add_argument("--folder", default=".")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.threads)
        return
    sides = [name for name in given.sides.split(",") if importable(name)]
    rows = measure(given.models, given.optimizer, sides, given.threads, given.rounds)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
