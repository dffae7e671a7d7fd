"""The broker: the process that accepts tasks, keeps them, and has nodes work on them.

It carries out what the dispatcher decides: launches go to the engine, changes to the journal. Time,
chance and the outside world enter here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import secrets
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import llmbol_core
from llmbol_core.distributed.actions import Action, Launch, Replace, Save
from llmbol_core.distributed.coach import Coach
from llmbol_core.distributed.dispatcher import Dispatcher
from llmbol_core.distributed.door import Door
from llmbol_core.distributed.fleet import Fleet
from llmbol_core.distributed.invitations import Invitations
from llmbol_core.distributed.journal import Journal
from llmbol_core.distributed.ledger import Entry, Ledger
from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.operations import Desk, operations
from llmbol_core.distributed.processes import NodeProcess
from llmbol_core.distributed.remotes import Remotes
from llmbol_core.distributed.report import ClusterStatus, Config, place
from llmbol_core.distributed.security import Certificates, Role
from llmbol_core.distributed.state import Identity, Running, StateDirectory, die_with_parent
from llmbol_core.distributed.store import FileStore
from llmbol_core.distributed.task import TERMINAL, Change, State, TaskRecord
from llmbol_core.distributed.telemetry import Telemetry
from llmbol_core.distributed.worker import run_batch
from llmbol_core.errors import ClusterError, FileError, LlmbolError

if TYPE_CHECKING:
    from llmbol_core.distributed.engine import Engine

log = logging.getLogger("llmbol.broker")

HEALTH_SECONDS = 0.5
FORGET_SECONDS = 600.0
"""Seconds between two searches for tasks that are old enough to be forgotten."""
REVIVE_SECONDS = 0.05
SUSPECT_SECONDS = 3.0
"""A node that was silent for so long gets no more tasks."""
HUNG_SECONDS = 8.0
"""A node that was silent for so long is replaced."""


class Broker:
    """All parts of a cluster but its nodes, in one process; ``serve`` runs them."""

    def __init__(self, state: StateDirectory, config: Config, engine: Engine) -> None:
        self.state, self.config, self.engine = state, config, engine
        self.store = FileStore(state.files)
        self.ledger = Ledger(state.ledger, state.results)
        self.dispatcher = Dispatcher(random.random, self.config.strategy, self.config.max_retries)
        self.telemetry = Telemetry()
        self.fleet, self.remotes, self.coach = Fleet(self), Remotes(self), Coach(self)
        self.invitations = Invitations(state)
        self.journal = Journal(self.ledger, self._saved)
        self.stopping = asyncio.Event()
        self._ended: dict[str, asyncio.Event] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._started = time.time()
        self._clock = time.time() - time.monotonic()

    async def serve(self) -> None:
        """Start everything, work until asked to stop, stop everything."""
        certificates = Certificates(self.state.tls)
        desk = Desk(self)
        door = self.door = Door(certificates, operations(desk), self.invitations.refusal)
        host, port = place(self.config.listen)
        self._address = await self._open(host, port)
        for record in self.ledger.recover():
            self.dispatcher.submit(record)
        await self.engine.start(
            self._address, self._node_up, self._node_lost, self.invitations.refusal,
            port + 1 if port else 0,
        )  # fmt: skip
        self.publish()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stopping.set)
        loops = [
            asyncio.create_task(loop)
            for loop in (self.journal.run(), self._watch(), self._forget(desk))
        ]
        await self.stopping.wait()
        for task in (*loops, *self._work):
            task.cancel()
        await self.engine.stop()
        await self.journal.flush()
        await door.stop()
        self.ledger.close()
        self.state.forget()

    async def _open(self, host: str, port: int) -> str:
        """Open the door, on the address it had before unless told otherwise or that is taken."""
        before = self.state.read()
        if not port and before is not None and before.address.startswith(f"{host}:"):
            with suppress(OSError):
                return await self.door.start(host, int(before.address.rpartition(":")[2]))
        try:
            return await self.door.start(host, port)
        except OSError as error:
            # The event loop's own message contains the address a second time.
            why = (os.strerror(error.errno) if error.errno else str(error)).lower()
            where = f"{host}:{port}" if port else host
            raise ClusterError(f"the broker cannot listen on {where}: {why}") from error

    def refusal(self, invitation: str | None) -> str | None:
        """Return why a node with an invitation may not stay, if there is a reason."""
        return self.invitations.refusal(invitation, Role.NODE)

    def now(self) -> float:
        """Return seconds since 1970, never going back while the broker lives."""
        return self._clock + time.monotonic()

    def take(self, records: Iterable[TaskRecord]) -> None:
        """Queue tasks that are on disk."""
        for record in records:
            self.dispatcher.submit(record)
        self.advance()

    def cancel(self, ids: Iterable[str]) -> list[str]:
        """Cancel the tasks that have not ended; return which those were."""
        live = [id for id in ids if id in self.dispatcher.tasks]
        for id in live:
            self._perform(self.dispatcher.cancel(id, self.now()))
        self.advance()
        return live

    async def ended(self, id: str) -> None:
        """Return when the end of a task is on disk."""
        if id in self.dispatcher.tasks or id in self._ended:
            await self._ended.setdefault(id, asyncio.Event()).wait()

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from now on, also when the broker is started again."""
        config.write(self.state.config)
        self.config = config

    def note(self, subject: str, what: str) -> None:
        """Remember an event."""
        self.telemetry.happened(self.now(), subject, what)

    def lose(self, name: str, why: str) -> None:
        """Go on without a node."""
        if not self.stopping.is_set():
            self.note(name, why)
            self.coach.node_lost(name)
            self._perform(self.dispatcher.node_lost(name, self.now()))
            self.advance()

    def latest(self, entry: Entry) -> Entry:
        """Return the ledger's entry, updated with what is not on disk yet or cannot be."""
        live = self.dispatcher.tasks.get(entry.id) or self.journal.unsaved.get(entry.id)
        if live is None:
            return entry
        return replace(
            entry, state=live.state, attempts=live.attempts, interruptions=live.interruptions,
            node=live.node, started=live.started, finished=live.finished, error=live.error,
        )  # fmt: skip

    def status(self) -> ClusterStatus:
        """Return the status of the whole cluster."""
        counts = self.ledger.counts()
        live = [record.state for record in self.dispatcher.tasks.values()]
        counts |= {state.value: live.count(state) for state in (State.QUEUED, State.RUNNING)}
        return ClusterStatus(
            self._address,
            str(self.state.root),
            round(time.time() - self._started, 1),
            self.config.strategy,
            **counts,
            retries=self.dispatcher.retries,
            throughput=self.telemetry.metrics(self.now()).rate,
            overhead=round(100 * self.dispatcher.overhead(self.now()), 1),
            nodes=self.fleet.status(),
        )

    def advance(self) -> None:
        """Do what is due now, and schedule the next call."""
        if self.stopping.is_set():
            return
        now = self.now()
        self._perform(self.dispatcher.expire(now))
        if not self.journal.refused:
            # Do not compute results that there is no room for.
            self._perform(self.dispatcher.place(now))
        if self._timer is not None:
            self._timer.cancel()
        due = self.dispatcher.next_time()
        if self.journal.refused:
            due = now + HEALTH_SECONDS
        if due is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.001, due - now), self.advance)

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Save(change):
                    if change.state in TERMINAL:
                        self._ended.setdefault(change.id, asyncio.Event())
                        now = change.finished or 0.0
                        self.telemetry.ended(now, now - change.submitted)
                    self.journal.note(change)
                case Launch():
                    self._spawn(self._run(action))
                case Replace(node, why):
                    log.warning("replacing node %s: %s", node, why)
                    self.note(node, f"replaced: {why}")
                    self.coach.node_lost(node)
                    self._spawn(self._replace(node))

    async def _run(self, launch: Launch) -> None:
        # As bytes: in anything else Dask would search for futures of its own.
        tasks = json.dumps([record.task.to_json() for record in launch.records]).encode()
        priority = launch.records[0].task.priority
        try:
            outcomes = await self.engine.run(run_batch, tasks, launch.key, launch.node, priority)
        except ClusterError as error:
            self._perform(self.dispatcher.broken(launch.key, str(error), self.now()))
        else:
            self._perform(self.dispatcher.ended(launch.key, outcomes, self.now()))
        for record in launch.records:
            self.coach.task_ended(record.task.id)
        self.advance()

    async def _replace(self, name: str) -> None:
        await self.engine.kill(name)
        self._revive()

    def _revive(self) -> None:
        """Start processes for the nodes that lost theirs."""
        try:
            if not self.stopping.is_set() and self.engine.revive():
                self.publish()
        except (OSError, FileError) as error:
            # For instance a full disk: it is tried again as long as the broker lives.
            log.error("nodes cannot be started: %s", error)

    def _spawn(self, work: object) -> None:
        """Run a coroutine to its end beside everything else."""
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def _saved(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.state in TERMINAL and (event := self._ended.pop(change.id, None)) is not None:
                event.set()

    def _node_up(self, node: ComputeNode) -> None:
        self._perform(self.dispatcher.node_lost(node.name, self.now()))
        self.dispatcher.node_up(node, cordoned=node.name in self.config.cordoned)
        self.note(node.name, "up")
        self._spawn(self._warm_up(node.name))
        self.advance()

    async def _warm_up(self, name: str) -> None:
        """Send a node an empty task: its first one takes some 50 ms longer than others."""
        with suppress(ClusterError):
            await self.engine.run(run_batch, b"[]", f"warm-up/{secrets.token_hex(8)}", name, 0)

    def _node_lost(self, name: str) -> None:
        if not self.stopping.is_set():
            if name in self.dispatcher.nodes:
                self.lose(name, "lost")
            # The connection breaks a moment before the process is gone.
            asyncio.get_running_loop().call_later(REVIVE_SECONDS, self._revive)

    async def _forget(self, desk: Desk) -> None:
        """Forget, now and then, the tasks whose time of being kept is over."""
        while True:
            await asyncio.sleep(FORGET_SECONDS)
            with suppress(ClusterError):
                gone = await desk.forget(self.config.keep)
                if gone.tasks:
                    self.note("broker", f"forgot {gone.tasks} old tasks")

    async def _watch(self) -> None:
        """Notice nodes that hang, and processes that died before they had reported."""
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            for name, vitals in self.engine.vitals().items():
                node = self.dispatcher.nodes.get(name)
                if node is None:
                    continue
                node.cpu, node.cached = vitals.cpu, frozenset(vitals.cached)
                node.usable = vitals.age < SUSPECT_SECONDS
                if vitals.age > HUNG_SECONDS:
                    why = f"no sign of life for {vitals.age:.1f} s"
                    self._perform(self.dispatcher.replace(name, why, self.now()))
            self._revive()
            self.door.sweep()
            await self.remotes.sweep()
            self.advance()

    def publish(self) -> None:
        """Publish where the broker is and which processes belong to the cluster."""
        self.state.write(
            Running(
                self._address,
                Identity.of(os.getppid()),
                Identity.of(os.getpid()),
                self.engine.processes(),
                llmbol_core.__version__,
            )
        )


def main() -> int:
    """Be the broker of the state directory in the environment; return its exit status."""
    os.umask(0o077)
    die_with_parent()
    try:
        _live()
    except LlmbolError as error:
        # Commands show their user the last line of the log.
        os.write(2, f"{error}\n".encode())
        return 1
    return 0


def _live() -> None:
    """Start the nodes, then serve until asked to stop."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    state = StateDirectory.default()
    config = Config.read(state.config)
    Certificates(state.tls).ensure()
    processes = [NodeProcess(node, state) for node in config.nodes]
    for process in processes:
        process.start()
    # Dask takes a second to import: the nodes do so at the same time.
    from llmbol_core.distributed.engine import Engine

    async def life() -> None:
        await Broker(state, config, Engine(state, processes)).serve()

    with suppress(KeyboardInterrupt):
        asyncio.run(life())


if __name__ == "__main__":
    sys.exit(main())
