"""Exceptions that are raised and handled in machine code: what ``exceptions.deliver`` does.

That is done if the handler's frame is on the same piece of the stack; everything else is left to
Python. When Python next looks, it takes the error string that a handled exception leaves behind
from the process's record.
"""

from __future__ import annotations

from llmbol_core.vm.jit.decoded import HANDLED, HANDLER_WORDS, LABEL_WORDS
from llmbol_core.vm.jit.guarding import misfits
from llmbol_core.vm.jit.pacing import charge, goes_on, spend
from llmbol_core.vm.jit.runtime import Machine, State
from llmbol_core.vm.jit.source import (
    B,
    Big,
    W,
    Word,
    below,
    host,
    host_byte,
    host_word,
    machine,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.stacks import release_frames, tables_of
from llmbol_core.vm.jit.texts import length_of, new_text, shown_at
from llmbol_core.vm.jit.trapping import ROW
from llmbol_core.vm.jit.values import frame_size, is_inside, keep, release, release_value
from llmbol_core.vm.objects import STRING
from llmbol_core.vm.process import CALLER, MODULE, RETURN_PC, TYPE

_KIND = -12
_MOST = (1 << 31) - 1
_WORD = 8
_RAISED = 4
"""Frames that can be searched in the time that an exception takes anyway."""
_MANY = 1 << 10
"""Frames between two checks whether the program is to be stopped."""


@native
def label_fits(label: Big, name: Word) -> Word:
    """Whether a label matches an exception's name."""
    length, i = narrow(host[label + _WORD]), 0
    if length_of(name) < length or (host[label + 2 * _WORD] == 0 and length_of(name) != length):
        return 0
    while i < length:
        if shown_at(name, i) != host_word[host[label] + wide(i) * 4]:
            return 0
        i += 1
    return 1


@native
def label_of(handler: Big, name: Word, is_object: Word) -> Word:
    """Return the pc at which a handler takes an exception, -1 if it does not."""
    typed, count = host[handler + 4 * _WORD], host[handler + 5 * _WORD]
    number = wide(0) if is_object else typed
    end = typed if is_object else count
    while number < end:
        label = handler + (HANDLER_WORDS + number * LABEL_WORDS) * _WORD
        if label_fits(label, name):
            return narrow(host[label + 3 * _WORD])
        number += 1
    return narrow(host[handler + 3 * _WORD])


@native
def find_label(code: Big, pc: Word, name: Word, is_object: Word) -> Big:
    """Return the handler that takes an exception at a pc of a module's code, or 0.

    The word ``DEPTH`` of the machine then says at which pc.
    """
    at = host[code + HANDLED]
    end = at + host[at] * (3 * _WORD)
    while at < end:
        if wide(pc) >= host[at + _WORD] and wide(pc) < host[at + 2 * _WORD]:
            found = label_of(host[at + 3 * _WORD], name, is_object)
            if found >= 0:
                machine[Machine.DEPTH] = wide(found)
                return host[at + 3 * _WORD]
        at += 3 * _WORD
    return 0


@native
def return_to(handle: Word) -> None:
    """Let the process run code of a handle again, whose reference a frame has kept for it."""
    gone, tables = narrow(state[State.HANDLE]), tables_of(handle)
    state[State.HANDLE], state[State.MP] = wide(handle), wide(W[handle])
    state[State.TYPES], state[State.FUNCTIONS] = host[tables + 8], host[tables + 16]
    state[State.CODE] = host[tables + 24]
    release(gone)


@native
def code_behind(handle: Word) -> Big:
    """Return the code that a handle leads to, or 0 if it is not known."""
    tables = tables_of(handle)
    return host[tables + 24] if tables else wide(0)


@native
def handle(frame: Word, handler: Big, ref: Word) -> Word:
    """Go back to a frame whose handler takes an exception; it takes over the exception's value.

    False if the program is to be stopped meanwhile.
    """
    top = frame + frame_size(W[frame + TYPE])
    if not release_frames(top, narrow(state[State.TOP]), 1):
        return 0
    at = narrow(state[State.FP])
    while at != frame:
        if W[at + MODULE]:
            return_to(W[at + MODULE])
        at = W[at + CALLER]
    state[State.TOP], state[State.FP] = wide(top), wide(frame)
    state[State.PC] = machine[Machine.DEPTH]
    if host[handler + 2 * _WORD] >= 0:
        release_value(frame, narrow(host[handler + 2 * _WORD]))
    place = frame + narrow(host[handler + _WORD])
    old = W[place]
    W[place] = ref
    release(old)
    return 1


@native
def note_raised(name: Word, pc: Word) -> None:
    """Note the last exception that the process has handled."""
    old = state[State.RAISED]
    keep(name)
    state[State.RAISED], state[State.RAISED_PC] = wide(name), wide(pc)
    state[State.RAISED_CODE] = state[State.CODE]
    if old:
        release(narrow(old))


@native
def name_of(value: Word) -> Word:
    """Return the string that names what is raised; 0 if Python has to look at it."""
    if not is_inside(value, 4):
        return 0
    if W[value + _KIND] == STRING:
        return value
    if misfits(W[value + _KIND], 4, _MOST, 1, 0):
        return 0
    name = W[value]
    return name if is_inside(name, 4) and W[name + _KIND] == STRING else 0


@native
def raise_value(value: Word, start: Word) -> Word:
    """Raise a string or an object at a pc and go to its handler; false if Python has to."""
    name = name_of(value)
    if name == 0 or not spend(_RAISED << 8):
        return 0
    is_object = 0 if name == value else 1
    frame, pc, depth = narrow(state[State.FP]), start, 0
    if W[name] == 0 or below(frame, narrow(state[State.BASE])):
        return 0
    code = state[State.CODE]
    handler = find_label(code, pc, name, is_object)
    while handler == 0:
        if is_object and depth > 0:
            is_object = 0
        else:
            if below(W[frame + CALLER], narrow(state[State.BASE])):
                return 0
            code = code_behind(W[frame + MODULE]) if W[frame + MODULE] else code
            pc, frame, depth = W[frame + RETURN_PC] - 1, W[frame + CALLER], depth + 1
            is_stopped = (depth & _MANY - 1) == 0 and not goes_on()
            if code == 0 or is_stopped or not below(frame, narrow(state[State.LIMIT])):
                return 0
        handler = find_label(code, pc, name, is_object)
    ref = value if is_object else name
    keep(ref)
    note_raised(name, start)
    charge((_RAISED + depth) << 8)
    if handle(frame, handler, ref):
        return 1
    release(ref)
    return 0


@native
def raise_trap(number: Word, pc: Word) -> Word:
    """Raise one of ``TRAPS`` at a pc and go to its handler; false if Python has to."""
    row, i = machine[Machine.TRAPS] + wide(number) * ROW, 0
    count = host_byte[row]
    name = new_text(count, 0)
    if name == 0:
        return 0
    W[name] = count
    while i < count:
        B[name + 4 + i] = host_byte[row + 1 + wide(i)]
        i += 1
    is_handled = raise_value(name, pc)
    release(name)
    return is_handled
