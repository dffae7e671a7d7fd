"""UTF-8 for machine code, as in ``strings.py``: anything that is no character becomes U+FFFD."""

from __future__ import annotations

from llmbol_core.vm.jit.source import B, Word, below, inlined, native

REPLACEMENT = 0xFFFD
LAST_CODE = 0x10FFFF
_WIDTH = 24
"""Bits for a character in what ``decode`` returns."""


@inlined
def is_character(code: Word) -> Word:
    """Whether a number is a code point that can be written as UTF-8."""
    return 0 if below(LAST_CODE, code) or not below(0x7FF, code - 0xD800) else 1


@inlined
def width_of(first: Word) -> Word:
    """Return how many bytes a character has, given its first one."""
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


@inlined
def continues(byte: Word) -> Word:
    """Whether a byte continues a character."""
    return 1 if byte & 0xC0 == 0x80 else 0


@native
def decode(at: Word, size: Word) -> Word:
    """Decode the first character of some bytes: its code, and its bytes 24 bits further up.

    Those are 0 if more are needed, and 1 if the first byte is wrong.
    """
    first = B[at]
    width = width_of(first)
    if width == 1:
        return first + (1 << _WIDTH)
    if width > size:
        return REPLACEMENT
    code = first & (0x1F if width == 2 else 0x0F if width == 3 else 0x07)
    i, good = 1, 0 if first < 0xC2 or first > 0xF4 else 1
    while i < width:
        byte = B[at + i]
        good = good & continues(byte)
        code = code << 6 | byte & 0x3F
        i += 1
    if (width == 3 and code < 0x800) or (width == 4 and code < 0x10000) or not is_character(code):
        good = 0
    return code + (width << _WIDTH) if good else REPLACEMENT + (1 << _WIDTH)


@inlined
def code_of(found: Word) -> Word:
    """Return the code of a decoded character."""
    return found & ((1 << _WIDTH) - 1)


@inlined
def bytes_of(found: Word) -> Word:
    """Return how many bytes a decoded character had."""
    return found >> _WIDTH


@inlined
def encoded_size(code: Word) -> Word:
    """Return how many bytes a character takes."""
    if not is_character(code):
        return 3
    return 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4


@native
def encode(code: Word, at: Word) -> Word:
    """Write a character and return how many bytes that took."""
    size, i = encoded_size(code), 0
    code = code if is_character(code) else REPLACEMENT
    if size == 1:
        B[at] = code
        return 1
    i = size - 1
    while i > 0:
        B[at + i] = 0x80 | code & 0x3F
        code = code >> 6
        i -= 1
    B[at] = (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0) | code
    return size
