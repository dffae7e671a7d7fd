"""Bytes carried behind a Dis object: where a compiled model keeps its weights.

A Dis loader stops reading after the source path, so whatever follows is invisible to it::

    0          Dis object
    offset     payload, at a multiple of ALIGNMENT (the gap is zero)
    end - 24   trailer: u64 offset, u64 size, "DISPAYLD"; all little-endian

The alignment is a page, so that a mapped file's payload can be used in place and is shared by every
process that maps it. The trailer stands last, where it is found without reading anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from llmbol_core.errors import DisFormatError

MAGIC = b"DISPAYLD"
ALIGNMENT = 4096
_TRAILER = struct.Struct("<QQ8s")
TRAILER_SIZE = _TRAILER.size


def attach(module: bytes, payload: bytes | memoryview) -> Iterator[bytes | memoryview]:
    """Yield the pieces of a file that holds an object and its payload, in order.

    >>> file = b"".join(attach(b"object", b"weights"))
    >>> bytes(find(memoryview(file), "file"))
    b'weights'
    """
    offset = -(-len(module) // ALIGNMENT) * ALIGNMENT
    yield module
    yield bytes(offset - len(module))
    yield payload
    yield _TRAILER.pack(offset, len(payload), MAGIC)


def find(file: memoryview, path: str) -> memoryview | None:
    """Return the payload of a whole file, as a view of it, or None if the file carries none.

    Raises DisFormatError if the trailer is there but does not fit the file.
    """
    start = len(file) - _TRAILER.size
    if start < 0 or file[-len(MAGIC) :] != MAGIC:
        return None
    offset, size, _ = _TRAILER.unpack_from(file, start)
    if offset % ALIGNMENT or offset + size != start:
        why = f"the payload is said to be {size} bytes from byte {offset}, which does not fit"
        raise DisFormatError(path, start, f"{why} a file of {len(file)} bytes")
    return file[offset:start]
