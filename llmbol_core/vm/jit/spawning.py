"""Processes that machine code starts and ends: what ``Interpreter.spawn`` and the machine do.

Python does not see such a process until it next has control; many have ended by then. One that
Python has seen may end here too, which Python notices later, unless something waits for it.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.jit.blocks import free_large
from llmbol_core.vm.jit.communication import make_ready, own_record
from llmbol_core.vm.jit.decoded import STACK_BYTES
from llmbol_core.vm.jit.pacing import owe
from llmbol_core.vm.jit.runtime import RECORD_WORDS, YIELDS, Machine, State
from llmbol_core.vm.jit.source import (
    Big,
    W,
    Word,
    host,
    inlined,
    machine,
    move,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.stacks import new_piece, release_frames
from llmbol_core.vm.jit.values import frame_size, keep, release
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

_WORD = 8
_LINKS = 16
"""Bytes of the links in a frame."""
_SOME = 64
"""New processes that are there before they have their turn at once."""


@inlined
def put_word(record: Big, word: Big, value: Big) -> None:
    """Store a word of a process that does not run."""
    host[record + word * _WORD] = value


@inlined
def get_word(record: Big, word: Big) -> Big:
    """Return a word of a process that does not run."""
    return host[record + word * _WORD]


@native
def take_record() -> Big:
    """Return a free record, all zero, or 0."""
    record, i = machine[Machine.RECORDS], wide(0)
    if record:
        machine[Machine.RECORDS] = get_word(record, State.NEXT)
        while i < RECORD_WORDS:
            put_word(record, i, 0)
            i += 1
    return record


@native
def note_new(record: Big) -> None:
    """Add a process to those that Python has not seen yet."""
    before, own = machine[Machine.NEWEST], own_record()
    ancestor = get_word(own, State.ANCESTOR)
    put_word(record, State.ANCESTOR, ancestor if ancestor else own)
    put_word(record, State.OLDER, before)
    if before:
        put_word(before, State.NEWER, record)
    else:
        machine[Machine.OLDEST] = record
    machine[Machine.NEWEST] = record


@native
def forget_new(record: Big) -> None:
    """Remove a process from those that Python has not seen yet, and free its record."""
    older, newer = get_word(record, State.OLDER), get_word(record, State.NEWER)
    if older:
        put_word(older, State.NEWER, newer)
    else:
        machine[Machine.OLDEST] = newer
    if newer:
        put_word(newer, State.OLDER, older)
    else:
        machine[Machine.NEWEST] = older
    put_word(record, State.NEXT, machine[Machine.RECORDS])
    machine[Machine.RECORDS] = record
    machine[Machine.OWED] = machine[Machine.OWED] - 1


@native
def copy_frame(source: Word, target: Word) -> Word:
    """Copy a frame to be the bottom one of another process; return its size."""
    size = frame_size(W[source + TYPE])
    move(target + _LINKS, source + _LINKS, size - _LINKS)
    W[target + RETURN_PC], W[target + CALLER], W[target + MODULE] = 0, 0, 0
    W[target + TYPE] = W[source + TYPE]
    return size


@native
def fill_record(record: Big, base: Word, room: Word, frame: Word) -> None:
    """Describe a new process's stack, whose bottom frame is made from another one."""
    put_word(record, State.FP, wide(base))
    put_word(record, State.TOP, wide(base + copy_frame(frame, base)))
    put_word(record, State.BASE, wide(base))
    put_word(record, State.LIMIT, wide(base + room))
    put_word(record, State.EXTENT_COUNT, 1)
    put_word(record, State.EXTENTS, wide(base))
    put_word(record, State.EXTENTS + 1, wide(base + room))
    machine[Machine.PIDS] = machine[Machine.PIDS] + 1
    put_word(record, State.PID, machine[Machine.PIDS])
    put_word(record, State.MACHINE, state[State.MACHINE])
    put_word(record, State.SHARED, state[State.SHARED])
    put_word(record, State.FILES, state[State.FILES])
    put_word(record, State.FLOATING, state[State.FLOATING])
    put_word(record, State.LINKS, state[State.LINKS])


@native
def spawn(frame: Word, pc: Word, handle: Word, tables: Big) -> Word:
    """Start a process whose bottom frame is what the running one has made; false for Python.

    After some of them ``YIELDS``: those that end before Python sees them make it no work.
    The tables are those that a handle's links begin with.
    """
    if machine[Machine.OBSERVED] or machine[Machine.PROCESSES] >= machine[Machine.MOST_PROCESSES]:
        return 0
    room = narrow(host[host[tables + 3 * _WORD] + STACK_BYTES])
    if frame == narrow(state[State.BASE]) or frame_size(W[frame + TYPE]) > room:
        return 0
    base = new_piece(room)
    if base == NIL:
        return 0
    record = take_record()
    if record == 0:
        free_large(base)
        return 0
    fill_record(record, base, room, frame)
    put_word(record, State.PC, wide(pc))
    put_word(record, State.HANDLE, wide(handle))
    put_word(record, State.MP, wide(W[handle]))
    put_word(record, State.TYPES, host[tables + _WORD])
    put_word(record, State.FUNCTIONS, host[tables + 2 * _WORD])
    put_word(record, State.CODE, host[tables + 3 * _WORD])
    keep(handle)
    state[State.TOP] = wide(frame)
    machine[Machine.PROCESSES] = machine[Machine.PROCESSES] + 1
    note_new(record)
    make_ready(record)
    owe(1)
    return YIELDS if machine[Machine.OWED] >= _SOME else 1


@native
def end_process() -> Word:
    """End the running process; false if Python has to."""
    if machine[Machine.OBSERVED] or state[State.IS_KEPT] or state[State.EXTENT_COUNT] != 1:
        return 0
    base, record, raised = narrow(state[State.BASE]), own_record(), narrow(state[State.RAISED])
    if raised:
        state[State.RAISED] = 0
        release(raised)
    release_frames(base, narrow(state[State.TOP]), 0)
    free_large(base)
    release(narrow(state[State.HANDLE]))
    machine[Machine.PROCESSES] = machine[Machine.PROCESSES] - 1
    if state[State.ANCESTOR]:
        forget_new(record)
    else:
        owe(1)
        put_word(record, State.NEXT, machine[Machine.ENDED])
        machine[Machine.ENDED] = record
    return 1
