"""However a program is stopped, and wherever: nothing of it is left in memory."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock, LimitError, Trap
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM

PROGRAM = Path(__file__).parent / "data" / "limbo" / "stops.dis"
"""Calls through handles and references, exceptions, processes and channels, all with references."""
_LENGTH = 28_009
"""Instructions that it runs."""


def left(memory=4 << 20, **limits):
    """Return how the program ends, and what the machine then still holds."""
    ended: BaseException | None = None
    with InfernoVM(HOST_MODULES, limits=Limits(memory, **limits), streams=Streams()) as vm:
        vm.load_module("m", PROGRAM)
        try:
            vm.execute("m", "init")
        except (LimitError, Trap, Deadlock) as error:
            ended = error
    stats = vm.get_stats()
    assert vm.environment.descriptors.users == 0
    return ended, (stats.objects, stats.memory_used, stats.processes)


def test_nothing_is_left_at_the_end():
    assert left() == (None, (0, 0, 0))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_left_when_instructions_run_out(seed):
    for count in random.Random(seed).sample(range(1, _LENGTH), 12):
        ended, found = left(instructions=count)
        assert isinstance(ended, LimitError)
        assert found == (0, 0, 0), count


def test_nothing_is_left_when_memory_runs_out():
    for memory in range(1024, 1024 * 52, 1024):
        assert left(memory)[1] == (0, 0, 0), memory


def test_nothing_is_left_when_processes_are_too_many():
    for threads in range(1, 6):
        assert left(threads=threads)[1] == (0, 0, 0), threads


@pytest.mark.parametrize("slices", [1, 2, 5, 9])
def test_nothing_is_left_of_those_that_are_killed(slices, monkeypatch):
    with InfernoVM(HOST_MODULES, limits=Limits(4 << 20), streams=Streams()) as vm:
        vm.load_module("m", PROGRAM)
        vm.spawn("m", "init")
        run, turns = vm.engine.run, iter(range(slices))

        def run_so_often(*given):
            next(turns)
            return run(*given)

        monkeypatch.setattr(vm.engine, "run", run_so_often)
        with monkeypatch.context() as patch, contextlib.suppress(StopIteration):
            patch.setattr(vm, "_end_all", lambda: None)
            vm.wait()
        for info in reversed(vm.processes()):
            vm.kill(info.pid)
        assert not vm.processes()
    stats = vm.get_stats()
    assert (stats.objects, stats.memory_used) == (0, 0)
