"""Many processes under disturbance: all references stay counted.

``python -m tests.vm.turmoil`` tries many more.
"""

from __future__ import annotations

import pytest

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Module
from tests.vm import ledger, turmoil
from tests.vm.areas import Forgery
from tests.vm.crowds import crowd
from tests.vm.programs import assemble

TRIED = dict.fromkeys(turmoil.WAYS, 3)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


@pytest.mark.parametrize("way", TRIED)
def test_all_references_are_counted_whatever_disturbs(way):
    found, wrong = turmoil.try_seeds(range(TRIED[way]), ("plain", way))
    assert wrong == []
    assert found.total() >= TRIED[way]


@pytest.mark.parametrize("more", [1, -1])
def test_a_wrong_count_is_seen(more):
    with InfernoVM(limits=Limits(1 << 20)) as vm:
        vm.load_module("test", assemble("ret"))
        ledger.check(vm)
        text = vm.heap.new_text("x")
        data = vm.heap.pointer(vm._handles["test"])
        vm.heap.set_pointer(data, text)
        ledger.check(vm)
        vm.heap.pointers[(text >> 2) - 4] += more
        with pytest.raises(Forgery, match=f"has 1 references and counts {1 + more}"):
            ledger.check(vm)
        vm.heap.set_pointer(data, NIL)


def test_the_same_seed_makes_the_same_program() -> None:
    first, second = (crowd(5) for _ in range(2))
    assert first == second
    assert all(isinstance(module, Module) for module in first.values())
