"""The cycle collector in native code: what ``collector.py`` does, for heaps of any size.

How many references to each object lie in others is counted in a table with a word for each 16 bytes
of the arena, empty at first, which the engine lends; what has more references than these lives. The
engine lends the stack of objects that are still to be looked at, too.
Until it is sure of all objects nothing is changed, so that a damaged heap can be left to Python.
Whenever the program is to be stopped meanwhile it gives up: then too all counts are right.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, FREE, FREE_LISTS, HEADER, HEAP, KIND, NIL, SIZE, SMALL, WORK
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.pacing import goes_on
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    W,
    Word,
    below,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.jit.values import is_inside, pointer_count, pointer_offset, type_size
from llmbol_core.vm.objects import (
    ARRAY,
    CHANNEL,
    CHANNEL_HEADER,
    HOSTED,
    LIST,
    LIST_HEADER,
    MODULE,
    STACK,
)

_COUNT, _MARK, _CLEAR = 0, 1, 2
"""What is done with each child of an object; nothing refers to it any more when it is cleared."""
_MANY = 1 << 12
"""Objects, or values of an array, between two looks at whether the program is to be stopped."""
_LIVES = 1 << 30


@inlined
def inside(ref: Word) -> Word:
    """Return how many references to an object lie in others, or that it lives."""
    return host_word[machine[Machine.TABLE] + wide(ref >> 4) * 4]


@inlined
def note(ref: Word, value: Word) -> None:
    """Store what ``inside`` returns."""
    host_word[machine[Machine.TABLE] + wide(ref >> 4) * 4] = value


@native
def push(ref: Word) -> None:
    """Let an object live, and be looked at."""
    note(ref, _LIVES)
    depth = machine[Machine.DEPTH]
    host_word[machine[Machine.STACK] + depth * 4] = ref
    machine[Machine.DEPTH] = depth + 1


@native
def touch(slot: Word, action: Word) -> Word:
    """Do something with the child in a slot; false if it lies outside of the heap."""
    child = W[slot]
    if child == NIL:
        return 1
    if below(child, HEAP + HEADER) or not is_inside(child, 4):
        return 0
    if action == _COUNT:
        note(child, inside(child) + 1)
    elif action == _MARK:
        if inside(child) != _LIVES:
            push(child)
    else:
        W[slot] = NIL
        if W[child + COUNT] != 0:
            W[child + COUNT] = W[child + COUNT] - 1
    return 1


@native
def touch_values(where: Word, number: Word, length: Word, action: Word) -> Word:
    """Do something with the children in a row of values; false if the heap is damaged.

    False, too, if the program is to be stopped.
    """
    pointers, size = pointer_count(number), type_size(number)
    if pointers == 0 or length == 0:
        return 1
    if length < 0 or wide(length) * wide(size) > machine[Machine.END]:
        return 0
    if not is_inside(where, length * size):
        return 0
    while length > 0:
        i = 0
        while i < pointers:
            if not touch(where + pointer_offset(number, i), action):
                return 0
            i += 1
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
def touch_children(ref: Word, action: Word) -> Word:
    """Do something with all children of an object; false if the heap is damaged."""
    kind = W[ref + KIND]
    if kind > STACK:
        return touch_values(ref, kind, 1, action)
    if kind == LIST:
        if not touch(ref, action):
            return 0
        return touch_values(ref + LIST_HEADER, W[ref + 4], 1, action)
    if kind == ARRAY:
        if W[ref + 8] != NIL:
            W[ref] = 0 if action == _CLEAR else W[ref]
            return touch(ref + 8, action)
        return touch_values(W[ref + 12], W[ref + 4], W[ref], action)
    if kind == CHANNEL:
        return touch_buffered(ref, action)
    if kind == MODULE:
        return touch(ref, action)
    return 1


@inlined
def following(ref: Word) -> Word:
    """Return the block behind one, or 0 if its header is damaged."""
    size = (W[ref + SIZE] + 15) & -16
    return 0 if below(size, HEADER) or not is_inside(ref - HEADER, size) else ref + size


@native
def count_inside() -> Word:
    """Count the references to every object that lie in others; return how many objects there are.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    end = machine[Machine.END]
    ref, found, left = HEAP + HEADER, 0, _MANY
    while wide(ref) < end:
        if W[ref + KIND] != FREE:
            found += 1
            if not touch_children(ref, _COUNT):
                return -1
        ref, left = following(ref), left - 1
        if ref == 0:
            return -1
        if left == 0:
            left = _MANY
            if not goes_on():
                return -1
    return found


@native
def mark_living() -> Word:
    """Mark what is referred to from elsewhere, and all that it leads to; return how many live.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    end = machine[Machine.END]
    ref, found, left = HEAP + HEADER, 0, _MANY
    machine[Machine.DEPTH] = 0
    while wide(ref) < end:
        if W[ref + KIND] != FREE and W[ref + COUNT] > inside(ref):
            push(ref)
            marked = mark_pushed()
            if marked < 0:
                return -1
            found += marked
        ref, left = following(ref), left - 1
        if left == 0:
            left = _MANY
            if not goes_on():
                return -1
    return found


@native
def mark_pushed() -> Word:
    """Mark what the objects on the stack lead to; return how many were on it, or -1 as above."""
    found, left = 0, _MANY
    while machine[Machine.DEPTH] > 0:
        depth = machine[Machine.DEPTH] - 1
        machine[Machine.DEPTH] = depth
        if not touch_children(host_word[machine[Machine.STACK] + depth * 4], _MARK):
            return -1
        found, left = found + 1, left - 1
        if left == 0:
            left = _MANY
            if not goes_on():
                return -1
    return found


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


@native
def clear_dead() -> Word:
    """Let no object refer to others that does not live; false if that was not done to the end."""
    end = machine[Machine.END]
    ref, left = HEAP + HEADER, _MANY
    while wide(ref) < end:
        is_dead = 1 if W[ref + KIND] != FREE and inside(ref) != _LIVES else 0
        if is_dead and not touch_children(ref, _CLEAR):
            return 0
        ref, left = following(ref), left - 1
        if left <= 0:
            left = _MANY
            if not goes_on():
                return 0
    return 1


@native
def discard_dead() -> Word:
    """Free the objects that do not live and refer to nothing; return how many there were."""
    end = machine[Machine.END]
    ref, found, left = HEAP + HEADER, 0, _MANY
    while wide(ref) < end:
        behind = following(ref)
        if W[ref + KIND] != FREE and inside(ref) != _LIVES:
            discard(ref)
            found += 1
        ref, left = behind, left - 1
        if left <= 0:
            left = _MANY
            if not goes_on():
                return found
    return found


@native
def collect() -> Word:
    """Free all objects that only cycles keep; return how many.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    there = count_inside()
    living = mark_living() if there >= 0 else -1
    if living < 0:
        return -1
    if living == there:
        return 0
    return discard_dead() if clear_dead() else -1


@native
def list_free() -> Word:
    """List where free blocks lie side by side, by start and size in the table; return how many.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    end = machine[Machine.END]
    ref, found, start, left = HEAP + HEADER, 0, 0, _MANY
    while wide(ref) < end + HEADER:
        is_free = 1 if W[ref + KIND] == FREE else 0
        if is_free and start == 0:
            start = ref - HEADER
        if start != 0 and not is_free:
            list_run(found, start, ref - HEADER)
            found, start = found + 1, 0
        ref, left = following(ref), left - 1
        if ref == 0:
            return -1
        if left == 0:
            left = _MANY
            if not goes_on():
                return -1
    if start != 0:
        list_run(found, start, ref - HEADER)
        found += 1
    return found


@inlined
def list_run(number: Word, start: Word, end: Word) -> None:
    """Write a row of the list."""
    at = machine[Machine.TABLE] + wide(number) * 8
    host_word[at] = start
    host_word[at + 4] = end - start
