"""Reals as text and back for machine code: what ``conversion.py`` does.

The digits of a real go to the scratch memory: those of a whole number times a power of ten, if it
is one of at most 15 digits, which are then the fewest that identify it; otherwise the C library is
asked for 15, 16 and 17 digits until they read back as the same real.
"""

from __future__ import annotations

from llmbol_core.vm.jit.hostcode import TEXTS
from llmbol_core.vm.jit.pacing import charge
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.jit.source import (
    B,
    Big,
    Real,
    W,
    Word,
    bits,
    c_function,
    extended,
    external,
    host,
    host_byte,
    inlined,
    machine,
    narrow,
    native,
    real,
    whole,
    wide,
)
from llmbol_core.vm.jit.texts import new_text

PRINTED, VALUE, COUNT, EXPONENT, DIGITS = 64, 576, 584, 592, 600
"""Where in the scratch memory there are: printed text, behind the format for it; a real; how many
digits, where the point is behind which they begin, and the digits."""
MOST_PRINTED = VALUE - PRINTED
_EXACT = 1e15
_MOST_SCALE = 18
_FRACTION = (1 << 52) - 1
_MOST_FIXED, _MOST_BEHIND, _UNSURE = 1e9, 9, 1e-6
"""What is printed as an integer is smaller than that, so that it is wrong by less than a 1e-7."""
_LEAST_NORMAL = 2.2250738585072014e-308
_ZERO, _PLUS, _MINUS, _POINT, _COMMA, _E, _F, _I, _N, _PERCENT, _STAR = map(ord, "0+-.,efin%*")
_PRINT = 1 << 13
"""Bytes that could be copied in the time in which a real is printed."""


@external
def print_real(place: Big, size: Big, layout: Big, precision: Word, x: Real) -> Word:
    """Print a real as C does; return how long that is."""
    raise NotImplementedError


@c_function
def strtod(text: Big, end: Big) -> Real:
    """Return the real that a text represents."""
    raise NotImplementedError


TEXTS.append(
    """
declare i32 @snprintf(ptr, i64, ptr, ...)
declare double @strtod(i64, i64)
define internal i32 @print_real(ptr %m, ptr %s, i64 %place, i64 %size, i64 %as, i32 %p, double %x) {
 %to = inttoptr i64 %place to ptr
 %how = inttoptr i64 %as to ptr
 %n = call i32 (ptr, i64, ptr, ...) @snprintf(ptr %to, i64 %size, ptr %how, i32 %p, double %x)
 ret i32 %n
}
define internal double @as_real(ptr %m, ptr %s, i64 %value) {
 %x = bitcast i64 %value to double
 ret double %x
}
"""
)


@external
def as_real(value: Big) -> Real:
    """Return the real with these bits."""
    raise NotImplementedError


@inlined
def scratch(place: Word) -> Big:
    """Return the address of a place in the scratch memory."""
    return machine[Machine.SCRATCH] + wide(place)


@native
def print_fixed(x: Real, precision: Word) -> Word:
    """Print a real with digits after the point to ``PRINTED``; return the length, or 0 if unsure.

    Its product with a power of ten is known to half a unit of the last bit, and so is how it
    is rounded, unless it lies close to the middle of two integers.
    """
    size, power, i = 1 if bits(x) < 0 else 0, 1.0, precision
    while i > 0:
        power, i = power * 10.0, i - 1
    scaled = (-x if size else x) * power
    if not scaled < _MOST_FIXED:
        return 0
    number = narrow(whole(scaled))
    beyond = scaled - real(extended(number)) - 0.5
    if beyond < _UNSURE and beyond > -_UNSURE:
        return 0
    number = number + 1 if beyond > 0.0 else number
    count, left = 0, number
    while left or count <= precision:
        count, left = count + 1, left // 10
    host_byte[scratch(PRINTED)] = _MINUS
    size = size + count + (1 if precision else 0)
    i, left = size, precision
    while count > 0:
        i, count = i - 1, count - 1
        host_byte[scratch(PRINTED + i)] = number % 10 + _ZERO
        number, left = number // 10, left - 1
        if left == 0:
            i -= 1
            host_byte[scratch(PRINTED + i)] = _POINT
    return size


@native
def printed(x: Real, precision: Word, verb: Word) -> Word:
    """Print a real with a precision to ``PRINTED``; return the length, or 0 for Python.

    That is the case where numbers are not written with a point, as in some countries.
    """
    if verb == _F and precision <= _MOST_BEHIND:
        size = print_fixed(x, precision)
        if size:
            return size
    layout = scratch(0)
    host_byte[layout], host_byte[layout + 1] = _PERCENT, _POINT
    host_byte[layout + 2], host_byte[layout + 3] = _STAR, verb
    host_byte[layout + 4] = 0
    charge(_PRINT)
    size = print_real(scratch(PRINTED), MOST_PRINTED, layout, precision, x)
    i = 0
    while i < size:
        byte = host_byte[scratch(PRINTED + i)]
        if byte == _COMMA:
            return 0
        i += 1
    return size if size < MOST_PRINTED else 0


# The fewest digits


@native
def put_digits(value: Big, scale: Word) -> None:
    """Store the digits of an integer that is to be divided by a power of ten."""
    count, rest = 0, value
    while rest:
        count, rest = count + 1, rest // 10
    host[scratch(EXPONENT)] = extended(count - scale)
    i, kept = count, 0
    while i > 0:
        i -= 1
        digit = narrow(value % 10)
        value = value // 10
        kept = i + 1 if kept == 0 and digit != 0 else kept
        host_byte[scratch(DIGITS + i)] = digit + _ZERO
    host[scratch(COUNT)] = wide(kept)


@native
def take_printed(size: Word) -> None:
    """Store the digits of what was printed with an exponent."""
    i, count, kept = 0, 0, 0
    while i < size and host_byte[scratch(PRINTED + i)] != _E:
        code = host_byte[scratch(PRINTED + i)]
        if code != _POINT:
            host_byte[scratch(DIGITS + count)] = code
            count += 1
            kept = count if code != _ZERO else kept
        i += 1
    host[scratch(COUNT)] = wide(kept)
    exponent, sign = 0, host_byte[scratch(PRINTED + i + 1)]
    i += 2
    while i < size:
        exponent = exponent * 10 + host_byte[scratch(PRINTED + i)] - _ZERO
        i += 1
    host[scratch(EXPONENT)] = extended((-exponent if sign == _MINUS else exponent) + 1)


@native
def digits_by_printing(x: Real) -> Word:
    """Find the fewest digits of a positive real by trying; false if Python has to."""
    precision = 14
    while precision < 17:
        size = printed(x, precision, _E)
        if size == 0 or x < _LEAST_NORMAL:
            return 0
        if precision == 16 or strtod(scratch(PRINTED), 0) == x:
            take_printed(size)
            return 1
        if (bits(x) & _FRACTION) == 0:
            return 0
        precision += 1
    return 0


@native
def digits_of(x: Real) -> Word:
    """Find the fewest digits that identify a positive real; false if Python has to."""
    scale, power = 0, 1.0
    while scale <= _MOST_SCALE and x * power < _EXACT:
        number = whole(x * power + 0.5)
        if number > 0 and real(number) / power == x:
            put_digits(number, scale)
            return 1
        scale, power = scale + 3, power * 1000.0
    return digits_by_printing(x)


@inlined
def digit_or_zero(i: Word, count: Word) -> Word:
    """Return a digit, or zero after the last one."""
    return host_byte[scratch(DIGITS + i)] if i < count else _ZERO


@native
def put_exponent(size: Word, exponent: Word, mark: Word) -> Word:
    """Append an exponent to the printed text; return the new length."""
    at = scratch(PRINTED + size)
    host_byte[at], host_byte[at + 1] = mark, _MINUS if exponent < 0 else _PLUS
    exponent = -exponent if exponent < 0 else exponent
    size += 2
    if exponent > 99:
        host_byte[scratch(PRINTED + size)] = exponent // 100 + _ZERO
        size += 1
    host_byte[scratch(PRINTED + size)] = exponent // 10 % 10 + _ZERO
    host_byte[scratch(PRINTED + size + 1)] = exponent % 10 + _ZERO
    return size + 2


@native
def print_shortest(x: Real, mark: Word) -> Word:
    """Print the shortest text of a real to ``PRINTED``; return its length, or 0 for Python."""
    size = 1 if bits(x) < 0 else 0
    x = -x if size else x
    if x == 0.0:
        host[scratch(COUNT)], host[scratch(EXPONENT)] = 0, 1
    elif not x < 1e308 or not digits_of(x):
        return 0
    if size:
        host_byte[scratch(PRINTED)] = _MINUS
    count, exponent = narrow(host[scratch(COUNT)]), narrow(host[scratch(EXPONENT)])
    is_scientific = 1 if exponent <= -4 or exponent > count + 5 else 0
    point = 1 if is_scientific else exponent
    if point <= 0:
        host_byte[scratch(PRINTED + size)] = _POINT
        size += 1
    i = point if point < 0 else 0
    while i < count or i < point:
        if i == point and i > 0:
            host_byte[scratch(PRINTED + size)] = _POINT
            size += 1
        host_byte[scratch(PRINTED + size)] = _ZERO if i < 0 else digit_or_zero(i, count)
        i, size = i + 1, size + 1
    return put_exponent(size, exponent - 1, mark) if is_scientific else size


@native
def real_text(x: Real) -> Word:
    """Return the shortest text of a real as a string, or 0 for Python."""
    size, i = print_shortest(x, _E), 0
    ref = new_text(size, 0) if size else 0
    if ref:
        W[ref] = size
        while i < size:
            B[ref + 4 + i] = host_byte[scratch(PRINTED + i)]
            i += 1
    return ref
