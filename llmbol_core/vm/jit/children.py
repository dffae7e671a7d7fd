"""The cycle collector's work on the children of objects, in native code: see ``garbage.py``.

The action is a constant where that matters for speed, so that each gets code of its own.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, HEADER, HEAP, KIND, NIL
from llmbol_core.vm.jit.pacing import goes_on
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    Big,
    L,
    W,
    Word,
    below,
    external,
    host,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.jit.values import is_inside, pointer_count, type_map, type_size
from llmbol_core.vm.objects import ARRAY, CHANNEL, CHANNEL_HEADER, LIST, LIST_HEADER, MODULE, STACK

COUNTED, MARKED, CLEARED = 0, 1, 2
"""Actions on each child of an object; after CLEARED the object no longer refers to the child."""
MANY = 1 << 12
"""Objects, or values of an array, between two checks whether the program is to be stopped."""
ODD, LEAF, KNOT, REFERENCE = 1, 2, 4, 8
"""Bits of an object's word in the table: whether it begins in the second half of its 32 bytes;
whether it has no children; whether it is a knot; the bits above them are the number of
references."""
TOP, LIVING, KNOTS, BEHIND = 0, 8, 16, 24
"""The table's first entries, which belong to no object: where the stack ends; how many objects are
known to be alive; how many knots are not; where objects' words end."""
SPACE = HEAP + HEADER + 4
"""What to subtract from the end of memory for the size of the range of valid references."""
_TWO_NILS = -1


@external
def prefetch_host(place: Big) -> None:
    """Have the processor fetch what is at an address outside of the arena."""
    raise NotImplementedError


@inlined
def word_of(table: Big, ref: Word) -> Big:
    """Return the address of an object's word."""
    return table + (wide(ref >> 3) & -4)


@inlined
def touch(slot: Word, action: Word, table: Big, space: Word, times: Word) -> Word:
    """Apply an action to the child in a slot; false if it lies outside of the heap.

    The child is counted so many ``times``.
    """
    child = W[slot]
    if not below(child - (HEAP + HEADER), space):
        return 1 if child == NIL else 0
    if action == CLEARED:
        W[slot] = NIL
        if W[child + COUNT] != 0:
            W[child + COUNT] = W[child + COUNT] - 1
        return 1
    at = word_of(table, child)
    said = host_word[at]
    if action == COUNTED:
        host_word[at] = said - REFERENCE * times
    elif below(said, REFERENCE):
        host_word[at] = said | REFERENCE
        reach(table, child, said)
    return 1


@inlined
def note_living(table: Big, said: Word) -> None:
    """Note that an object is alive, whose word in the table is given."""
    host[table + LIVING] = host[table + LIVING] + 1
    if said & KNOT:
        host[table + KNOTS] = host[table + KNOTS] - 1


@inlined
def reach(table: Big, ref: Word, said: Word) -> None:
    """Note that an object is alive, whose word in the table is given, and queue its children."""
    note_living(table, said)
    if (said & LEAF) == 0:
        top = host[table + TOP]
        host_word[top] = ref
        host[table + TOP] = top + 4


@inlined
def touch_fields(where: Word, map: Big, action: Word, table: Big, space: Word) -> Word:
    """Apply an action to a value's children; false if the heap is damaged, 2 if all are nil."""
    left, all = host_word[map + 4], NIL
    while left > 0:
        slot = where + host_word[map + 4 + wide(left) * 4]
        all = all & W[slot]
        if not touch(slot, action, table, space, 1):
            return 0
        left -= 1
    return 2 if action == COUNTED and all == NIL else 1


@native
def touch_values(where: Word, number: Word, length: Word, action: Word) -> Word:
    """Apply an action to the children in a row of values; false if the heap is damaged.

    False also if the program is to be stopped.
    """
    map, size, table = type_map(number), type_size(number), machine[Machine.TABLE]
    space = narrow(machine[Machine.END] - SPACE)
    if pointer_count(number) == 0 or length == 0:
        return 1
    if length < 0 or wide(length) * wide(size) > machine[Machine.END]:
        return 0
    if not is_inside(where, length * size):
        return 0
    if size == 4:
        return touch_references(where, length, action)
    while length > 0:
        if not touch_fields(where, map, action, table, space):
            return 0
        where, length = where + size, length - 1
        if (length & MANY - 1) == 0 and length and not goes_on():
            return 0
    return 1


@inlined
def touch_two(slot: Word, action: Word, table: Big, space: Word, times: Word) -> Word:
    """Apply an action to the children in two slots; false if one lies outside of the heap."""
    if not touch(slot, action, table, space, times):
        return 0
    return touch(slot + 4, action, table, space, times)


@native
def touch_references(where: Word, length: Word, action: Word) -> Word:
    """Do what ``touch_values`` does, for references: two at a time, equal ones all at once."""
    table, space = machine[Machine.TABLE], narrow(machine[Machine.END] - SPACE)
    left = MANY
    while length > 1:
        two, times = L[where], alike(where, length, action)
        if two != _TWO_NILS and not touch_two(where, action, table, space, times):
            return 0
        where, length, left = where + times * 8, length - times * 2, left - times
        if left <= 0:
            left = MANY
            if not goes_on():
                return 0
    return touch(where, action, table, space, 1) if length else 1


@inlined
def alike(where: Word, length: Word, action: Word) -> Word:
    """Return how many pairs of references, from one on, are equal to it."""
    pairs = 1
    if action != CLEARED:
        two, most = L[where], MANY if length > MANY << 1 else length >> 1
        while pairs < most and L[where + pairs * 8] == two:
            pairs += 1
    return pairs


@native
def touch_buffered(channel: Word, action: Word) -> Word:
    """Apply an action to the children in the values that wait in a channel."""
    number, capacity = W[channel], W[channel + 4]
    count, first = W[channel + 8], W[channel + 12]
    if pointer_count(number) == 0 or count == 0:
        return 1
    if count < 0 or count > capacity or below(capacity - 1, first):
        return 0
    while count > 0:
        slot = channel + CHANNEL_HEADER + first * type_size(number)
        if not touch_values(slot, number, 1, action):
            return 0
        first, count = first + 1, count - 1
        if first == capacity:
            first = 0
    return 1


@native
def touch_one(slot: Word, action: Word) -> Word:
    """Apply an action to the child in a slot, where that is rare."""
    space = narrow(machine[Machine.END] - SPACE)
    return touch(slot, action, machine[Machine.TABLE], space, 1)


@native
def touch_rows(ref: Word, action: Word) -> Word:
    """Apply an action to the children of an object that is neither a record nor a list."""
    kind = W[ref + KIND]
    if kind == ARRAY:
        if W[ref + 8] != NIL:
            W[ref] = 0 if action == CLEARED else W[ref]
            return touch_one(ref + 8, action)
        return touch_values(W[ref + 12], W[ref + 4], W[ref], action)
    if kind == CHANNEL:
        return touch_buffered(ref, action)
    if kind == MODULE:
        return touch_one(ref, action)
    return 1


@native
def clear_children(ref: Word) -> Word:
    """Clear all references in an object; false if the heap is damaged."""
    kind = W[ref + KIND]
    if kind > STACK:
        return touch_values(ref, kind, 1, CLEARED)
    if kind == LIST:
        if not touch_one(ref, CLEARED):
            return 0
        return touch_values(ref + LIST_HEADER, W[ref + 4], 1, CLEARED)
    return touch_rows(ref, CLEARED)


@inlined
def number_of(ref: Word, kind: Word) -> Word:
    """Return the type of a record or of the value in a list."""
    return W[ref + 4] if kind == LIST else kind


@inlined
def touch_children(ref: Word, kind: Word, map: Big, action: Word, table: Big, space: Word) -> Word:
    """Apply an action to the children of an object; false if the heap is damaged.

    ``map`` is the map of the type that ``number_of`` returns.
    """
    where = ref
    if kind == LIST:
        if not touch(ref, action, table, space, 1):
            return 0
        where = ref + LIST_HEADER
    elif kind <= STACK:
        return touch_rows(ref, action)
    return touch_fields(where, map, action, table, space)
