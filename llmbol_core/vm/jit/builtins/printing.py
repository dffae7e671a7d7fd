"""Printing for machine code: what $Sys does with formatted text.

Output to a standard stream waits until the engine next has control, which is before anything else
can be seen.
"""

from __future__ import annotations

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import ARGUMENTS
from llmbol_core.vm.jit.builtins.files import (
    OWN,
    bytes_given,
    give_bytes,
    is_place,
    known_of,
    turn,
    write_at,
    write_from,
)
from llmbol_core.vm.jit.builtins.format import formatted
from llmbol_core.vm.jit.builtins.given import begins_with_pointer, descriptor
from llmbol_core.vm.jit.hostcode import TEXTS, hosted, result_at
from llmbol_core.vm.jit.pacing import charge
from llmbol_core.vm.jit.runtime import OUTPUT_BYTES, Machine
from llmbol_core.vm.jit.source import (
    B,
    Big,
    L,
    W,
    Word,
    below,
    external,
    host_byte,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.jit.texts import new_bytes, new_text
from llmbol_core.vm.jit.utf8 import REPLACEMENT, is_character
from llmbol_core.vm.jit.values import release
from llmbol_core.vm.objects import ARRAY_HEADER

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
    if place == NIL or not formatted(frame, ARGUMENTS):
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
    stream, count = known_of(number), machine[Machine.OUTPUT_COUNT]
    if machine[Machine.OUTPUT_FAILED] or count + wide(size) > OUTPUT_BYTES:
        return 0
    if stream == 0 or is_place(stream) or (count and machine[Machine.OUTPUT_STREAM] != stream):
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
def print_to(number: Word, frame: Word, offset: Word) -> Word:
    """Write formatted text to a descriptor; return the number of bytes, as print does.

    If Python has to write it, Python gets the text.
    """
    place = result_at(frame, 4)
    machine[Machine.IS_TEXT_MADE] = 0
    if place == NIL or not formatted(frame, offset):
        return 0
    charge_text()
    written = put_text_to(number, narrow(machine[Machine.TEXT_COUNT]))
    if written < 0:
        machine[Machine.IS_TEXT_MADE] = 1
        return 0
    W[place] = written
    return turn()


@native
def put_text_to(number: Word, count: Word) -> Word:
    """Write the formatted text to a descriptor; return the number of bytes, -1 for Python."""
    file, before, i = known_of(number), machine[Machine.OUTPUT_COUNT], 0
    if is_place(file):
        if before + wide(4 * count) > OUTPUT_BYTES:
            return -1
    elif not takes_output(number, 4 * count):
        return -1
    while i < count:
        put_code(host_word[machine[Machine.TEXT] + wide(i) * 4])
        i += 1
    size = narrow(machine[Machine.OUTPUT_COUNT] - before)
    if is_place(file):
        machine[Machine.OUTPUT_COUNT] = before
        return write_at(file, OWN, machine[Machine.OUTPUT] + before, size)
    return size


@hosted("Sys.print")
def sys_print(frame: Word) -> Word:
    """Write formatted text to standard output."""
    return print_to(1, frame, ARGUMENTS)


@hosted("Sys.fprint")
def sys_fprint(frame: Word) -> Word:
    """Write formatted text to a file."""
    file = W[frame + ARGUMENTS] if begins_with_pointer(frame, ARGUMENTS) else NIL
    return print_to(descriptor(file), frame, ARGUMENTS + 4)


@hosted("Sys.aprint")
def sys_aprint(frame: Word) -> Word:
    """Return formatted text as UTF-8."""
    place, start, i = result_at(frame, 4), machine[Machine.OUTPUT_COUNT], 0
    if place == NIL or not formatted(frame, ARGUMENTS):
        return 0
    count = narrow(machine[Machine.TEXT_COUNT])
    if start + wide(4 * count) > OUTPUT_BYTES:
        return 0
    charge_text()
    while i < count:
        put_code(host_word[machine[Machine.TEXT] + wide(i) * 4])
        i += 1
    size = narrow(machine[Machine.OUTPUT_COUNT] - start)
    machine[Machine.OUTPUT_COUNT] = start
    array, i = new_bytes(size), 0
    if array == 0:
        return 0
    while i < size:
        B[array + ARRAY_HEADER + i] = host_byte[machine[Machine.OUTPUT] + start + wide(i)]
        i += 1
    old = W[place]
    W[place] = array
    release(old)
    return 1


@hosted("Sys.write")
def sys_write(frame: Word) -> Word:
    """Write bytes."""
    number, array, place = descriptor(W[frame + ARGUMENTS]), W[frame + ARGUMENTS + 4], NIL
    count = bytes_given(array, W[frame + ARGUMENTS + 8])
    if count >= 0:
        place = result_at(frame, 4)
    if place == NIL:
        return 0
    if is_place(known_of(number)):
        return give_bytes(place, write_from(known_of(number), OWN, W[array + 12], count))
    if not takes_output(number, count):
        return 0
    copy_out(output_end(), W[array + 12], count)
    machine[Machine.OUTPUT_COUNT] = machine[Machine.OUTPUT_COUNT] + wide(count)
    W[place] = count
    return turn()


@hosted("Sys.pwrite")
def sys_pwrite(frame: Word) -> Word:
    """Write bytes at an offset."""
    file, array = known_of(descriptor(W[frame + ARGUMENTS])), W[frame + ARGUMENTS + 4]
    count, place = bytes_given(array, W[frame + ARGUMENTS + 8]), result_at(frame, 4)
    offset = L[frame + ARGUMENTS + 16]
    if count < 0 or place == NIL or offset < 0 or not is_place(file):
        return 0
    return give_bytes(place, write_from(file, offset, W[array + 12], count))


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
