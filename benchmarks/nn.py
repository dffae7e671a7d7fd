"""Whole networks beside PyTorch and ONNX Runtime: one process for each, in turns, best of many.

    python -m benchmarks.nn                    all models, batches of 1, 32 and 256, one thread
    python -m benchmarks.nn a d2 --threads 2   some models, two threads
    python -m benchmarks.nn --json out.json    the figures as JSON as well

Peers that cannot be imported are left out. A cell is the least time of a call in microseconds;
``ratio`` is ours to theirs, and the last line of a model their geometric mean over the batches.
``error`` is the greatest difference of our output from a peer's, relative to its greatest value.
Model b4 is b with weights of 4 bits in blocks of 32: Q4_0 here, MatMulNBits in ONNX Runtime, and in
PyTorch still float32.
"""

# ruff: noqa: E501 -- the table has one model on a line or two

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

Run = Callable[[Any], Any]
SIDES = ("llmbol", "onnxruntime", "torch")
SECONDS = 0.06
"""How long one side is timed at a stretch."""

# fmt: off
MODELS: dict[str, tuple[tuple[int, ...], list[tuple[Any, ...]]]] = {
    # name: shape of a sample, layers with the fields that have no default
    "a": ((784,), [("Linear", 784, 128), ("ReLU",), ("Linear", 128, 64), ("ReLU",), ("Linear", 64, 10)]),
    "b": ((4096,), [("Linear", 4096, 4096), ("ReLU",), ("Linear", 4096, 4096), ("ReLU",), ("Linear", 4096, 10)]),
    "b4": ((4096,), [("Linear", 4096, 4096), ("ReLU",), ("Linear", 4096, 4096), ("ReLU",), ("Linear", 4096, 10)]),
    "c": ((1, 1024), [("Conv1d", 1, 32, 9), ("ReLU",), ("MaxPool1d", 2), ("Conv1d", 32, 64, 9), ("ReLU",),
                      ("MaxPool1d", 2), ("Flatten",), ("Linear", 16000, 10)]),
    "d": ((1, 28, 28), [("Conv2d", 1, 6, 5, 1, 2), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 6, 16, 5), ("ReLU",),
                        ("MaxPool2d", 2), ("Flatten",), ("Linear", 400, 120), ("ReLU",), ("Linear", 120, 84),
                        ("ReLU",), ("Linear", 84, 10)]),
    "d2": ((1, 28, 28), [("Conv2d", 1, 32, 3), ("ReLU",), ("MaxPool2d", 2), ("Conv2d", 32, 64, 3), ("ReLU",),
                         ("MaxPool2d", 2), ("Flatten",), ("Linear", 1600, 10)]),
    "e": ((784,), [("Linear", 784, 512), ("BatchNorm", 512), ("ReLU",), ("Dropout", 0.5), ("Linear", 512, 512),
                   ("BatchNorm", 512), ("ReLU",), ("Dropout", 0.5), ("Linear", 512, 10)]),
    "f": ((100, 128), [("LSTM", 128, 256, 2), ("Linear", 256, 10)]),
    "g": ((128, 512), [("TransformerEncoderLayer", 512, 8, 2048)]),
}
# fmt: on
QUANTIZED = ("b4",)


def sample(model: str, batch: int) -> Any:
    """Return the batch of inputs that every side gets."""
    shape = MODELS[model][0]
    return np.random.default_rng(batch).standard_normal((batch, *shape), np.float32)


# ---- the sides: each returns a function from a batch to its output ----


def own_model(name: str) -> Any:
    """Return the model as ours, the weights those of its seed."""
    from llmbol_core.nn.builder import ModelBuilder, layer_class

    shape, layers = MODELS[name]
    builder = ModelBuilder(name, shape)
    for kind, *fields in layers:
        more: dict[str, Any] = {}
        if kind == "LSTM":
            more = {"sequence": False}
        if kind == "TransformerEncoderLayer":
            more = {"dropout": 0.0}
        builder.add(layer_class(kind.lower())(*fields, **more))
    model = builder.build(seed=1)
    rng = np.random.default_rng(7)
    for key, value in model.network.state().items():
        if "running" in key:
            mean = key.endswith("mean")
            value[...] = rng.uniform(-0.2 if mean else 0.3, 0.2 if mean else 1.0, value.shape)
    return model


def llmbol_side(name: str, folder: str, threads: int) -> Run:
    """Return our engine's run."""
    from llmbol_core.ml.quantization import quantize
    from llmbol_core.nn.checkpoint import freeze

    model = freeze(own_model(name).evaluate())
    if name in QUANTIZED:
        matrices = {n: quantize(t, "Q4_0") for n, t in model.weights.items() if t.ndim == 2}
        model = replace(model, weights=model.weights | matrices)
    run: Run = model.run
    return run


def torch_model(name: str) -> Any:
    """Return the model as PyTorch's, with our weights."""
    import torch
    from torch import nn

    class Last(nn.Module):
        """An LSTM's last state."""

        def forward(self, pair: Any) -> Any:
            return pair[0][:, -1]

    def layer(kind: str, *f: Any) -> Any:
        made = {
            "BatchNorm": lambda: nn.BatchNorm1d(*f),
            "LSTM": lambda: nn.LSTM(*f, batch_first=True),
            "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(
                *f, dropout=0.0, batch_first=True
            ),
        }
        return made[kind]() if kind in made else getattr(nn, kind)(*f)

    modules = [layer(*entry) for entry in MODELS[name][1]]
    names = {f"{i}.": f"{i}." for i in range(len(modules))}
    if name == "f":
        modules.insert(1, Last())
        names["1."] = "2."
    model = nn.Sequential(*modules).eval()
    state = {}
    for key, value in own_model(name).network.state().items():
        head, rest = key.split(".", 1)
        state[names[head + "."] + rest] = torch.from_numpy(np.array(value))
    missing = model.load_state_dict(state, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys), missing
    assert not missing.unexpected_keys, missing
    return model


def torch_side(name: str, folder: str, threads: int) -> Run:
    """Return PyTorch's eager run."""
    import torch

    torch.set_num_threads(threads)
    model = torch_model(name)

    def run(x: Any) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(x)).numpy()

    return run


def onnxruntime_side(name: str, folder: str, threads: int) -> Run:
    """Return ONNX Runtime's run of what PyTorch exports."""
    import onnxruntime as ort

    path = os.path.join(folder, f"{name}.onnx")
    if not os.path.exists(path):
        (export_quantized if name in QUANTIZED else export)(name, path)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name
    return lambda x: session.run(None, {given: x})[0]


def export(name: str, path: str) -> None:
    """Write PyTorch's model as ONNX with a batch of any size."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.backends.mha.set_fastpath_enabled(False)
    torch.onnx.export(
        torch_model(name),
        (torch.from_numpy(sample(name, 2)),),
        path,
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


def export_quantized(name: str, path: str) -> None:
    """Write a network of linear layers and ReLU with weights of 4 bits."""
    import onnx  # noqa: TID251 -- a peer's format
    from onnx import helper, numpy_helper  # noqa: TID251
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    state = own_model(name).network.state()
    nodes, weights, x = [], [], "x"
    for i, (kind, *_) in enumerate(MODELS[name][1]):
        made = "y" if i == len(MODELS[name][1]) - 1 else f"t{i}"
        if kind == "ReLU":
            nodes.append(helper.make_node("Relu", [x], [made], name=f"r{i}"))
        else:
            weights.append(numpy_helper.from_array(state[f"{i}.weight"].T.copy(), f"w{i}"))
            weights.append(numpy_helper.from_array(state[f"{i}.bias"], f"b{i}"))
            nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"m{i}"], name=f"m{i}"))
            nodes.append(helper.make_node("Add", [f"m{i}", f"b{i}"], [made], name=f"a{i}"))
        x = made
    (width,), kind = MODELS[name][0], onnx.TensorProto.FLOAT
    given = helper.make_tensor_value_info("x", kind, ["n", width])
    result = helper.make_tensor_value_info("y", kind, ["n", None])
    graph = helper.make_graph(nodes, name, [given], [result], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    onnx.save(quantizer.model.model, path)


# ---- one process for each side ----


def serve(side: str, folder: str, threads: int) -> None:
    """Answer requests ``model batch seconds`` on standard input with least times in seconds."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    runs: dict[str, Run] = {}
    for line in sys.stdin:
        name, batch, seconds = line.split()
        if name not in runs:
            runs.clear()
            runs[name] = globals()[f"{side}_side"](name, folder, threads)
        run, x = runs[name], sample(name, int(batch))
        output = run(x)
        np.save(os.path.join(folder, f"{side}.npy"), output)
        print(best(run, x, float(seconds)), file=replies, flush=True)


def best(run: Run, x: Any, seconds: float) -> float:
    """Return the least time of a call; short calls are timed one by one all the same."""
    least, clock = math.inf, time.perf_counter
    end = clock() + seconds
    count = 0
    while count < 3 or clock() < end:
        start = clock()
        run(x)
        least = min(least, clock() - start)
        count += 1
    return least


class Side:
    """A framework in a process of its own."""

    def __init__(self, name: str, folder: str, threads: int, module: str = "benchmarks.nn") -> None:
        self.name = name
        command = [sys.executable, "-m", module, "--serve", name, "--folder", folder]
        surroundings = os.environ | {"OMP_NUM_THREADS": str(threads)}
        surroundings |= {"LLMBOL_THREADS": str(threads)}
        self._process = subprocess.Popen(
            [*command, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if name != "llmbol" else None,
            text=True,
            env=surroundings,
        )

    def ask(self, *request: object) -> list[float]:
        """Return the numbers that the process answers with; the last is a least time in seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(*request, file=self._process.stdin, flush=True)
        return [float(word) for word in self._process.stdout.readline().split()]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def importable(name: str) -> bool:
    """Return whether a framework is there."""
    from importlib.util import find_spec

    return find_spec("llmbol_core" if name == "llmbol" else name) is not None


def measure(
    models: list[str], batches: list[int], sides: list[str], threads: int, rounds: int
) -> list[dict[str, Any]]:
    """Return a row for each model and batch, printing them as they come."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        running = [Side(name, folder, threads) for name in sides]
        print("model batch " + " ".join(f"{name:>12}" for name in sides) + "   ratios  error")
        for model in models:
            for batch in batches:
                times = dict.fromkeys(sides, math.inf)
                for number in range(rounds):
                    for side in running if number % 2 == 0 else running[::-1]:
                        (least,) = side.ask(model, batch, SECONDS)
                        times[side.name] = min(times[side.name], least)
                rows.append(row(model, batch, times, folder))
                print(shown(rows[-1]), flush=True)
            print(mean_line(model, [r for r in rows if r["model"] == model]), flush=True)
        for side in running:
            side.close()
    return rows


def row(model: str, batch: int, times: dict[str, float], folder: str) -> dict[str, Any]:
    """Return what was measured: microseconds, ratios, the difference of the outputs."""
    outputs = {name: np.load(os.path.join(folder, f"{name}.npy")) for name in times}
    mine = outputs.get("llmbol")
    error = 0.0
    for name, output in outputs.items():
        if mine is not None and name != "llmbol":
            error = max(error, float(np.abs(mine - output).max() / np.abs(output).max()))
    micros = {name: 1e6 * seconds for name, seconds in times.items()}
    ratios = {
        name: micros["llmbol"] / peer
        for name, peer in micros.items()
        if name != "llmbol" and "llmbol" in micros
    }
    return {"model": model, "batch": batch, "us": micros, "ratio": ratios, "error": error}


def shown(row: dict[str, Any]) -> str:
    """Return a row as text."""
    cells = " ".join(f"{value:12.1f}" for value in row["us"].values())
    ratios = " ".join(f"{value:6.2f}" for value in row["ratio"].values())
    return f"{row['model']:5} {row['batch']:5} {cells}   {ratios}  {row['error']:.1e}"


def mean_line(model: str, rows: list[dict[str, Any]]) -> str:
    """Return the geometric means of the ratios over the batches."""
    names = rows[0]["ratio"]
    means = {n: math.exp(np.mean([math.log(r["ratio"][n]) for r in rows])) for n in names}
    return f"{model:5} mean  " + ", ".join(f"{n} {value:.3f}" for n, value in means.items())


def main() -> None:
    """Parse the command line; measure, or serve as one side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS))
    parser.add_argument("--batches", default="1,32,256")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--json")
    parser.add_argument("--serve")
    parser.add_argument("--folder", default=".")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.folder, given.threads)
        return
    sides = [name for name in given.sides.split(",") if importable(name)]
    batches = [int(batch) for batch in given.batches.split(",")]
    rows = measure(given.models, batches, sides, given.threads, given.rounds)
    if given.json:
        with open(given.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
