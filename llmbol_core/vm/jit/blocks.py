"""Large blocks for machine code, and what it leaves to Python of freeing.

Machine code calls nothing outside: what it cannot do by itself it leaves undone, so that a process
can always be stopped, or puts on a list that Python goes through when it next has control.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, FREE, KIND, NIL, SIZE, WORK
from llmbol_core.vm.jit.runtime import SPARES, Machine
from llmbol_core.vm.jit.source import W, Word, below, inlined, machine, narrow, native, wide

_LITTLE = 4096
"""Bytes that are worked on so quickly that nobody counts them."""


@inlined
def spend(size: Word) -> Word:
    """Count bytes that an instruction works on; false if it is time for Python to look around."""
    if not below(_LITTLE, size):
        return 1
    left = machine[Machine.FUEL] - wide(size)
    machine[Machine.FUEL] = left
    return 1 if left > 0 else 0


@native
def free_large(ref: Word) -> None:
    """Keep a block for the next one of its size; Python frees what it takes the place of."""
    W[ref + KIND] = FREE
    turn = machine[Machine.TURN]
    machine[Machine.TURN] = (turn + 1) & (SPARES - 1)
    before = narrow(machine[Machine.SPARE + turn])
    machine[Machine.SPARE + turn] = wide(ref)
    if before:
        W[before] = narrow(machine[Machine.FREED])
        machine[Machine.FREED] = wide(before)


@native
def take_large(total: Word, kind: Word) -> Word:
    """Return a block of so many bytes that was kept, or nil."""
    if not spend(total):
        return NIL
    i = wide(0)
    while i < SPARES:
        ref = narrow(machine[Machine.SPARE + i])
        if ref != 0 and W[ref + SIZE] == total:
            machine[Machine.SPARE + i] = 0
            W[ref + COUNT] = 1
            W[ref + KIND] = kind
            W[ref + WORK] = 0
            return ref
        i += 1
    return NIL


@native
def leave(ref: Word) -> None:
    """Let Python release an object of which it keeps something."""
    W[ref + COUNT] = narrow(machine[Machine.RELEASED])
    machine[Machine.RELEASED] = wide(ref)
