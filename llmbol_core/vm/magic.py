"""The numbers by which Dis object files are told from others, and how numbers are written there."""

from __future__ import annotations

XMAGIC = 819248
SMAGIC = 923426
"""Of a signed file."""
OP_LIMIT = 1 << 29
"""Ops lie in -OP_LIMIT ..< OP_LIMIT."""


def encode_op(value: int) -> bytes:
    """Return the shortest form of an op.

    >>> encode_op(5).hex(), encode_op(-65).hex(), encode_op(XMAGIC).hex()
    ('05', 'bfbf', 'c00c8030')
    """
    if -64 <= value < 64:
        return bytes((value & 0x7F,))
    if -8192 <= value < 8192:
        return (value & 0x3FFF | 0x8000).to_bytes(2, "big")
    if -OP_LIMIT <= value < OP_LIMIT:
        return (value & 0x3FFFFFFF | 0xC0000000).to_bytes(4, "big")
    raise ValueError(f"{value} does not fit 30 bits")


MAGICS = (encode_op(XMAGIC), encode_op(SMAGIC))
"""How files begin."""


def is_object(data: bytes | memoryview) -> bool:
    """Whether the bytes begin as an object file does."""
    return bytes(data[:4]) in MAGICS
