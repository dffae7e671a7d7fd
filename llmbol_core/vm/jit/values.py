"""Values of types, lists and arrays for machine code: what ``objects.py`` does.

A function that returns a reference counts it for the caller; it returns 0, and has done nothing, if
Python has to do it.
"""

from __future__ import annotations

from llmbol_core.vm.arena import HEADER, NIL
from llmbol_core.vm.channels import RECEIVERS, SENDERS
from llmbol_core.vm.heaptypes import WORD
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.pacing import SOME, begins, charge, fill_all, goes_on, move_all, spend
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    Big,
    L,
    W,
    Word,
    below,
    external,
    fill,
    host_word,
    inlined,
    machine,
    move,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.objects import (
    ARRAY,
    ARRAY_HEADER,
    CHANNEL,
    CHANNEL_HEADER,
    LIST,
    LIST_HEADER,
)
from llmbol_core.vm.process import LEAST_FRAME, TYPE

_STRIDE = 1 << 12
"""Nodes of a list between two checks whether it is time to stop."""
_LARGEST = 1 << 31
"""The most bytes that machine code allocates at once."""
_LARGE_VALUE = 256
_VALUE = 64
"""Bytes that could be copied while references in a value are counted."""


@external
def type_map(number: Word) -> Big:
    """Return the address of a type's size, count and offsets of pointers; all 0 if it is none."""
    raise NotImplementedError


@external
def keep(ref: Word) -> None:
    """Count one more reference."""
    raise NotImplementedError


@external
def release(ref: Word) -> None:
    """Count one reference fewer, and free what nothing refers to any more."""
    raise NotImplementedError


@external
def drop(ref: Word, dying: Word) -> Word:
    """Count one reference fewer; return the list of dying objects, with this one if it dies."""
    raise NotImplementedError


@external
def bury(dying: Word) -> None:
    """Free what dies."""
    raise NotImplementedError


@external
def new_block(total: Word, kind: Word) -> Word:
    """Return a block of so many bytes, or nil."""
    raise NotImplementedError


# Values


@inlined
def is_kind(ref: Word, kind: Word) -> Word:
    """Whether an object is of a kind, or nil."""
    return 1 if ref == NIL or W[ref - 12] == kind else 0


@inlined
def type_size(number: Word) -> Word:
    """Return the size of a type's values."""
    return host_word[type_map(number)]


@inlined
def pointer_count(number: Word) -> Word:
    """Return how many pointers there are in a type's values."""
    return host_word[type_map(number) + 4]


@inlined
def pointer_offset(number: Word, i: Word) -> Word:
    """Return where one of the pointers of a type's values is."""
    return host_word[type_map(number) + 8 + wide(i) * 4]


@inlined
def is_inside(address: Word, size: Word) -> Word:
    """Whether so many bytes can be accessed."""
    return 1 if size >= 0 and wide(address) + wide(size) <= machine[Machine.END] else 0


@native
def clear_value(address: Word, number: Word) -> None:
    """Make the pointers in storage for a value nil, without releasing any."""
    i, count = 0, pointer_count(number)
    while i < count:
        W[address + pointer_offset(number, i)] = NIL
        i += 1


@native
def release_value(address: Word, number: Word) -> None:
    """Release the pointers in a value, and make them nil."""
    i, count, dying = 0, pointer_count(number), 0
    while i < count:
        at = address + pointer_offset(number, i)
        dying = drop(W[at], dying)
        W[at] = NIL
        i += 1
    if dying:
        bury(dying)


@native
def copy_value(source: Word, target: Word, number: Word) -> None:
    """Copy a value; one that was there is released."""
    i, count, dying = 0, pointer_count(number), 0
    while i < count:
        keep(W[source + pointer_offset(number, i)])
        i += 1
    i = 0
    while i < count:
        dying = drop(W[target + pointer_offset(number, i)], dying)
        i += 1
    move(target, source, type_size(number))
    if below(_LARGE_VALUE, type_size(number)):
        charge(type_size(number))
    if dying:
        bury(dying)


@inlined
def frame_size(number: Word) -> Word:
    """Return the bytes that a frame of a type takes on a stack."""
    size = type_size(number)
    return ((size if size > LEAST_FRAME else LEAST_FRAME) + 7) & -8


@native
def release_frame(frame: Word) -> None:
    """Release the pointers of a frame that is about to be dropped."""
    number = W[frame + TYPE]
    i, count = 0, pointer_count(number)
    while i < count:
        release(W[frame + pointer_offset(number, i)])
        i += 1


@inlined
def copy_simple(source: Word, target: Word, number: Word) -> None:
    """Copy a value, quickly if it is a word."""
    if number == WORD:
        W[target] = W[source]
    else:
        copy_value(source, target, number)


@native
def copy_bytes(source: Word, size: Word, target: Word) -> Word:
    """Copy bytes; false if they are not all in the arena, or if others are to run first."""
    if not is_inside(source, size) or not is_inside(target, size) or not spend(size):
        return 0
    return move_all(target, source, size)


@native
def copy_typed(source: Word, number: Word, target: Word) -> Word:
    """Copy a value of a type; false if it is not in the arena, or if others are to run first."""
    size = type_size(number)
    if not is_inside(source, size) or not is_inside(target, size) or not spend(size):
        return 0
    copy_value(source, target, number)
    return 1


# Tables of cases


@native
def case_of_word(value: Word, table: Word) -> Word:
    """Return the pc that a table of ranges has for a word: see ``case``."""
    low, high = 0, W[table]
    default = table + 4 + 12 * high
    while low < high:
        middle = (low + high) >> 1
        entry = table + 4 + 12 * middle
        if value < W[entry]:
            high = middle
        elif value >= W[entry + 4]:
            low = middle + 1
        else:
            return W[entry + 8]
    return W[default]


@native
def case_of_big(value: Big, table: Word) -> Word:
    """Return the pc that a table of ranges has for a big: see ``casel``."""
    low, high = 0, W[table]
    default = table + 8 + 24 * high
    while low < high:
        middle = (low + high) >> 1
        entry = table + 8 + 24 * middle
        if value < L[entry]:
            high = middle
        elif value >= L[entry + 8]:
            low = middle + 1
        else:
            return W[entry + 16]
    return W[default]


# Lists


@native
def list_length(ref: Word) -> Word:
    """Return the length of a list, or -1 if the program is to be stopped meanwhile."""
    length = 0
    if not begins():
        return -1
    while ref != NIL:
        length += 1
        if (length & _STRIDE - 1) == 0 and not goes_on():
            return -1
        ref = W[ref]
    charge(8 * length)
    return length


@native
def new_node(number: Word, tail: Word) -> Word:
    """Return a list with one more value before a tail, which it takes over; 0 for Python.

    The value's pointers are nil; the rest is not initialized.
    """
    ref = new_block((LIST_HEADER + type_size(number) + HEADER + 15) & -16, LIST)
    if ref == NIL:
        return 0
    W[ref] = tail
    W[ref + 4] = number
    clear_value(ref + LIST_HEADER, number)
    return ref


@native
def new_value_node(source: Word, number: Word, tail: Word) -> Word:
    """Return a list with a copy of a value before a tail, which it takes over; 0 for Python."""
    if not is_inside(source, type_size(number)):
        return 0
    ref = new_node(number, tail)
    if ref:
        copy_value(source, ref + LIST_HEADER, number)
    return ref


# Arrays


@native
def new_array(length: Word, number: Word) -> Word:
    """Return an array; nil if Python has to make it."""
    bytes_ = wide(length) * wide(type_size(number))
    if bytes_ > _LARGEST:
        return NIL
    size, count = narrow(bytes_), pointer_count(number)
    ref = new_block((size + 2 * HEADER + 15) & -16, ARRAY)
    if ref == NIL:
        return NIL
    are_references = 1 if count == 1 and type_size(number) == 4 else 0
    W[ref], W[ref + 4], W[ref + 8], W[ref + 12] = length, number, NIL, ref + ARRAY_HEADER
    is_filled = fill_all(ref + ARRAY_HEADER, are_references, size)
    if is_filled and count and not are_references:
        is_filled = clear_values(ref + ARRAY_HEADER, number, length)
    if is_filled:
        return ref
    free_large(ref)
    return NIL


@native
def clear_values(at: Word, number: Word, length: Word) -> Word:
    """Make the pointers in a row of values nil; false if the program is to be stopped meanwhile."""
    size = type_size(number)
    while length > 0:
        clear_value(at, number)
        at, length = at + size, length - 1
        if (length & _STRIDE - 1) == 0 and not goes_on():
            return 0
    return 1


@native
def is_alike(number: Word, other: Word) -> Word:
    """Whether values of two types have the same size and pointers."""
    i, count = 0, pointer_count(number)
    if type_size(number) != type_size(other) or count != pointer_count(other):
        return 0
    while i < count:
        if pointer_offset(number, i) != pointer_offset(other, i):
            return 0
        i += 1
    return 1


@native
def copy_elements(source: Word, start: Word, target: Word) -> Word:
    """Copy the elements of an array into another one, from an index on; false for Python."""
    if source == NIL:
        return 1
    length, number = W[source], W[target + 4]
    if target == NIL or start < 0 or length < 0:
        return 0
    if wide(start) + wide(length) > wide(W[target]):
        return 0
    if number != W[source + 4] and not is_alike(number, W[source + 4]):
        return 0
    size = type_size(number)
    begin, end = W[source + 12], W[target + 12] + start * size
    if wide(length) * wide(size) > machine[Machine.END]:
        return 0
    if not is_inside(begin, length * size) or not is_inside(end, length * size):
        return 0
    if not spend(length * size):
        return 0
    if pointer_count(number) == 0:
        return move_all(end, begin, length * size)
    # What is replaced may hold the last reference to one of the arrays.
    keep(source)
    keep(target)
    is_done = copy_values(begin, end, number, length)
    release(source)
    release(target)
    return is_done


@native
def copy_values(source: Word, target: Word, number: Word, length: Word) -> Word:
    """Copy a row of values; false if the program is to be stopped meanwhile."""
    i, size = 0, type_size(number)
    while i < length:
        # From the end if the ranges may overlap that way, so that nothing is copied twice.
        at = (i if target <= source else length - 1 - i) * size
        copy_value(source + at, target + at, number)
        i += 1
        if (i & SOME - 1) == 0:
            charge(SOME * _VALUE)
            if (i & _STRIDE - 1) == 0 and not goes_on():
                return 0
    return 1


# Channels


@native
def new_channel(number: Word, capacity: Word) -> Word:
    """Return a channel of values of a type, or 0 for Python."""
    room = wide(capacity) * wide(type_size(number))
    if capacity < 0 or room > 4096:
        return 0
    size = CHANNEL_HEADER + capacity * type_size(number)
    ref = new_block((size + HEADER + 15) & -16, CHANNEL)
    if ref == NIL:
        return 0
    fill(ref, 0, size)
    W[ref], W[ref + 4] = number, capacity
    return ref


# Whether anybody still uses a channel is decided where it is freed: see ``bury``.
assert (SENDERS, RECEIVERS) == (CHANNEL_HEADER - 8, CHANNEL_HEADER - 4)
