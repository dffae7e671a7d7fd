"""Strings for machine code: what ``strings.py`` and ``conversion.py`` do.

A function that returns a string counts the reference for the caller; it returns 0, and has done
nothing, if Python has to do it. A function for an instruction that replaces the string at a place
gets that string and returns the one that is to be there; if the string is changed in place, that
is the same, counted once more.
"""

from __future__ import annotations

from llmbol_core.vm.arena import COUNT, HEADER, NIL, SIZE
from llmbol_core.vm.heaptypes import BYTE
from llmbol_core.vm.jit.pacing import begins, charge, goes_on, move_all, spend
from llmbol_core.vm.jit.source import (
    B,
    Big,
    L,
    W,
    Word,
    below,
    external,
    inlined,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.jit.utf8 import bytes_of, code_of, decode, encode, encoded_size
from llmbol_core.vm.jit.values import is_inside, keep, new_block, type_size
from llmbol_core.vm.objects import ARRAY, ARRAY_HEADER, STRING

_DATA = 4
_LONGEST = 1 << 28
UNKNOWN = -(1 << 31)
_LAST_CODE, _REPLACEMENT = 0x10FFFF, 0xFFFD
_PIECE = 1 << 16
"""Characters between two checks whether the program is to be stopped."""
_COST = 16
"""Bytes that could be copied in the time in which a character is looked at."""
_MOST_CHARGED = (1 << 27) - 1
HIGH_BITS = 0x8080808080808080
"""The bits that are not set in ASCII text."""


@inlined
def length_of(ref: Word) -> Word:
    """Return the number of characters; nil has none, since nothing lies at its address."""
    length = W[ref]
    return -length if length < 0 else length


@inlined
def code_at(ref: Word, index: Word) -> Word:
    """Return the character at an index that is in the string."""
    return W[ref + _DATA + 4 * index] if W[ref] < 0 else B[ref + _DATA + index]


@inlined
def shown_at(ref: Word, index: Word) -> Word:
    """Return a character as it is compared: anything that is no code point counts as U+FFFD."""
    code = code_at(ref, index)
    return _REPLACEMENT if below(_LAST_CODE, code) else code


@native
def new_text(room: Word, is_wide: Word) -> Word:
    """Return an empty string with room for so many characters, or 0."""
    if below(_LONGEST, room):
        return 0
    size = _DATA + room * (4 if is_wide else 1)
    ref = new_block((size + HEADER + 15) & -16, STRING)
    return 0 if ref == NIL else ref


@inlined
def can_hold(ref: Word, count: Word, is_wide: Word) -> Word:
    """Whether a string can be changed in place to have so many characters."""
    if ref == NIL or W[ref + COUNT] != 1 or (is_wide and W[ref] >= 0):
        return 0
    size = _DATA + count * (4 if is_wide else 1)
    return 0 if below(W[ref + SIZE] - HEADER, size) else 1


@native
def copy_codes(source: Word, start: Word, count: Word, target: Word, at: Word) -> None:
    """Copy characters; the target's are as wide as the source's, or wider.

    It stops before the end if the program is to be stopped meanwhile.
    """
    if W[source] < 0:
        move_all(target + _DATA + 4 * at, source + _DATA + 4 * start, 4 * count)
        return
    if W[target] >= 0:
        move_all(target + _DATA + at, source + _DATA + start, count)
        return
    i = 0
    while i < count:
        W[target + _DATA + 4 * (at + i)] = B[source + _DATA + start + i]
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return


@native
def concatenate(before: Word, behind: Word, place: Word) -> Word:
    """Return the concatenation of two strings; ``place`` is the string it will replace."""
    if before == NIL or behind == NIL:
        ref = behind if before == NIL else before
        keep(ref)
        return ref
    first, new = length_of(before), length_of(before) + length_of(behind)
    is_wide = 1 if W[before] < 0 or W[behind] < 0 else 0
    if below(_LONGEST, new) or not spend(new - first):
        return 0
    if place == before and before != behind and can_hold(before, new, is_wide):
        W[before] = -new if is_wide else new
        copy_codes(behind, 0, new - first, before, first)
        keep(before)
        return before
    ref = new_text(new + (new >> 1) if place == before else new, is_wide)
    if ref:
        W[ref] = -new if is_wide else new
        copy_codes(before, 0, first, ref, 0)
        copy_codes(behind, 0, new - first, ref, first)
    return ref


@native
def part(ref: Word, start: Word, end: Word) -> Word:
    """Return the characters of a string from start to end, nil if there are none."""
    if start < 0 or start > end or end > length_of(ref):
        return 0
    if start == end:
        return NIL
    is_wide = 1 if W[ref] < 0 else 0
    found = new_text(end - start, is_wide)
    if found:
        W[found] = start - end if is_wide else end - start
        copy_codes(ref, start, end - start, found, 0)
    return found


@native
def with_character(code: Word, index: Word, ref: Word) -> Word:
    """Return a string with a character replaced, or one more at its end."""
    old = length_of(ref)
    if index < 0 or index > old or old >= _LONGEST:
        return 0
    is_wide = 1 if W[ref] < 0 or below(255, code) else 0
    new = old + 1 if index == old else old
    if can_hold(ref, new, is_wide):
        keep(ref)
    else:
        copy = new_text(new if index < old else new + (new >> 1) + 8, is_wide)
        if not copy:
            return 0
        W[copy] = -new if is_wide else new
        if old:
            copy_codes(ref, 0, old, copy, 0)
        ref = copy
    W[ref] = -new if is_wide else new
    if is_wide:
        W[ref + _DATA + 4 * index] = code
    else:
        B[ref + _DATA + index] = code
    return ref


@native
def order(x: Word, y: Word) -> Word:
    """Compare strings: negative if the first comes before the second, 0 if they are equal.

    ``UNKNOWN`` if the program is to be stopped meanwhile.
    """
    if x == y:
        return 0
    first, second = length_of(x), length_of(y)
    common = first if first < second else second
    if not begins():
        return UNKNOWN
    i = 0
    if W[x] < 0 or W[y] < 0:
        return order_from(x, y, common)
    while i + 8 <= common and L[x + _DATA + i] == L[y + _DATA + i]:
        i += 8
        if (i & _PIECE - 1) == 0 and not goes_on():
            return UNKNOWN
    charge(i)
    # What lies behind a string is in its block, or the head of the next one.
    one, other = L[x + _DATA + i], L[y + _DATA + i]
    if i + 8 > common:
        known = (wide(1) << wide(8 * (common - i))) - 1
        one, other = one & known, other & known
    if one == other:
        return first - second
    return -1 if below(turned(one), turned(other)) else 1


@native
def order_from(x: Word, y: Word, common: Word) -> Word:
    """Compare strings as ``order`` does, one of which has wide characters."""
    i, relation = 0, length_of(x) - length_of(y)
    while i < common:
        one, other = shown_at(x, i), shown_at(y, i)
        if one != other:
            relation, common = -1 if below(one, other) else 1, i
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return UNKNOWN
    charge(_COST * i)
    return relation


@external
def turned(value: Big) -> Big:
    """Return a big with its bytes in the opposite order."""
    raise NotImplementedError


@native
def equal(x: Word, y: Word) -> Word:
    """Compare strings for being equal: 0 if they are, as ``order`` does."""
    if x == y:
        return 0
    if length_of(x) != length_of(y):
        return 1
    return order(x, y)


@native
def case_of_text(value: Word, table: Word) -> Word:
    """Return the pc that a table of strings has for one: see ``casec``."""
    low, high = 0, W[table]
    default = table + 4 + 12 * high
    while low < high:
        middle = (low + high) >> 1
        entry = table + 4 + 12 * middle
        relation, last = order(value, W[entry]), W[entry + 4]
        beyond = 1
        if relation > 0 and last != NIL:
            beyond = order(value, last)
        if relation == UNKNOWN or beyond == UNKNOWN:
            return -1
        if relation < 0:
            high = middle
        elif relation > 0 and beyond > 0:
            low = middle + 1
        else:
            return W[entry + 8]
    return W[default]


# Conversions


@native
def is_ascii(address: Word, size: Word) -> Word:
    """Whether all of some bytes are below 128."""
    i = 0
    while i + 8 <= size:
        if (L[address + i] & HIGH_BITS) != 0:
            return 0
        i += 8
        if (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    while i < size:
        if B[address + i] >= 128:
            return 0
        i += 1
    return 1


@native
def new_bytes(size: Word) -> Word:
    """Return an array of so many bytes, or 0."""
    if below(_LONGEST, size):
        return 0
    array = new_block((ARRAY_HEADER + size + HEADER + 15) & -16, ARRAY)
    if array == NIL:
        return 0
    W[array], W[array + 4], W[array + 8] = size, BYTE, NIL
    W[array + 12] = array + ARRAY_HEADER
    return array


@native
def to_bytes(ref: Word) -> Word:
    """Return a string's UTF-8 as an array of byte, or 0."""
    size, count = W[ref], length_of(ref)
    if count > _LONGEST or not spend(count):
        return 0
    if size >= 0 and is_ascii(ref + _DATA, size):
        array = new_bytes(size)
        if array:
            move_all(array + ARRAY_HEADER, ref + _DATA, size)
        return array
    size, i = 0, 0
    while i < count:
        size += encoded_size(shown_at(ref, i))
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    array, i = new_bytes(size), 0
    at = array + ARRAY_HEADER
    charge(_COST * (count & _MOST_CHARGED))
    while array and i < count:
        at += encode(shown_at(ref, i), at)
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            i = count
    return array


@native
def from_bytes(array: Word) -> Word:
    """Return the string that bytes hold as UTF-8, or 0."""
    size, data = W[array], W[array + 12]
    if size == 0 or array == NIL:
        return NIL
    if below(_LONGEST, size) or type_size(W[array + 4]) != 1 or not is_inside(data, size):
        return 0
    if not spend(size):
        return 0
    if is_ascii(data, size):
        ref = new_text(size, 0)
        if ref:
            W[ref] = size
            move_all(ref + _DATA, data, size)
        return ref
    return from_utf8(data, size)


@native
def from_utf8(data: Word, size: Word) -> Word:
    """Return the string that some bytes encode; an unfinished character at the end is dropped."""
    at, count, highest = 0, 0, 0
    while at < size:
        found = decode(data + at, size - at)
        if bytes_of(found) == 0:
            break
        highest = highest | code_of(found)
        at, count = at + bytes_of(found), count + 1
        if (count & _PIECE - 1) == 0 and not goes_on():
            return 0
    if count == 0:
        return NIL
    charge(_COST * (count & _MOST_CHARGED))
    is_wide = 1 if below(255, highest) else 0
    ref, size, at, i = new_text(count, is_wide), at, 0, 0
    while ref and i < count:
        found = decode(data + at, size - at)
        if is_wide:
            W[ref + _DATA + 4 * i] = code_of(found)
        else:
            B[ref + _DATA + i] = code_of(found)
        at, i = at + bytes_of(found), i + 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            i = count
    if ref:
        W[ref] = -count if is_wide else count
    return ref


@native
def decimal(value: Big) -> Word:
    """Return an integer's decimal text."""
    sign = 1 if value < 0 else 0
    left = -value if sign else value
    size, rest = 1 + sign, left // 10
    while rest:
        size, rest = size + 1, rest // 10
    ref = new_text(size, 0)
    if not ref:
        return 0
    W[ref] = size
    at = ref + _DATA + size
    while size > sign:
        at, size = at - 1, size - 1
        B[at] = narrow(left % 10) + 48
        left = left // 10
    if sign:
        B[ref + _DATA] = 45
    return ref
