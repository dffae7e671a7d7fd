"""When native code looks at the clock, so that nothing it does keeps a program from stopping.

Each instruction whose work has no small bound is charged to the word ``FUEL``, in the bytes that
could be copied in the same time. When the fuel is used up, when a slice of instructions ends, and
every so many instructions of processes that switch, the clock decides whether the stretch
continues. Work that began in time may well take longer; it then checks now and then whether the
program is to be stopped. If so it gives up in the middle, since nobody will see what it leaves.
"""

from __future__ import annotations

import time

from llmbol_core.vm.arena import COUNT, WORK
from llmbol_core.vm.jit.runtime import (
    LEAST_SLICE,
    MORE,
    MOST_OWED,
    MOST_SLICE,
    QUANTUM,
    Machine,
    State,
)
from llmbol_core.vm.jit.source import (
    Big,
    W,
    Word,
    below,
    c_function,
    fill,
    host,
    inlined,
    invoke,
    machine,
    move,
    narrow,
    native,
    state,
    wide,
)

_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 1)
_SECOND = 1_000_000_000
_LONG, _SHORT = 1_000_000, 250_000
"""Nanoseconds above which slices get shorter, and below which they get longer again."""
_LITTLE = 256
"""Bytes that are worked on so quickly that they are not counted."""
PIECE = 1 << 20
"""Bytes that are worked on between two checks whether the program is to be stopped."""
SOME = 256
"""Objects, or values of an array, that are taken apart between two checks of the fuel."""
_OBJECT = 1 << 8
"""Fuel for taking apart an object that is in no cache: the bytes that could be copied meanwhile."""
_FLAGS = 15
"""The bits of a work word that are flags; the others lead to an object."""


@c_function
def clock_gettime(clock: Word, place: Big) -> Word:
    """Store seconds and nanoseconds."""
    raise NotImplementedError


CLOCK = "declare i32 @clock_gettime(i32, i64)"
"""Its declaration for LLVM."""


@native
def moment() -> Big:
    """Return the time in nanoseconds, by the clock of ``UNTIL`` and ``DEADLINE``."""
    place = state[State.MACHINE] + 8 * Machine.CLOCK
    clock_gettime(_MONOTONIC, place)
    return host[place] * _SECOND + host[place + 8]


@native
def look() -> Word:
    """Whether the stretch may continue by the clock; if so it gets new fuel."""
    if moment() < machine[Machine.UNTIL] and machine[Machine.OWED] < MOST_OWED:
        machine[Machine.FUEL] = QUANTUM
        return 1
    machine[Machine.FUEL] = 0
    return 0


@native
def goes_on() -> Word:
    """Whether the program is not to be stopped; asked by long work that has begun."""
    ask = machine[Machine.SIGNALS]
    if moment() < machine[Machine.DEADLINE] and (ask == 0 or invoke(ask, 0) == 0):
        return 1
    machine[Machine.FUEL] = 0
    machine[Machine.UNTIL] = 0
    return 0


# What is charged


@inlined
def charge(size: Word) -> None:
    """Count bytes that were worked on, or as many as would have taken as long."""
    machine[Machine.FUEL] = machine[Machine.FUEL] - wide(size)


@inlined
def begins() -> Word:
    """Whether work may begin that is charged afterwards; false if others are to run first."""
    return 1 if machine[Machine.FUEL] > 0 else look()


@inlined
def spend(size: Word) -> Word:
    """Count bytes that an instruction is about to work on; false if others are to run first."""
    if below(size, _LITTLE):
        return 1
    left = machine[Machine.FUEL] - wide(size)
    machine[Machine.FUEL] = left
    return 1 if left > 0 else look()


@native
def works(size: Word) -> Word:
    """Count bytes that are about to be worked on; false if the program is to be stopped."""
    left = machine[Machine.FUEL] - wide(size)
    machine[Machine.FUEL] = left
    if left > 0:
        return 1
    if not goes_on():
        return 0
    machine[Machine.FUEL] = QUANTUM
    return 1


@native
def switches() -> Word:
    """Whether the stretch continues with another process; if not, none runs any more."""
    left = machine[Machine.LEFT]
    if left > 0 and look():
        machine[Machine.LOOK_AT] = left - MOST_SLICE if left > MOST_SLICE else wide(0)
        return 1
    machine[Machine.CURRENT] = 0
    return 0


@native
def ends_slice() -> Word:
    """Whether the stretch continues after a slice; later ones are as long as their time allows."""
    goes, place = look(), state[State.MACHINE] + 8 * Machine.CLOCK
    now = host[place] * _SECOND + host[place + 8]
    took, slice = now - machine[Machine.SLICE_BEGAN], machine[Machine.SLICE]
    machine[Machine.SLICE_BEGAN] = now
    if took > _LONG and slice > LEAST_SLICE:
        machine[Machine.SLICE] = slice >> 1
    elif took < _SHORT and slice < MOST_SLICE:
        machine[Machine.SLICE] = slice << 1
    return goes


@native
def owe(much: Word) -> None:
    """Charge for what Python will have to do because of what was done."""
    machine[Machine.OWED] = machine[Machine.OWED] + wide(much)
    if machine[Machine.OWED] >= MOST_OWED:
        machine[Machine.FUEL] = 0


# Memory that is worked on piece by piece


@native
def move_all(target: Word, source: Word, size: Word) -> Word:
    """Move bytes; false if the program is to be stopped meanwhile."""
    if below(source, target):
        while below(PIECE, size):
            size = size - PIECE
            move(target + size, source + size, PIECE)
            if not goes_on():
                return 0
    while below(PIECE, size):
        move(target, source, PIECE)
        target, source, size = target + PIECE, source + PIECE, size - PIECE
        if not goes_on():
            return 0
    move(target, source, size)
    return 1


@native
def fill_all(target: Word, byte: Word, size: Word) -> Word:
    """Fill bytes with 0 or, if it is true, with bits that are all set; false as ``move_all``."""
    while below(PIECE, size):
        if byte:
            fill(target, 255, PIECE)
        else:
            fill(target, 0, PIECE)
        target, size = target + PIECE, size - PIECE
        if not goes_on():
            return 0
    if byte:
        fill(target, 255, size)
    else:
        fill(target, 0, size)
    return 1


# What dies later


@native
def bury_later(dying: Word) -> None:
    """Leave objects that die, linked through their counts, for the beginning of a stretch.

    The first one's work word leads to those that were left before, beside its flags.
    """
    W[dying + WORK] = W[dying + WORK] | narrow(machine[Machine.PENDING])
    machine[Machine.PENDING] = wide(dying)


@native
def take_pending() -> Word:
    """Take out the objects that were left last; return the first of them."""
    dying = narrow(machine[Machine.PENDING])
    machine[Machine.PENDING] = wide(W[dying + WORK] & -_FLAGS - 1)
    W[dying + WORK] = W[dying + WORK] & _FLAGS
    return dying


@native
def refuels() -> Word:
    """Whether to free objects now although no fuel is left, because there is still time.

    If the fuel is 0, the clock has already said that there is no time.
    """
    if machine[Machine.FUEL] == 0:
        return 0
    return look()


@native
def leaves(dying: Word) -> Word:
    """Whether to leave dying objects for later, after some have been taken apart."""
    left = machine[Machine.FUEL] - SOME * _OBJECT
    machine[Machine.FUEL] = left
    if left > 0:
        return 0
    if machine[Machine.OWED] < MOST_OWED and goes_on() and moment() < machine[Machine.UNTIL] + MORE:
        # Memory that is freed at once is reused in a better order.
        machine[Machine.FUEL] = QUANTUM
        return 0
    machine[Machine.FUEL] = 0
    bury_later(dying)
    return 1


@native
def leaves_array(array: Word, elements: Word, length: Word, dying: Word) -> Word:
    """Whether to leave a dying array, of which the first elements have been released, for later."""
    W[array], W[array + 12], W[array + COUNT] = length, elements, dying
    return leaves(array)
