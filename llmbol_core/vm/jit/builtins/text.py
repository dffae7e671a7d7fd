"""What $Sys does with text, for machine code; with time, and with the process itself."""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.conversion import LAST_RUNE
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.builtins.math import give_number
from llmbol_core.vm.jit.hostcode import hosted, result_at
from llmbol_core.vm.jit.pacing import charge, goes_on, look, moment, spend
from llmbol_core.vm.jit.runtime import QUANTUM, YIELDS, Machine, State
from llmbol_core.vm.jit.source import (
    B,
    L,
    W,
    Word,
    below,
    machine,
    narrow,
    native,
    state,
)
from llmbol_core.vm.jit.texts import HIGH_BITS, code_at, length_of, part
from llmbol_core.vm.jit.utf8 import bytes_of, code_of, decode, encode, encoded_size
from llmbol_core.vm.jit.values import is_inside, is_kind, new_node, release, type_size
from llmbol_core.vm.objects import ARRAY, LIST_HEADER, STRING

_MILLISECOND = 1_000_000
_MOST_DELIMITERS = 64
_LONGEST = 1 << 28
_COST, _EACH = 1024, 16
"""Bytes that could be copied while a token is made, and while a character is read."""
_PIECE = 1 << 16
_MANY = 1 << 12
"""Characters or tokens between two checks whether the program is to be stopped."""


# Characters and bytes


@native
def bytes_at(array: Word, at: Word) -> Word:
    """Return how many bytes an array has from an index on; 0 if Python has to look at it."""
    if array == NIL or not is_kind(array, ARRAY):
        return 0
    if type_size(W[array + 4]) != 1 or not below(at, W[array]):
        return 0
    return W[array] - at if is_inside(W[array + 12], W[array]) else 0


@hosted("Sys.byte2char")
def byte2char(frame: Word) -> Word:
    """Decode one character; return it, its bytes, and 1 if it was well-formed UTF-8."""
    array, at, place = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4], result_at(frame, 12)
    left = bytes_at(array, at)
    if place == NIL or left == 0:
        return 0
    found = decode(W[array + 12] + at, left)
    code, width = code_of(found), bytes_of(found)
    W[place], W[place + 4] = code, width
    W[place + 8] = 1 if width > 1 or (width == 1 and code < 0x80) else 0
    return 1


@hosted("Sys.char2byte")
def char2byte(frame: Word) -> Word:
    """Encode one character; return its bytes, 0 if they do not fit."""
    code, array, at = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4], W[frame + ARGUMENTS + 8]
    left, place = bytes_at(array, at), result_at(frame, 4)
    if left == 0 or place == NIL:
        return 0
    code = -1 if code == LAST_RUNE else code
    W[place] = 0 if encoded_size(code) > left else encode(code, W[array + 12] + at)
    return 1


@hosted("Sys.utfbytes")
def utfbytes(frame: Word) -> Word:
    """Return how many of the first bytes are whole characters."""
    array, count, at = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4], 0
    if bytes_at(array, 0) < count or count < 1 or not spend(count):
        return 0
    data = W[array + 12]
    while at < count:
        while at + 8 <= count and (L[data + at] & HIGH_BITS) == 0:
            at += 8
            if (at & _PIECE - 1) == 0 and not goes_on():
                return 0
        while at < count and B[data + at] < 0x80:
            at += 1
        if at == count:
            break
        width = bytes_of(decode(data + at, count - at))
        if width == 0:
            break
        charge(_EACH)
        at += width
        if machine[Machine.FUEL] <= -QUANTUM and not (look() or goes_on()):
            return 0
    return give_number(frame, at)


# Tokens


@native
def is_one_of(code: Word, characters: Word, count: Word) -> Word:
    """Whether a character is one of a string's."""
    i = 0
    while i < count:
        if code_at(characters, i) == code:
            return 1
        i += 1
    return 0


@native
def append_token(last: Word, text: Word, start: Word, end: Word) -> Word:
    """Append a part of a text to a list, after its last node, nil if none; 0 for Python."""
    token = part(text, start, end)
    if token == 0:
        return 0
    node = new_node(POINTER, NIL)
    if node == 0:
        release(token)
        return 0
    W[node + LIST_HEADER] = token
    if last != NIL:
        W[last] = node
    return node


@hosted("Sys.tokenize")
def tokenize(frame: Word) -> Word:
    """Split text at any of some characters; there are no empty tokens."""
    text, delimiters, place = W[frame + ARGUMENTS], W[frame + ARGUMENTS + 4], result_at(frame, 8)
    if not is_kind(text, STRING) or not is_kind(delimiters, STRING):
        return 0
    length, kinds = length_of(text), length_of(delimiters)
    if place == NIL or kinds == 0 or kinds > _MOST_DELIMITERS:
        return 0
    if length > _LONGEST or not spend(_COST):
        return 0
    first, last, count, i = NIL, NIL, 0, 0
    while i < length:
        i = token_end(text, i, delimiters, 1)
        start = i
        i = token_end(text, i, delimiters, 0)
        if i < 0:
            release(first)
            return 0
        if start < i:
            last = append_token(last, text, start, i)
            if last == 0:
                release(first)
                return 0
            first = last if first == NIL else first
            count += 1
            charge(_COST)
            if (count & _MANY - 1) == 0 and not goes_on():
                i = length
    old = W[place + 4]
    W[place], W[place + 4] = count, first
    release(old)
    return 1


@native
def token_end(text: Word, start: Word, delimiters: Word, are_skipped: Word) -> Word:
    """Return where a token ends, or where characters end that are skipped.

    -1 if the program is to be stopped meanwhile, or already if it begins there.
    """
    length, kinds, i = length_of(text), length_of(delimiters), start
    goes = 0 if start < 0 else 1
    while goes and i < length:
        if is_one_of(code_at(text, i), delimiters, kinds) == are_skipped:
            i += 1
            if (i & _MANY - 1) == 0:
                charge(_MANY * (kinds + _EACH))
                if not goes_on():
                    return -1
        else:
            goes = 0
    return i


# Time and the process


@hosted("Sys.millisec")
def millisec(frame: Word) -> Word:
    """Return a count of milliseconds, from no particular moment."""
    return give_number(frame, narrow((moment() - machine[Machine.STARTED]) // _MILLISECOND))


@hosted("Sys.sleep")
def let_others_run(frame: Word) -> Word:
    """Let other processes run, if the time asked for is 0."""
    place = result_at(frame, 4)
    if W[frame + ARGUMENTS] > 0 or place == NIL:
        return 0
    W[place] = 0
    return YIELDS


@hosted("Sys.pctl")
def own_number(frame: Word) -> Word:
    """Return the number of the process, if nothing else is asked for."""
    if W[frame + ARGUMENTS] != 0 or W[frame + ARGUMENTS + 4] != NIL:
        return 0
    return give_number(frame, narrow(state[State.PID]))
