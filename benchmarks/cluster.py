"""What a cluster of two nodes costs: start, journeys, throughput, faults; beside plain Dask.

Run on an idle machine: ``python -m benchmarks.cluster``. Every task of ours is on disk before it is
acknowledged and its result before it is reported, over mutual TLS; plain Dask keeps nothing and
encrypts nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from llmbol_core.distributed import control
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import Task, create_task

JOURNEYS, BURST, NAPS, NAP = 200, 5000, 60, 0.1


@contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start


def probe(id: str, seconds: float = 0.0) -> Task:
    return create_task(id, "probe", {"echo": id, "seconds": seconds})


def line(what: str, value: float, unit: str, goal: str = "") -> None:
    print(f"{what:44} {value:10.2f} {unit:8} {goal}")


def percentiles(name: str, journey: Callable[[int], object], goal: str = "") -> None:
    """Time journeys one after the other."""
    times = []
    for number in range(JOURNEYS):
        with clock() as passed:
            journey(number)
        times.append(passed() * 1000)
    line(f"{name}: round trip p50", statistics.median(times), "ms", goal)
    line(f"{name}: round trip p99", statistics.quantiles(times, n=100)[98], "ms")


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def measure_idle(state: StateDirectory, seconds: float = 10.0) -> None:
    everyone = family(psutil.Process(state.running().guardian.pid))
    line("idle memory", sum(p.memory_info().rss for p in everyone) / 1e6, "MB", "<= 400")
    before = sum(sum(p.cpu_times()[:2]) for p in everyone)
    time.sleep(seconds)
    used = sum(sum(p.cpu_times()[:2]) for p in everyone) - before
    line("idle CPU", 100 * used / seconds, "%", "<= 2")


def measure_ours(state: StateDirectory) -> None:
    with clock() as passed:
        control.start(state, Config(tuple(local_nodes(2))))
    line("start until both nodes are up", passed(), "s", "<= 4")
    measure_idle(state)
    with Client(state) as client:

        def journey(number: int) -> None:
            client.submit([probe(f"journey-{number}")])
            client.wait([f"journey-{number}"])

        percentiles("llmbol", journey, "<= 25")
        with clock() as passed:
            ids = client.submit([probe(f"burst-{number}") for number in range(BURST)])
            client.wait(ids)
        line("llmbol: short tasks", BURST / passed(), "tasks/s", ">= 5000")
        client.wait(client.submit([probe("first-nap", NAP)]))
        with clock() as passed:
            client.wait(client.submit([probe(f"nap-{number}", NAP) for number in range(NAPS)]))
        line("llmbol: efficiency of 100 ms tasks", 50 * NAPS * NAP / passed(), "%", ">= 90")
        os.kill(client.status().nodes[0].pid, signal.SIGKILL)
        with clock() as passed:
            while client.status().nodes_up == 2:
                pass
            noticed = passed()
            while client.status().nodes_up < 2:
                time.sleep(0.01)
        line("a killed node is noticed after", noticed, "s", "<= 0.1")
        line("a killed node is replaced after", passed(), "s", "<= 2")
    with clock() as passed:
        control.stop(state)
    line("stop", passed(), "s")


def measure_dask() -> None:
    from distributed import Client as DaskClient  # noqa: TID251 -- the peer
    from distributed import LocalCluster  # noqa: TID251 -- the peer

    with (
        clock() as passed,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        DaskClient(cluster) as client,
    ):
        line("dask: start", passed(), "s")
        percentiles("dask", lambda number: client.submit(str, number, pure=False).result())
        with clock() as passed:
            client.gather(client.map(str, range(BURST), pure=False))
        line("dask: short tasks", BURST / passed(), "tasks/s")


def main() -> None:
    """Print one line for each figure: value, unit, goal."""
    state = StateDirectory(Path(tempfile.mkdtemp(prefix="lb-")))
    try:
        measure_ours(state)
    finally:
        if state.is_held():
            control.stop(state)
        shutil.rmtree(state.root, ignore_errors=True)
    measure_dask()


if __name__ == "__main__":
    main()
