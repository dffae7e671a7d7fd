"""Stacks for machine code: what ``process.Stack`` does for processes that run in it."""

from __future__ import annotations

from llmbol_core.vm.arena import HEADER, NIL
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.runtime import EXTENT_ROWS, State
from llmbol_core.vm.jit.source import (
    Big,
    Word,
    below,
    external,
    inlined,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.values import new_block, release_frame
from llmbol_core.vm.objects import STACK
from llmbol_core.vm.process import MOST_EXTENT

_ROW = 3


@external
def begin_frame(frame: Word, number: Word) -> None:
    """Begin a frame of a type: its links and pointers are nil."""
    raise NotImplementedError


@inlined
def extent(number: Word) -> Big:
    """Return which word of the record a piece begins at."""
    return State.EXTENTS + wide(number) * _ROW


@native
def new_piece(room: Word) -> Word:
    """Return memory for a piece of a stack, or nil."""
    return new_block((room + HEADER + 15) & -16, STACK)


@native
def extend_stack(size: Word) -> Word:
    """Go on with another piece that has room for a frame; return where it begins, 0 for Python."""
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
