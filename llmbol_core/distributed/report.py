"""The status of a cluster, and the configuration that it was started with."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbol_core.distributed.ledger import Entry
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.processes import LOOPBACK
from llmbol_core.distributed.state import write_private
from llmbol_core.distributed.strategies import DEFAULT, check_strategy
from llmbol_core.errors import ClusterError, UsageError
from llmbol_core.native.files import read_bytes

KEEP_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Config:
    """What a cluster is made of and how it places and retries tasks."""

    nodes: tuple[ComputeNode, ...]
    strategy: str = DEFAULT
    max_retries: int = 3
    cordoned: tuple[str, ...] = ()
    """Names of nodes that get no tasks."""
    listen: str = ""
    """Where the broker listens, HOST or HOST:PORT; empty for the loopback."""
    keep: float = KEEP_SECONDS
    """Seconds that tasks are remembered after their end."""

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        if self.max_retries < 0:
            raise UsageError(f"{self.max_retries} retries: expected 0 or more")
        names = [node.name for node in self.nodes]
        if len(set(names)) < len(names):
            raise UsageError(f"two nodes with one name: {', '.join(names)}")
        place(self.listen)

    def write(self, path: Path) -> None:
        """Write the configuration to a file."""
        fields = {
            "nodes": [node.to_json() for node in self.nodes],
            "strategy": self.strategy,
            "max_retries": self.max_retries,
            "cordoned": list(self.cordoned),
            "listen": self.listen,
            "keep": self.keep,
        }
        write_private(path, json.dumps(fields, indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> Config:
        """Return what ``write`` wrote."""
        try:
            fields = json.loads(read_bytes(path))
            nodes = tuple(ComputeNode.from_json(node) for node in fields["nodes"])
            cordoned = tuple(map(str, fields.get("cordoned", ())))
            policy = fields["strategy"], fields["max_retries"]
            keep = float(fields.get("keep", KEEP_SECONDS))
            return cls(nodes, *policy, cordoned, str(fields.get("listen", "")), keep)
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{path}: no configuration of a cluster: {error}") from error


def place(text: str) -> tuple[str, int]:
    """Return the numeric address and the port, 0 for any, that ``HOST:PORT`` stands for.

    >>> place("127.0.0.1:8000"), place("")
    (('127.0.0.1', 8000), ('127.0.0.1', 0))
    """
    if not text:
        return LOOPBACK, 0
    host, colon, port = text.partition(":")
    good = port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65535
    if not host or (colon and not good):
        raise UsageError(f"{text!r} is no address: expected HOST or HOST:PORT, as in 10.0.0.5:7070")
    try:
        address = socket.gethostbyname(host)
    except (OSError, UnicodeError):
        raise UsageError(f"{text!r}: no machine is named {host!r}") from None
    if address == "0.0.0.0":
        raise UsageError(f"{text!r} is no one place: give the address that others reach this by")
    return address, int(port or 0)


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The status of a node."""

    name: str
    state: str
    """up, cordoned (up, but gets no tasks), hung (does not answer) or starting (not there yet)."""
    capabilities: tuple[str, ...]
    running: int
    done: int
    failed: int
    cpu: float
    """Percent of one core."""
    memory_mb: float
    """Resident memory in units of 10**6 bytes."""
    models: int
    """How many models the node has loaded."""
    heartbeat: float
    """Seconds since the node was last heard of."""
    pid: int | None

    @property
    def serves(self) -> bool:
        """Whether its process answers."""
        return self.state in ("up", "cordoned")

    @classmethod
    def starting(cls, node: ComputeNode) -> NodeStatus:
        """Return the status of a node that does not serve yet."""
        return cls(node.name, "starting", node.capabilities, 0, 0, 0, 0, 0, 0, 0, None)


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """The status of a cluster."""

    address: str
    directory: str
    uptime: float
    """Seconds since the broker started."""
    strategy: str
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    retries: int
    throughput: float
    """Tasks per second that ended, over the last ten seconds."""
    overhead: float
    """Percent of the time in which nodes had tasks that was not the tasks' own."""
    nodes: tuple[NodeStatus, ...]

    @property
    def nodes_up(self) -> int:
        """How many nodes serve."""
        return sum(node.serves for node in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Return it in a form for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ClusterStatus:
        """Return the status that ``to_json`` described."""
        nodes = tuple(
            NodeStatus(**{**node, "capabilities": tuple(node["capabilities"])})
            for node in fields["nodes"]
        )
        return cls(**{**fields, "nodes": nodes})


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was removed because it was old."""

    tasks: int
    files: int
    """Programs, models and inputs that no task uses any more."""
    file_mb: float
    """What these had, in units of 10**6 bytes."""


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The state of a task, in a line."""

    id: str
    type: str
    state: str
    node: str | None
    priority: int
    attempts: int
    """Attempts that failed."""
    interruptions: int
    """Attempts that went away with their node or broker."""
    waited: float | None
    """Seconds in the queue before the last attempt."""
    seconds: float | None
    """Seconds that the last attempt took."""
    error: str | None
    """Its first line."""

    @classmethod
    def of(cls, entry: Entry) -> TaskStatus:
        """Return the line for an entry of the ledger."""
        start, end = entry.started, entry.finished
        return cls(
            entry.id, entry.type, entry.state, entry.node, entry.priority, entry.attempts,
            entry.interruptions,
            None if start is None else round(start - entry.submitted, 3),
            None if start is None or end is None else round(end - start, 3),
            entry.error and entry.error.partition("\n")[0],
        )  # fmt: skip
