"""What a cluster of two nodes costs: start, journeys, throughput, faults; beside plain Dask.

Run on an idle machine: ``python -m benchmarks.cluster [PART ...]``.
Every task of ours is on disk before it is acknowledged and its result before it is reported, over
mutual TLS; plain Dask keeps nothing and encrypts nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import sys
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
from llmbol_core.distributed.splitting import inference_tasks, pieces_of, stream
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import Task, create_task

JOURNEYS, BURST, NAPS, NAP = 200, 5000, 60, 0.1
MANY, SAMPLES = 100_000, 1_200_000
CNN = Path(__file__).parents[1] / "specs" / "digits-cnn.yaml"


@contextmanager
def clock() -> Iterator[Callable[[], float]]:
    """Yield a function that returns the seconds since the block began."""
    start = time.perf_counter()
    yield lambda: time.perf_counter() - start


def probe(id: str, seconds: float = 0.0) -> Task:
    return create_task(id, "probe", {"echo": id, "seconds": seconds})


def line(what: str, value: float, unit: str, goal: str = "") -> None:
    print(f"{what:44} {value:10.2f} {unit:8} {goal}")


def percentiles(name: str, journey: Callable[[int], object], *goals: str) -> None:
    """Time journeys one after the other."""
    times = []
    for number in range(JOURNEYS):
        with clock() as passed:
            journey(number)
        times.append(passed() * 1000)
    goals = goals or ("", "")
    line(f"{name}: round trip p50", statistics.median(times), "ms", goals[0])
    line(f"{name}: round trip p99", statistics.quantiles(times, n=100)[98], "ms", goals[1])


@contextmanager
def cluster(nodes: int = 2) -> Iterator[tuple[StateDirectory, Client]]:
    """Yield a cluster of a state directory of its own."""
    state = StateDirectory(Path(tempfile.mkdtemp(prefix="lb-")))
    try:
        control.start(state, Config(tuple(local_nodes(nodes))))
        with Client(state) as client:
            client.wait(client.submit([probe(f"first-{number}") for number in range(4)]))
            yield state, client
    finally:
        if state.is_held():
            control.stop(state)
        shutil.rmtree(state.root, ignore_errors=True)


def family(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def measure_start() -> None:
    state = StateDirectory(Path(tempfile.mkdtemp(prefix="lb-")))
    with clock() as passed:
        control.start(state, Config(tuple(local_nodes(2))))
    line("start until both nodes are up", passed(), "s", "<= 4")
    with clock() as passed:
        control.stop(state)
    line("stop", passed(), "s")
    shutil.rmtree(state.root, ignore_errors=True)


def measure_idle(seconds: float = 10.0) -> None:
    with cluster() as (state, _):
        everyone = family(psutil.Process(state.running().guardian.pid))
        line("idle memory", sum(p.memory_info().rss for p in everyone) / 1e6, "MB", "<= 400")
        before = sum(sum(p.cpu_times()[:2]) for p in everyone)
        time.sleep(seconds)
        used = sum(sum(p.cpu_times()[:2]) for p in everyone) - before
        line("idle CPU", 100 * used / seconds, "%", "<= 2")


def measure_journeys() -> None:
    with cluster() as (_, client):

        def journey(number: int) -> None:
            client.submit([probe(f"journey-{number}")])
            client.wait([f"journey-{number}"])

        percentiles("llmbol", journey, "<= 25", "<= 50")


def measure_throughput() -> None:
    with cluster() as (_, client):
        client.wait(client.submit([probe(f"warm-{number}") for number in range(500)]))
        for round in range(3):
            with clock() as passed:
                ids = client.submit([probe(f"burst-{round}-{number}") for number in range(BURST)])
                client.wait(ids)
            line("llmbol: short tasks", BURST / passed(), "tasks/s", ">= 5000")
        client.wait(client.submit([probe("first-nap", NAP)]))
        with clock() as passed:
            client.wait(client.submit([probe(f"nap-{number}", NAP) for number in range(NAPS)]))
        line("llmbol: efficiency of 100 ms tasks", 50 * NAPS * NAP / passed(), "%", ">= 90")


def measure_growth() -> None:
    with cluster() as (state, client):
        broker = psutil.Process(state.running().broker.pid)

        def work(name: str, count: int) -> None:
            for start in range(0, count, BURST):
                numbers = range(start, start + BURST)
                client.wait(client.submit([probe(f"{name}-{number}") for number in numbers]))

        work("warm", 2 * BURST)
        before = broker.memory_info().rss
        with clock() as passed:
            work("many", MANY)
        grown = (broker.memory_info().rss - before) / 1e6
        line(f"broker growth over {MANY} tasks", grown, "MB", "<= 10")
        line("tasks meanwhile", MANY / passed(), "tasks/s")


def measure_faults() -> None:
    with cluster() as (state, client):

        def until_up(what: str, goal: str, noticed_goal: str) -> None:
            with clock() as passed:
                while client.status().nodes_up == 2:
                    time.sleep(0.005)
                line(f"{what} is noticed after", passed(), "s", noticed_goal)
                while client.status().nodes_up < 2:
                    time.sleep(0.01)
                line(f"{what} is replaced after", passed(), "s", goal)

        for signum, what, noticed in (
            (signal.SIGKILL, "a killed node", "<= 0.1"), (signal.SIGSTOP, "a hung node", "<= 8"),
        ):  # fmt: skip
            pid = client.status().nodes[0].pid
            assert pid is not None
            os.kill(pid, signum)
            until_up(what, "2 s later", noticed)
        os.kill(state.running().broker.pid, signal.SIGKILL)
        with clock() as passed:
            client.status()
            line("a killed broker is back after", passed(), "s", "<= 3")
            while client.status().nodes_up < 2:
                time.sleep(0.01)
            line("... with its nodes after", passed(), "s")


def cpu_seconds(state: StateDirectory) -> tuple[float, float]:
    """Return the CPU seconds of the nodes and those of the broker and this client."""
    running = state.running()
    nodes = [psutil.Process(node.pid) for node in running.nodes]
    others = [psutil.Process(running.broker.pid), psutil.Process()]
    used = [sum(sum(p.cpu_times()[:2]) for p in some) for some in (nodes, others)]
    return used[0], used[1]


def measure_inference() -> None:
    """Run a large file through the CNN of the digits on one node and on two, in turns.

    All share two cores, so the gain is at most twice the nodes' share of all CPU time.
    """
    import numpy as np

    from llmbol_core.nn.checkpoint import load_for_inference, save
    from llmbol_core.nn.spec import read_spec

    with tempfile.TemporaryDirectory() as folder, cluster(1) as one, cluster(2) as two:
        model, x = f"{folder}/cnn.gguf", Path(folder, "x.npy")
        save(read_spec(str(CNN)).seeded(), model)
        shape = load_for_inference(model).input_shape
        rows = np.random.default_rng(0).random((SAMPLES, *shape), np.float32)
        rates: dict[str, list[float]] = {"one node": [], "two nodes": []}
        most = dict.fromkeys(rates, 0.0)
        for round in range(3):
            # Other bytes each time, or they would be there already.
            np.save(x, rows + np.float32(round))
            for name, (state, client) in (("one node", one), ("two nodes", two)):
                before = cpu_seconds(state)
                pieces = pieces_of(x, shape)
                assert pieces is not None
                whole = create_task(f"infer-{round}", "inference", {"model": model})
                with clock() as passed:
                    tasks = inference_tasks(whole, pieces)
                    found = sum(len(r.value) for r in stream(client, tasks, pieces.count))
                assert found == SAMPLES
                rates[name].append(SAMPLES / passed())
                spent = [after - b for after, b in zip(cpu_seconds(state), before, strict=True)]
                most[name] = max(most[name], 2 * spent[0] / sum(spent))
    for name, found_rates in rates.items():
        line(f"digits CNN, {name}", max(found_rates), "samples/s")
    gain = max(rates["two nodes"]) / max(rates["one node"])
    line("the most that the CPU seconds allow", most["two nodes"], "times")
    line("two nodes over one", gain, "times", ">= 1.7")


def measure_dask() -> None:
    from distributed import Client as DaskClient  # noqa: TID251 -- the peer
    from distributed import LocalCluster  # noqa: TID251 -- the peer

    with (
        clock() as passed,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as local,
        DaskClient(local) as client,
    ):
        line("dask: start", passed(), "s")
        percentiles("dask", lambda number: client.submit(str, number, pure=False).result())
        with clock() as passed:
            client.gather(client.map(str, range(BURST), pure=False))
        line("dask: short tasks", BURST / passed(), "tasks/s")


PARTS: dict[str, Callable[[], None]] = {
    "start": measure_start,
    "idle": measure_idle,
    "journeys": measure_journeys,
    "throughput": measure_throughput,
    "dask": measure_dask,
    "faults": measure_faults,
    "growth": measure_growth,
    "inference": measure_inference,
}


def main() -> None:
    """Print one line for each figure: value, unit, goal."""
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
