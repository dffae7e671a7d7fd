"""Reals as text and back for machine code: what ``conversion.py`` does.

The fewest digits that identify a real are found by the algorithm of Raffaello Giulietti, "The
Schubfach way to render doubles", https://drive.google.com/file/d/1IEeATSVnEE6TkrHlCYNY2GjaraBjOT4f:
the real and the bounds of what rounds to it are multiplied by a power of ten of 128 bits, so that
they are integers but for what lies behind the point, of which it is enough to know whether there is
something. The digits go to the scratch memory.
"""

from __future__ import annotations

import math
from fractions import Fraction

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
_FRACTION, _HIDDEN = (1 << 52) - 1, 1 << 52
_LOG_10, _LOG_2, _LESS, _BIAS = 1262611, 1741647, 524031, 4096
"""The logarithms of 2 and of 10 to each other's base, by 2 ** 22 and 2 ** 19; what is subtracted if
the real below is closer than the one above; something larger than any quotient."""
LEAST_POWER, MOST_POWER = -292, 324
_MOST_FIXED, _MOST_BEHIND, _UNSURE = 1e9, 9, 1e-6
"""What is printed as an integer is smaller than that, so that it is wrong by less than a 1e-7."""
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


def power_of_ten(exponent: int) -> int:
    """Return the top 128 bits of a power of ten, rounded up."""
    power = Fraction(10) ** exponent
    bits_ = power.numerator.bit_length() - power.denominator.bit_length()
    bits_ -= Fraction(2) ** bits_ > power
    return math.ceil(power * Fraction(2) ** (127 - bits_))


def _powers() -> str:
    words = (
        f"i64 {word}"
        for exponent in range(LEAST_POWER, MOST_POWER + 1)
        for word in divmod(power_of_ten(exponent), 1 << 64)
    )
    return ", ".join(words)


def _times_power() -> str:
    return f"""
@powers_of_ten = private constant [{2 * (MOST_POWER - LEAST_POWER + 1)} x i64] [{_powers()}]
define internal i64 @times_power(ptr %m, ptr %s, i64 %value, i32 %row) {{
 %at = shl i32 %row, 1
 %high = getelementptr i64, ptr @powers_of_ten, i32 %at
 %low = getelementptr i64, ptr %high, i32 1
 %h = load i64, ptr %high
 %l = load i64, ptr %low
 %v = zext i64 %value to i128
 %hz = zext i64 %h to i128
 %lz = zext i64 %l to i128
 %first = mul i128 %hz, %v
 %second = mul i128 %lz, %v
 %carried = lshr i128 %second, 64
 %sum = add i128 %first, %carried
 %rest = trunc i128 %sum to i64
 %top128 = lshr i128 %sum, 64
 %top = trunc i128 %top128 to i64
 %more = icmp ugt i64 %rest, 1
 %odd = zext i1 %more to i64
 %result = or i64 %top, %odd
 ret i64 %result
}}
"""


TEXTS.append(_times_power)
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


@external
def times_power(value: Big, exponent: Word) -> Big:
    """Return a number times a power of ten, its top 64 bits; the last is set if others are."""
    raise NotImplementedError


@inlined
def floor_shifted(product: Big, bits_: Big) -> Big:
    """Return a number, perhaps negative, without its last bits."""
    return ((product + (_BIAS << bits_)) >> bits_) - _BIAS


@native
def digits_of(x: Real) -> Word:
    """Find the fewest digits that identify a positive real; false if Python has to."""
    fraction, power = bits(x) & _FRACTION, bits(x) >> 52
    if power == 0:
        return 0
    whole_, shift = fraction | _HIDDEN, power - 1075
    is_closer = wide(1 if fraction == 0 and power > 1 else 0)
    is_odd, less = whole_ & 1, is_closer * _LESS
    scale = floor_shifted(shift * _LOG_10 - less, 22)
    shift = shift + floor_shifted(-scale * _LOG_2, 19) + 1
    row = narrow(-scale - LEAST_POWER)
    lower = times_power((4 * whole_ - 2 + is_closer) << shift, row) + is_odd
    value = times_power((4 * whole_) << shift, row)
    upper = times_power((4 * whole_ + 2) << shift, row) - is_odd
    short = value // 40
    is_below, is_above = lower <= 40 * short, 40 * short + 40 <= upper
    if short > 0 and is_below != is_above:
        put_digits(short + wide(1 if is_above else 0), narrow(-scale) - 1)
        return 1
    long = value >> 2
    is_below, is_above = lower <= 4 * long, 4 * long + 4 <= upper
    if is_below == is_above:
        is_above = (value & 3) + (long & 1) > 2
    put_digits(long + wide(1 if is_above else 0), narrow(-scale))
    return 1


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
