from __future__ import annotations

import itertools
import os
import threading
from types import SimpleNamespace

import pytest

from llmbol_core.distributed import control, logs
from llmbol_core.distributed.control import Failure, OwnCluster
from llmbol_core.distributed.logs import LogLine, read_logs
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.errors import ClusterError, UsageError


@pytest.fixture
def state(tmp_path):
    made = StateDirectory(tmp_path / "s")
    made.prepare()
    made.log("broker").write_text("one\ntwo\nthree\nhalf a li")
    made.log("node-1").write_text("hello\n")
    return made


def test_the_last_lines_of_all_or_some_processes_are_shown(state):
    assert list(read_logs(state, [], 2)) == [
        LogLine("broker", "two"), LogLine("broker", "three"), LogLine("node-1", "hello"),
    ]  # fmt: skip
    assert list(read_logs(state, ["node-1"], 0)) == []
    with pytest.raises(UsageError, match=r"did you mean 'node-1'"):
        list(read_logs(state, ["node1"], 1))


def test_what_is_added_is_shown_once_it_is_a_line(state, monkeypatch):
    lines = read_logs(state, ["broker"], 1, follow=True)
    assert next(lines).text == "three"
    with open(state.log("broker"), "a") as file:
        file.write("ne\nmore\n")
    assert [line.text for line in itertools.islice(lines, 2)] == ["half a line", "more"]
    state.log("broker").write_text("anew\n")
    assert next(lines).text == "anew"
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0.001)
    with open(state.log("broker"), "a", buffering=1) as file:
        later = threading.Timer(0.05, file.write, ["last\n"])
        later.start()
        assert next(lines).text == "last"
        later.join()


def test_a_process_that_starts_again_adds_to_its_log(state):
    for text in (b"one\n", b"two\n"):
        descriptor = state.open_log("node-2")
        os.write(descriptor, text)
        os.close(descriptor)
    assert state.log("node-2").read_bytes() == b"one\ntwo\n"
    assert state.log("node-2").stat().st_mode & 0o777 == 0o600
    assert state.log_size("node-2") == 8
    assert state.log_tail("node-2", 4) == "two"


def test_the_log_says_why_no_cluster_started(state, monkeypatch):
    failure = Failure(state)
    assert str(failure.error()) == "the cluster did not start: its guardian was killed"
    full = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr("os.statvfs", lambda path: full)
    why = f"no space left on the device of {state.root}"
    assert str(failure.error()) == f"the cluster did not start: {why}"
    with open(state.log("broker"), "a") as log:
        log.write("ne\nno port is free\n\n")
    assert str(failure.error()) == "the cluster did not start: no port is free"


def test_processes_that_are_late_are_told_with_what_they_logged_last(state):
    failure = Failure(state, ["node-1", "node-2"])
    with open(state.log("node-1"), "a") as log:
        log.write("no room\n")
    late = "node-1 (no room), node-2"
    assert str(failure.late(["node-1", "node-2"])) == f"not up after 180 s: {late}"


def test_a_cluster_of_a_program_that_is_late_names_no_file(monkeypatch):
    monkeypatch.setattr(control, "START_SECONDS", 0.0)
    with pytest.raises(ClusterError, match=r"^not up after 0 s: broker") as caught:
        OwnCluster(Config(tuple(local_nodes(1, ["inference"]))))
    assert "llmbol-" not in str(caught.value)
