"""The only door to Dask: a scheduler and its client here, a worker in each node.

Dask carries tasks to nodes and results back and notices dead nodes. Which task goes where is
settled before it gets to see it: every task is pinned to one address and never retried. Nodes are
started, watched and killed by us, without Dask's nannies: those take as much memory and as long to
start as the workers do.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distributed import Client, Scheduler
from distributed.core import Server
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.node import ServerNode
from distributed.security import Security
from distributed.utils import NoOpAwaitable

from llmbol_core.distributed.door import Refusal
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.processes import NodeProcess
from llmbol_core.distributed.remotes import RemoteNode
from llmbol_core.distributed.security import Certificates, Role, invitation_of, role_of
from llmbol_core.distributed.state import Identity, StateDirectory
from llmbol_core.errors import ClusterError

log = logging.getLogger("llmbol.engine")

BATCH_INTERVAL = 0.0005
"""Seconds that a stream waits for more messages to send together."""

_NODE_CALLS = frozenset({
    "register-worker", "heartbeat_worker", "unregister", "log_event", "identity",
})  # fmt: skip
"""What a node may ask of the scheduler; anything else is for the broker."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a node's last heartbeat said."""

    age: float
    """Seconds since then."""
    pid: int | None
    """The process, once it has told."""
    cpu: float
    """Percent of one core."""
    memory: int
    """Bytes of resident memory."""
    cached: tuple[str, ...]
    """Content hashes of the models that it has loaded."""


def admit(*roles: Role, refusal: Refusal = lambda invitation, role: None) -> None:
    """Have the Dask servers that this process starts drop who comes without one of these roles.

    So are those whose invitation is worth nothing.

    This happens before anything is read from the peer: what Dask reads it may unpickle.
    """
    accept = Server.handle_comm

    def handle_comm(self: Server, comm: Any) -> Any:
        certificate = comm.extra_info.get("peercert")
        role = role_of(certificate)
        why = refusal(invitation_of(certificate), role) if role in roles else f"role {role}"
        if why is None:
            return accept(self, comm)
        log.warning("refused a connection from %s: %s", comm.peer_address, why)
        comm.abort()
        return NoOpAwaitable()

    Server.handle_comm = handle_comm  # type: ignore[method-assign]
    # Dask's web pages know neither certificates nor roles, and cannot be turned off.
    ServerNode.start_http_server = _no_web_server  # type: ignore[method-assign]


def prepare_worker(server: Any, report: Callable[[], dict[str, Any]]) -> None:
    """Have a worker send at once and put a report into each heartbeat."""
    server.metrics["llmbol"] = lambda worker: report()
    _hurry(server.batched_stream)
    settle()


def settle() -> None:
    """Have the garbage collector not look again at what is there now: modules, mostly.

    They are so many that it stops a process for 50 to 100 ms each time that it does.
    """
    gc.freeze()


class Engine:
    """A Dask scheduler with the broker's client and the nodes that the broker starts."""

    def __init__(self, state: StateDirectory, nodes: Iterable[NodeProcess]) -> None:
        self._state = state
        self._nodes: dict[str, NodeProcess | RemoteNode] = {p.node.name: p for p in nodes}
        self._addresses: dict[str, str] = {}
        self.meeting = ""
        """Whom a node's process is to meet: a line of JSON, once that is known."""
        self.ready = asyncio.Event()
        self._security = _security(Certificates(state.tls))

    async def start(
        self,
        door: str,
        on_up: Callable[[ComputeNode], None],
        on_lost: Callable[[str], None],
        refusal: Refusal = lambda invitation, role: None,
        port: int = 0,
    ) -> None:
        """Start the scheduler, connect its client and have the nodes join.

        The broker's own door is at the address given, and the scheduler on the same host. It hears
        of nodes that come and go, and says which invitations are worth nothing.
        """
        self._on_up, self._on_lost = on_up, on_lost
        admit(Role.BROKER, Role.NODE, refusal=refusal)
        self._scheduler = await Scheduler(
            host=door.rpartition(":")[0], port=port, protocol="tls", security=self._security,
            dashboard=False,
        )  # fmt: skip
        handlers = self._scheduler.handlers
        for call in handlers.keys() - _NODE_CALLS:
            handlers[call] = _for_broker(handlers[call])
        self._scheduler.add_plugin(_Watcher(self), name=_Watcher.name)
        self._client = await Client(  # type: ignore[no-untyped-call]
            self._scheduler.address, asynchronous=True, security=self._security,
            name="broker", set_as_default=False,
        )  # fmt: skip
        _hurry(getattr(self._client, "scheduler_comm", None))
        for stream in self._scheduler.client_comms.values():
            _hurry(stream)
        self.meeting = json.dumps({"scheduler": self._scheduler.address, "door": door})
        for process in self._nodes.values():
            process.meet(self.meeting)
        self.ready.set()
        settle()

    async def stop(self) -> None:
        """Stop the nodes, all at once, then the client and the scheduler."""
        nodes = list(self._nodes.values())
        for node in nodes:
            node.terminate()
        await asyncio.gather(*(asyncio.to_thread(node.join) for node in nodes))
        for part in (self._client, self._scheduler):
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(part.close(), 3)

    # Nodes

    def add_node(self, node: ComputeNode) -> None:
        """Start one more node."""
        self._nodes[node.name] = process = NodeProcess(node, self._state)
        process.start()
        process.meet(self.meeting)

    def adopt(self, node: RemoteNode) -> None:
        """Count on a node that is started elsewhere."""
        self._nodes[node.node.name] = node

    async def remove_node(self, name: str) -> None:
        """Stop a node and start it no more."""
        process = self._nodes[name]
        process.terminate()
        await asyncio.to_thread(process.join)
        self._nodes.pop(name, None)
        await self._forget(name)

    def revive(self) -> bool:
        """Start nodes anew whose process is dead; return whether there were any."""
        dead = [process for process in self._nodes.values() if process.is_due()]
        for process in dead:
            log.warning("node %s has no process; starting one", process.node.name)
            process.start()
            process.meet(self.meeting)
        return bool(dead)

    def processes(self) -> tuple[Identity, ...]:
        """Return the processes of the nodes on this machine."""
        pids = (process.pid for process in self._nodes.values())
        return tuple(Identity.of(pid) for pid in pids if pid is not None)

    def configured(self) -> list[ComputeNode]:
        """Return the nodes that should be up."""
        return [process.node for process in self._nodes.values()]

    def vitals(self) -> dict[str, Vitals]:
        """Return what is known of the nodes that are up, by name."""
        now = time.time()
        known = {}
        for name, address in self._addresses.items():
            worker = self._scheduler.workers.get(address)
            if worker is not None:
                report = worker.metrics.get("llmbol") or {}
                known[name] = Vitals(
                    now - worker.last_seen,
                    report.get("pid"),
                    float(worker.metrics.get("cpu", 0.0)),
                    int(worker.metrics.get("memory", 0)),
                    tuple(report.get("cached", ())),
                )
        return known

    async def kill(self, name: str) -> None:
        """Kill a node's process, hung or not; return when nobody counts on it any more."""
        process = self._nodes[name]
        process.kill()
        await asyncio.to_thread(process.join)
        await self._forget(name)

    async def _forget(self, name: str) -> None:
        address = self._addresses.get(name)
        if address is not None:
            await self._drop(address)

    async def _drop(self, address: str) -> None:
        await self._scheduler.remove_worker(address, stimulus_id="llmbol-gone")

    # Tasks

    async def run(
        self, function: Callable[..., Any], data: bytes, key: str, node: str, priority: int
    ) -> Any:
        """Return what a function makes of some bytes on a node.

        Raises ClusterError if the node goes away meanwhile or nothing comes of it.
        """
        address = self._addresses.get(node)
        if address is None:
            raise ClusterError(f"node {node} is gone")
        future = self._client.submit(
            function, data, key=key, workers=[address], allow_other_workers=False,
            pure=False, retries=0, priority=priority,
        )  # fmt: skip
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled():
                raise
            raise ClusterError(f"node {node} dropped the task") from None
        except Exception as error:
            raise ClusterError(f"{type(error).__name__}: {error}") from error
        finally:
            future.release()

    # What Dask tells

    def joined(self, address: str) -> None:
        """Take note of a worker that has come up."""
        _hurry(self._scheduler.stream_comms.get(address))
        name = str(self._scheduler.workers[address].name)
        known = self._nodes.get(name)
        if known is None:
            log.warning("an unknown node joined: %s", name)
            asyncio.ensure_future(self._drop(address))  # noqa: RUF006 -- nobody waits for it
            return
        self._addresses[name] = address
        self._on_up(known.node)

    def left(self, address: str) -> None:
        """Take note of a worker that has gone."""
        for name, its_address in list(self._addresses.items()):
            if its_address == address:
                del self._addresses[name]
                self._on_lost(name)


class _Watcher(SchedulerPlugin):
    """Tells the engine which workers come and go."""

    name = "llmbol"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Pass it on."""
        self._engine.joined(worker)

    def remove_worker(self, scheduler: Scheduler, worker: str, **details: Any) -> None:
        """Pass it on."""
        self._engine.left(worker)


def _security(certificates: Certificates) -> Security:
    """Return Dask's form of the broker's certificate, for both ends that the broker has."""
    own = {
        f"tls_{end}_{part}": str(path)
        for end in ("client", "scheduler")
        for part, path in (
            ("cert", certificates.certificate(Role.BROKER)),
            ("key", certificates.key(Role.BROKER)),
        )
    }
    return Security(  # type: ignore[no-untyped-call]
        require_encryption=True, tls_ca_file=str(certificates.authority), **own
    )


def _for_broker(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap one of the scheduler's handlers so that it answers nobody but the broker."""
    takes_comm = next(iter(inspect.signature(handler).parameters), "") == "comm"

    async def guarded(comm: Any, **arguments: Any) -> Any:
        if role_of(comm.extra_info.get("peercert")) is not Role.BROKER:
            raise PermissionError("only the broker may ask for this")
        result = handler(comm, **arguments) if takes_comm else handler(**arguments)
        return await result if inspect.isawaitable(result) else result

    return guarded


def _no_web_server(*arguments: Any, **options: Any) -> None:
    """Start nothing."""


def _hurry(stream: Any) -> None:
    """Shorten the time that a stream waits for more messages, where it has such a setting."""
    if hasattr(stream, "interval"):
        stream.interval = BATCH_INTERVAL
