"""How many instructions run, and how much time native code has, before others have their turn."""

from __future__ import annotations

import time
from array import array

from llmbol_core.vm.jit import stretches
from llmbol_core.vm.jit.lent import nanoseconds
from llmbol_core.vm.jit.runtime import LEAST_SLICE, MACHINE_WORDS, MOST_SLICE, QUANTUM, Machine
from llmbol_core.vm.jit.stretches import STRETCH


def begun(until=None, **words):
    """Return the words of a machine after a stretch has begun, as nanoseconds from then on."""
    found = array("q", bytes(8 * MACHINE_WORDS))
    for name, value in words.items():
        found[Machine[name]] = value
    now = nanoseconds()
    stretches.begin(found, until)
    return found, found[Machine.UNTIL] - now, found[Machine.DEADLINE] - now


def test_the_last_instructions_of_a_program_are_counted_exactly():
    assert stretches.allowed(None) == (STRETCH, False)
    assert stretches.allowed(STRETCH // 2) == (STRETCH // 2 - 8192, False)
    assert stretches.allowed(16384) == (16384, True)
    assert stretches.allowed(1) == (1, True)


def test_a_stretch_ends_within_milliseconds_and_before_the_program_does():
    _, until, deadline = begun()
    assert until < 0.01 * 1e9 < deadline
    _, until, deadline = begun(time.monotonic() + 0.001)
    assert until == deadline < 0.01 * 1e9
    _, until, deadline = begun(time.monotonic() - 1)
    assert until == deadline < 0


def test_a_stretch_begins_with_fuel_and_owes_nothing():
    words, _, _ = begun(FUEL=-5, OWED=1000)
    assert (words[Machine.FUEL], words[Machine.OWED]) == (QUANTUM, 0)


def test_slices_are_as_long_as_they_were():
    assert LEAST_SLICE < begun()[0][Machine.SLICE] < MOST_SLICE
    assert begun(SLICE=512)[0][Machine.SLICE] == 512
