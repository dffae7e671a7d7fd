"""The ``cluster`` command: compute nodes on this machine, and tasks for them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from llmbol_cli import cluster_access, cluster_nodes, cluster_submit, render
from llmbol_cli.cluster_output import (
    check_output,
    deliver,
    deliver_parts,
    deliver_run,
)
from llmbol_cli.cluster_submit import Output, Strategy
from llmbol_cli.options import AsJson, Timeout, connected, duration, finite, words

app = render.app("Run programs and models on compute nodes.")
app.add_typer(cluster_access.app)
app.add_typer(cluster_nodes.app, name="nodes")
app.add_typer(cluster_submit.app, name="submit")

Task = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]


@app.command()
def start(
    nodes: Annotated[
        int, typer.Option(min=0, help="How many nodes on this machine; others may join.")
    ] = 2,
    capabilities: Annotated[
        str, typer.Option(help="What each node offers.")
    ] = "inference,training",
    strategy: Strategy = None,
    retries: Annotated[int, typer.Option(min=0, help="Attempts after the first one.")] = 3,
    threads: Annotated[int, typer.Option(min=1, help="Threads that a task may use.")] = 1,
    listen: Annotated[
        str,
        typer.Option(metavar="HOST[:PORT]", help="Let other machines connect to this address."),
    ] = "",
    keep: Annotated[
        str, typer.Option(metavar="TIME", help="How long tasks are remembered after their end.")
    ] = "30d",
    foreground: Annotated[
        bool, typer.Option("--foreground/--detach", help="Run until stopped, or in the background.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start a cluster that keeps running when this command and its shell end.

    Example: cluster start --nodes 2
    """
    from llmbol_core.distributed import control
    from llmbol_core.distributed.node import local_nodes
    from llmbol_core.distributed.report import Config
    from llmbol_core.distributed.state import StateDirectory
    from llmbol_core.distributed.strategies import DEFAULT

    local = local_nodes(nodes, words(capabilities), threads) if nodes else []
    policy = DEFAULT if strategy is None else strategy, retries
    config = Config(tuple(local), *policy, listen=listen, keep=duration(keep))
    state = StateDirectory.default()
    if foreground:
        control.run(state, config)
        return
    with render.progress("starting") as progress:
        status = control.start(state, config, progress)
    render.show(status, as_json)


@app.command()
def stop(
    drain: Annotated[
        bool, typer.Option("--drain", help="Start no more tasks, and let running ones end first.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", min=0, help="Seconds to drain at most.", callback=finite),
    ] = None,
) -> None:
    """Stop the cluster; unfinished tasks continue when it is started again.

    Example: cluster stop
    """
    from llmbol_core.distributed import control
    from llmbol_core.distributed.state import StateDirectory

    with render.progress("draining") as progress:
        control.stop(StateDirectory.default(), drain, timeout, progress)


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Update it each second.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the nodes and how many tasks there are.

    Example: cluster status
    """
    with connected() as client:
        if watch:
            render.watch(client.status, as_json)
        else:
            render.show(client.status(), as_json)


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(help="The port on this machine; 0: any free one.")] = 0,
) -> None:
    """Serve a page about the cluster, and Prometheus metrics, until interrupted.

    Example: cluster dashboard --port 8787
    """
    from llmbol_core.distributed.dashboard import Dashboard

    with connected() as client, render.interruptible():
        client.status()
        page = Dashboard(client, port)
        render.show(page.url)
        page.serve()


@app.command()
def tasks(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the latest tasks, the last one first.

    Example: cluster tasks --limit 5
    """
    from llmbol_core.distributed.report import TaskStatus

    with connected() as client:
        render.show([TaskStatus.of(entry) for entry in client.tasks(limit)], as_json)


@app.command()
def result(id: Task, output: Output = None, as_json: AsJson = False) -> None:
    """Print the result of a task that has ended.

    Example: cluster result first
    """
    check_output(output, as_json)
    with connected() as client:
        ids = client.expand([id])
        first = client.result(ids[0])
        if first.entry.type == "train":
            deliver_run(first, as_json)
            if output is not None:
                render.write(client.fetch(first.value["checkpoint"]), output)
        elif ids == [id]:
            deliver(first, output, as_json)
        else:
            deliver_parts(client.results(ids), output, as_json)


@app.command()
def wait(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The ids of tasks.")],
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Wait until tasks have ended and show their states; exit 1 if one left no result.

    Example: cluster wait first
    """
    from llmbol_core.distributed.report import TaskStatus

    with connected() as client, render.progress("waiting") as progress:
        ended = [
            TaskStatus.of(entry) for entry in client.wait(client.expand(ids), timeout, progress)
        ]
    render.show(ended, as_json)
    raise typer.Exit(any(task.state != "done" for task in ended))


@app.command()
def cancel(id: Task, as_json: AsJson = False) -> None:
    """Cancel a task; if it is running, its node is free at once.

    Example: cluster cancel first
    """
    from llmbol_core.distributed.report import TaskStatus

    with connected() as client:
        ids = client.expand([id])
        client.cancel(ids)
        statuses = [TaskStatus.of(client.result(id).entry) for id in ids]
        render.show(statuses[0] if ids == [id] else statuses, as_json)


@app.command()
def logs(
    processes: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="guardian, broker or nodes; all if none is named."),
    ] = None,
    lines: Annotated[int, typer.Option("-n", min=0, max=10_000, help="Lines of each.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what is added.")] = False,
) -> None:
    """Print the last lines of the logs of the cluster's processes.

    Example: cluster logs broker -n 5
    """
    from llmbol_core.distributed.logs import read_logs
    from llmbol_core.distributed.state import StateDirectory

    with render.interruptible() if follow else nullcontext():
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
    """Forget tasks that ended some time ago, with their results and files that no other uses.

    Example: cluster prune --older-than 7d
    """
    seconds = duration(older_than)
    with connected() as client:
        render.show(client.prune(seconds), as_json)


def main() -> None:
    """Be the ``cluster`` command."""
    render.run(app)
