"""Printing for machine code: what $Sys does with formatted text.

Output to a standard stream waits until the engine next has control, which is before anything else
can be seen.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.environment import OUTPUTS
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.hostcode import TEXTS, hosted, result_at
from llmbol_core.vm.jit.hostformat import formatted, least
from llmbol_core.vm.jit.pacing import charge
from llmbol_core.vm.jit.runtime import OUTPUT_BYTES, YIELDS, Machine, State
from llmbol_core.vm.jit.source import (
    B,
    Big,
    W,
    Word,
    below,
    external,
    host,
    host_byte,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    state,
    wide,
)
from llmbol_core.vm.jit.texts import new_text
from llmbol_core.vm.jit.utf8 import REPLACEMENT, is_character
from llmbol_core.vm.jit.values import is_inside, is_kind, release, type_size
from llmbol_core.vm.objects import ARRAY, STACK

_UNKNOWN = -1
_COST = 64
"""Bytes that could be copied in the time in which a character is formatted and written."""


# What becomes of it


@native
def text_made() -> Word:
    """Return the formatted text, up to the first NUL, as a string, or 0."""
    count, i, highest = narrow(machine[Machine.TEXT_COUNT]), 0, 0
    text = machine[Machine.TEXT]
    while i < count and host_word[text + wide(i) * 4] != 0:
        highest = highest | host_word[text + wide(i) * 4]
        i += 1
    count, is_wide = i, 1 if below(255, highest) else 0
    if count == 0:
        return NIL
    ref, i = new_text(count, is_wide), 0
    if ref == 0:
        return 0
    W[ref] = -count if is_wide else count
    while i < count:
        if is_wide:
            W[ref + 4 + 4 * i] = host_word[text + wide(i) * 4]
        else:
            B[ref + 4 + i] = host_word[text + wide(i) * 4]
        i += 1
    return ref


@inlined
def charge_text() -> None:
    """Charge for the formatting of text."""
    charge(narrow(machine[Machine.TEXT_COUNT]) * _COST)


@hosted("Sys.sprint")
def sys_sprint(frame: Word) -> Word:
    """Return formatted text."""
    place = result_at(frame, 4)
    if place == NIL or not formatted(W[frame + ARGUMENTS], frame, ARGUMENTS + 4):
        return 0
    charge_text()
    ref = text_made()
    if ref == 0:
        return 0
    old = W[place]
    W[place] = ref
    release(old)
    return 1


# Output


@native
def takes_output(number: Word, size: Word) -> Word:
    """Whether so many bytes for a descriptor can wait to be written."""
    table, count = state[State.OUTPUTS], machine[Machine.OUTPUT_COUNT]
    if (
        machine[Machine.OUTPUT_FAILED]
        or not below(number, OUTPUTS)
        or count + wide(size) > OUTPUT_BYTES
    ):
        return 0
    stream = host[table + wide(number) * 8]
    if stream == 0 or (count and machine[Machine.OUTPUT_STREAM] != stream):
        return 0
    machine[Machine.OUTPUT_STREAM] = stream
    return 1


@inlined
def output_end() -> Big:
    """Return where the next byte of output goes."""
    return machine[Machine.OUTPUT] + machine[Machine.OUTPUT_COUNT]


@native
def put_byte(byte: Word) -> None:
    """Append a byte to the output."""
    host_byte[output_end()] = byte
    machine[Machine.OUTPUT_COUNT] = machine[Machine.OUTPUT_COUNT] + 1


@native
def put_code(code: Word) -> None:
    """Append a character to the output, as UTF-8."""
    code = code if is_character(code) else REPLACEMENT
    if code < 0x80:
        put_byte(code)
        return
    if code < 0x800:
        put_byte(0xC0 | code >> 6)
    else:
        if code < 0x10000:
            put_byte(0xE0 | code >> 12)
        else:
            put_byte(0xF0 | code >> 18)
            put_byte(0x80 | code >> 12 & 0x3F)
        put_byte(0x80 | code >> 6 & 0x3F)
    put_byte(0x80 | code & 0x3F)


@native
def print_to(number: Word, template: Word, frame: Word, offset: Word) -> Word:
    """Write formatted text to a descriptor; return the number of bytes, as print does.

    If Python has to write it, Python gets the text.
    """
    place = result_at(frame, 4)
    machine[Machine.IS_TEXT_MADE] = 0
    if place == NIL or not formatted(template, frame, offset):
        return 0
    count, before, i = narrow(machine[Machine.TEXT_COUNT]), machine[Machine.OUTPUT_COUNT], 0
    charge_text()
    if not takes_output(number, 4 * count):
        machine[Machine.IS_TEXT_MADE] = 1
        return 0
    while i < count:
        put_code(host_word[machine[Machine.TEXT] + wide(i) * 4])
        i += 1
    W[place] = narrow(machine[Machine.OUTPUT_COUNT] - before)
    return turn()


@inlined
def turn() -> Word:
    """Return what makes other ready processes run, as after any work on files."""
    return YIELDS if machine[Machine.FIRST] != 0 else 1


@inlined
def descriptor(ref: Word) -> Word:
    """Return the number in a ``ref FD``."""
    return _UNKNOWN if ref == NIL or W[ref - 12] <= STACK else W[ref]


@hosted("Sys.print")
def sys_print(frame: Word) -> Word:
    """Write formatted text to standard output."""
    return print_to(1, W[frame + ARGUMENTS], frame, ARGUMENTS + 4)


@hosted("Sys.fprint")
def sys_fprint(frame: Word) -> Word:
    """Write formatted text to a file."""
    number = descriptor(W[frame + ARGUMENTS])
    return print_to(number, W[frame + ARGUMENTS + 4], frame, ARGUMENTS + 8)


@hosted("Sys.write")
def sys_write(frame: Word) -> Word:
    """Write bytes."""
    number, array = descriptor(W[frame + ARGUMENTS]), W[frame + ARGUMENTS + 4]
    count, place = W[frame + ARGUMENTS + 8], result_at(frame, 4)
    if array == NIL or place == NIL or count < 0 or not is_kind(array, ARRAY):
        return 0
    if type_size(W[array + 4]) != 1:
        return 0
    count = least(count, W[array])
    if count < 0 or not is_inside(W[array + 12], count) or not takes_output(number, count):
        return 0
    copy_out(output_end(), W[array + 12], count)
    machine[Machine.OUTPUT_COUNT] = machine[Machine.OUTPUT_COUNT] + wide(count)
    W[place] = count
    return turn()


@external
def copy_out(place: Big, address: Word, size: Word) -> None:
    """Copy bytes to an address outside of the arena."""
    raise NotImplementedError


TEXTS.append(
    """
define internal void @copy_out(ptr %m, ptr %s, i64 %place, i32 %address, i32 %size) {
 %to = inttoptr i64 %place to ptr
 %from = call ptr @at(ptr %m, i32 %address)
 %count = zext i32 %size to i64
 call void @llvm.memmove.p0.p0.i64(ptr %to, ptr %from, i64 %count, i1 false)
 ret void
}
"""
)
