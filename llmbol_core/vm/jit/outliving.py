"""What dies while addresses may still lead into it, in native code: see ``remains.py``.

Python keeps the memory, and does so later. Until then the program must find there what it finds
afterwards: its references are released at once, and are nil.
"""

from __future__ import annotations

from llmbol_core.vm.arena import KIND, NIL
from llmbol_core.vm.jit.pacing import charge, goes_on
from llmbol_core.vm.jit.source import W, Word, native
from llmbol_core.vm.jit.values import drop, pointer_count, pointer_offset, type_size
from llmbol_core.vm.objects import ARRAY, STACK

_SOME = 1 << 12
"""Values between two checks whether the program is to be stopped."""
_VALUE = 128
"""Bytes that could be copied while the references in a value are released."""


@native
def empty(ref: Word, dying: Word) -> Word:
    """Release what a dying record or array refers to; return the list of dying objects."""
    kind = W[ref + KIND]
    if kind > STACK:
        return drop_values(ref, kind, 1, dying)
    if kind != ARRAY:
        return dying
    owner = W[ref + 8]
    if owner == NIL:
        return drop_values(W[ref + 12], W[ref + 4], W[ref], dying)
    W[ref], W[ref + 8] = 0, NIL
    return drop(owner, dying)


@native
def drop_values(where: Word, number: Word, length: Word, dying: Word) -> Word:
    """Release the references in a row of values; return the list of dying objects.

    If the program is to be stopped the rest is left to Python.
    """
    count, size = pointer_count(number), type_size(number)
    if count == 0:
        return dying
    while length > 0:
        i = 0
        while i < count:
            at = where + pointer_offset(number, i)
            dying = drop(W[at], dying)
            W[at] = NIL
            i += 1
        where, length = where + size, length - 1
        if (length & _SOME - 1) == 0:
            charge(_SOME * _VALUE)
            if length and not goes_on():
                return dying
    return dying
