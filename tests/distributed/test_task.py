from __future__ import annotations

import itertools

import pytest

from llmbol_core.distributed.node import create_compute_node, local_nodes
from llmbol_core.distributed.task import (
    TERMINAL,
    TRANSITIONS,
    Event,
    FileRef,
    State,
    Task,
    TaskRecord,
    backoff,
    create_task,
)
from llmbol_core.errors import UsageError


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_a_task_moves_as_the_table_says_and_in_no_other_way(state, event):
    record = TaskRecord(create_task("t", "probe", {}), 1, 0.0, state)
    if (state, event) in TRANSITIONS:
        record.apply(event, 5.0, "why")
        assert record.state is TRANSITIONS[state, event]
        assert (record.finished == 5.0) is (record.state in TERMINAL)
    else:
        with pytest.raises(KeyError):
            record.apply(event, 5.0)
        assert record.state is state


def test_nothing_leads_out_of_an_end_and_everything_leads_to_one():
    assert not [state for state, _ in TRANSITIONS if state in TERMINAL]
    assert set(TRANSITIONS.values()) >= TERMINAL
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_a_packed_task_survives_the_journey():
    file = FileRef("model", "m.gguf", "0" * 64, 7)
    task = create_task("t", "probe", {"echo": [1]}, 3, timeout=2.5, strategy="random")
    task = Task(**{**{name: getattr(task, name) for name in task.__slots__}, "files": (file,)})
    assert Task.from_json(task.to_json()) == task


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "../x"}, "task id '../x'"),
        ({"id": ""}, "task id ''"),
        ({"strategy": "rnadom"}, "did you mean 'random'"),
        ({"timeout": 0.0}, "more than 0"),
        ({"timeout": float("nan")}, "more than 0"),
        ({"timeout": float("inf")}, "finite"),
        ({"timeout": "soon"}, "task t: its time-out: expected a number of seconds"),
        ({"max_retries": -1}, "between 0 and"),
        ({"priority": 1 << 63}, "its priority: expected a whole number between"),
        ({"priority": 10**5000}, "its priority: expected a whole number between"),
        ({"priority": "1"}, "its priority: expected a whole number between"),
        ({"payload": None}, "its payload: expected a dictionary"),
        ({"strategy": 5}, "unknown strategy '?5"),
        ({"type": 5}, "its type: expected a word"),
        ({"id": "i" * 99}, r"task id 'i{40}\.\.\.'"),
        ({"id": "a\nb"}, r"task id 'a\\nb'"),
        ({"id": 5}, "task id 5"),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        Task(**{"id": "t", "type": "probe", **options})


def test_backoff_grows_up_to_half_a_minute():
    waits = [backoff(n, 1.0) for n in range(1, 12)]
    assert waits == sorted(waits)
    assert waits[-1] == 30.0
    assert backoff(5, 0.0) == backoff(5, 1.0) / 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no de",), "'no de' is no name"),
        (("n", "localhost", 70000), "port 70000"),
        (("n", "localhost", "80"), "port '80' is no whole number"),
        (("n", None), "host None"),
        (("n", "localhost", 0, ["a b"]), "'a b' is no name"),
        (("n", "localhost", 0, [1]), "1 is no name"),
        (("n", "localhost", 0, "inference"), r"expected a list, such as \['inference'\]"),
    ],
)
def test_a_node_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(UsageError, match=message):
        create_compute_node(*arguments)


def test_nodes_are_on_this_machine():
    assert create_compute_node("n").address == "127.0.0.1"
    with pytest.raises(UsageError, match="not this machine's loopback"):
        assert create_compute_node("n", "192.0.2.7").address
    with pytest.raises(UsageError, match="0 nodes"):
        local_nodes(0)
    with pytest.raises(UsageError, match="without a capability"):
        local_nodes(1, [])
