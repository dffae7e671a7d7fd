"""Training on several nodes: teams without a network, then real ones that lose nodes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_core.distributed.task import State, Task
from llmbol_core.distributed.teams import GATHER_SECONDS, SAVE_SECONDS, Team
from llmbol_core.distributed.training import Start, train_tasks
from llmbol_core.errors import ClusterError, UsageError
from llmbol_core.nn import checkpoint
from llmbol_core.nn.evaluate import load_data
from llmbol_core.nn.shared_trainer import SharedTrainer
from tests.distributed.conftest import eventually

SPECS = Path(__file__).parents[2] / "specs"


@pytest.fixture(scope="module")
def cluster(shared_cluster):
    return shared_cluster


def add(parts: list[bytes]) -> bytes:
    return b"+".join(parts)


def team_of(*names: str, now: float = 0.0) -> Team:
    team = Team(len(names))
    for name in names:
        team.join(name, f"node-{name}", now)
    return team


def test_a_team_begins_when_all_are_there_or_time_is_up():
    team = Team(2)
    assert team.join("a", "n1", 10.0) is None
    assert team.join("a", "n1", 10.0 + GATHER_SECONDS - 0.1) is None
    assert team.join("b", "n2", 11.0) == {
        "rank": 1, "world": 2, "generation": 1, "snapshot": None,
    }  # fmt: skip
    alone = Team(2)
    alone.join("a", "n1", 10.0)
    begin = alone.join("a", "n1", 10.0 + GATHER_SECONDS)
    assert begin is not None
    assert begin["world"] == 1


def test_a_sum_is_known_when_all_brought_something_and_stays_known():
    team = team_of("a", "b")
    assert team.sum("b", 1, (0, "0"), b"B", add) is None
    assert team.sum("a", 1, (0, "0"), b"A", add) == b"A+B"
    assert team.sum("b", 1, (0, "0"), b"B", add) == b"A+B"
    team.sum("b", 1, (0, "1"), b"B", add)
    # What the lost one brought for a sum that is not known counts no more.
    assert team.lost(lambda member, node: node == "node-b")
    assert team.sum("a", 1, (0, "1"), b"A", add) == {"rank": 0, "world": 1, "generation": 2}
    assert team.sum("a", 2, (0, "0"), b"other rows", add) == b"A+B"
    assert team.sum("a", 2, (0, "1"), b"all", add) == b"all"
    # One step later it still is, for whoever has not got it; then nobody needs it.
    team.sum("a", 2, (1, "0"), b"next", add)
    assert team.sum("a", 2, (0, "0"), b"late", add) == b"A+B"
    team.sum("a", 2, (2, "0"), b"last", add)
    assert team.sum("a", 2, (0, "0"), b"late", add) == b"late"
    with pytest.raises(ClusterError, match="b is no member of its team any more"):
        team.sum("b", 1, (0, "1"), b"B", add)


def test_others_join_between_epochs_where_the_team_stands():
    team = team_of("a", "b")
    assert team.join("c", "n3", 1.0) is None
    assert team.gather("a", 1, 1.0) is None
    assert team.gather("b", 1, 1.0) is None
    assert team.gather("a", 1, 1.0) == {"save": True}
    assert team.join("c", "n3", 1.0) is None
    team.saved("a", 1, "hash", 1.0)
    assert team.gather("b", 1, 1.0) == {"rank": 1, "world": 3, "generation": 2}
    begin = team.join("c", "n3", 1.0)
    assert begin == {"rank": 2, "world": 3, "generation": 2, "snapshot": "hash"}


def test_where_training_stands_is_saved_now_and_then_by_whoever_is_first():
    team = team_of("a", "b")
    for epoch in (1, 2):
        assert team.gather("b", epoch, 0.1) is None
        assert team.gather("a", epoch, 0.1) == {"rank": 0, "world": 2, "generation": 1}
        assert team.gather("b", epoch, 0.1) is not None
    team.gather("a", 3, SAVE_SECONDS)
    team.gather("b", 3, SAVE_SECONDS)
    assert team.gather("a", 3, SAVE_SECONDS) == {"save": True}
    team.lost(lambda member, node: member == "a")
    assert team.gather("b", 3, SAVE_SECONDS) == {"save": True}
    team.saved("b", 3, "hash", SAVE_SECONDS)
    team.lost(lambda member, node: True)
    assert team.join("d", "n4", 20.0) is None
    begin = team.join("d", "n4", 20.0 + GATHER_SECONDS)
    assert begin == {"rank": 0, "world": 1, "generation": team.generation, "snapshot": "hash"}


def test_a_team_that_has_just_begun_has_nothing_to_save():
    team = team_of("a", now=1000.0)
    assert team.gather("a", 1, 1000.1) == {"rank": 0, "world": 1, "generation": 1}
    assert team.gather("a", 2, 1000.0 + SAVE_SECONDS) == {"save": True}


def test_who_comes_late_gets_the_result():
    team = team_of("a")
    team.finish({"checkpoint": "x", "run": {}})
    assert team.join("b", "n2", 0.0) == {"finished": {"checkpoint": "x", "run": {}}}


def trained(client: Any, id: str, members: int, start: Start, target: Path) -> dict[str, Any]:
    ids = client.expand([id])
    entries = client.wait(ids, 120)
    assert [(entry.state, entry.error) for entry in entries] == [(State.DONE, None)] * members
    results = [client.result(id).value for id in ids]
    assert all(result == results[0] for result in results) or members > 1
    start.write(client.fetch(results[0]["checkpoint"]), str(target))
    return dict(results[0]["run"])


class Alone:
    """Others of whom there are none."""

    rank, world = 0, 1

    def sum(self, step: int, part: int, nodes: Any, like: Any) -> Any:
        raise AssertionError

    def rows(self, step: int, part: int, start: int, own: Any, total: int) -> Any:
        raise AssertionError


def trained_alone(start: Start) -> tuple[Any, float]:
    """Return what training here gives, and the last loss."""
    trainer = SharedTrainer(start.model, load_data(start.model), Alone())
    with np.errstate(all="ignore"):
        while not trainer.done:
            trainer.run_epoch()
    trainer.finish()
    return start.model.network.state(), trainer.history[-1].train_loss


@pytest.mark.cluster
@pytest.mark.parametrize("fault", ["none", "node", pytest.param("broker", marks=pytest.mark.slow)])
def test_nodes_together_give_what_one_gives(client, cluster, tmp_path, fault):
    spec = str(SPECS / "digits-mlp.yaml")
    epochs = {"none": 2, "node": 12, "broker": 60}[fault]
    changes = {"epochs": epochs, "seed": 5}
    # In few large batches, so that it does not take long.
    settings = ("train.batch_size=256",) if fault != "broker" else ()
    start = Start.read(spec, None, changes, settings)
    expected, loss = trained_alone(Start.read(spec, None, changes, settings))
    id = f"train-{fault}"
    whole = Task(id, "train", {}, capability="inference")
    ids = client.submit(train_tasks(whole, start, 2))
    if fault != "none":
        assert eventually(lambda: all(client.result(i).entry.state == State.RUNNING for i in ids))
        if fault == "broker":
            # Some seconds into training, when it has been written down where that stands.
            known = cluster.root / "teams" / f"{id}.json"
            assert eventually(known.exists)
        victim = client.status().nodes[0].pid if fault == "node" else cluster.running().broker.pid
        os.kill(victim, signal.SIGKILL)
    run = trained(client, id, 2, start, tmp_path / "together.gguf")
    assert (run["epochs"], run["train_loss"]) == (epochs, loss)
    # With batch normalization, dropout and Adam, to the bit, whoever died meanwhile.
    state = checkpoint.load(str(tmp_path / "together.gguf")).network.state()
    assert all(np.array_equal(state[name], value) for name, value in expected.items())
    # What a killed node left is gone.
    assert eventually(lambda: not list(cluster.scratch.glob("task@*")))


@pytest.mark.cluster
def test_the_same_training_is_the_same_task(client, tmp_path):
    spec = str(SPECS / "digits-mlp.yaml")
    whole = Task("same", "train", {}, capability="inference")
    for _ in range(2):
        start = Start.read(spec, None, {"epochs": 1})
        assert client.submit(train_tasks(whole, start, 1)) == ["same.1"]
    assert client.wait(["same.1"], 60)[0].state == State.DONE
    with pytest.raises(UsageError, match="with other content"):
        client.submit(train_tasks(whole, Start.read(spec, None, {"epochs": 2}), 1))


def test_what_cannot_be_trained_is_told_before_anything_is_sent(tmp_path):
    spec = str(SPECS / "digits-mlp.yaml")
    with pytest.raises(UsageError, match="0 nodes: expected between 1 and 256"):
        train_tasks(Task("t", "train", {}), Start.read(spec), 0)
    with pytest.raises(Exception, match="no such file"):
        Start.read(spec, str(tmp_path / "none.npz"))
