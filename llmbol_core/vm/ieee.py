"""Arithmetic of reals with directed rounding and exceptions, as IEEE 754 defines it: the slow way.

A process has a word that says how its reals are rounded, which exceptions it wants to have raised,
and which ones have happened: bits as in the constants of $Math, those of what happened ``HAPPENED``
higher. In nearly all processes reals are rounded to nearest and nothing is raised; only those for
which ``CAREFUL`` is set are computed for by what is here: exact results, as fractions, that are
then rounded. Machine code (``jit/lowering/reals.py``) is tested against it.

What is tiny is found after rounding, as on x86. An operand that is not normal is no exception.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from llmbol_core.errors import Trap
from llmbol_core.vm.meaning import divide, round_to_float

if TYPE_CHECKING:
    from llmbol_core.vm.module import Module

INVALID, ZERO_DIVIDE, OVERFLOW, UNDERFLOW, INEXACT = (1 << n for n in range(5))
EXCEPTIONS = 31
"""The bits of the exceptions: in a word, those that are to be raised."""
NEAREST, DOWN, UP, TO_ZERO = (n << 8 for n in range(4))
ROUNDING = 3 << 8
"""The bits of how results are rounded."""
CONTROL = ROUNDING | EXCEPTIONS
HAPPENED = 16
"""How far the bits of the exceptions that have happened are shifted."""
CAREFUL = 1 << 24
"""Whether the process needs the arithmetic that is defined here."""
WATCHED = 1 << 25
"""Whether the program may ask which exceptions have happened."""
AT_START = INVALID | ZERO_DIVIDE | OVERFLOW | UNDERFLOW
"""The word of a process at first: Inferno's. It counts once a module is loaded that knows of it."""

_TO_INTEGER: dict[int, Callable[[float], int]] = {
    NEAREST: round,
    DOWN: math.floor,
    UP: math.ceil,
    TO_ZERO: math.trunc,
}
_SET, _GET = 0x6584767B, 0x616977E8
"""The signatures of functions that set a word, and of those that return it."""
_CALLED = {
    ("FPcontrol", _SET): CAREFUL, ("getFPcontrol", _GET): CAREFUL,
    ("FPstatus", _SET): CAREFUL | WATCHED, ("getFPstatus", _GET): CAREFUL | WATCHED,
}  # fmt: skip
"""The functions of $Math for the word: what programs that call them expect."""
_X87 = {INVALID: 0x01, ZERO_DIVIDE: 0x04, OVERFLOW: 0x08, UNDERFLOW: 0x10, INEXACT: 0x20}
"""The exceptions as bits of the 387's status word, which the text of a trap shows."""
_QUIET = 1 << 51
_LONGEST = 800
"""Digits that decide between two neighbouring reals, more than there are."""
_LEAST = Fraction(1, 1 << 1100)
"""Rounded like any number that is smaller than all reals."""


class _Floating(Protocol):
    floating: int


class _Format:
    """A binary format: bits of the fraction, exponents of the last bit and of what is too large."""

    def __init__(self, bits: int, least: int, beyond: int) -> None:
        self.bits, self.least, self.beyond = bits, least, beyond
        self.largest = math.ldexp((1 << bits) - 1, beyond - bits)


_REAL, _FLOAT = _Format(53, -1074, 1024), _Format(24, -149, 128)


def trap_text(raised: int, pc: int) -> str:
    """Return Inferno's text for exceptions of an instruction, with the 387's status bits."""
    status = sum(bit for exception, bit in _X87.items() if raised & exception)
    return f"sys: fp: exception status={status:04x} pc=0x{pc:x}"


def expected_of_reals(module: Module) -> int:
    """Return the bits that are set in the words of all processes once a module is loaded."""
    expected = 0
    for links in module.imports:
        for link in links:
            expected |= _CALLED.get((link.name, link.signature & 0xFFFFFFFF), 0)
    return expected


class Arithmetic:
    """Computes for one process at a time, instruction by instruction."""

    def __init__(self) -> None:
        self._mode = self._wanted = self._raised = 0

    def begin(self, process: _Floating) -> bool:
        """Begin an instruction; return false if its process needs nothing of this."""
        word = process.floating
        if not word & CAREFUL:
            return False
        self._mode, self._wanted, self._raised = word & ROUNDING, word & EXCEPTIONS, 0
        return True

    def end(self, process: _Floating, pc: int) -> None:
        """Take note of the exceptions of the instruction; raise Trap if one of them is wanted."""
        if self._raised & self._wanted:
            raise Trap(trap_text(self._raised, pc))
        process.floating |= self._raised << HAPPENED

    def ended(self, value: float, process: _Floating, pc: int) -> float:
        """Return the result of an instruction, of whose exceptions note is taken."""
        if process.floating & CAREFUL:
            self.end(process, pc)
        return value

    def note(self, exceptions: int) -> None:
        """Take note of exceptions that have happened."""
        self._raised |= exceptions

    # What the meanings of instructions call

    def add(self, x: float, y: float) -> float:
        """Return the sum."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return self._special(operator.add, x, y)
        if x == -y:
            if math.copysign(1.0, x) == math.copysign(1.0, y):
                return x
            return -0.0 if self._mode == DOWN else 0.0
        return self._rounded(Fraction(x) + Fraction(y))

    def sub(self, x: float, y: float) -> float:
        """Return the difference."""
        return self._special(operator.sub, x, y) if math.isnan(y) else self.add(x, -y)

    def mul(self, x: float, y: float) -> float:
        """Return the product."""
        if not (x and y and math.isfinite(x) and math.isfinite(y)):
            return self._special(operator.mul, x, y)
        return self._rounded(Fraction(x) * Fraction(y))

    def div(self, x: float, y: float) -> float:
        """Return the quotient."""
        if not (x and y and math.isfinite(x) and math.isfinite(y)):
            if x and y == 0 and math.isfinite(x):
                self._raised |= ZERO_DIVIDE
            return self._special(divide, x, y)
        return self._rounded(Fraction(x) / Fraction(y))

    def power(self, x: float, n: int) -> float:
        """Raise a real to an integer power by repeated squaring, low bits first."""
        result, left = 1.0, abs(n)
        while left:
            if left & 1:
                result = self.mul(result, x)
            left >>= 1
            x = self.mul(x, x) if left else x
        return self.div(1.0, result) if n < 0 else result

    def real(self, number: int) -> float:
        """Return an integer as a real."""
        return self._rounded(Fraction(number)) if number else 0.0

    def single(self, x: float) -> float:
        """Return a real as a 32-bit float."""
        if not (x and math.isfinite(x)):
            self._check_quiet(x)
            return round_to_float(x)
        return self._rounded(Fraction(x), _FLOAT)

    def truncated(self, x: float, bits: int) -> int:
        """Return the whole part in so many bits, or the most negative integer if it has none."""
        least = -(1 << (bits - 1))
        if not math.isfinite(x) or not least <= math.trunc(x) < -least:
            self._raised |= INVALID
            return least
        if x != math.trunc(x):
            self._raised |= INEXACT
        return math.trunc(x)

    def ordered(self, x: float, y: float) -> bool:
        """Return true; it is an exception to ask whether NaN is less or more than anything."""
        if math.isnan(x) or math.isnan(y):
            self._raised |= INVALID
        return True

    def equality(self, x: float, y: float) -> bool:
        """Return true; to ask whether NaN is equal to anything is none, unless it signals."""
        self._check_quiet(x)
        self._check_quiet(y)
        return True

    # What built-in functions call

    def sqrt(self, x: float) -> float:
        """Return the square root."""
        if not (x > 0 and math.isfinite(x)):
            self._check_quiet(x)
            if x < 0:
                self._raised |= INVALID
                return -math.nan
            return x
        numerator, denominator = x.as_integer_ratio()
        places = denominator.bit_length() - 1
        more = 128 + places % 2
        square = numerator << more
        root = math.isqrt(square)
        # A bit more than the root stands for all of its digits that follow.
        root = 2 * root + (root * root != square)
        return self._rounded(Fraction(root, 2 << ((places + more) // 2)))

    def rint(self, x: float) -> float:
        """Return the nearest integer in the direction of rounding."""
        if not math.isfinite(x) or x == math.trunc(x):
            self._check_quiet(x)
            return x
        self._raised |= INEXACT
        return math.copysign(_TO_INTEGER[self._mode](x), x)

    def scaled(self, x: float, n: int) -> float:
        """Return x times 2 to the n."""
        if not (x and math.isfinite(x)):
            self._check_quiet(x)
            return x
        n = max(-3000, min(n, 3000))
        return self._rounded(Fraction(x) * Fraction(2) ** n)

    def decimal(self, text: str) -> float:
        """Return the real for a text in decimal, as Inferno makes it in each direction of rounding.

        Its size is rounded, whatever its sign; what is too large is infinite, and no exception.
        """
        nearest = float(text)
        if not math.isfinite(nearest):
            return nearest
        digits, _, exponent = text.lower().partition("e")
        sign = -1 if digits.startswith("-") else 1
        whole, _, part = digits.lstrip("+-").partition(".")
        number = (whole + part).lstrip("0")
        if not number:
            return nearest
        if nearest == 0:
            return sign * self._rounded(_LEAST)
        power = int(exponent.lstrip("+-0") or "0")
        power = (-power if exponent.startswith("-") else power) - len(part)
        if len(number) > _LONGEST:
            power += len(number) - _LONGEST - 1
            number = number[:_LONGEST] + ("1" if number[_LONGEST:].strip("0") else "0")
        return sign * self._rounded(int(number) * Fraction(10) ** power)

    # Rounding

    def overflowed(self, infinite: float, form: _Format = _REAL) -> float:
        """Return what stands for a result that is too large, given the infinite one."""
        sign = math.copysign(1.0, infinite)
        away = {NEAREST: True, DOWN: sign < 0, UP: sign > 0, TO_ZERO: False}[self._mode]
        return infinite if away else sign * form.largest

    def _special(self, plain: Callable[[float, float], float], x: float, y: float) -> float:
        """Return what a function gives for operands that are zero, infinite or undefined."""
        result = plain(x, y)
        self._check_quiet(x)
        self._check_quiet(y)
        if math.isnan(result) and not (math.isnan(x) or math.isnan(y)):
            self._raised |= INVALID
        return result

    def _check_quiet(self, x: float) -> None:
        """Take note of a NaN that signals."""
        if math.isnan(x) and not _bits(x) & _QUIET:
            self._raised |= INVALID

    def _rounded(self, exact: Fraction, form: _Format = _REAL) -> float:
        """Return the nearest value of a format in the direction of rounding."""
        sign = -1.0 if exact < 0 else 1.0
        exact = abs(exact)
        exponent = exact.numerator.bit_length() - exact.denominator.bit_length()
        exponent -= exact < Fraction(2) ** exponent
        normal = exponent - form.bits + 1
        last = max(normal, form.least)
        count, is_exact = self._whole(exact / Fraction(2) ** last, sign)
        if count.bit_length() + last > form.beyond:
            self._raised |= OVERFLOW | INEXACT
            return self.overflowed(sign * math.inf, form)
        if not is_exact:
            self._raised |= INEXACT
        is_tiny = normal < last
        if is_tiny and normal == last - 1:
            is_tiny = self._whole(exact / Fraction(2) ** normal, sign)[0] < 1 << form.bits
        if is_tiny and (not is_exact or self._wanted & UNDERFLOW):
            self._raised |= UNDERFLOW
        return sign * math.ldexp(count, last)

    def _whole(self, exact: Fraction, sign: float) -> tuple[int, bool]:
        """Return the whole number that a size is rounded to, and whether it is that number."""
        count, rest = divmod(exact.numerator, exact.denominator)
        if not rest:
            return count, True
        twice = 2 * rest - exact.denominator
        nearest = twice > 0 or (twice == 0 and count % 2 == 1)
        up = {NEAREST: nearest, DOWN: sign < 0, UP: sign > 0, TO_ZERO: False}[self._mode]
        return count + up, False


def _bits(x: float) -> int:
    import struct

    return int(struct.unpack("=Q", struct.pack("=d", x))[0])
