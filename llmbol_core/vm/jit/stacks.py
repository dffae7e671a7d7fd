"""Stacks for machine code: what ``process.Stack`` does for processes that run in it."""

from __future__ import annotations

from llmbol_core.vm.arena import HEADER, NIL
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.decoded import HANDLED
from llmbol_core.vm.jit.pacing import charge, goes_on
from llmbol_core.vm.jit.runtime import EXTENT_ROWS, Machine, State
from llmbol_core.vm.jit.source import (
    Big,
    W,
    Word,
    below,
    external,
    host,
    inlined,
    machine,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.values import frame_size, new_block, release, release_frame, release_value
from llmbol_core.vm.objects import STACK
from llmbol_core.vm.process import CALLER, LEAST_FRAME, MODULE, MOST_EXTENT, RETURN_PC, TYPE

_ROW = 3
_MANY = 1 << 10
"""Frames between two checks whether the program is to be stopped."""
_FRAME = 256
"""Bytes that could be copied while a frame is taken apart."""


@external
def begin_frame(frame: Word, number: Word) -> None:
    """Begin a frame of a type: its links and pointers are nil."""
    raise NotImplementedError


@inlined
def extent(number: Word) -> Big:
    """Return the word of the record at which the description of a piece begins."""
    return State.EXTENTS + wide(number) * _ROW


@native
def release_frames(at: Word, end: Word, are_left: Word) -> Word:
    """Release what frames refer to, and the handles of their callers unless those were left.

    False if the program is to be stopped meanwhile; what was released is nil then.
    """
    count = 0
    while below(at, end):
        size, handle = frame_size(W[at + TYPE]), W[at + MODULE]
        release_value(at, W[at + TYPE])
        if handle and not are_left:
            W[at + MODULE] = 0
            release(handle)
        at, count = at + size, count + 1
        if (count & _MANY - 1) == 0:
            charge(_MANY * _FRAME)
            if not goes_on():
                return 0
    return 1


@native
def new_piece(room: Word) -> Word:
    """Return memory for a piece of a stack, or nil."""
    return new_block((room + HEADER + 15) & -16, STACK)


@native
def extend_stack(size: Word) -> Word:
    """Continue on another piece that has room for a frame; return its start, 0 for Python."""
    count = narrow(state[State.EXTENT_COUNT])
    room = narrow(state[State.LIMIT] - state[State.BASE]) * 2
    room = MOST_EXTENT if below(MOST_EXTENT, room) else room
    room = size if room < size else room
    base = new_piece(room) if count < EXTENT_ROWS else NIL
    if base == NIL:
        return 0
    at = extent(count)
    state[at], state[at + 1], state[at + 2] = wide(base), wide(base + room), state[State.TOP]
    state[State.EXTENT_COUNT] = wide(count + 1)
    state[State.BASE], state[State.LIMIT] = wide(base), wide(base + room)
    return base


@native
def shrink_stack() -> Word:
    """Go back to the piece before the last one; false if Python has to, or there is none."""
    count = narrow(state[State.EXTENT_COUNT])
    if count < 2 or count > EXTENT_ROWS:
        return 0
    last, before = extent(count - 1), extent(count - 2)
    free_large(narrow(state[last]))
    state[State.EXTENT_COUNT] = wide(count - 1)
    state[State.BASE], state[State.LIMIT] = state[before], state[before + 1]
    state[State.TOP] = state[last + 2]
    return 1


@native
def push_frame(number: Word, size: Word) -> Word:
    """Make a frame of a type on top of the stack; 0 if Python has to."""
    start = narrow(state[State.TOP])
    if below(narrow(state[State.LIMIT]), start + size):
        start = extend_stack(size)
        if start == 0:
            return 0
    begin_frame(start, number)
    state[State.TOP] = wide(start + size)
    return start


@native
def pop_frame(start: Word) -> Word:
    """Release what a frame refers to and drop it; false if Python has to."""
    count = narrow(state[State.EXTENT_COUNT])
    is_first = start == narrow(state[State.BASE])
    if is_first and (count < 2 or count > EXTENT_ROWS):
        return 0
    release_frame(start)
    if is_first:
        return shrink_stack()
    state[State.TOP] = wide(start)
    return 1


# Looking for handlers of exceptions


@external
def tables_of(handle: Word) -> Big:
    """Return the address of the tables for the links of a handle, or 0."""
    raise NotImplementedError


@native
def has_handler(code: Big, pc: Word) -> Word:
    """Whether an instruction has handlers of exceptions; unknown code may have some."""
    if code == 0:
        return 1
    at = host[code + HANDLED]
    end = at + host[at] * 24
    while at < end:
        if wide(pc) >= host[at + 8] and wide(pc) < host[at + 16]:
            return 1
        at += 24
    return 0


@native
def find_handled() -> Word:
    """Find a frame whose code has handlers: see ``Survey.HANDLED``."""
    frame, handle = narrow(machine[Machine.TABLE]), narrow(machine[Machine.STACK])
    pc, left = narrow(machine[Machine.DEPTH]), machine[Machine.END] // LEAST_FRAME
    while frame != 0 and left > 0:
        tables = tables_of(handle)
        if has_handler(host[tables + 24] if tables else wide(0), pc):
            machine[Machine.TABLE], machine[Machine.STACK] = wide(frame), wide(handle)
            machine[Machine.DEPTH] = wide(pc)
            return 1
        handle = W[frame + MODULE] if W[frame + MODULE] else handle
        pc = W[frame + RETURN_PC] - 1
        frame, left = W[frame + CALLER], left - 1
        if (left & _MANY - 1) == 0 and not goes_on():
            return 0
    return 0


@native
def find_foreign() -> Word:
    """Find a frame whose caller is in another module: see ``Survey.FOREIGN``."""
    frame, end = narrow(machine[Machine.TABLE]), narrow(machine[Machine.STACK])
    left = machine[Machine.END] // LEAST_FRAME
    while frame != end and frame != 0 and W[frame + MODULE] == 0 and left > 0:
        frame, left = W[frame + CALLER], left - 1
        if (left & _MANY - 1) == 0 and not goes_on():
            return frame
    return frame
