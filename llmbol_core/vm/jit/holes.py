"""The free memory in the heap, in native code: what ``arena.py`` finds when it walks the blocks."""

from __future__ import annotations

from llmbol_core.vm.arena import FREE, HEADER, HEAP, KIND, SIZE, WORK
from llmbol_core.vm.jit.pacing import goes_on
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import W, Word, below, host_word, inlined, machine, native, wide
from llmbol_core.vm.jit.values import is_inside
from llmbol_core.vm.shortage import OLD

_MANY = 1 << 12
"""Blocks between two checks whether the program is to be stopped."""


@inlined
def following(ref: Word) -> Word:
    """Return the block after another one, or 0 if its header is damaged."""
    size = (W[ref + SIZE] + 15) & -16
    return 0 if below(size, HEADER) or not is_inside(ref - HEADER, size) else ref + size


@native
def list_free() -> Word:
    """List runs of adjacent free blocks in the table, by start and size; return how many.

    Each but the first becomes one block; others grow old if they are to. -1 if the heap is damaged,
    or the program is to be stopped; then no run has become one.
    """
    end, age, young = machine[Machine.END], OLD if machine[Machine.YOUNG] else 0, wide(0)
    ref, found, start, left = HEAP + HEADER, 0, 0, _MANY
    while wide(ref) < end + HEADER:
        is_free = 1 if W[ref + KIND] == FREE else 0
        if is_free and start == 0:
            start = ref - HEADER
        if start != 0 and not is_free:
            list_run(found, start, ref - HEADER)
            found, start = found + 1, 0
        behind, left = following(ref), left - 1
        if behind == 0:
            return -1
        if not is_free and (W[ref + WORK] & OLD) == 0:
            young = young + wide(behind - ref)
            W[ref + WORK] = W[ref + WORK] | age
        ref = behind
        if left == 0:
            left = _MANY
            if not goes_on():
                return -1
    if start != 0:
        list_run(found, start, ref - HEADER)
        found += 1
    join_runs(found)
    machine[Machine.YOUNG] = young
    return found


@native
def join_runs(number: Word) -> None:
    """Make a block of each run but the first."""
    at = machine[Machine.TABLE]
    while number > 1:
        at, number = at + 8, number - 1
        ref = host_word[at] + HEADER
        W[ref + KIND], W[ref + SIZE] = FREE, host_word[at + 4]


@inlined
def list_run(number: Word, start: Word, end: Word) -> None:
    """Append a row to the list."""
    at = machine[Machine.TABLE] + wide(number) * 8
    host_word[at] = start
    host_word[at + 4] = end - start
