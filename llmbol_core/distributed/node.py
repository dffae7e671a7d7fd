"""Compute nodes: what a cluster runs tasks on, as the user describes them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmbol_core.errors import UsageError
from llmbol_core.native.threads import MOST_THREADS

DEFAULT_CAPABILITIES = ("inference", "training")
MOST_NODES = 256
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """One compute node: a process of its own that runs one task at a time.

    ``port`` is where the node listens on ``host``; 0 lets the system choose one.
    """

    name: str
    host: str = "localhost"
    port: int = 0
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    threads: int = 1
    """How many threads a task may use there."""

    def __post_init__(self) -> None:
        words: tuple[object, ...] = (self.name, *self.capabilities)
        for word in words:
            if not isinstance(word, str) or not NAME.fullmatch(word):
                raise UsageError(
                    f"node {self.name!r}: {word!r} is no name: "
                    "expected letters, digits, '.', '_' and '-', at most 63"
                )
        if not self.capabilities:
            raise UsageError(
                f"node {self.name!r}: no capability: expected words such as inference,training"
            )
        port: object = self.port
        if not isinstance(port, int) or not 0 <= port <= 65535:
            raise UsageError(
                f"node {self.name!r}: port {port!r} is no whole number between 0 and 65535"
            )
        threads: object = self.threads
        if not isinstance(threads, int) or not 1 <= threads <= MOST_THREADS:
            raise UsageError(
                f"node {self.name!r}: {threads!r} threads: expected 1 to {MOST_THREADS}"
            )
        if not isinstance(self.host, str):
            raise UsageError(f"node {self.name!r}: host {self.host!r} is no name of a machine")

    @property
    def address(self) -> str:
        """The numeric address that this node listens on.

        Raises UsageError unless the host is this machine's loopback.
        """
        try:
            address = socket.gethostbyname(self.host)
        except OSError:
            address = ""
        if not address.startswith("127."):
            raise UsageError(
                f"node {self.name!r}: host {self.host!r} is not this machine's loopback; "
                "nodes are started on 'localhost'"
            )
        return address

    def to_json(self) -> dict[str, Any]:
        """Return the node in a form for JSON."""
        return {**asdict(self), "capabilities": list(self.capabilities)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ComputeNode:
        """Return the node that ``to_json`` described."""
        return cls(**{**fields, "capabilities": tuple(fields["capabilities"])})


def create_compute_node(
    name: str, host: str = "localhost", port: int = 0, capabilities: Sequence[str] = ()
) -> ComputeNode:
    """Describe a compute node; it starts when a scheduler that it is registered with needs it.

    Port 0 is any free one. Capabilities are words that tasks may ask for, by default inference and
    training. Raises UsageError.

    >>> create_compute_node("node1", "localhost", 8080, ["inference"]).capabilities
    ('inference',)
    """
    if isinstance(capabilities, str) or not isinstance(capabilities, Iterable):
        raise UsageError(
            f"node {name!r}: capabilities {capabilities!r}: expected a list, such as ['inference']"
        )
    return ComputeNode(name, host, port, tuple(capabilities) or DEFAULT_CAPABILITIES)


def local_nodes(
    count: int, capabilities: Iterable[str] = DEFAULT_CAPABILITIES, threads: int = 1
) -> list[ComputeNode]:
    """Return ``count`` nodes on this machine, named node-1, node-2 and so on.

    >>> [node.name for node in local_nodes(2)]
    ['node-1', 'node-2']
    """
    if not 1 <= count <= MOST_NODES:
        raise UsageError(f"{count} nodes: expected between 1 and {MOST_NODES}")
    words = tuple(dict.fromkeys(capabilities))
    if not words:
        raise UsageError("nodes without a capability: expected words such as inference,training")
    return [
        ComputeNode(f"node-{i}", capabilities=words, threads=threads) for i in range(1, count + 1)
    ]


def check_port(node: ComputeNode) -> None:
    """Raise UsageError if the node's port on this machine is taken by another program."""
    if not node.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((node.address, node.port))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise UsageError(
                f"node {node.name!r}: port {node.port} on {node.host}: {why}; "
                "choose another one, or 0 for any"
            ) from error
