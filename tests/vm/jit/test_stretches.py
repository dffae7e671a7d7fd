"""How many instructions run before others than processes have their turn."""

from __future__ import annotations

import time

from llmbol_core.vm.jit.stretches import STRETCH, Stretches


def lengths(monkeypatch, taken, is_spent=True):
    """Return the lengths of stretches, given the seconds that those before them took."""
    found, moments = Stretches(), [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moments[-1])
    found.next(None, False)
    lengths = []
    for seconds in taken:
        moments.append(moments[-1] + seconds)
        lengths.append(found.next(None, is_spent)[0] / STRETCH)
    return lengths


def test_stretches_get_longer_while_they_are_brief(monkeypatch):
    assert lengths(monkeypatch, [0.0001] * 3) == [2, 4, 4]
    assert lengths(monkeypatch, [0.0001, 0.003, 0.003]) == [2, 2, 2]
    assert lengths(monkeypatch, [0.0001] * 3, is_spent=False) == [1, 1, 1]


def test_stretches_get_shorter_while_they_take_long(monkeypatch):
    assert lengths(monkeypatch, [0.02] * 5) == [1 / 2] * 5
    assert lengths(monkeypatch, [0.02, 0.003, 0.0001]) == [1 / 2, 1 / 2, 1]


def test_the_last_instructions_of_a_program_are_counted_exactly():
    found = Stretches()
    assert found.next(STRETCH // 2, False) == (STRETCH // 2 - 8192, False)
    assert found.next(16384, False) == (16384, True)
    assert found.next(1, False) == (1, True)
