"""The cycle collector in native code: what ``collector.py`` does, for heaps of any size.

The engine lends it a table with a word for each 32 bytes of the arena, in which no two objects
begin, and a stack of objects that are still to be looked at: some of those are in a ring, so that
they have time to come from memory. In an object's word there is at last how many references to it
lie in none of the objects; what has some lives, and all that it leads to. What dies is a cycle or
hangs on one, and a cycle goes through a knot: an object whose references can change after it was
made. So as soon as all knots are known to live there is nothing to be freed.
Until it is sure of all objects nothing is changed, so that a damaged heap can be left to Python.
Whenever the program is to be stopped meanwhile it gives up: then too all counts are right.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, FREE, FREE_LISTS, HEADER, HEAP, KIND, NIL, SIZE, SMALL, WORK
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.holes import following
from llmbol_core.vm.jit.pacing import goes_on
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    Big,
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
from llmbol_core.vm.objects import (
    ARRAY,
    CHANNEL,
    CHANNEL_HEADER,
    HOSTED,
    LIST,
    LIST_HEADER,
    MODULE,
    STACK,
    STRING,
)

_COUNT, _MARK, _CLEAR = 0, 1, 2
"""What is done with each child of an object; nothing refers to it any more when it is cleared."""
_MANY = 1 << 12
"""Objects, or values of an array, between two looks at whether the program is to be stopped."""
_ODD, _LEAF, _KNOT, _REFERENCE = 1, 2, 4, 8
"""What an object's word in the table says: whether it begins in the second half of its 32 bytes;
whether it has no children; whether it is a knot; then comes the number of references."""
_TOP, _LIVING, _KNOTS, _RING = 0, 8, 16, 64
"""What the table begins with, where it is of no object: where the stack ends; how many objects are
known to live; how many knots are not; the ring."""
_IN_RING = 32
"""How many objects from the stack are fetched before the first of them is looked at."""
_SPACE = HEAP + HEADER + 4
"""How much smaller than where memory ends the range is in which references lie."""


@external
def prefetch(ref: Word) -> None:
    """Have an object at hand soon."""
    raise NotImplementedError


@inlined
def word_of(table: Big, ref: Word) -> Big:
    """Return where the word of an object is."""
    return table + (wide(ref >> 3) & -4)


@inlined
def touch(slot: Word, action: Word, table: Big, space: Word) -> Word:
    """Do something with the child in a slot; false if it lies outside of the heap."""
    child = W[slot]
    if not below(child - (HEAP + HEADER), space):
        return 1 if child == NIL else 0
    if action == _CLEAR:
        W[slot] = NIL
        if W[child + COUNT] != 0:
            W[child + COUNT] = W[child + COUNT] - 1
        return 1
    at = word_of(table, child)
    said = host_word[at]
    if action == _COUNT:
        host_word[at] = said - _REFERENCE
    elif below(said, _REFERENCE):
        host_word[at] = said | _REFERENCE
        reach(table, child, said)
    return 1


@inlined
def reach(table: Big, ref: Word, said: Word) -> None:
    """Note that an object lives, of which the table said this, and have its children looked at."""
    host[table + _LIVING] = host[table + _LIVING] + 1
    if said & _KNOT:
        host[table + _KNOTS] = host[table + _KNOTS] - 1
    if (said & _LEAF) == 0:
        top = host[table + _TOP]
        host_word[top] = ref
        host[table + _TOP] = top + 4


@inlined
def touch_fields(where: Word, map: Big, action: Word, table: Big, space: Word) -> Word:
    """Do something with the children in a value; false if the heap is damaged."""
    left = host_word[map + 4]
    while left > 0:
        if not touch(where + host_word[map + 4 + wide(left) * 4], action, table, space):
            return 0
        left -= 1
    return 1


@native
def touch_values(where: Word, number: Word, length: Word, action: Word) -> Word:
    """Do something with the children in a row of values; false if the heap is damaged.

    False, too, if the program is to be stopped.
    """
    map, size, table = type_map(number), type_size(number), machine[Machine.TABLE]
    space = narrow(machine[Machine.END] - _SPACE)
    if pointer_count(number) == 0 or length == 0:
        return 1
    if length < 0 or wide(length) * wide(size) > machine[Machine.END]:
        return 0
    if not is_inside(where, length * size):
        return 0
    while length > 0:
        if not touch_fields(where, map, action, table, space):
            return 0
        where, length = where + size, length - 1
        if (length & _MANY - 1) == 0 and length and not goes_on():
            return 0
    return 1


@native
def touch_buffered(channel: Word, action: Word) -> Word:
    """Do something with the children in the values that wait in a channel."""
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
def touch_rows(ref: Word, action: Word) -> Word:
    """Do something with the children of an object that is neither a record nor a list."""
    kind, table = W[ref + KIND], machine[Machine.TABLE]
    space = narrow(machine[Machine.END] - _SPACE)
    if kind == ARRAY:
        if W[ref + 8] != NIL:
            W[ref] = 0 if action == _CLEAR else W[ref]
            return touch(ref + 8, action, table, space)
        return touch_values(W[ref + 12], W[ref + 4], W[ref], action)
    if kind == CHANNEL:
        return touch_buffered(ref, action)
    if kind == MODULE:
        return touch(ref, action, table, space)
    return 1


@native
def clear_children(ref: Word) -> Word:
    """Let an object refer to no others; false if the heap is damaged."""
    kind = W[ref + KIND]
    if kind > STACK:
        return touch_values(ref, kind, 1, _CLEAR)
    if kind == LIST:
        if not touch(ref, _CLEAR, machine[Machine.TABLE], narrow(machine[Machine.END] - _SPACE)):
            return 0
        return touch_values(ref + LIST_HEADER, W[ref + 4], 1, _CLEAR)
    return touch_rows(ref, _CLEAR)


@inlined
def number_of(ref: Word, kind: Word) -> Word:
    """Return the type of a record or of the value in a list."""
    return W[ref + 4] if kind == LIST else kind


@inlined
def touch_children(ref: Word, kind: Word, map: Big, action: Word, table: Big, space: Word) -> Word:
    """Do something with the children of an object; false if the heap is damaged.

    ``map`` tells of the type that ``number_of`` returns.
    """
    if kind == LIST:
        if not touch(ref, action, table, space):
            return 0
        return touch_fields(ref + LIST_HEADER, map, action, table, space)
    if kind > STACK:
        return touch_fields(ref, map, action, table, space)
    return touch_rows(ref, action)


@inlined
def nature_of(ref: Word, kind: Word, map: Big) -> Word:
    """Return whether an object is a leaf or a knot; ``map`` is that of a record."""
    nature = 0
    if kind > STACK:
        nature = _KNOT if host_word[map + 4] else _LEAF
    elif kind == CHANNEL or (kind == ARRAY and W[ref + 8] == NIL):
        nature = _KNOT if pointer_count(W[ref + 4] if kind == ARRAY else W[ref]) else _LEAF
    elif kind in (STRING, STACK):
        nature = _LEAF
    # What nothing refers to has been left by those that were stopped while they freed it.
    return nature | (0 if W[ref + COUNT] else _KNOT)


@native
def count_inside() -> Word:
    """Count the references to every object that do not lie in others; return how many there are.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    table, end, knots = machine[Machine.TABLE], machine[Machine.END], 0
    space, known, map = narrow(end - _SPACE), FREE, type_map(FREE)
    ref, found, seen = HEAP + HEADER, 0, 0
    while wide(ref) < end:
        kind, seen = W[ref + KIND], seen + 1
        if kind != FREE:
            number, found = number_of(ref, kind), found + 1
            if number != known:
                known, map = number, type_map(number)
            nature, at = nature_of(ref, kind, map), word_of(table, ref)
            if not nature & _LEAF and not touch_children(ref, kind, map, _COUNT, table, space):
                return -1
            knots += nature >> 2
            host_word[at] = host_word[at] + (W[ref + COUNT] * _REFERENCE | nature | ref >> 4 & 1)
        ref = following(ref)
        if ref == 0 or ((seen & _MANY - 1) == 0 and not goes_on()):
            return -1
    host[table + _KNOTS] = wide(knots)
    return found


assert (_ODD, _LEAF, _KNOT) == (1, 1 << 1, 1 << 2)


@native
def reach_held() -> Word:
    """Reach what is referred to from elsewhere; false if the program is to be stopped."""
    table, first = machine[Machine.TABLE], HEAP >> 5
    last = narrow(machine[Machine.END] >> 5) + 1
    host[table + _TOP], host[table + _LIVING] = machine[Machine.STACK], 0
    while below(first, last):
        two = host[table + wide(first) * 4]
        if two & ((1 << 64) - _REFERENCE - (_REFERENCE - 1 << 32)):
            reach_if_held(table, first)
            reach_if_held(table, first + 1)
        first += 2
        if (first & (_MANY << 4) - 1) == 0 and not goes_on():
            return 0
    return 1


@inlined
def reach_if_held(table: Big, place: Word) -> None:
    """Reach the object that begins at one of the places in the table, if there is one."""
    said = host_word[table + wide(place) * 4]
    if not below(said, _REFERENCE):
        reach(table, place << 5 | (said & _ODD) << 4, said)


@native
def mark_living() -> Word:
    """Mark what is referred to from elsewhere, and all that it leads to; return how many live.

    -1 if the heap is damaged, or the program is to be stopped; -2 if nothing can be dead.
    """
    if not reach_held():
        return -1
    table, space = machine[Machine.TABLE], narrow(machine[Machine.END] - _SPACE)
    known, map, head, tail = FREE, type_map(FREE), 0, 0
    while host[table + _KNOTS]:
        tail = fetched(table, head, tail)
        if head == tail:
            return narrow(host[table + _LIVING])
        ref, head = host_word[place_in_ring(table, head)], head + 1
        kind, number = W[ref + KIND], number_of(ref, W[ref + KIND])
        if number != known:
            known, map = number, type_map(number)
        if not touch_children(ref, kind, map, _MARK, table, space):
            return -1
        if (head & _MANY - 1) == 0 and not goes_on():
            return -1
    return -2


@inlined
def fetched(table: Big, head: Word, tail: Word) -> Word:
    """Move objects from the stack to the ring while there is room; return where that then ends."""
    top, first = host[table + _TOP], machine[Machine.STACK]
    while tail - head < _IN_RING and top != first:
        top = top - 4
        ref = host_word[top]
        prefetch(ref)
        host_word[place_in_ring(table, tail)] = ref
        tail += 1
    host[table + _TOP] = top
    return tail


@inlined
def place_in_ring(table: Big, number: Word) -> Big:
    """Return where one of the objects in the ring is."""
    return table + _RING + wide(number & _IN_RING - 1) * 4


@inlined
def is_known_outside(kind: Word) -> Word:
    """Whether Python keeps something for objects of a kind."""
    return 1 if kind >= CHANNEL and kind <= MODULE else 0


assert CHANNEL + 1 == MODULE


@native
def discard(ref: Word) -> None:
    """Free an object, or leave that to Python if it has to know."""
    if (W[ref + WORK] & HOSTED) != 0 or is_known_outside(W[ref + KIND]):
        W[ref + COUNT] = narrow(machine[Machine.DISCARDED])
        machine[Machine.DISCARDED] = wide(ref)
    elif below(SMALL, W[ref + SIZE]):
        free_large(ref)
    else:
        head = FREE_LISTS + W[ref + SIZE]
        W[ref + KIND] = FREE
        W[ref], W[head] = W[head], ref


@inlined
def is_dead(table: Big, ref: Word) -> Word:
    """Whether there is an object in a block that is not known to live."""
    return 1 if W[ref + KIND] != FREE and below(host_word[word_of(table, ref)], _REFERENCE) else 0


@native
def clear_dead() -> Word:
    """Let no object refer to others that does not live; false if that was not done to the end."""
    table, end = machine[Machine.TABLE], machine[Machine.END]
    ref, seen = HEAP + HEADER, 0
    while wide(ref) < end:
        if is_dead(table, ref) and not clear_children(ref):
            return 0
        ref, seen = following(ref), seen + 1
        if (seen & _MANY - 1) == 0 and not goes_on():
            return 0
    return 1


@native
def discard_dead() -> Word:
    """Free the objects that do not live and refer to nothing; return how many there were."""
    table, end = machine[Machine.TABLE], machine[Machine.END]
    ref, found, seen = HEAP + HEADER, 0, 0
    while wide(ref) < end:
        behind = following(ref)
        if is_dead(table, ref):
            discard(ref)
            found += 1
        ref, seen = behind, seen + 1
        if (seen & _MANY - 1) == 0 and not goes_on():
            return found
    return found


@native
def collect() -> Word:
    """Free all objects that only cycles keep; return how many.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    there = count_inside()
    living = mark_living() if there >= 0 else -1
    if living == -1:
        return -1
    if living == -2 or living == there:
        return 0
    return discard_dead() if clear_dead() else -1
