"""Whether nothing can be dead, since the chains of all objects' parents end at what is alive.

An object's parent is one of those that refer to it, chosen when they were counted. If the parent is
alive, so is the object. Only the table is looked at to follow parents, and many chains are followed
in turn, so that the processor need not wait for one step before it begins another, however far
apart in memory the objects lie. A walk along a chain paints the objects in its colour. It ends at
one that is painted already: then the fate of that colour decides.

A walk that comes upon its own colour is lost. Such a ring of parents may still be alive by other
references, which ``garbage.py`` has to find. To make that rare the fields of a record that come
first are preferred: in a list that is linked both ways the chains then all lead the same way.
"""

from __future__ import annotations

from llmbol_core.vm.arena import HEAP
from llmbol_core.vm.jit.children import (
    BEHIND,
    KNOT,
    MANY,
    PLACE,
    REFERENCE,
    note_living,
    prefetch_host,
)
from llmbol_core.vm.jit.pacing import goes_on
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    Big,
    Word,
    below,
    host,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    wide,
)

_WALKS, _WALK = 1024, 8
"""Offset of the walks in the table, and the size of one: its colour, and where it is."""
_AT_ONCE = 64
"""How many walks take steps in turn."""
_UNDER_WAY, _ALIVE, _LOST, _FIRST = 0, 1, 2, 3
"""What a colour's word says: whether its walk is under way, or has come upon something alive, or is
lost; from ``_FIRST`` on, the colour upon which it has come."""
_MANY_LOST = 1 << 10
"""How many walks must be lost, and more than half of all, for the others to be given up."""
_PAINTED = -1
"""Stands in place of a claim where the object's word holds its colour instead of a count."""


@native
def follow_parents() -> Word:
    """Return 1 if all knots must be alive, -1 if the program is to be stopped.

    0 if some may be dead; 2 if that was given up.
    """
    table, colours = machine[Machine.TABLE], colours_of()
    at, end = wide(HEAP >> 2), host[table + BEHIND]
    walk, colour, idle, lost, turns = 0, _FIRST - 1, 0, 0, 0
    clear_walks(table)
    while idle < _AT_ONCE:
        where = table + _WALKS + wide(walk) * _WALK
        place, walk = host_word[where + 4], walk + 1 & _AT_ONCE - 1
        idle, turns = idle + 1, turns + 1
        if place == 0:
            at = next_knot(table, at, end)
            if at < end:
                colour, place, at = colour + 1, narrow(at >> 3), at + 8
                host_word[where] = colour
                host_word[colours + wide(colour) * 4] = _UNDER_WAY
        if place:
            idle = 0
            place = step_up(table, colours, where, place)
            lost += 1 if place == -1 else 0
            host_word[where + 4] = place if place != -1 else 0
        if (turns & (MANY << 2) - 1) == 0:
            if not goes_on():
                return -1
            # Where much is lost it is no use to go on; what is under way is lost, too.
            idle = _AT_ONCE + 1 if lost > _MANY_LOST and lost > colour >> 1 else idle
    if lost:
        tell_living(table, colours, end, _UNDER_WAY - 1 if idle > _AT_ONCE else _ALIVE)
    return (2 if idle > _AT_ONCE else 0) if lost else 1


@inlined
def colours_of() -> Big:
    """Return where the words of colours are: behind all that the stack of objects can hold."""
    return machine[Machine.STACK] + (machine[Machine.END] >> 3 & -8)


@inlined
def clear_walks(table: Big) -> None:
    """Let no walk have begun."""
    left = wide(_AT_ONCE)
    while left:
        left -= 1
        host[table + _WALKS + left * _WALK] = 0


@inlined
def next_knot(table: Big, at: Big, end: Big) -> Big:
    """Return where, from one place in the table on, the next knot of unknown fate is."""
    while at < end and not is_open(host_word[table + at]):
        at = at + 8
    return at


@inlined
def is_open(said: Word) -> Word:
    """Whether an object's word says that it is a knot which may be dead, and is not painted."""
    return said & KNOT if below(said, REFERENCE) else 0


@inlined
def step_up(table: Big, colours: Big, walk: Big, place: Word) -> Word:
    """Let a walk do with the object at a place; return its parent's place, or 0 at the end.

    -1 if the walk is lost.
    """
    at, colour = table + wide(place) * 8, host_word[walk]
    said, claim = host_word[at], host_word[at + 4]
    own = colours + wide(colour) * 4
    if below(said, REFERENCE):
        host_word[at], host_word[at + 4] = said | colour * REFERENCE, _PAINTED
        parent = claim & PLACE
        if parent == 0:
            host_word[own] = _LOST
            return -1
        prefetch_host(table + wide(parent) * 8)
        return parent
    if claim != _PAINTED:
        host_word[own] = _ALIVE
        return 0
    last = last_colour(colours, said >> 5)
    fate = host_word[colours + wide(last) * 4]
    if fate == _UNDER_WAY:
        fate = _LOST if last == colour else last
    host_word[own] = fate
    return -1 if fate == _LOST else 0


assert REFERENCE == 1 << 5


@inlined
def last_colour(colours: Big, colour: Word) -> Word:
    """Return the colour whose fate decides that of another one."""
    following = host_word[colours + wide(colour) * 4]
    while not below(following, _FIRST):
        after = host_word[colours + wide(following) * 4]
        if not below(after, _FIRST):
            # The next one that comes this way has half as far to go.
            host_word[colours + wide(colour) * 4] = after
        colour, following = following, after
    return colour


@native
def tell_living(table: Big, colours: Big, end: Big, alive: Word) -> None:
    """Note which painted objects are alive; the words of the others say again what they said.

    ``alive`` is the word of the colours that are; no colour may have it.
    """
    at = wide(HEAP >> 2)
    while at < end:
        if host_word[table + at + 4] == _PAINTED:
            said = host_word[table + at] & REFERENCE - 1
            last = last_colour(colours, host_word[table + at] >> 5)
            host_word[table + at], host_word[table + at + 4] = said, 0
            if host_word[colours + wide(last) * 4] == alive:
                host_word[table + at] = said | REFERENCE
                note_living(table, said)
        at = at + 8
