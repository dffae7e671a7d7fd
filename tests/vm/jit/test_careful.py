"""Reals under a control word: native code and machine code do what the exact arithmetic does."""

from __future__ import annotations

import ctypes
import functools
import math
import random
import struct
import sys
import threading

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.engines import engine
from llmbol_core.vm.ieee import DOWN, EXCEPTIONS, INEXACT, NEAREST, OVERFLOW, TO_ZERO, UP
from llmbol_core.vm.jit import careful
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.machine import InfernoVM
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.test_ieee import numbers

MODULE = (DATA_DIRECTORY / "limbo/floatops.dis").read_bytes()
UNWATCHED = (DATA_DIRECTORY / "limbo/floattraps.dis").read_bytes()
"""The same, of which nobody asks the status: most of it is computed without setting anything."""
NATIVE = functools.partial(JitEngine, threshold=1 << 30, at_once=True)
ENGINES = {"native": NATIVE, "compiled": engine("jit")}
OPERATIONS = range(19)
WORDS = (
    NEAREST,
    DOWN,
    UP,
    TO_ZERO,
    UP | OVERFLOW | 3,
    DOWN | 8,
    EXCEPTIONS & ~INEXACT,
    TO_ZERO | 31,
)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def machine(kind, module=MODULE):
    vm = InfernoVM(HOST_MODULES, engine=kind)
    vm.load_module("m", module)
    return vm


def pairs(seed, count):
    """Return pairs of reals, some of which are quiet NaNs."""
    rng = random.Random(seed)
    made = [math.nan if x != x else x for x in numbers(rng, 2 * count)]
    return made[:count], made[count:]


def many(vm, word, operation, x, y):
    """Return the bits of results, and what happened: -1 for what was raised."""
    results, status = vm.execute("m", "many", [word, operation, x, y])
    alike = [math.nan if found != found else found for found in results]
    return struct.pack(f"={len(alike)}d", *alike), list(status)


def check(name, seed, count, module=MODULE):
    with machine(engine("interpreter"), module) as reference, machine(ENGINES[name], module) as vm:
        for word in WORDS:
            for operation in OPERATIONS:
                x, y = pairs(f"{seed} {word} {operation}", count)
                wanted = many(reference, word, operation, x, y)
                assert many(vm, word, operation, x, y) == wanted, (word, operation)


@pytest.mark.parametrize("name", ENGINES)
def test_operations_give_the_same(name):
    check(name, 0, 12)


@pytest.mark.parametrize("name", ENGINES)
def test_operations_of_which_nobody_asks_the_status_give_the_same(name):
    check(name, 0, 12, UNWATCHED)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 20))
@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("module", [MODULE, UNWATCHED], ids=["watched", "unwatched"])
def test_many_operations_give_the_same(name, seed, module):
    check(name, seed, 60, module)


def harmonic(mode, count):
    """Return a sum that is rounded in a direction, by the processor."""
    from llmbol_core.native.rounding import call_rounding

    def found():
        total = 0.0
        for i in range(1, count + 1):
            total += 1.0 / i
        return total

    return call_rounding(mode >> 8, found)[0]


@pytest.mark.parametrize("name", ENGINES)
def test_a_loop_is_rounded_as_long_as_the_word_says(name):
    count = 30000
    with machine(ENGINES[name]) as vm:
        for mode in (NEAREST, DOWN, NEAREST, UP, TO_ZERO, NEAREST):
            assert vm.execute("m", "sum", [mode, count]) == harmonic(mode, count)


@pytest.mark.parametrize("name", ENGINES)
def test_processes_with_different_words_take_turns(name):
    count = 4000
    wanted = [harmonic(mode, count) for mode in (NEAREST, TO_ZERO, UP, DOWN, NEAREST)]
    with machine(ENGINES[name]) as vm:
        assert list(vm.execute("m", "sums", [count])) == wanted
        assert all(third == 1.0 / 3.0 for third in [float.fromhex("0x1.5555555555555p-2")])


@pytest.mark.skipif(not (careful.IS_X86 or careful.IS_ARM), reason="Python runs all of it")
def test_machine_code_is_compiled_for_careful_processes():
    with machine(ENGINES["compiled"]) as vm:
        vm.execute("m", "sum", [UP, 30000])
        assert any(native.tiers for native in vm.engine._natives.careful.values())


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library")
def test_the_thread_keeps_its_rounding():
    library, seen = ctypes.PyDLL(None), []

    def look(done):
        while not done.is_set():
            seen.append(library.fegetround())

    done = threading.Event()
    other = threading.Thread(target=look, args=(done,))
    other.start()
    with machine(ENGINES["compiled"]) as vm:
        vm.execute("m", "sum", [UP, 30000])
        seen.append(library.fegetround())
        many(vm, DOWN | 31, 3, [1.0, 0.0, 1.0], [3.0, 0.0, 0.0])
        seen.append(library.fegetround())
    done.set()
    other.join()
    assert set(seen) == {0}
