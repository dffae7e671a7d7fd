"""A node's process that dies again and again is started less and less often."""

from __future__ import annotations

import sys

import pytest

from llmbol_core.distributed.node import ComputeNode
from llmbol_core.distributed.processes import FIRST_PAUSE, LONGEST_PAUSE, NodeProcess
from llmbol_core.distributed.state import StateDirectory


class Dying(NodeProcess):
    """A process that ends at once."""

    def _command(self):
        return [sys.executable, "-c", ""]


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Return one on a clock that stands still."""
    monkeypatch.setattr("time.monotonic", lambda: 1000.0)
    (tmp_path / "logs").mkdir()
    return Dying(ComputeNode("node"), StateDirectory(tmp_path))


def start(process: Dying) -> float:
    """Start it, wait until it has ended and return how long the next one waits."""
    process.start()
    process.meet("{}")
    process.join()
    return process._pause


def test_each_pause_is_twice_the_one_before(process):
    assert not process.is_due()
    assert [start(process) for _ in range(4)] == [0, FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]


def test_no_pause_is_longer_than_the_longest(process, monkeypatch):
    start(process)
    process._pause = 1e6
    monkeypatch.setattr("time.monotonic", lambda: 999.0 + LONGEST_PAUSE)
    assert not process.is_due()
    monkeypatch.setattr("time.monotonic", lambda: 1001.0 + LONGEST_PAUSE)
    assert process.is_due()


def test_who_was_killed_on_purpose_comes_back_at_once(process):
    pauses = [start(process) for _ in range(3)]
    process.kill()
    assert [start(process), *pauses] == [0, 0, FIRST_PAUSE, 2 * FIRST_PAUSE]
    assert process.is_due()
