"""The ``cluster`` command: compute nodes on this machine, and tasks for them."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, duration, size

app = render.app("Run programs and models on compute nodes.")
submit = render.app("Send a task to the cluster.")
app.add_typer(submit, name="submit")

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
Task = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]


@app.command()
def start(
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes.")] = 2,
    capabilities: Annotated[
        str, typer.Option(help="What each of them offers.")
    ] = "inference,training",
    strategy: Strategy = None,
    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first one.")] = 3,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay until stopped.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a cluster that lives on when this command and its shell end.

    Example: cluster start --nodes 2
    """
    from llmbol_core.distributed import control
    from llmbol_core.distributed.node import local_nodes
    from llmbol_core.distributed.report import Config
    from llmbol_core.distributed.state import StateDirectory
    from llmbol_core.distributed.strategies import DEFAULT

    words = [word.strip() for word in capabilities.split(",") if word.strip()]
    config = Config(tuple(local_nodes(nodes, words)), strategy or DEFAULT, retries)
    state = StateDirectory.default()
    if foreground:
        control.run(state, config)
        return
    with render.progress("starting") as progress:
        status = control.start(state, config, progress)
    render.show(status, as_json)


@app.command()
def stop() -> None:
    """Stop the cluster; tasks that have not ended go on when it is started again.

    Example: cluster stop
    """
    from llmbol_core.distributed import control
    from llmbol_core.distributed.state import StateDirectory

    control.stop(StateDirectory.default())


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the nodes and how many tasks there are.

    Example: cluster status
    """
    with _client() as client:
        render.show(client.status(), as_json)


@app.command()
def tasks(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest tasks, the last one first.

    Example: cluster tasks --limit 5
    """
    from llmbol_core.distributed.report import TaskStatus

    with _client() as client:
        render.show([TaskStatus.of(entry) for entry in client.tasks(limit)], as_json)


@app.command()
def result(id: Task, output: Output = None, as_json: AsJson = False) -> None:
    """Print the result of a task that has ended.

    Example: cluster result first
    """
    _check_output(output, as_json)
    with _client() as client:
        _deliver(client.result(id), output, as_json)


@app.command()
def wait(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of tasks.")],
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds to wait.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until tasks have ended and show how; exit 1 if one of them left no result.

    Example: cluster wait first
    """
    from llmbol_core.distributed.report import TaskStatus

    with _client() as client, render.progress("waiting") as progress:
        ended = [TaskStatus.of(entry) for entry in client.wait(ids, timeout, progress)]
    render.show(ended, as_json)
    raise typer.Exit(any(task.state != "done" for task in ended))


@app.command()
def cancel(id: Task, as_json: AsJson = False) -> None:
    """Cancel a task; if it runs, its node is freed at once.

    Example: cluster cancel first
    """
    from llmbol_core.distributed.report import TaskStatus

    with _client() as client:
        client.cancel([id])
        render.show(TaskStatus.of(client.result(id).entry), as_json)


@app.command()
def logs(
    processes: Annotated[
        list[str] | None, typer.Argument(help="guardian, broker or nodes; all if none is named.")
    ] = None,
    lines: Annotated[int, typer.Option("-n", min=0, max=10_000, help="Lines of each.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what is added.")] = False,
) -> None:
    """Print the last lines of the logs of the cluster's processes.

    Example: cluster logs broker -n 5
    """
    from llmbol_core.distributed.logs import read_logs
    from llmbol_core.distributed.state import StateDirectory

    for line in read_logs(StateDirectory.default(), processes or [], lines, follow=follow):
        # Written at once: whoever follows wants to see it now.
        render.write_bytes(f"{line.process}: {line.text}\n".encode())


@app.command()
def prune(
    older_than: Annotated[
        str, typer.Option(metavar="TIME", help="How long ago, such as 7d or 12h.")
    ] = "7d",
    as_json: AsJson = False,
) -> None:
    """Forget tasks that ended some time ago, with their results and the files nobody else uses.

    Example: cluster prune --older-than 7d
    """
    seconds = duration(older_than)
    with _client() as client:
        render.show(client.prune(seconds), as_json)


@submit.command()
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
    _check_output(output, as_json, program, *inputs)
    _submit(_task("run", id, payload, options), wait, output, as_json)


@submit.command()
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
    _check_output(output, as_json, model, inputs)
    _submit(_task("inference", id, payload, options), wait, output, as_json)


def _client() -> Any:
    """Return a connection to the cluster of this user."""
    from llmbol_core.distributed.client import Client
    from llmbol_core.distributed.state import StateDirectory

    return Client(StateDirectory.default())


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


def _check_output(output: str | None, as_json: bool, *sources: str) -> None:
    """Refuse, before anything is submitted, an output that could not be written in the end."""
    from llmbol_core.native.files import check_target

    if output == "-" and as_json:
        raise typer.BadParameter("--json and --output - both write to standard output")
    if output not in (None, "-"):
        check_target(str(output), *filter(os.path.exists, sources))


def _submit(task: Any, wait: bool, output: str | None, as_json: bool) -> None:
    """Submit a task; wait for its result and deliver it, or print the id."""
    with _client() as client:
        client.submit([task])
        if not wait:
            render.show({"id": task.id} if as_json else task.id, as_json)
            return
        with render.progress("waiting") as progress:
            client.wait([task.id], progress=progress)
        _deliver(client.result(task.id), output, as_json)


def _deliver(result: Any, output: str | None, as_json: bool) -> None:
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


def main() -> None:
    """Be the ``cluster`` command."""
    render.run(app)
