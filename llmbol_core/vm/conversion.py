"""Conversions between numbers and text as Inferno makes them: cvtfc, cvtcw, cvtcl, cvtcf, and %g.

A real becomes the shortest decimal that reads back as the same real, written without a zero before
its point: ``.5``, ``-.25``, ``1e-05``, ``100000``, ``1e+06``. Text becomes a number by its longest
prefix that looks like one, 0 if there is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

_INTEGER = re.compile(r"[ \t\n\v\f\r]*+([-+]?)(\d+)", re.ASCII)
_REAL = re.compile(r"[ \t\n\v\f\r]*+([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)", re.ASCII)
_SPECIAL = re.compile(r"[ \t\n\v\f\r]*+([-+]?(?:infinity|nan))", re.ASCII | re.IGNORECASE)
LAST_RUNE = 0x10FFFF
_PIECE = 1000
_MINUS = re.compile(r"[ \t\n\v\f\r]*-", re.ASCII)

_SURELY_LARGE = 12
"""Digits of an integer that needs more than 32 bits."""


class Digits(NamedTuple):
    """A real in decimal: its digits with a point before the first, times ten to the exponent."""

    is_negative: bool
    digits: str
    exponent: int


def real_to_string(x: float, mark: str = "e") -> str:
    """Return the shortest text of a real; the mark stands before an exponent.

    >>> [real_to_string(x) for x in (0.25, -1.0, 1e5, 1e6, 1.5e-5, 0.0001, 2.5e300)]
    ['.25', '-1', '100000', '1e+06', '1.5e-05', '.0001', '2.5e+300']
    >>> [real_to_string(x) for x in (math.inf, -math.inf, math.nan, -0.0)]
    ['Infinity', '-Infinity', 'NaN', '-0']
    """
    sign = "-" if math.copysign(1.0, x) < 0 else ""
    if not math.isfinite(x):
        return sign + ("NaN" if math.isnan(x) else "Infinity")
    _, digits, exponent = shortest_digits(x)
    if exponent <= -4 or exponent > len(digits) + 5:
        point = "." if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{point}{digits[1:]}{mark}{exponent - 1:+03d}"
    if exponent <= 0:
        return f"{sign}.{'0' * -exponent}{digits}"
    whole, rest = digits[:exponent].ljust(exponent, "0"), digits[exponent:]
    return f"{sign}{whole}{'.' if rest else ''}{rest}"


def shortest_digits(x: float) -> Digits:
    """Return the fewest digits that identify a finite real; zero has the one digit 0.

    >>> shortest_digits(-0.0125)
    Digits(is_negative=True, digits='125', exponent=-1)
    """
    mantissa, _, exponent = repr(abs(x)).partition("e")
    whole, _, part = mantissa.partition(".")
    digits = (whole + part).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + part) - len(digits))
    digits = digits.rstrip("0")
    return Digits(math.copysign(1.0, x) < 0, digits or "0", point if digits else 1)


def string_to_word(text: str) -> int:
    """Return the integer that a string begins with, as cvtcw does: 32 bits, saturated.

    >>> [string_to_word(s) for s in ("  88", "12abc", "0x1F", "", "-99999999999")]
    [88, 12, 0, 0, -2147483648]
    """
    sign, digits = _leading_integer(text)
    digits = digits.lstrip("0") or "0"
    value = int(sign + (digits if len(digits) < _SURELY_LARGE else "9" * _SURELY_LARGE))
    return max(-(1 << 31), min(value, (1 << 31) - 1))


def string_to_big(text: str) -> int:
    """Return the integer that a string begins with, as cvtcl does: 64 bits, wrapped.

    >>> string_to_big("9223372036854775808")
    -9223372036854775808
    """
    sign, digits = _leading_integer(text)
    # A power of ten of which 2 to the 64 is a factor makes no difference.
    return (int(sign + digits[-64:]) + (1 << 63)) % (1 << 64) - (1 << 63)


def _leading_integer(text: str) -> tuple[str, str]:
    """Return sign and digits of the integer that a string begins with; 0 if there is none."""
    found = _INTEGER.match(text)
    return (found[1], found[2]) if found else ("", "0")


# Python refuses to read and to write numbers of thousands of digits at once.


def decimal_value(digits: str) -> int:
    """Return the number that any number of digits means."""
    value = 0
    for start in range(0, len(digits), _PIECE):
        piece = digits[start : start + _PIECE]
        value = value * 10 ** len(piece) + int(piece)
    return value


def decimal_digits(value: int) -> str:
    """Return the digits of a number that is not negative.

    >>> decimal_digits(decimal_value("12" * 5000)) == "12" * 5000
    True
    """
    pieces, unit = list[str](), 10**_PIECE
    while value >= unit:
        value, rest = divmod(value, unit)
        pieces.append(f"{rest:0{_PIECE}}")
    return "".join([str(value), *reversed(pieces)])


def string_to_real(text: str, decimal: Callable[[str], float] = float) -> float:
    """Return the real that a string begins with, as cvtcf does; a sign alone counts, too.

    ``decimal`` makes a real of a number in decimal.

    >>> [string_to_real(s) for s in ("-0.5e3", "1e3x", "16r10", ".5.", "-Infinity", "e5", "-x")]
    [-500.0, 1000.0, 16.0, 0.5, -inf, 0.0, -0.0]
    """
    found = _REAL.match(text)
    if found is not None:
        return decimal(found[1])
    special = _SPECIAL.match(text)
    if special is None:
        return -0.0 if _MINUS.match(text) else 0.0
    return float(special[1])


def rune_to_char(rune: int) -> str:
    """Return the character of a code point; what is none becomes U+FFFD, as in Inferno's UTF-8."""
    return chr(rune) if 0 <= rune < 0xD800 or 0xDFFF < rune <= LAST_RUNE else "\ufffd"
