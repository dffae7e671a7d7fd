"""The client: asks a cluster for something. Needs neither Dask nor, by itself, NumPy."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

from llmbol_core.distributed.ahead import some_ahead
from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.jobs import job
from llmbol_core.distributed.ledger import Entry
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.parcels import Attachment
from llmbol_core.distributed.report import ClusterStatus, Pruned, TaskStatus
from llmbol_core.distributed.security import Certificates, Role
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.store import CHUNK, FileStore, hash_file, open_regular
from llmbol_core.distributed.task import TERMINAL, FileRef, State, Task
from llmbol_core.distributed.telemetry import Metrics
from llmbol_core.distributed.wire import Connection
from llmbol_core.errors import ClusterError, FileError, NoCluster, TaskFailed

Progress = Callable[[int, int, str], None]

PATIENCE, LIVES = 20.0, 20
"""Seconds to keep trying while the guardian starts another broker, and how many brokers may die
before there is an answer."""
PAUSE_SECONDS = 5.0
"""How long a cluster that is being drained starts no tasks, unless told so again."""
WAIT_SLICE = 10.0
"""Seconds that the broker may hold a waiting request before it answers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How a task ended, and what it left: the bytes of its result."""

    entry: Entry
    data: bytes

    @property
    def value(self) -> Any:
        """The result as the value that this type of task returns; raises TaskFailed without one."""
        self.check()
        return job(self.entry.type).unpack(self.data)

    @property
    def text(self) -> bytes:
        """The result, or as much as there is of it, in a form for people."""
        return job(self.entry.type).text(self.data) if self.data else b""

    def check(self) -> None:
        """Raise TaskFailed unless the task is done, ClusterError if it has not ended."""
        if self.entry.state not in TERMINAL:
            raise ClusterError(f"task {self.entry.id} has not ended: it is {self.entry.state}")
        if self.entry.state != State.DONE:
            raise TaskFailed(self.entry.id, self.entry.error or self.entry.state)


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """A task's end for machines: its state, and its result in a form for JSON."""

    task: TaskStatus
    result: Any


def describe(result: Result) -> Description:
    """Return a result in a form for JSON: text, nested lists of numbers, or returned values."""
    value: Any = job(result.entry.type).unpack(result.data) if result.data else None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    elif not isinstance(value, str | int | float | bool | list | dict | None):
        value = value.tolist()
    return Description(TaskStatus.of(result.entry), value)


class Client:
    """A connection to the cluster of a state directory; several threads may share it.

    A broker that dies is replaced by its guardian; requests wait for that and are asked again,
    which does no harm since tasks are known by their ids.
    """

    def __init__(self, state: StateDirectory, role: Role = Role.CLIENT) -> None:
        self._state, self._role = state, role
        self._idle: list[Connection] = []
        self._hashes: dict[Path, tuple[tuple[int, ...], tuple[str, int]]] = {}
        self._lock = threading.Lock()
        self._era = 0
        """How often all connections were closed: older ones are not used again."""
        self._answered, self._seen = False, 0.0
        """Whether a broker has answered, and when one was last seen, even if it died then."""
        self._store = FileStore(state.files) if state.remote() is None else None
        self._sent: set[str] = set()
        """Files that the cluster had when asked, or was sent, and will keep for a while."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._era += 1
        for connection in idle:
            connection.close()

    def submit(self, tasks: Sequence[Task]) -> list[str]:
        """Send tasks with their files; return their ids when the cluster has them on disk."""
        # Files that they share are sent with the first one.
        packed, others = [self.pack(task) for task in tasks[:1]], tasks[1:]
        if others and packed[0].files:
            packed += some_ahead(self.pack, others)
        else:
            packed += map(self.pack, others)
        return self.submit_packed(packed)

    def submit_packed(self, tasks: Sequence[Task]) -> list[str]:
        """Send tasks whose files were sent; return their ids when the cluster has them on disk."""
        answer = self.call("submit", {"tasks": [task.to_json() for task in tasks]})[0]
        return [str(id) for id in answer["ids"]]

    def wait(
        self,
        ids: Sequence[str],
        timeout: float | None = None,
        progress: Progress = lambda done, total, note: None,
    ) -> list[Entry]:
        """Return how tasks stand when all have ended; raises ClusterError after the time-out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = WAIT_SLICE if deadline is None else max(0.0, deadline - time.monotonic())
            entries = self.poll(ids, min(left, WAIT_SLICE))
            open_ones = [entry for entry in entries if entry.state not in TERMINAL]
            note = f"{open_ones[0].id} {open_ones[0].state}" if open_ones else ""
            progress(len(entries) - len(open_ones), len(entries), note)
            if not open_ones:
                return entries
            if deadline is not None and time.monotonic() >= deadline:
                raise ClusterError(f"task {note} after {timeout:g} s")

    def poll(self, ids: Sequence[str], seconds: float) -> list[Entry]:
        """Return how tasks stand when all have ended, or after some seconds."""
        arguments = {"ids": list(ids), "seconds": seconds}
        return [Entry(**fields) for fields in self.call("wait", arguments)[0]]

    def result(self, id: str) -> Result:
        """Return how a task stands and the bytes of its result, if it has ended."""
        data = bytearray()
        while True:
            fields, piece = self.call("result", {"id": id, "offset": len(data)})
            data += piece
            if len(piece) < CHUNK:
                return Result(Entry(**fields), bytes(data))

    def results(self, ids: Sequence[str]) -> Iterator[Result]:
        """Yield what ``result`` returns for each of some tasks, in order."""
        return some_ahead(self.result, ids)

    def expand(self, ids: Sequence[str]) -> list[str]:
        """Return ids of tasks, with each group's id replaced by those of its members."""
        return [str(id) for id in self.call("expand", {"ids": list(ids)})[0]]

    def release(self, ids: Sequence[str]) -> None:
        """Have the cluster give up the inputs of tasks that have ended."""
        self.call("release", {"ids": list(ids)})

    def ended(self, id: str) -> Result:
        """Return how a task ended and its result, once it has ended."""
        (entry,) = self.wait([id])
        if self._store is not None:
            with suppress(OSError):
                return Result(entry, (self._state.results / id).read_bytes())
        return self.result(id)

    def fetch(self, sha256: str) -> bytes:
        """Return a file that the cluster has, by its hash."""
        data = bytearray()
        while piece := self.call("fetch", {"sha256": sha256, "offset": len(data)})[1]:
            data += piece
        return bytes(data)

    def tasks(self, limit: int = 100) -> list[Entry]:
        """Return the latest tasks, the last one first."""
        return [Entry(**fields) for fields in self.call("tasks", {"limit": limit})[0]]

    def cancel(self, ids: Sequence[str]) -> list[str]:
        """End tasks; return those that had not ended before."""
        return [str(id) for id in self.call("cancel", {"ids": list(ids)})[0]]

    def prune(self, seconds: float) -> Pruned:
        """Make the cluster forget tasks that ended so many seconds ago, with results and files.

        An id that was forgotten may be used again.
        """
        return Pruned(**self.call("prune", {"seconds": seconds})[0])

    def status(self) -> ClusterStatus:
        """Return the status of the cluster."""
        return ClusterStatus.from_json(self.call("status", {})[0])

    def add_node(self, node: ComputeNode) -> None:
        """Start one more node."""
        self.call("add_node", {"node": node.to_json()})

    def remove_node(self, name: str) -> None:
        """Stop a node for good; its tasks go to others."""
        self.call("remove_node", {"node": name})

    def cordon(self, name: str, cordoned: bool = True) -> None:
        """Give a node no more tasks, or tasks again."""
        self.call("cordon", {"node": name, "cordoned": cordoned})

    def drain(
        self,
        name: str,
        timeout: float | None = None,
        progress: Progress = lambda done, total, note: None,
    ) -> None:
        """Cordon a node and return when it has nothing left to do; ClusterError after the time."""
        self.cordon(name)
        self._until_idle(name, timeout, progress)

    def metrics(self) -> Metrics:
        """Return what the cluster did lately."""
        return Metrics.from_json(self.call("metrics", {})[0])

    def stop(
        self,
        drain: bool = False,
        timeout: float | None = None,
        progress: Progress = lambda done, total, note: None,
    ) -> None:
        """Tell the cluster to stop, which takes a moment.

        If it is to be drained first, no more tasks begin and running ones are waited for; tasks
        that have not begun do so when the cluster is started again.
        """
        if drain:
            self._until_idle(None, timeout, progress)
        self.call("stop", {})

    def _until_idle(self, name: str | None, timeout: float | None, progress: Progress) -> None:
        """Return when a node, or all, has nothing left to do."""
        deadline = None if timeout is None else time.monotonic() + timeout
        most = 0
        while True:
            if name is None:
                # A lease: if this client dies while draining, the cluster stays in service.
                self.call("pause", {"seconds": PAUSE_SECONDS})
            left = 1.0 if deadline is None else min(1.0, max(0.0, deadline - time.monotonic()))
            running = int(self.call("idle", {"node": name, "seconds": left})[0])
            most = max(most, running)
            progress(most - running, most, f"{running} tasks run")
            if not running:
                return
            if deadline is not None and time.monotonic() >= deadline:
                where = "" if name is None else f" on node {name}"
                raise ClusterError(f"{running} tasks still run{where} after {timeout:g} s")

    def call(self, name: str, arguments: dict[str, Any], body: bytes = b"") -> tuple[Any, bytes]:
        """Return the answer to a request; see ``operations`` for what there is."""
        since, lives = time.monotonic(), LIVES
        while True:
            try:
                return self._call_once(name, arguments, body)
            except NoCluster:
                if self._seen > since and lives:
                    since, lives = self._seen, lives - 1
                if time.monotonic() > since + PATIENCE or not self._is_expected():
                    raise
                time.sleep(0.05)

    def _call_once(self, name: str, arguments: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        with self._lock:
            era = self._era
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        try:
            answer = connection.call(name, arguments, body)
        except NoCluster as error:
            if not isinstance(error.__cause__, TimeoutError):
                self._seen = time.monotonic()
            connection.close()
            # The other connections lead to the same broker.
            self.close()
            raise
        except BaseException:
            connection.close()
            raise
        self._answered = True
        with self._lock:
            if era == self._era:
                self._idle.append(connection)
                return answer
        connection.close()
        return answer

    def _connect(self) -> Connection:
        address = self._state.address()
        try:
            return Connection(address, Certificates(self._state.tls), self._role)
        except ClusterError as error:
            running = self._state.read()
            if self._state.remote() or (running is not None and running.broker.is_alive()):
                raise
            raise NoCluster(str(error)) from error

    def _is_expected(self) -> bool:
        """Return whether a broker that does not answer may do so soon."""
        return self._state.is_held() or (self._state.remote() is not None and self._answered)

    def pack(self, task: Task, *, lend: bool = False) -> Task:
        """Return a task ready to travel, its files sent.

        A client that waits for the result may refer to files on the cluster's own machine instead.
        """
        row = job(task.type)
        packed = row.pack(task.payload)
        files = tuple(self._send(attachment, lend) for attachment in packed.files)
        capability = task.capability or row.capability
        return dataclasses.replace(task, payload=packed.payload, files=files, capability=capability)

    def _send(self, attachment: Attachment, lend: bool) -> FileRef:
        """Send a file unless the cluster has its content or can read it where it is."""
        content = attachment.content
        if isinstance(content, Excerpt):
            here = self._store is not None and self._state.is_here()
            if lend and here and content.is_within_reach():
                sha256, size = content.sha256(), content.size
                return FileRef(attachment.role, attachment.name, sha256, size, content)
            content = b"".join(content.pieces())
        if isinstance(content, Path):
            sha256, size = self._hash(content)
        else:
            sha256, size = hashlib.sha256(content).hexdigest(), len(content)
        if self._store is not None and isinstance(content, bytes):
            # The cluster, if there is one, looks here.
            self._state.address()
            while not self._store.keep(sha256, content):
                # It was sent for another task, which may release it at any moment.
                if self.call("has", {"sha256": sha256})[0]:
                    break
        elif sha256 not in self._sent and not self.call("has", {"sha256": sha256})[0]:
            whole = open_regular(content) if isinstance(content, Path) else io.BytesIO(content)
            with whole as file:
                self._send_pieces(file, sha256, size)
        if isinstance(content, Path):
            self._sent.add(sha256)
        return FileRef(attachment.role, attachment.name, sha256, size)

    def _hash(self, path: Path) -> tuple[str, int]:
        """Return hash and size of a file, which is read again only if it was changed."""
        try:
            status = path.stat()
        except OSError as error:
            raise FileError.of(error, path) from error
        mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._hashes.get(path.absolute())
        if known is None or known[0] != mark:
            known = self._hashes[path.absolute()] = (mark, hash_file(path))
        return known[1]

    def _send_pieces(self, file: BinaryIO, sha256: str, size: int) -> None:
        owner, offset = secrets.token_hex(8), 0
        while True:
            try:
                piece = file.read(CHUNK)
            except OSError as error:
                raise FileError.of(error, getattr(file, "name", "<bytes>")) from error
            last = offset + len(piece) >= size
            where = {"sha256": sha256, "owner": owner, "offset": offset, "last": last}
            self.call("put", where, piece)
            offset += len(piece)
            if last or not piece:
                return
