"""The digest MD4 (RFC 1320), which not every hashlib still has."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_MASK = 0xFFFFFFFF
_BLOCK = 64
_Round = tuple[Callable[[int, int, int], int], int, tuple[int, ...], tuple[int, ...]]
_ROUNDS: tuple[_Round, ...] = (
    (lambda x, y, z: x & y | ~x & z, 0, (3, 7, 11, 19), tuple(range(16))),
    (
        lambda x, y, z: x & y | x & z | y & z, 0x5A827999, (3, 5, 9, 13),
        (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
    ),
    (
        lambda x, y, z: x ^ y ^ z, 0x6ED9EBA1, (3, 9, 11, 15),
        (0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15),
    ),
)  # fmt: skip


class MD4:
    """A digest in progress, with the interface of hashlib's."""

    def __init__(self) -> None:
        self.name = "md4"
        self._state = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
        self._rest, self._size = b"", 0

    def copy(self) -> MD4:
        """Return an independent copy."""
        other = MD4()
        other._state, other._rest, other._size = self._state, self._rest, self._size
        return other

    def update(self, data: Any, /) -> None:
        """Add bytes."""
        self._size += len(data)
        whole = self._rest + bytes(data)
        end = len(whole) - len(whole) % _BLOCK
        for at in range(0, end, _BLOCK):
            self._state = _mixed(self._state, struct.unpack("<16I", whole[at : at + _BLOCK]))
        self._rest = whole[end:]

    def digest(self) -> bytes:
        """Return the digest of all bytes so far."""
        last = self.copy()
        length = struct.pack("<Q", 8 * self._size & 0xFFFFFFFFFFFFFFFF)
        last.update(b"\x80" + bytes((55 - self._size) % _BLOCK) + length)
        return struct.pack("<4I", *last._state)


def _mixed(state: tuple[int, ...], words: tuple[int, ...]) -> tuple[int, int, int, int]:
    a, b, c, d = state
    for mix, constant, shifts, order in _ROUNDS:
        for i, word in enumerate(order):
            total = a + (mix(b, c, d) & _MASK) + words[word] + constant & _MASK
            n = shifts[i % 4]
            a, b, c, d = d, (total << n | total >> 32 - n) & _MASK, b, c
    a, b, c, d = (x + y & _MASK for x, y in zip((a, b, c, d), state, strict=True))
    return a, b, c, d
