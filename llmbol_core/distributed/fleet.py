"""The fleet: the nodes of a cluster, as its owner adds, cordons and removes them.

A cordoned node gets no more tasks but finishes those it has; a drained one has none left either,
and can be removed without anybody noticing.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from llmbol_core.distributed.actions import NodeRecord
from llmbol_core.distributed.node import MOST_NODES, ComputeNode, check_port
from llmbol_core.distributed.report import NodeStatus
from llmbol_core.errors import UsageError, nearest

if TYPE_CHECKING:
    from llmbol_core.distributed.broker import Broker
    from llmbol_core.distributed.engine import Vitals

LOOK_SECONDS = 0.02


class Fleet:
    """What can be done to the nodes of a broker's cluster."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def names(self) -> list[str]:
        """Return the names of the nodes that should be up."""
        return [node.name for node in self._broker.engine.configured()]

    def capabilities(self) -> set[str]:
        """Return what the nodes offer."""
        return {c for node in self._broker.engine.configured() for c in node.capabilities}

    def add(self, node: ComputeNode) -> None:
        """Start one more node on this machine, and again whenever the broker starts."""
        broker = self._broker
        check_port(node)
        if node.name in self.names():
            raise UsageError(f"a node named {node.name!r} is there already")
        if len(self.names()) >= MOST_NODES:
            raise UsageError(f"there are {MOST_NODES} nodes already, which is as many as can be")
        broker.reconfigure(replace(broker.config, nodes=(*broker.config.nodes, node)))
        broker.engine.add_node(node)
        broker.note(node.name, "added")
        broker.publish()

    async def remove(self, name: str) -> None:
        """Stop a node for good; its tasks go back to the queue."""
        broker = self._broker
        self._check(name)
        nodes = tuple(node for node in broker.config.nodes if node.name != name)
        cordoned = tuple(other for other in broker.config.cordoned if other != name)
        broker.reconfigure(replace(broker.config, nodes=nodes, cordoned=cordoned))
        broker.remotes.forget(name)
        await broker.engine.remove_node(name)
        broker.lose(name, "removed")
        broker.publish()

    def cordon(self, name: str, cordoned: bool) -> None:
        """Set whether a node gets no more tasks, until told otherwise."""
        broker = self._broker
        self._check(name)
        others = tuple(other for other in broker.config.cordoned if other != name)
        broker.reconfigure(replace(broker.config, cordoned=(*others, name) if cordoned else others))
        node = broker.dispatcher.nodes.get(name)
        if node is not None and node.cordoned != cordoned:
            node.cordoned = cordoned
            broker.note(name, "cordoned" if cordoned else "takes tasks again")
        broker.advance()

    async def idle(self, name: str | None, seconds: float) -> int:
        """Return how many tasks a node, or all, still has when it has none or time is up."""
        if name is not None:
            self._check(name)
        deadline = time.monotonic() + seconds
        while (running := self._running(name)) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_SECONDS)
        return running

    def status(self) -> tuple[NodeStatus, ...]:
        """Return the status of the nodes."""
        vitals = self._broker.engine.vitals()
        known = self._broker.dispatcher.nodes
        cordoned = self._broker.config.cordoned
        return tuple(
            _status(node, known.get(node.name), vitals.get(node.name), node.name in cordoned)
            for node in self._broker.engine.configured()
        )

    def _running(self, name: str | None) -> int:
        nodes = self._broker.dispatcher.nodes
        chosen = nodes.values() if name is None else filter(None, [nodes.get(name)])
        return sum(node.running for node in chosen)

    def _check(self, name: str) -> None:
        if name not in (names := self.names()):
            hint = nearest(name, names) or f": expected one of {', '.join(names) or 'none'}"
            raise UsageError(f"no node is named {name[:80]!r}{hint}")


def _status(
    node: ComputeNode, known: NodeRecord | None, vital: Vitals | None, cordoned: bool
) -> NodeStatus:
    if known is None or vital is None or known.leaving:
        return NodeStatus.starting(node)
    state = "cordoned" if cordoned else "up"
    return NodeStatus(
        node.name, state if known.usable else "hung", node.capabilities, known.running,
        known.done, known.failed, vital.cpu, round(vital.memory / 1e6, 1), len(vital.cached),
        round(vital.age, 2), vital.pid,
    )  # fmt: skip
