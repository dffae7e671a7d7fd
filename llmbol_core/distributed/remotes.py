"""Nodes on other machines, as the broker sees them: an agent that calls in, and its process.

The broker cannot start or kill processes elsewhere. Instead it gives orders, for which the agent
there waits; an agent that is silent for too long counts as gone.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from llmbol_core.distributed.node import MOST_NODES, ComputeNode
from llmbol_core.errors import UsageError

if TYPE_CHECKING:
    from llmbol_core.distributed.broker import Broker

SILENT_SECONDS = 20.0
"""Seconds of silence after which an agent counts as gone."""


class Order(StrEnum):
    """What an agent is to do."""

    STAY = "stay"
    """Go on, and ask again."""
    REPLACE = "replace"
    """Kill the node's process and start another."""
    JOIN = "join"
    """Rejoin: the broker does not know the node."""
    LEAVE = "leave"
    """End: the cluster stops, or no longer uses the node."""


class RemoteNode:
    """A node that an agent runs on another machine; it is used like one that runs here."""

    def __init__(self, node: ComputeNode, agent: str, invitation: str | None) -> None:
        self.node, self.agent, self.invitation = node, agent, invitation
        self.heard = time.monotonic()
        self._order = Order.STAY
        self._given = asyncio.Event()

    pid = None
    """There is no process of it here."""

    def start(self) -> None:
        """Do nothing: the agent starts the process."""

    def meet(self, meeting: str) -> None:
        """Do nothing: the agent was told when it joined."""

    def is_due(self) -> bool:
        """Return False: the agent restarts its process itself."""
        return False

    def terminate(self) -> None:
        """Order the agent to end."""
        self._give(Order.LEAVE)

    def kill(self) -> None:
        """Order the agent to replace the process."""
        self._give(Order.REPLACE)

    def join(self) -> None:
        """Do nothing: nobody waits for other machines."""

    async def order(self, seconds: float) -> Order:
        """Return the next order; after some seconds, the order to stay."""
        self.heard = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._given.wait()
        self.heard = time.monotonic()
        order, self._order = self._order, Order.STAY
        self._given.clear()
        return order

    def _give(self, order: Order) -> None:
        if self._order is not Order.LEAVE:
            self._order = order
        self._given.set()


class Remotes:
    """The nodes of a broker's cluster that run elsewhere."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._nodes: dict[str, RemoteNode] = {}

    async def join(self, node: ComputeNode, agent: str, invitation: str | None) -> dict[str, str]:
        """Take a node; answer with its name here and whom its process is to meet."""
        broker = self._broker
        # The door opens a moment before there is a scheduler to connect to.
        await broker.engine.ready.wait()
        name = self._name(node.name, agent)
        known = self._nodes.get(name)
        if known is None:
            if len(broker.fleet.names()) >= MOST_NODES:
                raise UsageError(f"there are {MOST_NODES} nodes already: as many as can be")
            known = RemoteNode(replace(node, name=name), agent, invitation)
            self._nodes[name] = known
            broker.engine.adopt(known)
            broker.note(name, "joined")
        known.heard = time.monotonic()
        return {"name": name, "meeting": broker.engine.meeting}

    async def attend(self, name: str, agent: str, seconds: float) -> Order:
        """Return the next order for an agent."""
        known = self._nodes.get(name)
        if known is None or known.agent != agent:
            return Order.JOIN
        return await known.order(seconds)

    async def leave(self, name: str, agent: str) -> None:
        """Drop a node whose agent ends."""
        known = self._nodes.get(name)
        if known is not None and known.agent == agent:
            await self._drop(name, "left")

    def forget(self, name: str) -> None:
        """Note that a node was removed."""
        self._nodes.pop(name, None)

    async def sweep(self) -> None:
        """Drop nodes whose agents are silent, or may not stay."""
        now = time.monotonic()
        for name, known in list(self._nodes.items()):
            refusal = self._broker.refusal(known.invitation)
            if refusal is not None:
                known.terminate()
                await self._drop(name, refusal)
            elif now - known.heard > SILENT_SECONDS:
                await self._drop(name, "its agent is silent")

    async def _drop(self, name: str, why: str) -> None:
        self.forget(name)
        await self._broker.engine.remove_node(name)
        self._broker.lose(name, why)

    def _name(self, wanted: str, agent: str) -> str:
        """Return a name that no other agent's node has."""
        taken, name, number = self._broker.fleet.names(), wanted, 1
        while name in taken:
            known = self._nodes.get(name)
            if known is not None and known.agent == agent:
                break
            number += 1
            name = f"{wanted[:58]}-{number}"
        return name
