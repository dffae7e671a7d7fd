"""Reading and writing files of the host for machine code, as ``openfile.py`` does.

Whatever fails has changed nothing, and is done again by Python, which knows what to report.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.environment import KNOWN
from llmbol_core.vm.files.openfile import LAST, OREAD, OWRITE, Place
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.builtins.given import descriptor
from llmbol_core.vm.jit.hostcode import TEXTS, hosted, result_at
from llmbol_core.vm.jit.pacing import charge
from llmbol_core.vm.jit.runtime import YIELDS, Machine, State
from llmbol_core.vm.jit.source import (
    Big,
    L,
    W,
    Word,
    below,
    c_function,
    external,
    host,
    inlined,
    machine,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.values import is_inside, is_kind, type_size
from llmbol_core.vm.objects import ARRAY

OWN = -1
"""Stands for the offset of the file itself, which advances."""
_STREAMS = 2
_MOST = 1 << 20
"""Bytes that are read or written at once; Python does more, so that programs can be stopped."""
_COST = 1 << 12
"""Bytes that could be copied in the time of a call of the host's system."""
_FROM_START, _FROM_HERE = 0, 1


@c_function
def pread(file: Word, place: Big, size: Big, offset: Big) -> Big:
    """Read; return the number of bytes, -1 if that fails."""
    raise NotImplementedError


@c_function
def pwrite(file: Word, place: Big, size: Big, offset: Big) -> Big:
    """Write; return the number of bytes, -1 if that fails."""
    raise NotImplementedError


@external
def place_of(address: Word) -> Big:
    """Return the address that the host knows something in the arena by."""
    raise NotImplementedError


TEXTS.append(
    """
declare i64 @pread(i32, i64, i64, i64)
declare i64 @pwrite(i32, i64, i64, i64)
define internal i64 @place_of(ptr %m, ptr %s, i32 %address) {
 %place = call ptr @at(ptr %m, i32 %address)
 %i = ptrtoint ptr %place to i64
 ret i64 %i
}
"""
)


# What calls are given


@native
def known_of(number: Word) -> Big:
    """Return what is known of the file under a descriptor: see ``OpenFile.known``."""
    return host[state[State.FILES] + wide(number) * 8] if below(number, KNOWN) else wide(0)


@inlined
def is_place(known: Big) -> Word:
    """Whether that is where the words of a file are."""
    return 1 if known > _STREAMS else 0


@native
def bytes_given(array: Word, count: Word) -> Word:
    """Return how many bytes of an array a call is to move; -1 for Python."""
    if array == NIL or count < 0 or not is_kind(array, ARRAY) or type_size(W[array + 4]) != 1:
        return -1
    count = count if count < W[array] else W[array]
    return count if is_inside(W[array + 12], count) else -1


@inlined
def turn() -> Word:
    """Return what makes other ready processes run, as after any work on files."""
    return YIELDS if machine[Machine.FIRST] != 0 else 1


@native
def give_bytes(place: Word, count: Word) -> Word:
    """Return from a call with a number of bytes; -1 is left to Python."""
    if count < 0:
        return 0
    W[place] = count
    return turn()


# Reading and writing


@native
def at_offset(file: Big, offset: Big, size: Word, other: Word) -> Big:
    """Return where a file is to be read or written; -1 if it is not, as it is open as another."""
    if host[file + 8 * Place.MODE] == wide(other) or below(_MOST, size):
        return -1
    charge(_COST + size)
    return host[file + 8 * Place.OFFSET] if offset == OWN else offset


@inlined
def advance(file: Big, count: Big) -> None:
    """Let a file's offset advance."""
    at = host[file + 8 * Place.OFFSET] + count
    host[file + 8 * Place.OFFSET] = wide(0) + LAST if at < 0 else at


@native
def write_at(file: Big, offset: Big, place: Big, size: Word) -> Word:
    """Write what is at an address of the host; return the number of bytes, -1 for Python."""
    number, at = narrow(host[file]), at_offset(file, offset, size, OREAD)
    if at < 0:
        return -1
    done = wide(size) if number < 0 else pwrite(number, place, wide(size), at)
    if done >= 0 and offset == OWN:
        advance(file, done)
    return narrow(done)


@native
def write_from(file: Big, offset: Big, address: Word, size: Word) -> Word:
    """Write what is in the arena; return the number of bytes, -1 for Python."""
    return write_at(file, offset, place_of(address), size)


@native
def read_into(file: Big, offset: Big, address: Word, size: Word) -> Word:
    """Read into the arena; return the number of bytes, -1 for Python.

    The file's own offset advances in any case.
    """
    number, at = narrow(host[file]), at_offset(file, offset, size, OWRITE)
    if at < 0:
        return -1
    done = wide(0) if number < 0 else pread(number, place_of(address), wide(size), at)
    if done >= 0:
        advance(file, done)
    return narrow(done)


@hosted("Sys.read")
def sys_read(frame: Word) -> Word:
    """Read bytes."""
    file, array = known_of(descriptor(W[frame + ARGUMENTS])), W[frame + ARGUMENTS + 4]
    count, place = bytes_given(array, W[frame + ARGUMENTS + 8]), result_at(frame, 4)
    if count < 0 or place == NIL or not is_place(file):
        return 0
    return give_bytes(place, read_into(file, OWN, W[array + 12], count))


@hosted("Sys.pread")
def sys_pread(frame: Word) -> Word:
    """Read bytes at an offset."""
    file, array = known_of(descriptor(W[frame + ARGUMENTS])), W[frame + ARGUMENTS + 4]
    count, place = bytes_given(array, W[frame + ARGUMENTS + 8]), result_at(frame, 4)
    offset = L[frame + ARGUMENTS + 16]
    if count < 0 or place == NIL or offset < 0 or not is_place(file):
        return 0
    return give_bytes(place, read_into(file, offset, W[array + 12], count))


@hosted("Sys.seek")
def sys_seek(frame: Word) -> Word:
    """Move to an offset from the start, or from here."""
    file, place = known_of(descriptor(W[frame + ARGUMENTS])), result_at(frame, 8)
    offset, start = L[frame + ARGUMENTS + 8], W[frame + ARGUMENTS + 16]
    if place == NIL or not is_place(file) or not below(start, _FROM_HERE + 1):
        return 0
    at = offset + host[file + 8 * Place.OFFSET] if start == _FROM_HERE else offset
    if at < 0:
        return 0
    host[file + 8 * Place.OFFSET] = at
    L[place] = at
    return turn()
