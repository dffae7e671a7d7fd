"""Random verified programs: machine code does and counts what the interpreter does and counts."""

from __future__ import annotations

import pytest

from llmbol_core.errors import LimitError, Trap
from llmbol_core.vm.engines import engine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.jit.random_programs import random_program

LIMITS = Limits(1 << 20, instructions=60_000)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def outcome(module, name):
    """Return what a program returns or dies of, and how many instructions it ran."""
    with InfernoVM(limits=LIMITS, engine=engine(name)) as vm:
        vm.load_module("test", module)
        try:
            found = vm.execute("test", "main")
        except Trap as trap:
            found = (trap.name, trap.pc)
        except LimitError as error:
            found = str(error)
        instructions = vm.scheduler.instructions
    vm.heap.collect()
    assert vm.heap.objects == 0
    return found, instructions


def check(seed):
    module = random_program(seed)
    assert outcome(module, "jit") == outcome(module, "interpreter"), seed


@pytest.mark.parametrize("seed", range(10))
def test_random_programs_do_the_same(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 400))
def test_many_random_programs_do_the_same(seed):
    check(seed)
