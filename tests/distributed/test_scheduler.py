from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import llmbol_core
from llmbol_core.distributed.node import MOST_NODES, local_nodes
from llmbol_core.distributed.scheduler import create_scheduler
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import create_task
from llmbol_core.errors import ClusterError, UsageError
from llmbol_core.nn.checkpoint import load_for_inference
from tests.distributed.conftest import eventually, processes_of

SMALL = """
name: small
input: {shape: [3]}
layers:
  - Linear: {in_features: 3, out_features: 3}
train: {data: d.npz, inputs: x, targets: y, split: {test: 0.25}, loss: CrossEntropy, epochs: 2}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_nothing_starts_before_the_first_task():
    scheduler = llmbol_core.create_scheduler(strategy="least-loaded", max_retries=3)
    node = llmbol_core.create_compute_node("node1", "localhost", free_port(), ["inference"])
    scheduler.register_node(node)
    stats = scheduler.get_stats()
    assert (stats.nodes, stats.nodes_up, stats.tasks) == (1, 0, 0)
    assert stats.node_stats[0].state == "starting"
    scheduler.shutdown()
    with pytest.raises(ClusterError, match="was shut down"):
        scheduler.get_stats()


def test_mistakes_are_told_when_they_are_made():
    with pytest.raises(UsageError, match="did you mean 'least-loaded'"):
        create_scheduler("least_loaded")
    scheduler = create_scheduler()
    assert len(local_nodes(MOST_NODES)) == MOST_NODES
    for count in (0, MOST_NODES + 1):
        with pytest.raises(UsageError, match=f"{count} nodes: expected between 1 and {MOST_NODES}"):
            local_nodes(count)
    with pytest.raises(UsageError, match="has no nodes"):
        scheduler.submit_task(create_task("t", "probe", {}))
    with pytest.raises(TypeError, match="'a' is no ComputeNode: make one with create_compute_node"):
        scheduler.register_node("a")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="'t' is no Task: make one with create_task"):
        scheduler.submit_task("t")  # type: ignore[arg-type]
    scheduler.register_node(llmbol_core.create_compute_node("a"))
    with pytest.raises(UsageError, match="two nodes with one name"):
        scheduler.register_node(llmbol_core.create_compute_node("a"))
    with pytest.raises(UsageError, match="unknown task type 'dance'"):
        scheduler.submit_task(create_task("t", "dance", {}))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on localhost: address already in use"):
            scheduler.register_node(llmbol_core.create_compute_node("b", "localhost", port))


@pytest.mark.cluster
def test_a_program_has_a_cluster_of_its_own(tmp_path):
    port = free_port()
    with create_scheduler(strategy="round-robin") as scheduler:
        scheduler.register_node(llmbol_core.create_compute_node("node1", "localhost", port))
        ids = scheduler.submit_tasks(create_task(f"t{i}", "probe", {"echo": i}) for i in range(4))
        assert scheduler.wait_for_results(ids, 20) == [0, 1, 2, 3]
        socket.create_connection(("127.0.0.1", port), 2).close()
        with pytest.raises(UsageError, match="task t0 has trained no model"):
            scheduler.save_model("t0", tmp_path / "m.gguf")
        spec = tmp_path / "small.yaml"
        spec.write_text(SMALL)
        np.savez(tmp_path / "d.npz", x=np.eye(12, 3), y=np.arange(12) % 3)
        scheduler.submit_task(create_task("trained", "train", {"spec": spec}))
        scheduler.save_model("trained", tmp_path / "m.gguf")
        assert load_for_inference(str(tmp_path / "m.gguf")).output_shape == (3,)
        scheduler.submit_task(create_task("long", "probe", {"seconds": 60}))
        with pytest.raises(ClusterError, match=r"long (running|queued) after 0\.2 s"):
            scheduler.wait_for_result("long", 0.2)
        assert scheduler.cancel_task("long")
        stats = scheduler.get_stats()
        assert (stats.done, stats.cancelled, stats.strategy) == (5, 1, "round-robin")
        assert scheduler._cluster is not None
        state = scheduler._cluster.state
        assert processes_of(state)
    assert eventually(lambda: not processes_of(state), 1)
    assert not state.root.exists()
    scheduler.shutdown()


@pytest.mark.cluster
def test_it_goes_away_with_the_program_however_that_ends(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent("""
            import os
            import llmbol_core

            scheduler = llmbol_core.create_scheduler()
            scheduler.register_node(llmbol_core.create_compute_node("node1"))
            scheduler.submit_task(llmbol_core.create_task("t", "probe", {"echo": "hello"}))
            print(scheduler.wait_for_result("t", 20), scheduler._cluster.state.root, flush=True)
            os._exit(3)
            """)
    )
    root = Path(__file__).parent.parent.parent
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (3, "")
    answer, directory = ended.stdout.split()
    assert answer == "hello"
    assert eventually(lambda: not processes_of(StateDirectory(Path(directory))))
    assert not Path(directory).exists()
