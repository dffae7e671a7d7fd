"""Commands that let others in: invitations, and what those who got one do with it."""

from __future__ import annotations

from typing import Annotated

import typer

from llmbol_cli import render
from llmbol_cli.options import AsJson, duration, output_option, words

app = render.app("Invite nodes and clients, and join.")

Capabilities = Annotated[str, typer.Option(help="What each node offers.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads that a task may use there.")]
Join = Annotated[str, typer.Option("--join", metavar="FILE", help="The invitation.")]


@app.command()
def invite(
    role: Annotated[str, typer.Option(help="node or client.")] = "node",
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="How long it is valid, such as 1h or 7d.")
    ] = "1h",
    output: Annotated[str | None, output_option("Else ID.json here.")] = None,
) -> None:
    """Write an invitation that lets a node or a client on another machine in.

    Example: cluster invite --role node --expires 1h -o node.json
    """
    from llmbol_core.distributed.invitations import Invitations
    from llmbol_core.distributed.state import StateDirectory, write_private
    from llmbol_core.native.files import check_target

    state = StateDirectory.default()
    seconds = duration(expires)
    address = state.running().address
    if output is not None:
        check_target(output)
    bundle = Invitations(state).invite(role, seconds, address)
    path = output or f"{bundle.id}.json"
    write_private(path, bundle.text().encode())
    render.show(path)
    if address.startswith("127."):
        render.note("note: this cluster is reached from this machine only: start it with --listen")


@app.command()
def invitations(as_json: AsJson = False) -> None:
    """List the invitations and their states.

    Example: cluster invitations
    """
    from llmbol_core.distributed.invitations import Invitations
    from llmbol_core.distributed.state import StateDirectory

    render.show(Invitations(StateDirectory.default()).all(), as_json)


@app.command()
def revoke(
    id: Annotated[str, typer.Argument(metavar="ID", help="The invitation's id.")],
) -> None:
    """Revoke an invitation: its holders are out within a second.

    Example: cluster revoke node-1a2b3c4d
    """
    from llmbol_core.distributed.invitations import Invitations
    from llmbol_core.distributed.state import StateDirectory

    Invitations(StateDirectory.default()).revoke(id)


@app.command()
def node(
    join: Join,
    name: Annotated[str | None, typer.Option(help="Its name; this machine's if not given.")] = None,
    capabilities: Capabilities = "inference,training",
    threads: Threads = 1,
    port: Annotated[int, typer.Option(help="Where it listens; 0 lets the system choose.")] = 0,
    patience: Annotated[
        str, typer.Option(metavar="TIME", help="How long to try without an answer.")
    ] = "10m",
) -> None:
    """Be a node of the cluster that issued an invitation, until it stops or a signal comes.

    Example: cluster node --join node.json
    """
    from llmbol_core.distributed import agent
    from llmbol_core.distributed.node import ComputeNode

    own = agent.default_name() if name is None else name
    described = ComputeNode(own, "localhost", port, tuple(words(capabilities)), threads)
    agent.join(join, described, render.note, duration(patience))


@app.command()
def connect(
    invitation: Annotated[
        str | None, typer.Argument(metavar="FILE", help="An invitation for a client.")
    ] = None,
    forget: Annotated[bool, typer.Option("--forget", help="Use a local cluster again.")] = False,
) -> None:
    """Make the commands here use a cluster on another machine.

    Example: cluster connect client.json
    """
    from llmbol_core.distributed import agent
    from llmbol_core.distributed.state import StateDirectory

    state = StateDirectory.default()
    if (invitation is None) is not forget:
        raise typer.BadParameter("expected either a file or --forget")
    if invitation is None:
        state.forget_remote()
    else:
        render.show(agent.connect(invitation, state).address)


@app.command("render")
def render_files(
    system: Annotated[
        str, typer.Argument(metavar="SYSTEM", help="slurm, kubernetes, systemd or ssh.")
    ],
    join: Join,
    nodes: Annotated[int, typer.Option(min=1, help="How many nodes, on each machine.")] = 1,
    capabilities: Capabilities = "inference,training",
    threads: Threads = 1,
    hosts: Annotated[
        str, typer.Option(metavar="NAMES", help="The machines, for ssh: one,two.")
    ] = "",
    image: Annotated[str, typer.Option(help="The image, for Kubernetes.")] = "llmbol:latest",
) -> None:
    """Print files with which another system starts nodes.

    Example: cluster render slurm --join node.json --nodes 8
    """
    from llmbol_core.distributed.invitations import Bundle
    from llmbol_core.distributed.rendering import Plan
    from llmbol_core.distributed.rendering import render as rendered

    bundle = Bundle.read(join)
    names, offered = tuple(words(hosts)), tuple(words(capabilities))
    render.show(rendered(system, Plan(join, bundle, nodes, offered, threads, names, image)))
