"""Text as print puts it together, for machine code: the usual part of ``builtins/format.py``.

It is collected as characters in memory of the machine, so that nothing has happened yet if Python
has to do it after all.
"""

from __future__ import annotations

from llmbol_core.vm.jit.builtins.given import begins_with_pointer, is_given
from llmbol_core.vm.jit.reals import PRINTED, print_shortest, printed, scratch
from llmbol_core.vm.jit.runtime import TEXT_ROOM, Machine
from llmbol_core.vm.jit.source import (
    Big,
    F,
    L,
    Real,
    W,
    Word,
    below,
    extended,
    host,
    host_byte,
    host_word,
    inlined,
    machine,
    narrow,
    native,
    wide,
)
from llmbol_core.vm.jit.texts import length_of, shown_at
from llmbol_core.vm.jit.utf8 import REPLACEMENT, is_character
from llmbol_core.vm.jit.values import is_kind
from llmbol_core.vm.objects import STRING

_PERCENT, _POINT, _STAR, _ZERO, _A = map(ord, "%.*0a")
_MINUS, _PLUS, _SPACE, _SHARP, _U, _B, _L = map(ord, "-+ #ubl")
_D, _O, _X, _UPPER_X, _C, _S, _E, _UPPER_E, _F, _G, _UPPER_G = map(ord, "doxXcseEfgG")
_Q, _R, _H = map(ord, "qrH")
_LEFT, _ZEROS, _SIGNED, _SPACED, _OTHER, _UNSIGNED, _BIG, _HAS_WIDTH = (1 << n for n in range(8))
_MOST_WIDTH = 1000
_MOST_DIGITS = 66
_MOST_PRECISION, _PRECISION = 20, 6
_UNKNOWN = -1
_FLAGS, _WIDTH, _PRECISE = 16, 24, 32
"""Where in the scratch memory the options of a directive are, precision ``_UNKNOWN`` for none."""
_NUMBER_END = PRINTED + 128
"""Where the digits of an integer end."""


# Text that is put together


@inlined
def put_text(code: Word) -> None:
    """Append a character."""
    count = machine[Machine.TEXT_COUNT]
    host_word[machine[Machine.TEXT] + count * 4] = code
    machine[Machine.TEXT_COUNT] = count + 1


@inlined
def room() -> Word:
    """Return how many more characters there is room for."""
    return narrow(TEXT_ROOM - machine[Machine.TEXT_COUNT])


@native
def put_many(code: Word, count: Word) -> None:
    """Append the same character so many times, or never if that is negative."""
    while count > 0:
        put_text(code)
        count -= 1


@inlined
def gap_before(size: Word) -> None:
    """Append spaces before a text of so many characters, unless they belong after it."""
    if not options() & _LEFT:
        put_many(_SPACE, option(_WIDTH) - size)


@inlined
def gap_behind(size: Word) -> None:
    """Append spaces after a text if they belong there."""
    if options() & _LEFT:
        put_many(_SPACE, option(_WIDTH) - size)


# Arguments


@native
def argument(size: Word) -> Word:
    """Return the address of the next value, which lies at a multiple of its size."""
    at = (narrow(machine[Machine.ARGUMENT]) + size - 1) & -size
    machine[Machine.ARGUMENT] = wide(at + size)
    return narrow(machine[Machine.ARGUMENT_FRAME]) + at


@inlined
def next_word() -> Word:
    """Take a word."""
    return W[argument(4)]


# Options


@inlined
def option(place: Word) -> Word:
    """Return the width or the precision."""
    return narrow(host[scratch(place)])


@inlined
def options() -> Word:
    """Return the flags."""
    return option(_FLAGS)


@native
def flag_of(code: Word) -> Word:
    """Return the flag that a character stands for; ``_UNKNOWN`` if it is not known here."""
    if code == _MINUS:
        return _LEFT
    if code == _PLUS:
        return _SIGNED
    if code == _SPACE:
        return _SPACED
    if code == _SHARP:
        return _OTHER
    if code == _U:
        return _UNSIGNED
    if code == _B:
        return _BIG
    return 0 if code == _L else _UNKNOWN


@inlined
def is_number(code: Word) -> Word:
    """Whether a character is a digit."""
    return 0 if below(9, code - _ZERO) else 1


@native
def digits_behind(template: Word, i: Word, end: Word) -> Word:
    """Return the end of the digits that begin at an index."""
    while i < end and is_number(shown_at(template, i)):
        i += 1
    return i


@native
def number_between(template: Word, i: Word, end: Word) -> Word:
    """Return the number that some digits represent, or one that is too large."""
    value = 0
    while i < end:
        value = value * 10 + shown_at(template, i) - _ZERO if value < _MOST_WIDTH else value
        i += 1
    return value


@native
def joins_more(template: Word, i: Word, end: Word) -> Word:
    """Whether a number continues, or may continue, after the part that has been read."""
    if i >= end:
        return 0
    code = shown_at(template, i)
    return 1 if code == _STAR or is_number(code) or (code == _B and i + 1 < end) else 0


@native
def set_number(number: Word, has_zero: Word, flags: Word) -> Word:
    """Take a number for the width or, if there is one, the precision; return the flags."""
    if flags & _HAS_WIDTH:
        host[scratch(_PRECISE)] = wide(number)
        return flags
    host[scratch(_WIDTH)] = wide(number)
    flags = flags | (_ZEROS if has_zero else 0)
    return flags | (_HAS_WIDTH if number else 0)


@native
def read_options(template: Word, i: Word, end: Word) -> Word:
    """Read flags, width and precision; false if something is not known here."""
    flags = 0
    host[scratch(_WIDTH)], host[scratch(_PRECISE)] = 0, _UNKNOWN
    while i < end:
        code, start = shown_at(template, i), i
        i += 1
        if code == _POINT:
            flags = flags | _HAS_WIDTH
            if option(_PRECISE) < 0:
                host[scratch(_PRECISE)] = 0
        elif code == _STAR or is_number(code):
            i = i if code == _STAR else digits_behind(template, i, end)
            number = next_word() if code == _STAR else number_between(template, start, i)
            if below(_MOST_WIDTH, number) or joins_more(template, i, end):
                return 0
            has_zero = number == 0 if code == _STAR else code == _ZERO
            flags = set_number(number, 1 if has_zero else 0, flags)
        else:
            flag = flag_of(code)
            if flag < 0:
                return 0
            flags = flags | flag
    host[scratch(_FLAGS)] = wide(flags)
    return 1


# Directives


@native
def put_string(ref: Word) -> Word:
    """Append a string up to its first NUL; false if it is too long."""
    if not is_kind(ref, STRING):
        return 0
    size, i, most = length_of(ref), 0, option(_PRECISE)
    if size > TEXT_ROOM or room() < size + option(_WIDTH):
        return 0
    while i < size and shown_at(ref, i) != 0:
        i += 1
    size = most if most >= 0 and most < i else i
    gap_before(size)
    i = 0
    while i < size:
        put_text(shown_at(ref, i))
        i += 1
    gap_behind(size)
    return 1


@native
def put_character(code: Word) -> Word:
    """Append a character."""
    size = 0 if option(_PRECISE) == 0 else 1
    gap_before(size)
    if size:
        put_text(code if is_character(code) else REPLACEMENT)
    gap_behind(size)
    return 1


@native
def write_digits(value: Big, base: Word, letter: Word) -> Word:
    """Write the digits of an integer to the end of their place; return how many there are."""
    count, divisor = 0, wide(base)
    while value or count == 0:
        digit = narrow(value % divisor)
        value, count = value // divisor, count + 1
        code = digit + _ZERO if digit < 10 else digit - 10 + letter
        host_byte[scratch(_NUMBER_END - count)] = code
    return count


@native
def put_number(sign: Word, prefix: Word, letter: Word, zeros: Word, count: Word) -> None:
    """Append an integer: sign, zero and letter if they are wanted, zeros, digits."""
    if sign:
        put_text(sign)
    if prefix:
        put_text(_ZERO)
    if letter:
        put_text(letter)
    put_many(_ZERO, zeros)
    while count > 0:
        put_text(host_byte[scratch(_NUMBER_END - count)])
        count -= 1


@inlined
def least(x: Word, y: Word) -> Word:
    """Return the smaller one."""
    return x if x < y else y


@native
def put_integer(value: Big, verb: Word) -> Word:
    """Append an integer."""
    flags, sign = options(), 0
    if flags & _UNSIGNED:
        value = value if flags & _BIG else value & 0xFFFFFFFF
    elif value < 0:
        value, sign = -value, _MINUS
    if sign == 0:
        sign = _PLUS if flags & _SIGNED else _SPACE if flags & _SPACED else 0
    is_hex = 1 if verb in (_X, _UPPER_X) else 0
    base = 16 if is_hex else 8 if verb == _O else 10
    count = write_digits(value, base, verb - _X + _A)
    zeros = least(option(_PRECISE), _MOST_DIGITS) - count
    zeros = zeros if zeros > 0 else 0
    first = _ZERO if zeros else host_byte[scratch(_NUMBER_END - count)]
    prefix = is_hex or (verb == _O and first != _ZERO) if flags & _OTHER else 0
    head = (1 if sign else 0) + (1 + is_hex if prefix else 0)
    if flags & _ZEROS and not flags & _LEFT:
        fill = least(option(_WIDTH) - head, _MOST_DIGITS) - count
        zeros = fill if fill > zeros else zeros
        host[scratch(_WIDTH)] = 0
    size = head + zeros + count
    gap_before(size)
    put_number(sign, 1 if prefix else 0, verb if prefix and is_hex else 0, zeros, count)
    gap_behind(size)
    return 1


@native
def put_real(x: Real, verb: Word) -> Word:
    """Append a real; false for what is rare."""
    flags, precision = options(), option(_PRECISE)
    is_general = verb in (_G, _UPPER_G)
    if flags & (_SIGNED | _SPACED | _OTHER) or x - x != 0.0:
        return 0
    if is_general and not flags & _HAS_WIDTH:
        size = print_shortest(x, _E if verb == _G else _UPPER_E)
    elif is_general and precision == 0:
        return 0
    else:
        precision = _PRECISION if precision < 0 else least(precision, _MOST_PRECISION)
        size = printed(x, precision, verb)
    if size == 0 or room() < size + option(_WIDTH):
        return 0
    gap_before(size)
    i = 0
    while i < size:
        put_text(host_byte[scratch(PRINTED + i)])
        i += 1
    gap_behind(size)
    return 1


@native
def is_verb(code: Word) -> Word:
    """Whether a character ends a directive."""
    if code in (_PERCENT, _D, _S, _C, _X, _O):
        return 1
    if code in (_G, _F, _E, _UPPER_G, _UPPER_E):
        return 1
    return 1 if code in (_UPPER_X, _Q, _R, _H) else 0


@native
def put_next(verb: Word) -> Word:
    """Append the next value; false if its kind is not known here."""
    size = 4 if verb in (_S, _C, _Q, _R, _H) else 8
    if verb in (_D, _X, _UPPER_X, _O) and not options() & _BIG:
        size = 4
    if not is_given(size, 1 if verb in (_S, _Q) else 0):
        return 0
    if verb == _S:
        return put_string(next_word())
    if verb == _C:
        return put_character(next_word())
    if verb in (_D, _X, _UPPER_X, _O):
        if options() & _BIG:
            return put_integer(L[argument(8)], verb)
        return put_integer(extended(next_word()), verb)
    if verb in (_Q, _R, _H):
        return 0
    return put_real(F[argument(8)], verb)


@native
def directive(template: Word, start: Word, length: Word) -> Word:
    """Append what a directive stands for; return where it ends, or a negative number for Python."""
    end = start
    while end < length and not is_verb(shown_at(template, end)):
        end += 1
    if end == length:
        return length
    verb = shown_at(template, end)
    if verb == _PERCENT:
        put_text(_PERCENT)
        return end + 1
    if room() < 2 * _MOST_WIDTH or not read_options(template, start, end):
        return -1
    return end + 1 if put_next(verb) else -1


@native
def formatted(frame: Word, offset: Word) -> Word:
    """Format the template at an offset of a frame with the values behind it; false for Python."""
    machine[Machine.TEXT_COUNT] = 0
    template = W[frame + offset]
    if not begins_with_pointer(frame, offset) or not is_kind(template, STRING):
        return 0
    length, i = length_of(template), 0
    while i < length:
        code = shown_at(template, i)
        i += 1
        if room() < 2 or length > TEXT_ROOM:
            return 0
        if code == _PERCENT:
            i = directive(template, i, length)
            if i < 0:
                return 0
        else:
            put_text(code)
    return 1
