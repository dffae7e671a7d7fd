"""Strings in the arena, character by character, and as UTF-8.

A string that only one reference keeps is changed in place where its block has room; any other is
copied first. One that grows at its end gets room for more.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmbol_core.errors import Trap
from llmbol_core.vm import traps
from llmbol_core.vm.arena import COUNT, FREE, KIND, NIL
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.objects import STRING, Heap

_DATA = 4
_REPLACEMENT = "\ufffd"


def for_exception(heap: Heap, text: str) -> int:
    """Return a string for an exception; a block is reserved for one in case memory is used up.

    Raises Trap if that block is in use for another text.
    """
    if not text.isascii():
        return heap.new_text(text)
    ref = heap.allocate(_DATA + len(text))
    if ref is None:
        ref = heap.take_last(_DATA + len(text))
        if ref != NIL and heap.type_of(ref) == STRING and heap.string(ref) == text:
            return heap.retain(ref)
        if ref == NIL or heap.type_of(ref) != FREE:
            return heap.new_text(text)
    heap.set_word(ref + KIND, STRING)
    heap.set_word(ref, len(text))
    heap.view(ref + _DATA, len(text))[:] = text.encode()
    return ref


def length(heap: Heap, ref: int) -> int:
    """Return the number of characters, 0 for nil."""
    return 0 if ref == NIL else abs(heap.word(ref))


def character(heap: Heap, ref: int, index: int) -> int:
    """Return the code point at an index."""
    if ref == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    if not 0 <= index < length(heap, ref):
        raise Trap(traps.BOUNDS)
    return heap.word(ref + _DATA + 4 * index) if _is_wide(heap, ref) else heap.byte(ref + 4 + index)


def insert(heap: Heap, place: int, index: int, code: int) -> None:
    """Replace the character at an index of the string at a place, or append one."""
    ref = heap.pointer(place)
    old = length(heap, ref)
    if not 0 <= index <= old:
        raise Trap(traps.BOUNDS)
    wide = _is_wide(heap, ref) or not 0 <= code < 256
    new = max(old, index + 1)
    if not _can_hold(heap, ref, new, wide):
        room = new if index < old else new + new // 2 + 8
        copy = _new(heap, room, wide)
        _set_length(heap, copy, new, wide)
        _copy(heap, ref, 0, old, copy, 0)
        heap.give(place, copy)
        ref = copy
    _set_length(heap, ref, new, wide)
    if wide:
        heap.set_pointer(ref + _DATA + 4 * index, code & NIL)
    else:
        heap.set_byte(ref + _DATA + index, code)


def concatenate(heap: Heap, before: int, behind: int, place: int) -> None:
    """Store the concatenation of two strings at a place."""
    if before == NIL or behind == NIL:
        heap.assign(place, behind if before == NIL else before)
        return
    first, new = length(heap, before), length(heap, before) + length(heap, behind)
    wide = _is_wide(heap, before) or _is_wide(heap, behind)
    grows = heap.pointer(place) == before
    if grows and before != behind and _can_hold(heap, before, new, wide):
        _set_length(heap, before, new, wide)
        _copy(heap, behind, 0, new - first, before, first)
        return
    ref = _new(heap, new + new // 2 if grows else new, wide)
    _set_length(heap, ref, new, wide)
    _copy(heap, before, 0, first, ref, 0)
    _copy(heap, behind, 0, new - first, ref, first)
    heap.give(place, ref)


def cut(heap: Heap, place: int, start: int, end: int) -> None:
    """Replace the string at a place by its characters from start to end; nil if there are none."""
    ref = heap.pointer(place)
    if not 0 <= start <= end <= length(heap, ref):
        raise Trap(traps.BOUNDS)
    part = NIL
    if start < end:
        part = _new(heap, end - start, _is_wide(heap, ref))
        _set_length(heap, part, end - start, _is_wide(heap, ref))
        _copy(heap, ref, start, end - start, part, 0)
    heap.give(place, part)


def encode(text: str) -> bytes:
    """Encode a text as UTF-8; what has no encoding becomes U+FFFD."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return "".join(_REPLACEMENT if "\ud800" <= c <= "\udfff" else c for c in text).encode()


def new_strings(heap: Heap, texts: Sequence[str]) -> int:
    """Return a list of string."""
    ref = NIL
    try:
        for text in reversed(texts):
            ref = heap.new_list(POINTER, ref)
            heap.set_pointer(heap.head(ref), heap.new_string(text))
    except BaseException:
        heap.release(ref)
        raise
    return ref


def decode(data: bytes) -> str:
    """Decode UTF-8: each wrong byte becomes U+FFFD, an incomplete end is dropped."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    found, at = [], 0
    while at < len(data):
        first = data[at]
        size = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        if at + size > len(data):
            break
        try:
            found.append(data[at : at + size].decode())
        except UnicodeDecodeError:
            found.append(_REPLACEMENT)
            size = 1
        at += size
    return "".join(found)


def _is_wide(heap: Heap, ref: int) -> bool:
    """Whether a string's characters take a word each."""
    return ref != NIL and heap.word(ref) < 0


def _new(heap: Heap, room: int, wide: bool) -> int:
    """Return an empty string with room for so many characters."""
    return heap.new_object(STRING, _DATA + room * (4 if wide else 1))


def _set_length(heap: Heap, ref: int, count: int, wide: bool) -> None:
    heap.set_word(ref, -count if wide else count)


def _can_hold(heap: Heap, ref: int, count: int, wide: bool) -> bool:
    """Whether a string can be changed in place and has room for so many characters."""
    if ref == NIL or heap.pointer(ref + COUNT) != 1 or (wide and not _is_wide(heap, ref)):
        return False
    return _DATA + count * (4 if wide else 1) <= heap.capacity(ref)


def _copy(heap: Heap, source: int, start: int, count: int, target: int, at: int) -> None:
    """Copy characters; the target's are as wide as the source's, or wider."""
    if not count:
        return
    wide = _is_wide(heap, source)
    size = 4 if wide else 1
    if wide or not _is_wide(heap, target):
        heap.move(source + _DATA + start * size, target + _DATA + at * size, count * size)
        return
    data = str(heap.view(source + _DATA + start, count), "latin-1").encode("utf-32-le")
    heap.view(target + _DATA + 4 * at, len(data))[:] = data
