from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.results import INLINE
from llmbol_core.distributed.task import Event, State, TaskRecord, create_task
from llmbol_core.errors import ClusterError


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "results").mkdir()
    made = Ledger(tmp_path / "ledger.sqlite", tmp_path / "results")
    yield made
    made.close()


def record(ledger: Ledger, id: str) -> TaskRecord:
    return TaskRecord(create_task(id, "probe", {"echo": id}), ledger.next_seq(), 100.0)


def run(ledger: Ledger, one: TaskRecord, data: bytes) -> None:
    one.apply(Event.LAUNCH, 101.0)
    one.node = "node-1"
    ledger.commit([], [one.change()])
    one.apply(Event.FINISH, 102.0)
    ledger.commit([], [one.change(data)])


@pytest.mark.parametrize("size", [0, 1, INLINE, INLINE + 1])
def test_a_result_comes_back_as_it_was_whatever_its_size(ledger, size):
    one = record(ledger, "t")
    ledger.commit([one], [])
    assert ledger.data("t") == b""
    run(ledger, one, b"x" * size)
    data = ledger.data("t")
    assert (data.read_bytes() if isinstance(data, Path) else data) == b"x" * size
    entry = ledger.entry("t")
    assert (entry.state, entry.node, entry.started, entry.finished) == (
        "done", "node-1", 101.0, 102.0,
    )  # fmt: skip


def test_what_has_ended_does_not_change(ledger):
    one = record(ledger, "t")
    ledger.commit([one], [])
    run(ledger, one, b"first")
    late = replace(one.change(b"second"), state=State.FAILED, error="late")
    ledger.commit([], [late])
    assert ledger.data("t") == b"first"
    assert ledger.entry("t").state == "done"


def test_what_had_not_ended_is_there_after_a_crash(tmp_path, ledger):
    waiting, running, ended = (record(ledger, id) for id in ("w", "r", "e"))
    ledger.commit([waiting, running, ended], [])
    running.apply(Event.LAUNCH, 101.0)
    ledger.commit([], [running.change()])
    run(ledger, ended, b"")
    # No close: the second one opens what is on disk.
    after = Ledger(tmp_path / "ledger.sqlite", tmp_path / "results")
    recovered = after.recover()
    assert [(r.task.id, r.state, r.interruptions) for r in recovered] == [
        ("w", State.QUEUED, 0), ("r", State.QUEUED, 1),
    ]  # fmt: skip
    assert recovered[0].task == waiting.task
    assert after.next_seq() > ended.seq
    after.close()


def test_a_transaction_is_all_or_nothing(ledger):
    one = record(ledger, "t")
    ledger.commit([one], [])
    with pytest.raises(ClusterError, match="cannot be written"):
        ledger.commit([record(ledger, "new"), one], [])
    assert ledger.entry("new") is None
    ledger.commit([record(ledger, "new")], [])
    assert ledger.counts()["queued"] == 2
    assert [entry.id for entry in ledger.entries(1)] == ["new"]


def test_writes_are_forced_to_the_disk(ledger, tmp_path):
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_ledger_that_is_none_is_refused(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"something else entirely" * 100)
    with pytest.raises(ClusterError, match="cannot be opened"):
        Ledger(tmp_path / "ledger.sqlite", tmp_path)


def test_a_damaged_ledger_is_told_in_one_way(tmp_path, ledger):
    ledger.commit([record(ledger, "t")], [])
    ledger._db.execute("UPDATE task SET task = 'no task'")
    with pytest.raises(ClusterError, match=r"ledger\.sqlite: the ledger is damaged: "):
        ledger.recover()
    ledger._db.execute("DROP TABLE task")
    with pytest.raises(ClusterError, match="the ledger is damaged: no such table"):
        ledger.entries(1)


def test_what_ended_long_ago_can_be_forgotten(ledger, tmp_path):
    old, waiting = record(ledger, "old"), record(ledger, "waiting")
    ledger.commit([old, waiting], [])
    run(ledger, old, b"x" * (INLINE + 1))
    assert ledger.prune(102.0) == []
    assert ledger.prune(102.5) == ["old"]
    assert ledger.entry("old") is None
    assert not list((tmp_path / "results").iterdir())
    assert ledger.entry("waiting").state == "queued"
    assert ledger.hashes() == set()


def test_what_is_forgotten_is_forgotten_as_a_member_too(ledger, tmp_path):
    task = replace(create_task("t1", "probe", {}), group="team")
    one = TaskRecord(task, ledger.next_seq(), 100.0)
    ledger.commit([one], [])
    run(ledger, one, b"")
    assert ledger.members("team") == ["t1"]
    assert ledger.prune(200.0) == ["t1"]
    # Numbers of tasks that nobody remembers come again.
    after = Ledger(tmp_path / "ledger.sqlite", tmp_path / "results")
    other = TaskRecord(replace(task, id="t2"), after.next_seq(), 100.0)
    assert other.seq == one.seq
    after.commit([other], [])
    assert after.members("team") == ["t2"]
    after.close()


def test_the_node_that_a_task_was_on_last_stays_known(ledger):
    one = record(ledger, "t")
    ledger.commit([one], [])
    one.apply(Event.LAUNCH, 101.0)
    one.node = "node-1"
    ledger.commit([], [one.change()])
    one.apply(Event.RETRY, 102.0, "lost")
    ledger.commit([], [one.change()])
    assert (ledger.entry("t").state, ledger.entry("t").node) == ("queued", "node-1")
