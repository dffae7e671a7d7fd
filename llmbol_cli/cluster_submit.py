"""``cluster submit``: tasks for the cluster, and what becomes of them."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, connected, size

app = render.app("Send a task to the cluster.")

Inputs = Annotated[
    list[str], typer.Option("--input", "-i", metavar="FILE", help="A file for it; repeatable.")
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the result there; - is stdout."),
]
Priority = Annotated[int, typer.Option(help="Higher ones run first.")]
Memory = Annotated[str, typer.Option(metavar="SIZE", help="Memory that the program may use.")]
Retries = Annotated[
    int | None,
    typer.Option(min=0, help="Attempts after the first one; the cluster's if not given."),
]
Timeout = Annotated[float | None, typer.Option(help="Seconds that an attempt may take.")]
Capability = Annotated[str | None, typer.Option(help="What the node must offer.")]
Strategy = Annotated[
    str | None,
    typer.Option(help="round-robin, least-loaded, random or capability-based."),
]
TaskId = Annotated[
    str | None,
    typer.Option("--id", help="The task's id; one that is there already is not run again."),
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Print the result, or only the id.")]


@app.command()
def run(
    program: Annotated[str, typer.Argument(metavar="FILE", help="A .dis file.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(help="Words for the program, before its files.")
    ] = None,
    inputs: Inputs = [],  # noqa: B006 -- typer reads it, nobody changes it
    output: Output = None,
    priority: Priority = 0,
    retries: Retries = None,
    timeout: Timeout = None,
    max_memory: Memory = "64M",
    capability: Capability = None,
    strategy: Strategy = None,
    id: TaskId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Run a .dis program in a sandbox on a node and print what it prints.

    Example: cluster submit run digits.dis --input digits.npy --id first
    """
    payload = {
        "program": program,
        "arguments": arguments or [],
        "inputs": inputs,
        "max_memory": size(max_memory),
    }
    options = _options(priority, retries, timeout, capability, strategy)
    check_output(output, as_json, program, *inputs)
    _submit(_task("run", id, payload, options), wait, output, as_json)


@app.command()
def infer(
    model: Annotated[str, typer.Argument(metavar="FILE", help="A .gguf checkpoint.")],
    inputs: Annotated[
        str, typer.Option("--input", "-i", metavar="FILE", help="Samples: .npy, .npz or .csv.")
    ],
    output: Output = None,
    priority: Priority = 0,
    retries: Retries = None,
    timeout: Timeout = None,
    capability: Capability = None,
    strategy: Strategy = None,
    id: TaskId = None,
    wait: Wait = True,
    as_json: AsJson = False,
) -> None:
    """Run a model on a node and print its outputs, or write them as .npy.

    Example: cluster submit infer digits.gguf --input digits.npy
    """
    payload = {"model": model, "input": inputs}
    options = _options(priority, retries, timeout, capability, strategy)
    check_output(output, as_json, model, inputs)
    _submit(_task("inference", id, payload, options), wait, output, as_json)


def _options(
    priority: int,
    retries: int | None,
    timeout: float | None,
    capability: str | None,
    strategy: str | None,
) -> dict[str, Any]:
    """Gather the options that every kind of task has."""
    return {
        "priority": priority,
        "max_retries": retries,
        "timeout": timeout,
        "capability": capability,
        "strategy": strategy,
    }


def _task(type: str, id: str | None, payload: dict[str, Any], options: dict[str, Any]) -> Any:
    """Return a task; one for which no id was chosen gets a new one."""
    from llmbol_core.distributed.task import create_task, new_id

    return create_task(new_id(type) if id is None else id, type, payload, **options)


def check_output(output: str | None, as_json: bool, *sources: str) -> None:
    """Refuse, before anything is submitted, an output that could not be written in the end."""
    from llmbol_core.native.files import check_target

    if output == "-" and as_json:
        raise typer.BadParameter("--json and --output - both write to standard output")
    if output not in (None, "-"):
        check_target(str(output), *filter(os.path.exists, sources))


def _submit(task: Any, wait: bool, output: str | None, as_json: bool) -> None:
    """Submit a task; wait for its result and deliver it, or print the id."""
    with connected() as client:
        client.submit([task])
        if not wait:
            render.show({"id": task.id} if as_json else task.id, as_json)
            return
        with render.progress("waiting") as progress:
            client.wait([task.id], progress=progress)
        deliver(client.result(task.id), output, as_json)


def deliver(result: Any, output: str | None, as_json: bool) -> None:
    """Print or write a result; what a failed task left is shown before the failure."""
    from llmbol_core.distributed.client import describe
    from llmbol_core.native.files import atomic_write

    if as_json:
        render.show(describe(result), as_json)
    elif output is None:
        render.write_bytes(result.text)
    result.check()
    if output == "-":
        render.write_bytes(result.data)
    elif output is not None:
        with atomic_write(output) as file:
            file.write(result.data)
