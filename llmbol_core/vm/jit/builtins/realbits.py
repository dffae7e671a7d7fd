"""Reals by their bits, for the elementary functions, in Python and in machine code.

Programs print all digits of a real, so that the last one matters, and Inferno's functions are those
of fdlibm (Sun Microsystems, 1993), which are not always rounded correctly. ``exponentials.py`` and
``angles.py`` use the same reductions, polynomials and orders of operations, in the part of Python
that machine code is made from, too (``source.py``), so that both give the same results. A real's
bits are seen as two words: the high one has the sign, the exponent and 20 bits of the fraction.
"""

from __future__ import annotations

import math
import struct

from llmbol_core.vm.jit.source import Real, Word, c_function, inlined

_WORDS = 0xFFFFFFFF
_REAL, _BIG = struct.Struct("=d"), struct.Struct("=Q")
INFINITY = math.inf
TWO_53, TWO_54 = 9007199254740992.0, 18014398509481984.0

# What the part of Python has besides, for Python itself


def bits(x: float) -> int:
    """Return the bits of a real."""
    return int(_BIG.unpack(_REAL.pack(x))[0])


def as_real(b: int) -> float:
    """Return the real with some bits."""
    return float(_REAL.unpack(_BIG.pack(b & 0xFFFFFFFFFFFFFFFF))[0])


def narrow(b: int) -> int:
    """Return the low half of a big, as a word."""
    return ((b & _WORDS) ^ 1 << 31) - (1 << 31)


def wide(w: int) -> int:
    """Return a word without sign as a big."""
    return w & _WORDS


def extended(w: int) -> int:
    """Return a word as a big."""
    return w


def real(b: int) -> float:
    """Return a big as a real."""
    return float(b)


def whole(x: float) -> int:
    """Return a real without its fraction."""
    return int(x)


@c_function
def sqrt(x: Real) -> Real:
    """Return the square root."""
    return math.sqrt(x)


# Parts of reals


@inlined
def high(x: Real) -> Word:
    """Return the high word of a real."""
    return narrow(bits(x) >> 32)


@inlined
def size_of(x: Real) -> Word:
    """Return the high word without the sign."""
    return high(x) & 0x7FFFFFFF


@inlined
def low(x: Real) -> Word:
    """Return the low word of a real."""
    return narrow(bits(x))


@inlined
def with_high(word: Word, x: Real) -> Real:
    """Return a real with another high word."""
    return as_real(wide(word) << 32 | bits(x) & 0xFFFFFFFF)


@inlined
def of_high(word: Word) -> Real:
    """Return the real that has only a high word."""
    return as_real(wide(word) << 32)


@inlined
def chopped(x: Real) -> Real:
    """Return a real without its low word."""
    return as_real(bits(x) & 0xFFFFFFFF00000000)


@inlined
def size(x: Real) -> Real:
    """Return a real without its sign."""
    return as_real(bits(x) & 0x7FFFFFFFFFFFFFFF)


@inlined
def scaled(x: Real, n: Word) -> Real:
    """Return x times 2 to the n, where the result is normal."""
    return as_real(bits(x) + (extended(n) << 52))


@inlined
def number(n: Word) -> Real:
    """Return a word as a real."""
    return real(extended(n))


@inlined
def integer(x: Real) -> Word:
    """Return a real without its fraction, as a word."""
    return narrow(whole(x))
