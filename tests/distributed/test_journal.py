from __future__ import annotations

import asyncio

import pytest

from llmbol_core.distributed import journal as journal_module
from llmbol_core.distributed.journal import Journal
from llmbol_core.distributed.ledger import Ledger
from llmbol_core.distributed.results import INLINE
from llmbol_core.distributed.task import Change, Event, State, TaskRecord, create_task
from llmbol_core.errors import ClusterError


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "results").mkdir()
    made = Ledger(tmp_path / "ledger.sqlite", tmp_path / "results")
    yield made
    made.close()


def record(ledger: Ledger, id: str) -> TaskRecord:
    return TaskRecord(create_task(id, "probe", {"echo": id}), ledger.next_seq(), 100.0)


def full(ledger: Ledger, pages: int) -> None:
    """Have the database take so many pages more, as on a disk that is full."""
    (count,) = ledger._db.execute("PRAGMA page_count").fetchone()
    ledger._db.execute(f"PRAGMA max_page_count = {count + pages}")


def test_an_end_that_finds_no_room_is_told_as_a_failure(ledger, monkeypatch):
    monkeypatch.setattr(journal_module, "GIVE_UP_SECONDS", 0.0)
    told: list[Change] = []
    refused: list[bool] = []

    async def story() -> None:
        journal = Journal(ledger, told.extend)
        journal_run = asyncio.create_task(journal.run())
        one = record(ledger, "one")
        await journal.add([one])
        refused.append(journal.refused)
        one.apply(Event.LAUNCH, 101.0)
        one.apply(Event.FINISH, 102.0)
        full(ledger, 0)
        journal.note(one.change(b"x" * INLINE))
        with pytest.raises(ClusterError, match="disk is full"):
            await journal.add([record(ledger, f"new-{n}") for n in range(200)])
        assert [(change.id, change.state) for change in told] == [("one", State.FAILED)]
        assert str(journal.unsaved["one"].error).startswith("its result could not be written: ")
        refused.append(journal.refused)
        full(ledger, 100)
        await journal.add([record(ledger, "later")])
        refused.append(journal.refused)
        assert not journal.unsaved
        journal_run.cancel()

    asyncio.run(story())
    assert refused == [False, True, False]
    assert ledger.entry("one").state == "failed"
    assert "disk is full" in ledger.entry("one").error


def test_only_who_runs_for_a_while_is_written_down_as_running(ledger, monkeypatch):
    monkeypatch.setattr(journal_module, "BEGUN_SECONDS", 0.05)
    written: list[tuple[str, State]] = []
    commit = ledger.commit

    def watched(new, changes):
        written.extend((change.id, change.state) for change in changes)
        return commit(new, changes)

    monkeypatch.setattr(ledger, "commit", watched)

    async def story() -> None:
        journal = Journal(ledger, lambda changes: None)
        journal_run = asyncio.create_task(journal.run())
        records = [record(ledger, id) for id in ("quick", "slow")]
        await journal.add(records)
        for number in range(3):
            for one in records:
                one.apply(Event.LAUNCH, 101.0)
                journal.note(one.change())
            await asyncio.sleep(0.01 if number < 2 else 0)
            if number < 2:
                for one in records:
                    one.apply(Event.INTERRUPT, 101.5)
                    journal.note(one.change())
        records[0].apply(Event.FINISH, 102.0)
        journal.note(records[0].change(b"done"))
        async with asyncio.timeout(10):
            while ("slow", State.RUNNING) not in written:
                await asyncio.sleep(0.01)
        journal_run.cancel()

    asyncio.run(story())
    assert ("quick", State.RUNNING) not in written
    assert [ledger.entry(id).state for id in ("quick", "slow")] == ["done", "running"]
    assert ledger.entry("slow").interruptions == 2


def test_a_large_result_without_room_fails_alone(ledger, tmp_path):
    one, other = record(ledger, "one"), record(ledger, "other")
    ledger.commit([one, other], [])
    for each in (one, other):
        each.apply(Event.LAUNCH, 101.0)
        each.apply(Event.FINISH, 102.0)
    (tmp_path / "results").rmdir()
    ledger.commit([], [one.change(b"x" * (INLINE + 1)), other.change(b"small")])
    assert (ledger.entry("one").state, ledger.data("one")) == ("failed", b"")
    assert "no such file or directory" in ledger.entry("one").error
    assert (ledger.entry("other").state, ledger.data("other")) == ("done", b"small")


def test_what_was_written_of_a_task_is_told_although_its_result_finds_no_room(ledger, monkeypatch):
    told: list[State] = []
    monkeypatch.setattr(ledger, "commit", lambda new, changes: [c for c in changes if c.data])

    async def story() -> None:
        journal = Journal(ledger, lambda changes: told.extend(c.state for c in changes))
        one = record(ledger, "one")
        one.apply(Event.LAUNCH, 101.0)
        one.apply(Event.INTERRUPT, 102.0)
        journal.note(one.change())
        one.apply(Event.LAUNCH, 103.0)
        one.apply(Event.FINISH, 104.0)
        journal.note(one.change(b"large"))
        await journal.flush()

    asyncio.run(story())
    assert told == [State.QUEUED]
