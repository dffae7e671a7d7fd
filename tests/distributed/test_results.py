from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.results import Results
from llmbol_core.distributed.task import Event, Kept, State, TaskRecord, create_task
from llmbol_core.errors import ClusterError, FileError


@pytest.fixture
def results(tmp_path):
    (tmp_path / "results").mkdir()
    return Results(tmp_path / "results")


def test_what_a_node_left_gets_its_place_once(results):
    kept = results.leave("node-1", b"data")
    assert not results.path("task").exists()
    results.put("task", kept)
    assert results.path("task").read_bytes() == b"data"
    assert results.path("task").stat().st_mode & 0o077 == 0
    # The ledger could not be written and all is tried again.
    results.put("task", kept)
    assert results.path("task").read_bytes() == b"data"
    with pytest.raises(FileError, match="no such file"):
        results.put("other", kept)


@pytest.mark.parametrize("name", ["../secret", "task", ".x", "/etc/passwd", ".a/b.part", ""])
def test_a_node_cannot_have_another_file_for_its_result(results, name):
    with pytest.raises(ClusterError, match="no name of a result"):
        results.put("task", Kept(name))


def test_what_nobody_wanted_is_swept_away(results, tmp_path):
    old, new = results.leave("a", b"1"), results.leave("b", b"2")
    results.put("task", results.leave("a", b"3"))
    hour_ago = time.time() - 3600
    os.utime(tmp_path / "results" / old.name, (hour_ago, hour_ago))
    results.sweep(1800)
    left = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert left == sorted([new.name, "task"])
    results.sweep()
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["task"]


def test_the_end_of_a_task_and_its_file_are_written_together(tmp_path, results):
    ledger = Ledger(tmp_path / "ledger.sqlite", tmp_path / "results")
    record = TaskRecord(create_task("t", "probe", {}), ledger.next_seq(), 1.0)
    lost = TaskRecord(create_task("lost", "probe", {}), ledger.next_seq(), 1.0)
    ledger.commit([record, lost], [])
    for one in (record, lost):
        one.apply(Event.LAUNCH, 2.0)
        one.apply(Event.FINISH, 3.0)
    kept = results.leave("node-1", b"data")
    gone = replace(lost.change(b""), data=Kept(".node-1-0.part"))
    assert ledger.commit([], [record.change(kept), gone]) == []
    assert ledger.data("t") == results.path("t")
    entry = ledger.entry("lost")
    assert entry is not None
    assert entry.state == State.FAILED
    assert "could not be written" in str(entry.error)
    ledger.close()
