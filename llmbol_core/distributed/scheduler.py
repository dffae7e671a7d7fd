"""The scheduler of the front page: a program's own cluster, behind four methods.

::

    with create_scheduler(strategy="least-loaded", max_retries=3) as scheduler:
        scheduler.register_node(create_compute_node("node1", "localhost", 8080, ["inference"]))
        scheduler.submit_task(create_task("task1", "inference", {"model": ..., "input": ...}, 1))
        outputs = scheduler.wait_for_result("task1")

The nodes start with the first task. They are processes of their own, as is everything that watches
over them; all of it goes away with the scheduler or the program, whichever ends first.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from llmbol_core.distributed.client import Client
from llmbol_core.distributed.control import OwnCluster
from llmbol_core.distributed.jobs import job
from llmbol_core.distributed.ledger import Entry
from llmbol_core.distributed.node import ComputeNode, check_port
from llmbol_core.distributed.report import ClusterStatus, Config, NodeStatus
from llmbol_core.distributed.strategies import DEFAULT
from llmbol_core.distributed.task import Task
from llmbol_core.errors import ClusterError, UsageError
from llmbol_core.native.files import atomic_write


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What a scheduler has and what became of its tasks."""

    strategy: str
    nodes: int
    nodes_up: int
    """Nodes that serve; none before the first task."""
    queued: int
    running: int
    done: int
    failed: int
    cancelled: int
    retries: int
    node_stats: tuple[NodeStatus, ...]

    @property
    def tasks(self) -> int:
        """How many tasks were submitted."""
        return self.queued + self.running + self.done + self.failed + self.cancelled


class Scheduler:
    """Runs tasks on compute nodes that belong to this program; a context manager.

    Several threads may share one.
    """

    def __init__(self, strategy: str = DEFAULT, max_retries: int = 3) -> None:
        self._config = Config((), strategy, max_retries)
        self._lock = threading.RLock()
        self._cluster: OwnCluster | None = None
        self._client: Client | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()

    def register_node(self, node: ComputeNode) -> None:
        """Add a node; it starts with the first task, or at once if there was one.

        Raises UsageError if the name or the port is taken.
        """
        _check_type(node, ComputeNode, "create_compute_node")
        with self._lock:
            self._check_open()
            check_port(node)
            config = Config(
                (*self._config.nodes, node), self._config.strategy, self._config.max_retries
            )
            if self._client is not None:
                self._client.add_node(node)
            self._config = config

    def submit_task(self, task: Task) -> str:
        """Submit a task and return its id.

        The nodes start now if this is the first task. Raises UsageError for a payload that the type
        of task does not take, ClusterError if the nodes do not start.
        """
        return self.submit_tasks([task])[0]

    def submit_tasks(self, tasks: Iterable[Task]) -> list[str]:
        """Submit several tasks at once, as ``submit_task`` does, and return their ids."""
        tasks = list(tasks)
        for task in tasks:
            _check_type(task, Task, "create_task")
            job(task.type)
        return self._connected().submit(tasks)

    def wait_for_result(self, id: str, timeout: float | None = None) -> Any:
        """Return what a task returned, when it has ended.

        Raises TaskFailed if it left no result, ClusterError if it takes longer than the time-out,
        in seconds.
        """
        return self.wait_for_results([id], timeout)[0]

    def wait_for_results(self, ids: Sequence[str], timeout: float | None = None) -> list[Any]:
        """Return what several tasks returned, in the order asked for."""
        client = self._connected()
        client.wait(ids, timeout)
        return [result.value for result in client.results(ids)]

    def states(self, ids: Sequence[str], seconds: float = 0.0) -> list[Entry]:
        """Return the state of each task once all have ended, or after so many seconds."""
        return self._connected().poll(ids, seconds)

    def save_model(self, id: str, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint that a training task left to a file, when the task has ended."""
        trained = self.wait_for_result(id)
        if not isinstance(trained, dict) or "checkpoint" not in trained:
            raise UsageError(f"task {id} has trained no model")
        with atomic_write(path) as file:
            file.write(self._connected().fetch(str(trained["checkpoint"])))

    def cancel_task(self, id: str) -> bool:
        """End a task; return false if it had ended already."""
        return bool(self._connected().cancel([id]))

    def get_stats(self) -> SchedulerStats:
        """Return the state of the nodes, and how many tasks are in which state."""
        with self._lock:
            self._check_open()
            config, client = self._config, self._client
        status = client.status() if client is not None else _unstarted(config)
        return SchedulerStats(
            config.strategy, len(config.nodes), status.nodes_up, status.queued, status.running,
            status.done, status.failed, status.cancelled, status.retries, status.nodes,
        )  # fmt: skip

    def shutdown(self) -> None:
        """Stop the nodes; tasks that have not ended are lost. May be called again."""
        atexit.unregister(self.shutdown)
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
            cluster, self._cluster = self._cluster, None
        if client is not None:
            client.close()
        if cluster is not None:
            cluster.stop()

    def _connected(self) -> Client:
        """Return the connection to the cluster, which starts now if it does not run."""
        with self._lock:
            self._check_open()
            if self._client is None:
                if not self._config.nodes:
                    raise UsageError("the scheduler has no nodes; add one with register_node(...)")
                self._cluster = OwnCluster(self._config)
                self._client = Client(self._cluster.state)
                atexit.register(self.shutdown)
            return self._client

    def _check_open(self) -> None:
        if self._closed:
            raise ClusterError("the scheduler was shut down")


def _check_type(thing: object, kind: type, maker: str) -> None:
    if not isinstance(thing, kind):
        raise TypeError(f"{thing!r} is no {kind.__name__}: make one with {maker}(...)")


def create_scheduler(strategy: str = DEFAULT, max_retries: int = 3) -> Scheduler:
    """Return a scheduler without nodes.

    The strategy is one of round-robin, least-loaded, random and capability-based. A task that fails
    for a reason that may pass is tried up to ``max_retries`` more times. Raises UsageError.

    >>> create_scheduler(strategy="round-robin").get_stats().nodes
    0
    """
    return Scheduler(strategy, max_retries)


def _unstarted(config: Config) -> ClusterStatus:
    """Return the status of a cluster whose first task has not come."""
    nodes = tuple(NodeStatus.starting(node) for node in config.nodes)
    return ClusterStatus("", "", 0, config.strategy, 0, 0, 0, 0, 0, 0, 0, 0, nodes)
