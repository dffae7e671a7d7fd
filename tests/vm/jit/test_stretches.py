"""How many instructions run before others than processes have their turn."""

from __future__ import annotations

import time

import pytest

from llmbol_core.vm.jit.stretches import STRETCH, Stretches


@pytest.fixture
def clock(monkeypatch):
    times = iter([float(n) for n in range(10, 20)] + [20 + n / 1e6 for n in range(10)])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))


def test_stretches_get_longer_while_they_are_brief_and_used_up(clock):
    found = Stretches()
    assert {found.next(None, True) for _ in range(11)} == {(STRETCH, False)}
    assert [found.next(None, True)[0] for _ in range(3)] == [2 * STRETCH, 4 * STRETCH, 4 * STRETCH]
    assert found.next(None, False) == (STRETCH, False)


def test_the_last_instructions_of_a_program_are_counted_exactly():
    found = Stretches()
    assert found.next(STRETCH // 2, False) == (STRETCH // 2 - 8192, False)
    assert found.next(16384, False) == (16384, True)
    assert found.next(1, True) == (1, True)
