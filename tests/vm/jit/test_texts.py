"""Strings in native code, as the reference engine has them."""

from __future__ import annotations

import random

import pytest

from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

COMPARED = """
    bltc 32(fp),36(fp),less
    beqc 32(fp),36(fp),same
    movw $1,0(16(fp))
    ret
less: movw $-1,0(16(fp))
    ret
same: movw $0,0(16(fp))
    ret
"""
PIECES = ["a", "b", "abcdefgh", "\x7f", "\x80", "\xff", "\u0101", "\U0010ffff"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def test_strings_are_ordered_by_their_characters():
    chance = random.Random(5)
    links = 'link 8,0,"fn(a: string, b: string): int","main"'
    module = assemble(COMPARED, "desc $8,40,(32,36)\n", links=links)
    with InfernoVM({}, limits=Limits(1 << 22), engine=ENGINES["native"]) as vm:
        vm.load_module("test", module)
        for _ in range(2000):
            wide = chance.choice([6, 6, 8])
            start = "".join(chance.choices(PIECES[:wide], k=chance.randrange(4)))
            ends = ["".join(chance.choices(PIECES[:wide], k=chance.randrange(3))) for _ in "xy"]
            x, y = (start + end for end in ends)
            assert vm.execute("test", "main", [x, y]) == (x > y) - (x < y), (x, y)
