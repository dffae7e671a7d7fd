"""``cluster nodes``: the nodes of the cluster, and what can be done to one of them."""

from __future__ import annotations

from typing import Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, Timeout, connected, words

app = render.app("List, add, cordon, drain and remove nodes.")
app.info.no_args_is_help = False

Name = Annotated[str, typer.Argument(metavar="NAME", help="The node's name.")]


@app.callback(invoke_without_command=True)
def nodes(context: typer.Context, as_json: AsJson = False) -> None:
    """List, add, cordon, drain and remove nodes."""
    if context.invoked_subcommand is None:
        list_nodes(as_json)


@app.command("list")
def list_nodes(as_json: AsJson = False) -> None:
    """List the nodes with their state, load and memory.

    Example: cluster nodes list
    """
    with connected() as client:
        render.show(list(client.status().nodes), as_json)


@app.command()
def add(
    name: Name,
    capabilities: Annotated[str, typer.Option(help="What it offers.")] = "inference,training",
    threads: Annotated[int, typer.Option(min=1, help="Threads that a task may use there.")] = 1,
    port: Annotated[int, typer.Option(help="Where it listens; 0 lets the system choose.")] = 0,
) -> None:
    """Start one more node on the cluster's machine.

    Example: cluster nodes add extra --capabilities training
    """
    from llmbol_core.distributed.node import ComputeNode

    node = ComputeNode(name, "localhost", port, tuple(words(capabilities)), threads)
    with connected() as client:
        client.add_node(node)


@app.command()
def remove(
    name: Name,
    now: Annotated[
        bool, typer.Option("--now", help="Give its tasks to others instead of waiting.")
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Drain a node and stop it for good.

    Example: cluster nodes remove extra
    """
    with connected() as client, render.progress("draining") as progress:
        if not now:
            client.drain(name, timeout, progress)
        client.remove_node(name)


@app.command()
def drain(name: Name, timeout: Timeout = None) -> None:
    """Give a node no more tasks and wait until it has none left.

    Example: cluster nodes drain node-1
    """
    with connected() as client, render.progress("draining") as progress:
        client.drain(name, timeout, progress)


@app.command()
def cordon(name: Name) -> None:
    """Give a node no more tasks; those that it has continue.

    Example: cluster nodes cordon node-1
    """
    with connected() as client:
        client.cordon(name)


@app.command()
def uncordon(name: Name) -> None:
    """Give a node tasks again.

    Example: cluster nodes uncordon node-1
    """
    with connected() as client:
        client.cordon(name, False)
