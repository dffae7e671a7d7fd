"""The cycle collector in native code: what ``collector.py`` does, for heaps of any size.

The engine lends it a table with a word for each 32 bytes of the arena, in which at most one object
begins, and a stack of objects still to be visited. The next few of those wait in a ring, so that
the processor can fetch them meanwhile. After counting, an object's word holds the number of
references to it from outside of all objects; an object that has any is alive, and so is all that it
leads to.

What dies is a cycle or hangs on one, and every cycle contains a knot: an object with references
that can change after it was made. So as soon as all knots are known to be alive, nothing is to be
freed. Nothing is changed until all that lives is marked, so that a damaged heap can be left to
Python. If the program is to be stopped meanwhile, the collector gives up; all counts are right then
too.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, FREE, FREE_LISTS, HEADER, HEAP, KIND, NIL, SIZE, SMALL, WORK
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.children import (
    BEHIND,
    COUNTED,
    KNOT,
    KNOTS,
    LEAF,
    LIVING,
    MANY,
    MARKED,
    ODD,
    REFERENCE,
    SPACE,
    TOP,
    clear_children,
    number_of,
    prefetch_host,
    reach,
    touch_children,
    word_of,
)
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
from llmbol_core.vm.jit.values import pointer_count, type_map
from llmbol_core.vm.objects import (
    ARRAY,
    ARRAY_HEADER,
    CHANNEL,
    HOSTED,
    LIST,
    LIST_HEADER,
    MODULE,
    STACK,
    STRING,
)

_RING = 64
"""Offset of the ring in the table, after its first entries."""
_IN_RING = 32
"""How many objects from the stack are prefetched before the first of them is visited."""
_AHEAD = _IN_RING >> 1
"""How far in the ring the object whose children are prefetched comes after the visited one."""
_BYTES = 1 << 10
"""How far ahead of a counted object the children of others are prefetched."""
_ELEMENTS = 8
"""Words of an array's elements that may be references which are prefetched."""
_MOST = (1 << 32) // REFERENCE - 1
"""The most references that an object's word can count."""


@external
def prefetch(ref: Word) -> None:
    """Have the processor fetch an object from memory."""
    raise NotImplementedError


@inlined
def nature_of(ref: Word, kind: Word, map: Big) -> Word:
    """Return whether an object is a leaf or a knot; ``map`` is that of a record."""
    nature = 0
    if kind > STACK:
        nature = KNOT if host_word[map + 4] else LEAF
    elif kind == CHANNEL or (kind == ARRAY and W[ref + 8] == NIL):
        nature = KNOT if pointer_count(W[ref + 4] if kind == ARRAY else W[ref]) else LEAF
    elif kind in (STRING, STACK):
        nature = LEAF
    # An object without references was left over when its freeing was interrupted.
    return nature | (0 if W[ref + COUNT] else KNOT)


@inlined
def word_end(behind: Word) -> Word:
    """Return where the words of objects before a block end, as an offset in the table."""
    return (behind - HEADER + 31 >> 5) * 4


@native
def count_inside() -> Word:
    """Count each object's references from outside of all objects; return the number of objects.

    -1 if the heap is damaged, or the program is to be stopped.
    """
    table, end, knots = machine[Machine.TABLE], machine[Machine.END], 0
    space, known, map = narrow(end - SPACE), FREE, type_map(FREE)
    ref, found, seen, ahead = HEAP + HEADER, 0, 0, HEAP + HEADER
    while wide(ref) < end:
        kind, seen, behind = W[ref + KIND], seen + 1, following(ref)
        if behind == 0:
            return -1
        ahead = fetch_ahead(ref, ahead, table, end)
        if kind != FREE:
            host[table + BEHIND] = wide(word_end(behind))
            number, found = number_of(ref, kind), found + 1
            if number != known:
                known, map = number, type_map(number)
            nature, at, touched = nature_of(ref, kind, map), word_of(table, ref), 1
            if not nature & LEAF:
                touched = touch_children(ref, kind, map, COUNTED, table, space)
            if touched == 0:
                return -1
            if touched == 2 and kind > STACK:
                nature = LEAF if nature == KNOT and W[ref + COUNT] else nature
            if below(_MOST, W[ref + COUNT]):
                return -1
            knots += nature >> 2
            host_word[at] = host_word[at] + (W[ref + COUNT] * REFERENCE | nature | ref >> 4 & 1)
        ref = behind
        if (seen & MANY - 1) == 0 and not goes_on():
            return -1
    host[table + KNOTS] = wide(knots)
    return found


assert (ODD, LEAF, KNOT) == (1, 1 << 1, 1 << 2)


@native
def reach_held() -> Word:
    """Reach all objects with references from outside; false if the program is to be stopped."""
    table, first = machine[Machine.TABLE], HEAP >> 5
    last = narrow(host[table + BEHIND] >> 2)
    host[table + TOP], host[table + LIVING] = machine[Machine.STACK], 0
    while below(first, last):
        reach_if_held(table, first)
        first += 1
        if (first & (MANY << 3) - 1) == 0 and not goes_on():
            return 0
    return 1


@inlined
def reach_if_held(table: Big, place: Word) -> None:
    """Reach the object of one of the table's words, if it has references from outside."""
    said = host_word[table + wide(place) * 4]
    if not below(said, REFERENCE):
        reach(table, place << 5 | (said & ODD) << 4, said)


@native
def mark_living() -> Word:
    """Mark objects with references from outside and all that they lead to; return how many live.

    -1 if the heap is damaged, or the program is to be stopped; -2 if nothing can be dead.
    """
    table, space = machine[Machine.TABLE], narrow(machine[Machine.END] - SPACE)
    if not reach_held():
        return -1
    known, map, head, tail = FREE, type_map(FREE), 0, 0
    while host[table + KNOTS]:
        tail = fetched(table, head, tail)
        if head == tail:
            return narrow(host[table + LIVING])
        if tail - head > _AHEAD:
            next = host_word[place_in_ring(table, head + _AHEAD)]
            fetch_words(next, W[next + KIND], table)
        ref, head = host_word[place_in_ring(table, head)], head + 1
        kind, number = W[ref + KIND], number_of(ref, W[ref + KIND])
        if number != known:
            known, map = number, type_map(number)
        if not touch_children(ref, kind, map, MARKED, table, space):
            return -1
        if (head & MANY - 1) == 0 and not goes_on():
            return -1
    return -2


@inlined
def fetched(table: Big, head: Word, tail: Word) -> Word:
    """Move objects from the stack to the ring while it has room; return the ring's new end."""
    top, bottom = host[table + TOP], machine[Machine.STACK]
    while tail - head < _IN_RING and top != bottom:
        top = top - 4
        ref = host_word[top]
        prefetch(ref)
        host_word[place_in_ring(table, tail)] = ref
        tail += 1
    host[table + TOP] = top
    return tail


@inlined
def fetch_ahead(ref: Word, ahead: Word, table: Big, end: Big) -> Word:
    """Prefetch for objects up to some way ahead of one; return the first for which that was not."""
    while wide(ahead) < end and ahead - ref < _BYTES:
        fetch_words(ahead, W[ahead + KIND], table)
        behind = following(ahead)
        ahead = behind if behind else narrow(end)
    return ahead


@inlined
def fetch_words(ref: Word, kind: Word, table: Big) -> None:
    """Prefetch the table's words of the children of an object, or of the first ones of an array."""
    if kind > STACK or kind == LIST:
        map = type_map(number_of(ref, kind))
        left, where = host_word[map + 4], ref
        if kind == LIST:
            prefetch_host(word_of(table, W[ref]))
            where = ref + LIST_HEADER
        while left > 0:
            prefetch_host(word_of(table, W[where + host_word[map + 4 + wide(left) * 4]]))
            left -= 1
    elif kind == ARRAY and W[ref + 8] == NIL and pointer_count(W[ref + 4]):
        left = _ELEMENTS if below(_ELEMENTS, W[ref]) else W[ref]
        while left:
            left -= 1
            prefetch_host(word_of(table, W[ref + ARRAY_HEADER + left * 4]))


@inlined
def place_in_ring(table: Big, number: Word) -> Big:
    """Return the address of a place in the ring."""
    return table + _RING + wide(number & _IN_RING - 1) * 4


@inlined
def is_known_outside(kind: Word) -> Word:
    """Whether Python keeps data for objects of a kind."""
    return 1 if kind >= CHANNEL and kind <= MODULE else 0


assert CHANNEL + 1 == MODULE


@native
def discard(ref: Word) -> None:
    """Free an object, or leave that to Python if it keeps data for it."""
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
    """Whether a block holds an object that is not known to be alive."""
    return 1 if W[ref + KIND] != FREE and below(host_word[word_of(table, ref)], REFERENCE) else 0


@native
def clear_dead() -> Word:
    """Clear the references in all dead objects; false if that was not finished."""
    table, end = machine[Machine.TABLE], machine[Machine.END]
    ref, seen = HEAP + HEADER, 0
    while wide(ref) < end:
        if is_dead(table, ref) and not clear_children(ref):
            return 0
        ref, seen = following(ref), seen + 1
        if (seen & MANY - 1) == 0 and not goes_on():
            return 0
    return 1


@native
def discard_dead() -> Word:
    """Free the dead objects, whose references are cleared; return how many there were."""
    table, end = machine[Machine.TABLE], machine[Machine.END]
    ref, found, seen = HEAP + HEADER, 0, 0
    while wide(ref) < end:
        behind = following(ref)
        if is_dead(table, ref):
            discard(ref)
            found += 1
        ref, seen = behind, seen + 1
        if (seen & MANY - 1) == 0 and not goes_on():
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
