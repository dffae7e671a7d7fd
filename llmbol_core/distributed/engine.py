"""The only door to Dask: a scheduler and its client here, workers with nannies in the nodes.

Dask carries tasks to nodes and results back, starts nodes anew and notices dead ones. Which task
goes where is settled before it gets to see it: every task is pinned to one address and never
retried.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from distributed import Client, Scheduler
from distributed.core import Server, rpc
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.security import Security
from distributed.utils import NoOpAwaitable

from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.security import Certificates, Role, role_of
from llmbol_core.distributed.state import Identity, StateDirectory
from llmbol_core.errors import ClusterError

log = logging.getLogger("llmbol.engine")

LOOPBACK = "127.0.0.1"
BATCH_INTERVAL = 0.0005
"""Seconds that a stream waits for more messages to send together."""
RESTART_SECONDS = 1.0
"""A node's nanny that died this soon is given as long again before the next try."""
STOP_SECONDS = 5.0
KILL_SECONDS = 8.0

_NODE_CALLS = frozenset({
    "register-worker", "register_nanny", "heartbeat_worker", "unregister", "log_event", "identity",
})  # fmt: skip
"""What a node may ask of the scheduler; anything else is for the broker."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a node's last heartbeat said."""

    age: float
    """Seconds since then."""
    pid: int
    cpu: float
    """Percent of one core."""
    memory: int
    """Bytes of resident memory."""
    cached: tuple[str, ...]
    """Content hashes of the models that it has loaded."""


def admit(*roles: Role) -> None:
    """Have the Dask servers of this process drop whoever comes without one of these roles.

    This happens before anything is read from the peer: what Dask reads it may unpickle.
    """
    accept = Server.handle_comm

    def handle_comm(self: Server, comm: Any) -> Any:
        role = role_of(comm.extra_info.get("peercert"))
        if role in roles:
            return accept(self, comm)
        log.warning("refused a connection from %s: role %s", comm.peer_address, role)
        comm.abort()
        return NoOpAwaitable()

    Server.handle_comm = handle_comm  # type: ignore[method-assign]


def prepare_worker(server: Any, report: Callable[[], dict[str, Any]]) -> None:
    """Have a worker send at once and put a report into each heartbeat; a nanny has neither."""
    if not hasattr(server, "metrics"):
        return
    server.metrics["llmbol"] = lambda worker: report()
    _hurry(server.batched_stream)


class Engine:
    """A Dask scheduler with the broker's client and the nodes that the broker starts."""

    def __init__(
        self,
        state: StateDirectory,
        on_up: Callable[[ComputeNode], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._state, self._on_up, self._on_lost = state, on_up, on_lost
        self._nodes: dict[str, _NodeProcess] = {}
        self._addresses: dict[str, str] = {}
        self._broker_address = ""
        self._security = _security(Certificates(state.tls))

    async def start(self, broker_address: str) -> None:
        """Start the scheduler and connect its client; the broker's own door is at the address."""
        self._broker_address = broker_address
        admit(Role.BROKER, Role.NODE)
        self._scheduler = await Scheduler(
            host=LOOPBACK, port=0, protocol="tls", security=self._security,
            dashboard=False, dashboard_address=f"{LOOPBACK}:0",
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

    async def stop(self) -> None:
        """Stop the nodes, all at once, then the client and the scheduler."""
        processes = [node.process for node in self._nodes.values() if node.process is not None]
        for process in processes:
            process.terminate()
        await asyncio.gather(*(asyncio.to_thread(_end, process) for process in processes))
        for part in (self._client, self._scheduler):
            with suppress(TimeoutError, OSError):
                await asyncio.wait_for(part.close(), 3)

    # Nodes

    def add_node(self, node: ComputeNode) -> None:
        """Start a node."""
        self._nodes[node.name] = started = _NodeProcess(node)
        started.start(self._command(node), self._state)

    def revive(self) -> bool:
        """Start nodes anew whose nanny has died; return whether there were any."""
        dead = [node for node in self._nodes.values() if node.is_due()]
        for node in dead:
            log.warning("the nanny of node %s died; starting another one", node.node.name)
            node.start(self._command(node.node), self._state)
        return bool(dead)

    def processes(self) -> tuple[Identity, ...]:
        """Return the processes of the nannies."""
        nodes = self._nodes.values()
        return tuple(Identity.of(node.process.pid) for node in nodes if node.process is not None)

    def configured(self) -> list[ComputeNode]:
        """Return the nodes that should be up."""
        return [node.node for node in self._nodes.values()]

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
                    int(report.get("pid", 0)),
                    float(worker.metrics.get("cpu", 0.0)),
                    int(worker.metrics.get("memory", 0)),
                    tuple(report.get("cached", ())),
                )
        return known

    async def replace(self, name: str) -> None:
        """Kill a node's process, hung or not, and have its nanny start another one."""
        address = self._addresses.get(name)
        worker = self._scheduler.workers.get(address) if address else None
        if worker is None:
            return
        arguments = self._security.get_connection_args("client")  # type: ignore[no-untyped-call]
        try:
            nanny_at = rpc(worker.nanny, connection_args=arguments)  # type: ignore[no-untyped-call]
            async with nanny_at as nanny:
                await asyncio.wait_for(nanny.kill(timeout=0.1, reason="llmbol"), KILL_SECONDS)
                await self._scheduler.remove_worker(worker.address, stimulus_id="llmbol-replace")
                await nanny.instantiate()
        except (OSError, TimeoutError) as error:
            log.warning("the nanny of node %s does not answer: %s", name, error)
            self._nodes[name].kill()
            await self._scheduler.remove_worker(worker.address, stimulus_id="llmbol-replace")

    # Tasks

    async def run(
        self, function: Callable[..., Any], items: Sequence[Any], key: str, node: str, priority: int
    ) -> Any:
        """Return what a function makes of some items on a node.

        Raises ClusterError if the node goes away meanwhile or nothing comes of it.
        """
        address = self._addresses.get(node)
        if address is None:
            raise ClusterError(f"node {node} is gone")
        future = self._client.submit(
            function, items, key=key, workers=[address], allow_other_workers=False,
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
            return
        self._addresses[name] = address
        self._on_up(known.node)

    def left(self, address: str) -> None:
        """Take note of a worker that has gone."""
        for name, its_address in list(self._addresses.items()):
            if its_address == address:
                del self._addresses[name]
                self._on_lost(name)

    def _command(self, node: ComputeNode) -> list[str]:
        """Return the command line of a node's nanny."""
        certificates = Certificates(self._state.tls)
        module = "llmbol_core.distributed.worker"
        return [
            sys.executable, "-m", module, self._scheduler.address,
            "--name", node.name, "--nthreads", "1", "--nworkers", "1",
            "--protocol", "tls", "--host", node.address, "--worker-port", str(node.port),
            "--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0",
            # Mapped files count as memory: Dask's own limit would kill nodes for large models.
            "--memory-limit", "0", "--death-timeout", "15",
            "--local-directory", str(self._state.scratch),
            "--preload", module, "--preload-nanny", module,
            "--tls-ca-file", str(certificates.authority),
            "--tls-cert", str(certificates.certificate(Role.NODE)),
            "--tls-key", str(certificates.key(Role.NODE)),
        ]  # fmt: skip


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


class _NodeProcess:
    """A node and the process of its nanny."""

    def __init__(self, node: ComputeNode) -> None:
        self.node = node
        self.process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = 0.0

    def start(self, command: list[str], state: StateDirectory) -> None:
        """Start the nanny, in a session of its own so that it hears no key strokes."""
        lived = time.monotonic() - self._started
        self._pause = 0.0 if lived > 30 else min(30.0, max(RESTART_SECONDS, 2 * self._pause))
        self._started = time.monotonic()
        log_file = state.open_log(self.node.name)
        with open(log_file, "ab") as stream:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                start_new_session=True,
            )  # fmt: skip

    def is_due(self) -> bool:
        """Return whether the nanny is dead and it is time for another one."""
        if self.process is None or self.process.poll() is None:
            return False
        return time.monotonic() >= self._started + self._pause

    def kill(self) -> None:
        """Kill the nanny, and with it the worker."""
        if self.process is not None:
            self.process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that was asked to end; kill it if it does not."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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


def _hurry(stream: Any) -> None:
    """Shorten the time that a stream waits for more messages, where it has such a setting."""
    if hasattr(stream, "interval"):
        stream.interval = BATCH_INTERVAL
