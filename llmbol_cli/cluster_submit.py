"""``cluster submit``: tasks for the cluster, and what becomes of them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbol_cli import render
from llmbol_cli.cluster_output import (
    check_output,
    deliver,
    deliver_files,
    deliver_parts,
    deliver_run,
    targets_in,
)
from llmbol_cli.options import (
    AsJson,
    Epochs,
    MissingOption,
    Object,
    Seed,
    Settings,
    connected,
    named,
    of_size,
    output_option,
    size,
    takes,
)

if TYPE_CHECKING:
    from llmbol_core.distributed.task import Task

app = render.app("Send a task to the cluster.")

Inputs = Annotated[
    list[str],
    typer.Option("--input", "-i", metavar="FILE", help="A file for it, - is stdin; repeatable."),
]
Output = Annotated[str | None, output_option("Write the result there; - is stdout.", check=named)]
Strategy = Annotated[
    str | None, typer.Option(help="round-robin, least-loaded, random or capability-based.")
]
Memory = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory that the program may use.", callback=of_size)
]


@dataclass(frozen=True)
class Sending:
    """How a task is sent, whatever it is."""

    priority: Annotated[int, typer.Option(help="Higher ones run first.")] = 0
    retries: Annotated[
        int | None,
        typer.Option(min=0, help="Attempts after the first one; the cluster's if not given."),
    ] = None
    timeout: Annotated[float | None, typer.Option(help="Seconds that an attempt may take.")] = None
    capability: Annotated[str | None, typer.Option(help="What the node must offer.")] = None
    strategy: Strategy = None
    id: Annotated[
        str | None,
        typer.Option(help="The task's id; one that is there already is not run again."),
    ] = None
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Print the result, or only the id.")
    ] = True
    as_json: AsJson = False

    def task(self, type: str, payload: dict[str, Any]) -> Task:
        """Return a task; one for which no id was chosen gets a new one."""
        from llmbol_core.distributed.task import create_task, new_id

        return create_task(
            new_id(type) if self.id is None else self.id, type, payload, self.priority,
            max_retries=self.retries, timeout=self.timeout, capability=self.capability,
            strategy=self.strategy,
        )  # fmt: skip

    def submit(self, task: Task, output: str | None) -> None:
        """Submit a task; wait for its result and deliver it, or print the id."""
        with connected() as client:
            client.submit([task])
            if not self.wait:
                self.show(task.id)
                return
            with render.progress("waiting") as progress:
                client.wait([task.id], progress=progress)
            deliver(client.result(task.id), output, self.as_json)

    def show(self, id: str) -> None:
        """Print the id of what was submitted."""
        render.show({"id": id} if self.as_json else id, self.as_json)


@app.command()
@takes(Sending)
def run(
    sending: Sending,
    program: Object,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Words for the program, before its files."),
    ] = None,
    inputs: Inputs = [],  # noqa: B006 -- typer reads it, nobody changes it
    output: Output = None,
    max_memory: Memory = "64M",
) -> None:
    """Run a .dis program in a sandbox on a node and print what it prints.

    Example: cluster submit run digits.dis --input digits.npy --id first
    """
    check_output(output, sending.as_json, program, *inputs)
    with _files(program, *inputs) as (program, *inputs):
        payload = {
            "program": program,
            "arguments": arguments or [],
            "inputs": inputs,
            "max_memory": size(max_memory),
        }
        sending.submit(sending.task("run", payload), output)


@app.command()
@takes(Sending)
def infer(
    sending: Sending,
    model: Annotated[str, typer.Argument(metavar="FILE", help="A .gguf checkpoint; - is stdin.")],
    inputs: Annotated[
        str,
        typer.Option(
            "--input", "-i", metavar="FILE", help="Samples: .npy, .npz or .csv; - is stdin."
        ),
    ],
    output: Output = None,
) -> None:
    """Run a model on nodes, large inputs in pieces, and print its outputs or write them as .npy.

    Example: cluster submit infer digits.gguf --input digits.npy
    """
    check_output(output, sending.as_json, model, inputs)
    with _files(model, inputs) as (model, path):
        task = sending.task("inference", {"model": model, "input": path})
        pieces = _pieces(model, path)
        if pieces is None:
            sending.submit(task, output)
        else:
            _submit_pieces(sending, task, pieces, output)


@app.command("map")
@takes(Sending)
def map_files(
    sending: Sending,
    program: Object,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Words for the program, before its file."),
    ] = None,
    inputs: Annotated[
        list[str],
        typer.Option("--inputs", metavar="PATTERN", help="Files such as 'data/*.csv'; repeatable."),
    ] = [],  # noqa: B006 -- typer reads it, nobody changes it
    output: Annotated[
        str | None, output_option("A file, or a folder for one each.", "PATH", check=named)
    ] = None,
    max_memory: Memory = "64M",
) -> None:
    """Run a .dis program once for each of some files and print what it prints, in their order.

    Example: cluster submit map digits.dis --inputs '*.npy'
    """
    from llmbol_core.distributed.splitting import map_tasks, matching

    paths = matching(inputs)
    if not paths:
        raise MissingOption("'--inputs'")
    payload: dict[str, Any] = {"arguments": arguments or [], "max_memory": size(max_memory)}
    targets = None
    if output is not None and (output.endswith(os.sep) or os.path.isdir(output)):
        targets = targets_in(output, paths)
    else:
        check_output(output, sending.as_json, program, *map(str, paths))
    with _files(program) as (payload["program"],), connected() as client:
        whole = sending.task("run", payload)
        ids = client.submit(map_tasks(whole, paths))
        if not sending.wait:
            sending.show(whole.id)
            return
        with render.progress("waiting") as progress:
            client.wait(ids, progress=progress)
        if targets is not None:
            deliver_files(client.results(ids), targets, sending.as_json)
        else:
            deliver_parts(client.results(ids), output, sending.as_json)


@app.command()
@takes(Sending)
def train(
    sending: Sending,
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="A YAML spec, or a checkpoint; - is stdin.")
    ],
    nodes: Annotated[
        int | None, typer.Option(min=1, help="How many share each batch; all if not given.")
    ] = None,
    output: Annotated[str | None, output_option("The checkpoint; else NAME.gguf.")] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Data instead of those of the spec.", callback=named),
    ] = None,
    epochs: Epochs = None,
    seed: Seed = None,
    settings: Settings = None,
) -> None:
    """Train a model on several nodes that share each batch; the result is the same for any number.

    Example: cluster submit train digits-mlp.yaml --nodes 2 -o digits.gguf
    """
    from llmbol_core.distributed.training import Start, train_tasks

    start = Start.read(
        spec, data, {"epochs": epochs, "seed": seed}, tuple(settings or ())
    )  # fmt: skip
    target = output or f"{os.path.basename(start.model.name)}.gguf"
    check_output(target, False, spec, str(start.data))
    with connected() as client:
        members = nodes or max(1, sum("training" in n.capabilities for n in client.status().nodes))
        ids = client.submit(train_tasks(sending.task("train", {}), start, members))
        if not sending.wait:
            sending.show(ids[0].rpartition(".")[0])
            return
        with render.progress("training") as progress:
            client.wait(ids, progress=progress)
        result = client.result(ids[0])
        if result.entry.state == "done":
            start.write(client.fetch(result.value["checkpoint"]), target)
    deliver_run(result, sending.as_json)


@contextmanager
def _files(*names: str) -> Iterator[tuple[str, ...]]:
    """Give the paths of files; standard input becomes one for as long as it is needed."""
    if "-" not in names:
        yield names
        return
    with tempfile.TemporaryDirectory(prefix="llmbol-") as folder:
        path = Path(folder, "stdin")
        with open(path, "wb") as file:
            while piece := sys.stdin.buffer.read(1 << 20):
                file.write(piece)
        yield tuple(str(path) if name == "-" else name for name in names)


def _pieces(model: str, path: str) -> Any:
    """Return the input in pieces if it is large."""
    from llmbol_core.distributed.splitting import LARGE, pieces_of

    if not os.path.isfile(path) or os.path.getsize(path) <= LARGE:
        return None
    from llmbol_core.nn.checkpoint import load_for_inference

    loaded = load_for_inference(model)
    macs = loaded.model.network.macs(loaded.input_shape)
    return pieces_of(Path(path), loaded.input_shape, macs)


def _submit_pieces(sending: Sending, task: Task, pieces: Any, output: str | None) -> None:
    """Submit a task in pieces and deliver their results as they come, or print the id."""
    from llmbol_core.distributed.splitting import inference_tasks, stream

    tasks = inference_tasks(task, pieces)
    with connected() as client, render.progress("working") as progress:
        if sending.wait:
            results = stream(client, tasks, pieces.count, progress)
            deliver_parts(results, output, sending.as_json)
            return
        for number, piece in enumerate(tasks, 1):
            client.submit([piece])
            progress(number, pieces.count, "pieces sent")
    sending.show(task.id)
