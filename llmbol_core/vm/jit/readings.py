"""Numbers that strings begin with, for machine code: what ``conversion.py`` reads."""

from __future__ import annotations

from llmbol_core.vm.jit.pacing import begins, charge, goes_on
from llmbol_core.vm.jit.reals import VALUE, as_real, scratch, strtod
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    Big,
    Real,
    Word,
    below,
    bits,
    host,
    host_byte,
    inlined,
    machine,
    native,
    real,
    wide,
)
from llmbol_core.vm.jit.texts import code_at, length_of

_ZERO, _PLUS, _MINUS, _POINT, _E, _I, _N = map(ord, "0+-.ein")
_SATURATED = 1 << 40
_EXACT_POWER, _ALL_EXACT = 22, 15
_MOST_DIGITS = 800
"""Digits that decide how a real is rounded, if it is also known whether others follow."""
_HUGE_EXPONENT = 100_000_000
_PIECE = 1 << 16
"""Characters between two checks whether the program is to be stopped."""
_COST = 16
"""Bytes that could be copied in the time in which one is read."""


# Integers


@native
def blanks(ref: Word) -> Word:
    """Return how many blanks a string begins with; -1 if the program is to be stopped meanwhile."""
    length, i = length_of(ref), 0
    while i < length and (code_at(ref, i) == 32 or not below(4, code_at(ref, i) - 9)):
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return -1
    return i


@native
def digits_end(ref: Word) -> Word:
    """Return where the integer ends that a string begins with, 0 if there is none.

    -1 if the program is to be stopped meanwhile.
    """
    if not begins():
        return -1
    length, i = length_of(ref), blanks(ref)
    if i < 0:
        return -1
    if i < length and (code_at(ref, i) == 45 or code_at(ref, i) == 43):
        i += 1
    start = i
    while i < length and not below(9, code_at(ref, i) - 48):
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return -1
    charge(_COST * i)
    return i if i > start else 0


@native
def leading_integer(ref: Word, end: Word, saturates: Word) -> Big:
    """Return the integer that ends at an index of a string: its 64 bits, or the nearest of 40."""
    value, sign, i = wide(0), 0, 0
    while i < end:
        code = code_at(ref, i)
        if code == 45:
            sign = 1
        elif code >= 48:
            value = value * 10 + wide(code - 48)
            if saturates and value > _SATURATED:
                value = _SATURATED
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    return -value if sign else value


# Reals


@inlined
def is_digit(ref: Word, i: Word, length: Word) -> Word:
    """Whether there is a digit at an index."""
    return 1 if i < length and not below(9, code_at(ref, i) - _ZERO) else 0


@inlined
def is_sign(ref: Word, i: Word, length: Word) -> Word:
    """Whether there is a sign at an index."""
    return 1 if i < length and (code_at(ref, i) == _PLUS or code_at(ref, i) == _MINUS) else 0


@native
def exponent_end(ref: Word, i: Word, length: Word) -> Word:
    """Return where the exponent ends that begins at an index, if there is one there."""
    if i >= length or code_at(ref, i) | 32 != _E:
        return i
    end = i + 1
    end = end + 1 if is_sign(ref, end, length) else end
    if not is_digit(ref, end, length):
        return i
    while is_digit(ref, end, length):
        end += 1
        if (end & _PIECE - 1) == 0 and not goes_on():
            return end
    charge(_COST * (end - i))
    return end


@native
def exponent_value(ref: Word, start: Word, end: Word) -> Word:
    """Return the value of an exponent; a huge one if it is huge."""
    value, sign, i = 0, 0, start + 1
    while i < end:
        code = code_at(ref, i)
        if code == _MINUS:
            sign = 1
        elif code != _PLUS and value < _HUGE_EXPONENT:
            value = value * 10 + code - _ZERO
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    return -value if sign else value


@native
def power_of_ten(exponent: Word) -> Real:
    """Return a power of ten, which is exact up to 22."""
    value = 1.0
    while exponent > 0:
        value, exponent = value * 10.0, exponent - 1
    return value


@native
def read_long(ref: Word, start: Word, end: Word, exponent: Word) -> Word:
    """Have the C library read a real, whose exponent is of its last digit; false if that fails."""
    text, i, count = machine[Machine.TEXT], start, 0
    dropped, rest = 0, 0
    host_byte[text] = _MINUS if code_at(ref, start) == _MINUS else _PLUS
    while i < end and code_at(ref, i) | 32 != _E:
        code = code_at(ref, i)
        if code >= _ZERO and (count or code != _ZERO):
            if count < _MOST_DIGITS:
                count += 1
                host_byte[text + wide(count)] = code
            else:
                dropped, rest = dropped + 1, rest | (code - _ZERO)
        i += 1
        if (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    if rest:
        count, dropped = count + 1, dropped - 1
        host_byte[text + wide(count)] = _ZERO + 1
    end_of_text = text + wide(count + 1)
    put_power(end_of_text, exponent + dropped)
    value = strtod(text, scratch(VALUE))
    host[scratch(VALUE)] = bits(value)
    return 1


@native
def put_power(place: Big, exponent: Word) -> None:
    """Write an exponent, and the end of a text."""
    left = -exponent if exponent < 0 else exponent
    host_byte[place] = _E
    host_byte[place + 1] = _MINUS if exponent < 0 else _PLUS
    at = place + 12
    host_byte[at] = 0
    while at > place + 2:
        at = at - 1
        host_byte[at] = _ZERO + left % 10
        left = left // 10


@native
def read_real(ref: Word) -> Word:
    """Read the real that a string begins with to ``VALUE``; false if Python has to."""
    if not begins():
        return 0
    length, i = length_of(ref), blanks(ref)
    if i < 0:
        return 0
    start = i
    i = i + 1 if is_sign(ref, i, length) else i
    number, count, digits, behind = wide(0), 0, 0, 0
    has_point, reads = 0, 1
    while reads:
        if is_digit(ref, i, length):
            digits, behind = digits + 1, behind + has_point
            digit = code_at(ref, i) - _ZERO
            count = count + 1 if count or digit else count
            number = number * 10 + wide(digit) if count <= _ALL_EXACT else number
            i += 1
        elif i < length and code_at(ref, i) == _POINT and not has_point:
            has_point, i = 1, i + 1
        else:
            reads = 0
        if reads and (i & _PIECE - 1) == 0 and not goes_on():
            return 0
    charge(_COST * i)
    if digits == 0:
        read_zero(ref, start)
        code = code_at(ref, i) | 32 if i < length else 0
        return 0 if code in (_I, _N) else 1
    end = exponent_end(ref, i, length)
    exponent = exponent_value(ref, i, end) - behind
    if count > _ALL_EXACT or exponent > _EXACT_POWER or exponent < -_EXACT_POWER:
        return read_long(ref, start, end, exponent) if count else read_zero(ref, start)
    power = power_of_ten(-exponent if exponent < 0 else exponent)
    value = real(number) / power if exponent < 0 else real(number) * power
    host[scratch(VALUE)] = bits(-value if code_at(ref, start) == _MINUS else value)
    return 1


@native
def read_zero(ref: Word, start: Word) -> Word:
    """Read a zero, which has a sign."""
    is_minus = 1 if start < length_of(ref) and code_at(ref, start) == _MINUS else 0
    host[scratch(VALUE)] = bits(-0.0 if is_minus else 0.0)
    return 1


@native
def value_read() -> Real:
    """Return the real that was read."""
    return as_real(host[scratch(VALUE)])
