"""What programs give to functions of the host, for machine code: see ``vm/given.py``."""

from __future__ import annotations

from llmbol_core.vm.arena import KIND, NIL
from llmbol_core.vm.jit.guarding import misfits
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import W, Word, inlined, machine, narrow, native, wide
from llmbol_core.vm.jit.values import pointer_count, pointer_offset, type_size
from llmbol_core.vm.process import TYPE

_MOST = (1 << 31) - 1


@inlined
def descriptor(ref: Word) -> Word:
    """Return the number in a ``ref FD``, -1 if it is no record that begins with a number."""
    return -1 if ref == NIL or misfits(W[ref + KIND], 4, _MOST, 0, 1) else W[ref]


@native
def is_given(size: Word, is_pointer: Word) -> Word:
    """Whether the next value lies in the frame, and is a pointer or none."""
    at = (narrow(machine[Machine.ARGUMENT]) + size - 1) & -size
    number = W[narrow(machine[Machine.ARGUMENT_FRAME]) + TYPE]
    i, count, found = 0, pointer_count(number), 0
    if at + size > type_size(number):
        return 0
    while i < count:
        offset = pointer_offset(number, i)
        found = 1 if at - 4 < offset and offset < at + size else found
        i += 1
    return 1 if found == is_pointer else 0


@native
def begins_with_pointer(frame: Word, offset: Word) -> Word:
    """Whether there is a pointer at an offset of a frame; the next value is the one behind it."""
    machine[Machine.ARGUMENT_FRAME] = wide(frame)
    machine[Machine.ARGUMENT] = wide(offset)
    found = is_given(4, 1)
    machine[Machine.ARGUMENT] = wide(offset + 4)
    return found
