"""Large blocks for machine code, and objects that it leaves to Python to free.

Machine code calls nothing outside. What it cannot do itself it leaves undone, so that a process can
always be stopped, or puts it on a list that Python works off when it next has control. Large blocks
that it frees it keeps in lists by size; new ones it cuts from a reserve that Python provides. Of
huge blocks it keeps the last few; Python finds room for new ones among joined free blocks.
"""

from __future__ import annotations

from llmbol_core.vm.arena import (
    CHUNK,
    CHUNK_END,
    COUNT,
    FREE,
    FREE_LISTS,
    HEADER,
    KIND,
    LAST,
    NIL,
    ROUNDED,
    SIZE,
    SMALL,
    WORK,
)
from llmbol_core.vm.jit.pacing import charge, owe, spend
from llmbol_core.vm.jit.runtime import BIN_COUNT, BINS, HUGE, SPARES, Machine
from llmbol_core.vm.jit.source import W, Word, below, inlined, machine, narrow, native, wide

_CHUNK = 1 << 16
_OWED = 4
"""How much Python has to do for a block, in what it has to do for a process."""


@inlined
def octave(size: Word) -> Word:
    """Return how often a size, at least 1024, can be halved until it is below 2048."""
    count = 0
    while below(2047, size >> count):
        count += 1
    return count


@inlined
def bin_of(size: Word) -> Word:
    """Return the list that blocks of a size are kept in."""
    count = octave(size)
    return count * 8 + ((size >> (count + 7)) & 7)


@native
def free_large(ref: Word) -> None:
    """Keep a block for one that is not larger."""
    W[ref + KIND] = FREE
    if ref == LAST:
        return
    if not below(W[ref + SIZE], HUGE):
        keep_huge(ref)
        return
    at = BINS + wide(bin_of(W[ref + SIZE]))
    W[ref] = narrow(machine[at])
    machine[at] = wide(ref)


@native
def keep_huge(ref: Word) -> None:
    """Keep a block; Python frees the one that it replaces."""
    turn = machine[Machine.TURN]
    machine[Machine.TURN] = (turn + 1) & (SPARES - 1)
    before = narrow(machine[Machine.SPARE + turn])
    machine[Machine.SPARE + turn] = wide(ref)
    if before:
        owe(_OWED)
        W[before] = narrow(machine[Machine.FREED])
        machine[Machine.FREED] = wide(before)


@native
def take_huge(total: Word) -> Word:
    """Return a kept block of about the right size, or nil."""
    i = wide(0)
    while i < SPARES:
        ref = narrow(machine[Machine.SPARE + i])
        if ref != 0 and not below(total >> 3, W[ref + SIZE] - total):
            machine[Machine.SPARE + i] = 0
            return ref
        i += 1
    machine[Machine.WANTED] = wide(total)
    return NIL


@native
def take_first(number: Word, total: Word) -> Word:
    """Return the first block of a list, if there is one and it is large enough; else nil."""
    ref = narrow(machine[BINS + wide(number)])
    if ref == 0 or wide(ref) + wide(total) > machine[Machine.END]:
        return NIL
    if W[ref + KIND] != FREE or below(W[ref + SIZE], total):
        return NIL
    machine[BINS + wide(number)] = wide(W[ref])
    return ref


@native
def take_listed(total: Word) -> Word:
    """Return a block that is not huge from the lists or the reserve, or nil."""
    if not below(ROUNDED, total):
        step = 128 << octave(total - 1)
        total = (total + step - 1) & -step
    number = bin_of(total)
    ref, last = take_first(number, total), number + 3
    while ref == NIL and number < last and number < BIN_COUNT - 1:
        number += 1
        ref = take_first(number, total)
    return cut_reserve(total) if ref == NIL else ref


@native
def take_large(total: Word, kind: Word) -> Word:
    """Return a block of so many bytes, or nil."""
    if not spend(total):
        return NIL
    ref = take_listed(total) if below(total, HUGE) else take_huge(total)
    if ref != NIL:
        W[ref + COUNT], W[ref + KIND], W[ref + WORK] = 1, kind, 0
    return ref


@native
def cut_reserve(total: Word) -> Word:
    """Return a block from the reserve, with only its size set; nil if the reserve is too small."""
    start = machine[Machine.RESERVE]
    if machine[Machine.RESERVE_END] - start < wide(total):
        machine[Machine.WANTED] = wide(total)
        return NIL
    machine[Machine.RESERVE] = start + wide(total)
    ref = narrow(start) + HEADER
    W[ref + SIZE] = total
    return ref


@native
def open_chunk(total: Word) -> Word:
    """Return a small block from a new chunk; the rest of the old one becomes a free block.

    If the two are adjacent, the rest becomes part of the new chunk.
    """
    start, end = W[CHUNK], W[CHUNK_END]
    left, chunk = end - start, cut_reserve(_CHUNK)
    if chunk == NIL:
        return NIL
    charge(_CHUNK)
    ref = start + HEADER
    if chunk == end + HEADER and left >= 0:
        chunk = ref
    elif left > 0 and not below(SMALL, left):
        W[ref + KIND], W[ref + SIZE] = FREE, left
        if left > HEADER:
            W[ref] = W[FREE_LISTS + left]
        # Even a bare header goes into a list, so that the block is accounted for.
        W[FREE_LISTS + left] = ref
    W[CHUNK] = chunk - HEADER + total
    W[CHUNK_END] = narrow(machine[Machine.RESERVE])
    return chunk


@native
def leave(ref: Word) -> None:
    """Have Python release an object for which it keeps something."""
    owe(_OWED)
    W[ref + COUNT] = narrow(machine[Machine.RELEASED])
    machine[Machine.RELEASED] = wide(ref)
