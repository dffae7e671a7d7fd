"""The main job from end to end: a spec becomes a trained, quantized, compiled, distributed model.

Handwritten digits: build, train, evaluate, quantize, compile to ``digits.dis``, run that file in
the virtual machine and on a cluster of two nodes, and hold all answers against each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmbol_core import deploy
from llmbol_core.deploy.compiler import compile_file
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.control import OwnCluster
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config
from llmbol_core.distributed.task import create_task, new_id
from llmbol_core.errors import FileError, ModelError
from llmbol_core.ml.text import format_rows
from llmbol_core.native.files import atomic_write
from llmbol_core.nn.checkpoint import load_for_inference, save
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.quantize import quantize_checkpoint
from llmbol_core.nn.spec import read_spec
from llmbol_core.nn.train import train_file

Progress = Callable[[int, int, str], None]

MEMORY = 16 << 20
"""The cap of the machine that runs the compiled model, in bytes."""
QUANTIZED = ("Q8_0", "Q4_0")
_STEPS = 1000
"""Resolution of the progress bar."""


@dataclass(frozen=True)
class DemoRow:
    """Who computed the answers, from what; agreement is with the float model's predictions."""

    answers: str
    format: str
    bytes: int
    accuracy: float
    agreement: float
    seconds: float


@dataclass(frozen=True)
class Demo:
    """What the demonstration did: where its files lie, how it was trained, who answered what."""

    directory: str
    samples: int
    training_seconds: float
    seconds: float
    rows: list[DemoRow]


@dataclass
class _Bench:
    """The demonstration while it runs: its files, the held-out samples, the rows so far."""

    directory: Path
    progress: Progress
    rows: list[DemoRow]
    targets: NDArray[np.int64]
    reference: NDArray[np.int64]
    stage: float = 0.0

    def path(self, name: str) -> str:
        """Return where a file of the demonstration lies."""
        return str(self.directory / name)

    @contextmanager
    def step(self, note: str, share: float) -> Iterator[Progress]:
        """Report a stage that takes a share of the whole; the block may report how far it is."""
        start, self.stage = self.stage, self.stage + share

        def inside(done: int, total: int, detail: str) -> None:
            at = start + share * done / max(total, 1)
            self.progress(int(_STEPS * at), _STEPS, f"{note}  {detail}")

        inside(0, 1, "")
        yield inside

    def record(self, answers: str, kind: str, path: str, text: str, seconds: float) -> None:
        """Add a row for answers given as text, one line of numbers for each sample."""
        outputs = [[float(word) for word in line.split("\t")] for line in text.splitlines()]
        predicted = np.array(outputs).argmax(axis=1)
        if not len(self.reference):
            self.reference = predicted
        accuracy = float((predicted == self.targets).mean())
        agreement = float((predicted == self.reference).mean())
        size = os.path.getsize(path)
        self.rows.append(DemoRow(answers, kind, size, accuracy, agreement, seconds))


def run_demo(directory: str, progress: Progress = lambda done, total, note: None) -> Demo:
    """Run the whole demonstration in a directory, which is made; its files stay there.

    Raises ModelError if the virtual machine or the cluster answers other than the engine.
    """
    started = time.perf_counter()
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise FileError.of(error, directory) from error
    # Programs take words that begin with - for options.
    bench = _Bench(
        Path(directory).absolute(), progress, [], np.empty(0, np.int64), np.empty(0, np.int64)
    )
    training = _train(bench)
    _quantize(bench)
    answers = {kind: _infer(bench, kind) for kind in ("F32", *QUANTIZED)}
    with bench.step("compile", 0.02):
        compile_file(bench.path("digits-q8_0.gguf"), bench.path("digits.dis"))
    in_machine = _run(bench)
    _hold(in_machine, answers["Q8_0"], "the virtual machine", "nn infer")
    on_cluster = _distribute(bench)
    _hold(on_cluster, in_machine, "the cluster", "the virtual machine")
    seconds = time.perf_counter() - started
    return Demo(directory, len(bench.targets), training, seconds, bench.rows)


def specs_directory() -> Path:
    """Return where the example specs are: in the installed package, or beside it in a checkout."""
    installed = Path(str(resources.files("llmbol_core"))) / "specs"
    return installed if installed.is_dir() else installed.parents[1] / "specs"


def _train(bench: _Bench) -> float:
    """Build and train the model, set the held-out samples aside; return how long training took."""
    spec, model = str(specs_directory() / "digits-mlp.yaml"), bench.path("digits.gguf")
    with bench.step("build", 0.02):
        save(read_spec(spec).seeded(), model)
    with bench.step("train", 0.4) as progress:
        run = train_file(model, model, progress=progress)
    data = load_data(read_spec(spec))
    bench.targets = data.test_targets
    with atomic_write(bench.path("held-out.npy")) as file:
        np.save(file, data.test_inputs.astype(np.float32))
    return run.seconds


def _quantize(bench: _Bench) -> None:
    for kind in QUANTIZED:
        with bench.step(f"quantize to {kind}", 0.02) as progress:
            target = bench.path(f"digits-{kind.lower()}.gguf")
            quantize_checkpoint(bench.path("digits.gguf"), target, kind, progress)


def _infer(bench: _Bench, kind: str) -> str:
    """Return the engine's answers as text."""
    path = bench.path("digits.gguf" if kind == "F32" else f"digits-{kind.lower()}.gguf")
    with bench.step(f"infer with {kind}", 0.02):
        samples = np.load(bench.path("held-out.npy"))
        started = time.perf_counter()
        text = format_rows(load_for_inference(path).run(samples))
        bench.record("nn infer", kind, path, text, time.perf_counter() - started)
    return text


def _run(bench: _Bench) -> str:
    """Return the answers of the compiled model in the virtual machine."""
    path, samples = bench.path("digits.dis"), bench.path("held-out.npy")
    with bench.step("run digits.dis", 0.08):
        started = time.perf_counter()
        limits = deploy.Limits(memory=MEMORY)
        result = deploy.run_file(path, [samples], granted=[samples], limits=limits)
        if result.status != 0:
            raise ModelError(path, result.stderr.decode(errors="replace").strip())
        text = result.stdout.decode()
        bench.record("dis run", "Q8_0", path, text, time.perf_counter() - started)
    return text


def _distribute(bench: _Bench) -> str:
    """Return the answers of the same file on a cluster of two nodes that lives as long as this."""
    path = bench.path("digits.dis")
    with bench.step("start two nodes", 0.2) as progress:
        cluster = OwnCluster(Config(tuple(local_nodes(2, ["inference"]))), progress)
    try:
        with bench.step("submit digits.dis", 0.1) as progress, Client(cluster.state) as client:
            started = time.perf_counter()
            payload = {"program": path, "inputs": [bench.path("held-out.npy")]}
            task = create_task(new_id("demo"), "run", payload)
            client.submit([task])
            client.wait([task.id], progress=progress)
            result = client.result(task.id)
            result.check()
            text = result.text.decode()
            bench.record("cluster", "Q8_0", path, text, time.perf_counter() - started)
    finally:
        cluster.stop()
    return text


def _hold(got: str, wanted: str, who: str, other: str) -> None:
    """Raise ModelError unless two sets of answers are the same to the last bit."""
    if got == wanted:
        return
    lines = zip(got.splitlines(), wanted.splitlines(), strict=False)
    number = next((i for i, (a, b) in enumerate(lines, 1) if a != b), None)
    where = f"sample {number}" if number else "their number"
    raise ModelError("digits.dis", f"{who} and {other} differ: {where}")
