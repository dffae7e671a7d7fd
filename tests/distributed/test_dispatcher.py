from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.distributed.actions import Action, Launch, Replace, Save
from llmbol_core.distributed.dispatcher import BATCH_TASKS, PREFETCH_BELOW, Dispatcher
from llmbol_core.distributed.node import create_compute_node
from llmbol_core.distributed.task import (
    TERMINAL,
    Outcome,
    State,
    TaskRecord,
    Verdict,
    create_task,
)

SEQUENCE = itertools.count()


def dispatcher(*names: str, **options: Any) -> Dispatcher:
    made = Dispatcher(lambda: 0.5, **options)
    for name in names:
        made.node_up(create_compute_node(name, capabilities=["inference"]))
    return made


def submit(to: Dispatcher, *ids: str, **options: Any) -> list[TaskRecord]:
    records = []
    for id in ids:
        task = create_task(id, "probe", {}, **options)
        records.append(TaskRecord(task, next(SEQUENCE), 0.0))
        to.submit(records[-1])
    return records


def launches(actions: list[Action]) -> list[Launch]:
    return [action for action in actions if isinstance(action, Launch)]


def ids(actions: list[Action]) -> list[str]:
    return [record.task.id for launch in launches(actions) for record in launch.records]


def outcomes(
    launch: Launch, verdict: Verdict = Verdict.DONE, seconds: float = 1.0
) -> list[Outcome]:
    return [Outcome(r.task.id, verdict, b"x", None, seconds) for r in launch.records]


def finish(to: Dispatcher, launch: Launch, **options: Any) -> list[Action]:
    return to.ended(launch.key, outcomes(launch, **options), 1.0)


def test_nodes_are_all_at_work_and_the_rest_waits():
    d = dispatcher("a", "b")
    submit(d, "t1", "t2", "t3")
    first = launches(d.place(0.0))
    assert {launch.node for launch in first} == {"a", "b"}
    finish(d, first[0])
    assert ids(d.place(1.0)) == ["t3"]


def test_higher_priority_goes_first_then_the_older():
    d = dispatcher("a")
    submit(d, "low1", "low2")
    submit(d, "high", priority=5)
    order = []
    for _ in range(3):
        (launch,) = launches(d.place(0.0))
        order += ids([launch])
        finish(d, launch)
    assert order == ["high", "low1", "low2"]


def test_a_task_nobody_can_run_does_not_hold_up_others():
    d = dispatcher("a")
    submit(d, "odd", capability="training", priority=9)
    submit(d, "plain", capability="inference")
    assert ids(d.place(0.0)) == ["plain"]
    d.node_up(create_compute_node("b", capabilities=["training"]))
    assert ids(d.place(0.0)) == ["odd"]


def test_an_error_is_retried_later_and_at_most_so_often():
    d = dispatcher("a", max_retries=2)
    (record,) = submit(d, "t")
    now = 0.0
    for attempt in (1, 2):
        (launch,) = launches(d.place(now))
        d.ended(launch.key, outcomes(launch, Verdict.ERROR), now)
        assert record.state is State.QUEUED
        assert record.attempts == attempt
        assert not launches(d.place(now))
        due = d.next_time()
        assert due is not None
        assert due > now
        now = due
    (launch,) = launches(d.place(now))
    d.ended(launch.key, outcomes(launch, Verdict.ERROR), now)
    assert record.state is State.FAILED
    assert not d.tasks


def test_a_failure_that_would_repeat_is_not_retried():
    d = dispatcher("a")
    (record,) = submit(d, "t")
    (launch,) = launches(d.place(0.0))
    (save,) = d.ended(launch.key, [Outcome("t", Verdict.FAILED, b"out", "bad input")], 1.0)
    assert isinstance(save, Save)
    assert (record.state, save.change.error, save.change.data) == (
        State.FAILED, "bad input", b"out",
    )  # fmt: skip


def test_what_a_lost_node_had_runs_elsewhere_and_late_news_counts_for_nothing():
    d = dispatcher("a", "b")
    (record,) = submit(d, "t")
    (launch,) = launches(d.place(0.0))
    (save,) = d.node_lost(launch.node, 1.0)
    assert isinstance(save, Save)
    assert save.change.state is State.QUEUED
    (again,) = launches(d.place(10.0))
    assert again.node != launch.node
    assert d.ended(launch.key, outcomes(launch), 10.5) == []
    finish(d, again)
    assert record.state is State.DONE


def test_a_task_that_kills_its_nodes_fails_and_its_neighbour_does_not():
    d = dispatcher("a", max_retries=1)
    d._learn(("probe", ""), 0.1)
    poison, other = submit(d, "poison", "other")
    now = 0.0
    while poison.state not in TERMINAL:
        now += 60
        d.node_up(create_compute_node("a", capabilities=["inference"]))
        assert d.place(now)
        # Whatever stands first on the node is what ran there.
        first = next(iter(d.nodes["a"].launches.values()))
        if first.records[0] is other:
            finish(d, first)
            continue
        d.node_lost("a", now)
    assert (poison.state, poison.attempts) == (State.FAILED, 2)
    assert other.attempts == 0


def test_a_lost_batch_is_run_one_by_one():
    d = dispatcher("a")
    d._learn(("probe", ""), 0.001)
    records = submit(d, *(f"t{i}" for i in range(8)))
    batch = launches(d.place(0.0))[0]
    assert len(batch.records) > 1
    d.node_lost("a", 1.0)
    assert all(record.attempts == 0 for record in records)
    d.node_up(create_compute_node("a", capabilities=["inference"]))
    alone = [launch for launch in launches(d.place(2.0)) if launch.records[0] in batch.records]
    assert all(len(launch.records) == 1 for launch in alone)


def test_short_tasks_travel_together_but_not_too_many():
    d = dispatcher("a")
    d._learn(("probe", ""), 0.0001)
    submit(d, *(f"t{i}" for i in range(200)))
    sizes = [len(launch.records) for launch in launches(d.place(0.0))]
    assert sizes == [BATCH_TASKS, BATCH_TASKS]


def test_a_task_that_takes_too_long_costs_its_node_the_process():
    d = dispatcher("a", max_retries=0)
    (record,) = submit(d, "t", timeout=2.0)
    d.place(0.0)
    assert d.next_time() == 2.0
    assert d.expire(1.9) == []
    actions = d.expire(2.0)
    assert [type(action) for action in actions] == [Save, Replace]
    assert record.state is State.FAILED
    assert record.error == "took longer than 2 s"
    submit(d, "next")
    assert not launches(d.place(3.0))
    d.node_up(create_compute_node("a", capabilities=["inference"]))
    assert ids(d.place(3.0)) == ["next"]


@pytest.mark.parametrize("running", [False, True])
def test_a_cancelled_task_ends_at_once(running):
    d = dispatcher("a")
    (record,) = submit(d, "t")
    if running:
        d.place(0.0)
    actions = d.cancel("t", 1.0)
    assert record.state is State.CANCELLED
    assert [isinstance(action, Replace) for action in actions] == [False, True][: 1 + running]
    assert not launches(d.place(2.0))
    assert d.cancel("t", 3.0) == []


def test_a_node_that_hangs_gets_nothing_and_is_replaced():
    d = dispatcher("a")
    (record,) = submit(d, "t")
    d.place(0.0)
    assert d.replace("a", "silent", 9.0)[0] == Replace("a", "silent")
    assert (record.state, record.interruptions) == (State.QUEUED, 1)
    assert d.replace("a", "silent", 9.5) == []


class Story:
    """A dispatcher to which things happen, and the ends that it reported."""

    def __init__(self) -> None:
        self.d = dispatcher("a", "b", max_retries=1)
        self.now = 0.0
        self.made: list[TaskRecord] = []
        self.ended: list[str] = []

    def step(self, name: str) -> None:
        self.now += 7.0
        for action in getattr(self, name)() or ():
            if isinstance(action, Save) and action.change.state in TERMINAL:
                self.ended.append(action.change.id)

    def submit(self) -> None:
        number = len(self.made)
        self.made += submit(self.d, f"t{number}", timeout=50.0 if number % 3 else None)

    def place(self) -> list[Action]:
        return self.d.place(self.now)

    def expire(self) -> list[Action]:
        return self.d.expire(self.now)

    def lose(self) -> list[Action]:
        return self.d.node_lost("a", self.now)

    def restart(self) -> list[Action]:
        actions = self.d.node_lost("a", self.now) + self.d.node_lost("b", self.now)
        for name in ("a", "b"):
            self.d.node_up(create_compute_node(name, capabilities=["inference"]))
        return actions

    def cancel(self) -> list[Action]:
        return self.d.cancel(next(iter(self.d.tasks), ""), self.now)

    def done(self, verdict: Verdict = Verdict.DONE) -> list[Action]:
        under_way = [launch for node in self.d.nodes.values() for launch in node.launches.values()]
        return [
            action
            for launch in under_way[:1]
            for action in self.d.ended(launch.key, outcomes(launch, verdict, 0.01), self.now)
        ]

    def error(self) -> list[Action]:
        return self.done(Verdict.ERROR)


STEPS = ["submit", "place", "done", "error", "lose", "restart", "cancel", "expire"]


@settings(max_examples=150)
@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_whatever_happens_each_task_ends_once_and_none_is_forgotten(script):
    story = Story()
    for name in script:
        story.step(name)
    story.step("restart")
    while story.d.tasks:
        story.now += 40.0
        story.step("place")
        story.step("done")
    assert sorted(story.ended) == sorted(record.task.id for record in story.made)
    assert all(record.state in TERMINAL for record in story.made)


def test_a_pause_ends_by_itself():
    d = dispatcher("a")
    d.paused_until = 5.0
    submit(d, "t")
    assert not ids(d.place(4.9))
    assert d.next_time() == 5.0
    assert ids(d.place(5.0)) == ["t"]


def test_nodes_share_what_there_is_evenly():
    d = dispatcher("a", "b")
    d._learn(("probe", ""), 0.0001)
    submit(d, *(f"t{i}" for i in range(9)))
    assert [len(launch.records) for launch in launches(d.place(0.0))] == [5, 2, 1, 1]


def test_short_tasks_wait_at_the_node_unless_their_time_is_limited():
    for timeout, waiting in ((None, 2), (9.0, 1)):
        d = dispatcher("a")
        d._learn(("probe", ""), PREFETCH_BELOW / 2)
        submit(d, "t1", "t2", "t3", timeout=timeout)
        assert len(ids(d.place(0.0))) == waiting


def test_one_slow_task_does_not_make_its_kind_slow():
    d = dispatcher("a")
    d._learn(("probe", ""), 0.0)
    d._learn(("probe", ""), 4 * PREFETCH_BELOW)
    submit(d, "t1", "t2")
    assert ids(d.place(0.0)) == ["t1", "t2"]
    d._learn(("probe", ""), 4 * PREFETCH_BELOW)
    submit(d, "t3")
    finish(d, next(iter(d.nodes["a"].launches.values())), seconds=PREFETCH_BELOW)
    assert not ids(d.place(0.0))


def test_a_task_of_a_lost_batch_stays_alone_until_it_has_ended():
    d = dispatcher("a")
    d._learn(("probe", ""), 0.0001)
    submit(d, *(f"t{i}" for i in range(4)))
    assert len(launches(d.place(0.0))[0].records) == 4
    d.node_lost("a", 1.0)
    for now in (2.0, 3.0):
        d.node_up(create_compute_node("a", capabilities=["inference"]))
        assert [len(launch.records) for launch in launches(d.place(now))] == [1, 1]
        d.replace("a", "silent", now)
