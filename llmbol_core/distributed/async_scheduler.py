"""The scheduler for asynchronous programs: the same methods, to be awaited.

::

    async with create_async_scheduler(strategy="least-loaded") as scheduler:
        await scheduler.register_node(create_compute_node("node1"))
        await scheduler.submit_task(create_task("task1", "inference", {...}))
        outputs = await scheduler.wait_for_result("task1")
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.scheduler import Scheduler, SchedulerStats
from llmbol_core.distributed.strategies import DEFAULT
from llmbol_core.distributed.task import TERMINAL, Task
from llmbol_core.errors import ClusterError

T = TypeVar("T")

SLICE_SECONDS = 1.0
"""How long a thread is held for each wait: after a cancellation it is free again by then."""
WAITERS, WORKERS = 64, 8


class AsyncScheduler:
    """A ``Scheduler`` whose methods do not block the event loop; an asynchronous context manager.

    Any number of coroutines may wait at the same time, and be cancelled.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        # Waiting takes no threads from other requests.
        self._workers = ThreadPoolExecutor(WORKERS, "llmbol-ask")
        self._waiters = ThreadPoolExecutor(WAITERS, "llmbol-wait")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.shutdown()

    async def register_node(self, node: ComputeNode) -> None:
        """Add a node; see ``Scheduler.register_node``."""
        await self._run(self._scheduler.register_node, node)

    async def submit_task(self, task: Task) -> str:
        """Submit a task and return its id."""
        return await self._run(self._scheduler.submit_task, task)

    async def submit_tasks(self, tasks: Iterable[Task]) -> list[str]:
        """Submit tasks, together, and return their ids."""
        return await self._run(self._scheduler.submit_tasks, list(tasks))

    async def wait_for_result(self, id: str, timeout: float | None = None) -> Any:
        """Return what a task returned, when it has ended; see ``Scheduler.wait_for_result``."""
        return (await self.wait_for_results([id], timeout))[0]

    async def wait_for_results(self, ids: Sequence[str], timeout: float | None = None) -> list[Any]:
        """Return what several tasks returned, in the order asked for."""
        deadline = None if timeout is None else time.monotonic() + timeout
        loop = asyncio.get_running_loop()
        while True:
            left = SLICE_SECONDS if deadline is None else max(0.0, deadline - time.monotonic())
            seconds = min(left, SLICE_SECONDS)
            entries = await loop.run_in_executor(
                self._waiters, self._scheduler.states, list(ids), seconds
            )
            open_ones = [entry for entry in entries if entry.state not in TERMINAL]
            if not open_ones:
                return await self._run(self._scheduler.wait_for_results, list(ids))
            if deadline is not None and time.monotonic() >= deadline:
                entry = open_ones[0]
                raise ClusterError(f"task {entry.id} {entry.state} after {timeout:g} s")

    async def save_model(self, id: str, path: str | os.PathLike[str]) -> None:
        """Write the checkpoint that a training task left; see ``Scheduler.save_model``."""
        await self.wait_for_result(id)
        await self._run(self._scheduler.save_model, id, path)

    async def cancel_task(self, id: str) -> bool:
        """End a task; return false if it had ended already."""
        return await self._run(self._scheduler.cancel_task, id)

    async def get_stats(self) -> SchedulerStats:
        """Return the state of the nodes, and how many tasks are in which state."""
        return await self._run(self._scheduler.get_stats)

    async def shutdown(self) -> None:
        """Stop the nodes; tasks that have not ended are lost. May be called again."""
        await self._run(self._scheduler.shutdown)
        self._waiters.shutdown(wait=False)

    async def _run(self, function: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, function, *arguments)


def create_async_scheduler(strategy: str = DEFAULT, max_retries: int = 3) -> AsyncScheduler:
    """Return a scheduler without nodes for an asynchronous program; see ``create_scheduler``."""
    return AsyncScheduler(Scheduler(strategy, max_retries))
