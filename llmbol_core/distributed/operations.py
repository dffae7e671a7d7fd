"""What can be asked at the broker's door: one row for each request, with who may ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbol_core.distributed.door import Answer, Operation
from llmbol_core.distributed.jobs import job
from llmbol_core.distributed.ledger import Entry
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.report import Pruned
from llmbol_core.distributed.security import Role
from llmbol_core.distributed.store import CHUNK
from llmbol_core.distributed.task import Task, TaskRecord, check_id
from llmbol_core.errors import ClusterError, UsageError, nearest

if TYPE_CHECKING:
    from llmbol_core.distributed.broker import Broker

MAX_TASKS = 10_000
"""Tasks that are listed at a time, at most."""
SENT_SECONDS = 3600.0
"""Files that were sent within this time are kept."""
MAX_WAIT = 60.0
"""Seconds that a request to wait is held before it is answered in any case."""


class Desk:
    """Answers requests on behalf of a broker; each returns a form for JSON, and bytes."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._arriving: dict[str, tuple[Task, asyncio.Event]] = {}
        self._promised: dict[str, float] = {}
        """Files that clients rely on, by hash, and since when."""

    async def submit(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Take tasks; answer when they are on disk. One that is there already is left alone."""
        tasks = [Task.from_json(fields) for fields in arguments["tasks"]]
        new = [task for task in tasks if not self._is_known(task)]
        for task in new:
            self._check(task, guest=arguments["invitation"] is not None)
        twins = [task.id for task in tasks if task.id in self._arriving]
        await self._record({task.id: task for task in new})
        for id in twins:
            await self._arrived(id)
        return {"ids": [task.id for task in tasks], "new": [task.id for task in new]}, b""

    async def wait(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with how tasks stand when all have ended, or after some seconds."""
        ids = [str(id) for id in arguments["ids"]]
        self._entries([id for id in ids if id not in self._broker.dispatcher.tasks])
        with suppress(TimeoutError):
            async with asyncio.timeout(min(float(arguments["seconds"]), MAX_WAIT)):
                for id in ids:
                    await self._broker.ended(id)
        return [entry.to_json() for entry in self._entries(ids)], b""

    async def result(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with how a task stands, and a piece of its result."""
        id, offset = str(arguments["id"]), int(arguments["offset"])
        entry = self._entry(id)
        data = self._broker.ledger.data(id)
        if isinstance(data, Path):
            return entry.to_json(), await asyncio.to_thread(_piece, data, offset)
        return entry.to_json(), data[offset : offset + CHUNK]

    async def tasks(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with the latest tasks."""
        limit = int(arguments["limit"])
        if not 1 <= limit <= MAX_TASKS:
            raise UsageError(f"a list of tasks: expected a limit between 1 and {MAX_TASKS}")
        entries = self._broker.ledger.entries(limit)
        return [self._broker.latest(entry).to_json() for entry in entries], b""

    async def expand(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with ids of tasks, with each group's id replaced by those of its members."""
        ledger = self._broker.ledger
        ids: list[str] = []
        for id in map(str, arguments["ids"]):
            members = [id] if ledger.task(id) is not None else ledger.members(id)
            if not members:
                raise UsageError(f"no task {check_id(id)!r} is known")
            ids += members
        return ids, b""

    async def release(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Give up the inputs of tasks that have ended, unless other tasks need them."""
        for id in map(str, arguments["ids"]):
            task = None if id in self._broker.dispatcher.tasks else self._broker.ledger.task(id)
            for file in task.files if task is not None else ():
                if file.role == "input" and not self._needs(file.sha256):
                    await asyncio.to_thread(self._broker.store.remove, file.sha256)
        return None, b""

    async def cancel(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """End tasks; answer when that is on disk, with those that had not ended before."""
        ids = [str(id) for id in arguments["ids"]]
        self._entries(ids)
        cancelled = self._broker.cancel(ids)
        await self._broker.journal.add(())
        return cancelled, b""

    async def prune(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Forget what ended so many seconds ago, and the files that nobody needs since."""
        return asdict(await self.forget(float(arguments["seconds"]))), b""

    async def forget(self, seconds: float) -> Pruned:
        """Forget what ended so many seconds ago; return what that was."""
        now = time.time()
        before = now - seconds
        arriving = {file.sha256 for task, _ in self._arriving.values() for file in task.files}

        def work() -> Pruned:
            gone = self._broker.ledger.prune(before)
            ledger = self._broker.ledger
            needed = ledger.hashes() | arriving
            needed |= self._broker.coach.prune(
                lambda name: ledger.members(name) or ledger.entry(name)
            )
            ledger.results.sweep(SENT_SECONDS)
            # A file sent recently may belong to a task that is yet to be submitted.
            files, size = self._broker.store.prune(needed, min(before, now - SENT_SECONDS))
            return Pruned(len(gone), files, round(size / 1e6, 3))

        return await asyncio.to_thread(work)

    async def status(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with the status of the cluster."""
        return self._broker.status().to_json(), b""

    async def metrics(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with what the cluster did lately."""
        return self._broker.telemetry.metrics(self._broker.now()).to_json(), b""

    async def add_node(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Start one more node."""
        self._broker.fleet.add(ComputeNode.from_json(arguments["node"]))
        return None, b""

    async def remove_node(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Stop a node for good."""
        await self._broker.fleet.remove(str(arguments["node"]))
        return None, b""

    async def cordon(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Give a node no more tasks, or tasks again."""
        self._broker.fleet.cordon(str(arguments["node"]), bool(arguments["cordoned"]))
        return None, b""

    async def idle(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with how many tasks a node, or all, has when it has none or after some seconds."""
        seconds, name = min(float(arguments["seconds"]), MAX_WAIT), arguments.get("node")
        return await self._broker.fleet.idle(name and str(name), seconds), b""

    async def pause(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Start no more tasks for some seconds."""
        seconds = min(float(arguments["seconds"]), MAX_WAIT)
        self._broker.dispatcher.paused_until = self._broker.now() + seconds
        self._broker.advance()
        return None, b""

    async def stop(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Begin to stop."""
        asyncio.get_running_loop().call_later(0.01, self._broker.stopping.set)
        return None, b""

    async def enroll(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer an invited node with a certificate of its own."""
        invitation = str(arguments["invitation"])
        return await asyncio.to_thread(self._broker.invitations.enroll, invitation), b""

    async def join(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Take a node that runs elsewhere."""
        node, agent = ComputeNode.from_json(arguments["node"]), str(arguments["agent"])
        return await self._broker.remotes.join(node, agent, arguments["invitation"]), b""

    async def attend(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer an agent with the next order."""
        name, agent = str(arguments["name"]), str(arguments["agent"])
        seconds = min(float(arguments["seconds"]), MAX_WAIT)
        return await self._broker.remotes.attend(name, agent, seconds), b""

    async def leave(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Release a node that runs elsewhere."""
        await self._broker.remotes.leave(str(arguments["name"]), str(arguments["agent"]))
        return None, b""

    async def team(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer a member of a team that trains together."""
        return await self._broker.coach.answer(arguments, body)

    async def has(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer whether a file is in the store; if so it is there for a while yet."""
        sha256 = str(arguments["sha256"])
        if there := self._broker.store.has(sha256):
            self._promised[sha256] = self._broker.now()
        return there, b""

    async def put(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Take a piece of a file."""
        sha256, owner = str(arguments["sha256"]), str(arguments["owner"])
        offset, last = int(arguments["offset"]), bool(arguments["last"])
        await asyncio.to_thread(self._broker.store.append, sha256, owner, offset, body, last=last)
        return None, b""

    async def fetch(self, arguments: Mapping[str, Any], body: bytes) -> Answer:
        """Answer with a piece of a file, which may be an excerpt that a task that runs names."""
        sha256, offset = str(arguments["sha256"]), int(arguments["offset"])
        record = self._broker.dispatcher.tasks.get(str(arguments.get("task")))
        for file in record.task.files if record is not None else ():
            if file.sha256 == sha256 and file.excerpt is not None:
                return None, await asyncio.to_thread(file.excerpt.read, offset)
        return None, await asyncio.to_thread(self._broker.store.read, sha256, offset)

    async def _record(self, new: dict[str, Task]) -> None:
        """Put new tasks on disk, then into the queue."""
        if not new:
            return
        broker, done, now = self._broker, asyncio.Event(), self._broker.now()
        records = [TaskRecord(task, broker.ledger.next_seq(), now) for task in new.values()]
        self._arriving |= {id: (task, done) for id, task in new.items()}
        try:
            await broker.journal.add(records)
        finally:
            for id in new:
                del self._arriving[id]
            done.set()
        broker.take(records)

    async def _arrived(self, id: str) -> None:
        """Wait until a task that another request brought is on disk."""
        if id in self._arriving:
            await self._arriving[id][1].wait()
        if self._broker.ledger.task(id) is None:
            raise ClusterError(f"task {id} could not be written down")

    def _is_known(self, task: Task) -> bool:
        """Return whether the task was submitted before; what differs may not share its id."""
        known = self._arriving[task.id][0] if task.id in self._arriving else None
        known = known or self._broker.ledger.task(task.id)
        if known is not None and known != task:
            raise UsageError(f"a task {task.id!r} with other content was submitted before")
        return known is not None

    def _needs(self, sha256: str) -> bool:
        """Return whether a task that has not ended, or is to come, uses a file."""
        limit = self._broker.now() - SENT_SECONDS
        self._promised = {hash: time for hash, time in self._promised.items() if time > limit}
        live = [record.task for record in self._broker.dispatcher.tasks.values()]
        live += [task for task, _ in self._arriving.values()]
        used = any(sha256 == file.sha256 for task in live for file in task.files)
        return used or sha256 in self._promised

    def _check(self, task: Task, *, guest: bool) -> None:
        """Refuse tasks that could never run, and guests' references to files of this machine."""
        job(task.type)
        offered = self._broker.fleet.capabilities()
        if task.capability is not None and task.capability not in offered:
            hint = nearest(task.capability, offered)
            raise UsageError(f"no node offers the capability {task.capability!r}{hint}")
        for file in task.files:
            if file.excerpt is not None:
                if guest:
                    raise ClusterError(f"task {task.id}: an invitation lends no files of this host")
                if (task.type, file.role) != ("inference", "input"):
                    raise UsageError(f"task {task.id}: only a model's input can be an excerpt")
            elif not self._broker.store.has(file.sha256):
                raise ClusterError(f"task {task.id}: {file.name} was not sent")

    def _entry(self, id: str) -> Entry:
        """Return the state of a task: that of a running one may be ahead of the ledger."""
        return self._entries([id])[0]

    def _entries(self, ids: Sequence[str]) -> list[Entry]:
        """Return the states of tasks; raises UsageError for an unknown id."""
        known = self._broker.ledger.find(ids)
        for id in ids:
            if id not in known:
                raise UsageError(f"no task {check_id(id)!r} is known")
        return [self._broker.latest(known[id]) for id in ids]


def operations(desk: Desk) -> dict[str, Operation]:
    """Return the table of requests."""
    client, both = frozenset({Role.CLIENT}), frozenset({Role.CLIENT, Role.NODE})
    node, invited = frozenset({Role.NODE}), frozenset({Role.INVITED})
    # fmt: off
    return {
        # request    who may ask       what answers
        "submit":    Operation(client, desk.submit),
        "wait":      Operation(client, desk.wait),
        "result":    Operation(client, desk.result),
        "tasks":     Operation(client, desk.tasks),
        "expand":    Operation(client, desk.expand),
        "cancel":    Operation(client, desk.cancel),
        "prune":     Operation(client, desk.prune),
        "status":    Operation(client, desk.status),
        "metrics":   Operation(client, desk.metrics),
        "add_node":  Operation(client, desk.add_node),
        "remove_node": Operation(client, desk.remove_node),
        "cordon":    Operation(client, desk.cordon),
        "idle":      Operation(client, desk.idle),
        "pause":     Operation(client, desk.pause),
        "stop":      Operation(client, desk.stop),
        "team":      Operation(node,   desk.team),
        "has":       Operation(both, desk.has),
        "release":   Operation(client, desk.release),
        "put":       Operation(both,   desk.put),
        "fetch":     Operation(both,   desk.fetch),
        "enroll":    Operation(invited, desk.enroll),
        "join":      Operation(node,   desk.join),
        "attend":    Operation(node,   desk.attend),
        "leave":     Operation(node,   desk.leave),
    }
    # fmt: on


def _piece(path: Path, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(CHUNK)
    except OSError as error:
        raise ClusterError(f"a result is gone: {error.strerror}") from error
