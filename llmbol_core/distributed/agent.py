"""The agent: joins a node on this machine to a cluster elsewhere, with an invitation.

It asks for a node's certificate once, keeps it and the files of tasks in a directory of its own
for each cluster, and starts the node's process whenever there is none, until the cluster
stops, orders something else, or has been silent for too long.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from llmbol_core.distributed.invitations import Bundle, locked
from llmbol_core.distributed.node import NAME, ComputeNode
from llmbol_core.distributed.processes import NodeProcess
from llmbol_core.distributed.remotes import Order
from llmbol_core.distributed.security import Certificates, Role
from llmbol_core.distributed.settings import environment
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.wire import Connection
from llmbol_core.errors import ClusterError, NoCluster

LOOK_SECONDS = 0.1
ATTEND_SECONDS = 5.0
AGAIN_SECONDS = 0.5
PATIENCE = 600.0
"""Seconds that an agent keeps trying while the broker does not answer."""


def default_name() -> str:
    """Return this machine's name, reduced to what may be the name of a node.

    >>> bool(default_name())
    True
    """
    name = socket.gethostname().partition(".")[0][:50]
    return name if NAME.fullmatch(name) else "node"


@dataclass(frozen=True, slots=True)
class _Joined:
    """What the broker answered."""

    name: str
    meeting: str
    address: str
    """The address under which the broker's machine reaches this one."""


class Agent:
    """Runs one node for the cluster that an invitation is from."""

    def __init__(
        self,
        bundle: Bundle,
        node: ComputeNode,
        state: StateDirectory,
        say: Callable[[str], None] = lambda text: None,
        patience: float = PATIENCE,
    ) -> None:
        """Use a part of a state directory for its files; ``say`` is told what happens."""
        self._bundle, self._node, self._say, self._patience = bundle, node, say, patience
        self._id = secrets.token_hex(8)
        self._home = StateDirectory(state.root / "joined" / bundle.cluster)
        self._certificates = Certificates(self._home.tls)
        self._stopping = threading.Event()
        self._orders: queue.SimpleQueue[Order | ClusterError] = queue.SimpleQueue()
        self._process: NodeProcess | None = None

    def run(self) -> None:
        """Serve until told to stop; raises ClusterError if the cluster does not let us in."""
        os.umask(0o077)
        self._home.prepare()
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda number, frame: self._stopping.set())
        self._enroll()
        try:
            while not self._stopping.is_set() and (joined := self._join()) is not None:
                if self._serve(joined) is Order.LEAVE:
                    if not self._stopping.is_set():
                        self._say("the cluster has no more use for this node")
                    return
        finally:
            self._end_process()

    def _enroll(self) -> None:
        """Get a node's certificate, unless this invitation got one before."""
        mark = self._home.tls / "invitation"
        with locked(self._home.root / "enroll.lock"):
            if mark.exists() and mark.read_text() == self._bundle.id:
                return
            self._bundle.install(self._certificates, Role.INVITED)
            if self._bundle.role != "node":
                raise ClusterError(f"this invitation is one for a {self._bundle.role}")
            connection = self._connect(Role.INVITED)
            try:
                own: dict[str, str] = connection.call("enroll", {})[0]
            finally:
                connection.close()
            pem, key = own["certificate"], own["key"]
            replace(self._bundle, certificate=pem, key=key).install(self._certificates, Role.NODE)
            mark.write_text(self._bundle.id)

    def _join(self) -> _Joined | None:
        """Return what the broker answers, once it does; None if we are told to stop meanwhile."""
        deadline = time.monotonic() + self._patience
        while not self._stopping.is_set():
            try:
                connection = self._connect(Role.NODE)
                try:
                    asked = {"node": self._node.to_json(), "agent": self._id}
                    answer = connection.call("join", asked)[0]
                    return _Joined(answer["name"], answer["meeting"], connection.own_address)
                finally:
                    connection.close()
            except NoCluster:
                if time.monotonic() > deadline:
                    raise
                self._stopping.wait(AGAIN_SECONDS)
        return None

    def _serve(self, joined: _Joined) -> Order:
        """Keep the node's process running until there is an order to rejoin or to leave."""
        node = replace(self._node, name=joined.name)
        self._end_process()
        self._process = process = NodeProcess(
            node, self._home, joined.address, environment(self._home.root)
        )
        self._say(f"node {node.name} joins the cluster at {self._bundle.address}")
        self._start(process, joined)
        over = threading.Event()
        listener = threading.Thread(target=self._listen, args=(joined, over), daemon=True)
        listener.start()
        try:
            while not self._stopping.is_set():
                order = self._next_order()
                if order in (Order.LEAVE, Order.JOIN):
                    return order
                if order is Order.REPLACE:
                    process.kill()
                    process.join()
                if process.is_due() and not self._stopping.is_set():
                    self._say(f"the process of node {node.name} ended; starting another one")
                    self._start(process, joined)
        finally:
            over.set()
        with suppress(ClusterError):
            self._ask("leave", joined)
        return Order.LEAVE

    def _next_order(self) -> Order:
        try:
            order = self._orders.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return Order.STAY
        if isinstance(order, ClusterError):
            raise order
        return order

    def _listen(self, joined: _Joined, over: threading.Event) -> None:
        """Pass on the broker's orders; if it does not answer, that is an order to rejoin."""
        while not over.is_set():
            try:
                order = Order(self._ask("attend", joined, seconds=ATTEND_SECONDS))
            except NoCluster:
                order = Order.JOIN
            except ClusterError as error:
                self._orders.put(error)
                return
            if not over.is_set() and order is not Order.STAY:
                self._orders.put(order)
            if order in (Order.JOIN, Order.LEAVE):
                return

    def _ask(self, call: str, joined: _Joined, **arguments: Any) -> Any:
        connection = self._connect(Role.NODE)
        try:
            who = {"name": joined.name, "agent": self._id}
            return connection.call(call, who | arguments)[0]
        finally:
            connection.close()

    def _start(self, process: NodeProcess, joined: _Joined) -> None:
        process.start()
        process.meet(joined.meeting)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join()
            self._process = None

    def _connect(self, role: Role) -> Connection:
        return Connection(self._bundle.address, self._certificates, role)


def join(
    path: str,
    node: ComputeNode,
    say: Callable[[str], None] = lambda text: None,
    patience: float = PATIENCE,
) -> None:
    """Be a node of the cluster that issued the invitation in a file, until told to stop."""
    bundle = Bundle.read(path)
    # What is wrong with this machine is reported before anybody is asked.
    state = StateDirectory.default()
    Agent(bundle, node, state, say, patience).run()


def connect(path: str, state: StateDirectory) -> Bundle:
    """Make the commands on this machine use the cluster that issued a client's invitation."""
    bundle = Bundle.read(path)
    if bundle.role != "client":
        raise ClusterError(f"{path}: an invitation for a {bundle.role}: use cluster node --join")
    if state.is_held():
        raise ClusterError(f"a cluster runs in {state.root}: set LLMBOL_STATE to another directory")
    state.prepare()
    bundle.install(Certificates(state.tls), Role.CLIENT)
    Connection(bundle.address, Certificates(state.tls), Role.CLIENT).close()
    state.write_remote(json.dumps({"address": bundle.address}).encode())
    return bundle
