from __future__ import annotations

import asyncio
import time

import pytest

import llmbol_core
from llmbol_core.distributed.async_scheduler import WAITERS
from llmbol_core.errors import ClusterError, TaskFailed, UsageError


async def story() -> None:
    async with llmbol_core.create_async_scheduler(max_retries=0) as scheduler:
        with pytest.raises(UsageError, match="no nodes"):
            await scheduler.submit_task(llmbol_core.create_task("t", "probe", {}))
        for name in ("a", "b"):
            await scheduler.register_node(llmbol_core.create_compute_node(name))
        tasks = [
            llmbol_core.create_task(f"t{n}", "probe", {"echo": n, "seconds": 0.05})
            for n in range(WAITERS + 20)
        ]
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        heart = asyncio.create_task(beat())
        ids = await scheduler.submit_tasks(tasks)
        # More of them wait than there are threads.
        results = await asyncio.gather(*map(scheduler.wait_for_result, ids))
        assert results == list(range(len(tasks)))
        assert await scheduler.wait_for_results(ids[:3]) == [0, 1, 2]
        # The event loop went on meanwhile.
        assert beats > 20
        heart.cancel()

        long = llmbol_core.create_task("long", "probe", {"seconds": 60})
        await scheduler.submit_task(long)
        with pytest.raises(ClusterError, match=r"task long (queued|running) after 0\.2 s"):
            await scheduler.wait_for_result("long", 0.2)
        waiting = asyncio.create_task(scheduler.wait_for_result("long"))
        await asyncio.sleep(0.1)
        start = time.monotonic()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - start < 30  # it runs for 60
        assert await scheduler.cancel_task("long")
        with pytest.raises(TaskFailed, match="cancelled"):
            await scheduler.wait_for_result("long", 20)
        assert (await scheduler.get_stats()).done == len(tasks)
    with pytest.raises(ClusterError, match="was shut down"):
        await scheduler.get_stats()


@pytest.mark.cluster
def test_an_asynchronous_program_has_the_same_methods():
    asyncio.run(story())
