"""The linear memory of a virtual machine: one mapping, typed access, and its block allocator.

All that a program can see lies here and is addressed by 32 bits, so that no reference, however
wrong, leads anywhere else::

    0         reserved; CHUNK: what is left of the chunk; FREE_LISTS: heads of the free lists
    HEAP      blocks, side by side, up to the memory limit; the first one, LAST, is kept back
    HEAP + limit   end of what can be accessed; nil, 16rFFFFFFFF, lies far behind it

Where the platform allows it the whole 4 GiB are mapped, without memory behind them until they are
touched; what lies behind the limit never is. A block is a header and what its reference, the
address behind the header, points to::

    -16  count of references    -12  kind or type    -8  size with the header    -4  work and flags

Small blocks have free lists by size and are cut from chunks; larger ones and the chunks come
from holes, which join when they touch. Larger ones come in eight sizes to the doubling at first.
Block sizes are in headers, so the heap can be walked; then free small blocks become holes again.
"""

from __future__ import annotations

import bisect
import ctypes
import struct
from collections.abc import Callable, Iterator
from typing import Any

from llmbol_core.vm.mapping import UNDERRUN, reserve_space

NIL = 0xFFFFFFFF
SPAN = (1 << 32) - (1 << 16)
HEAP = 1 << 16
FREE_LISTS = 4096
CHUNK, CHUNK_END = FREE_LISTS - 8, FREE_LISTS - 4
"""Words with the addresses between which small blocks can be cut."""
HEADER = 16
COUNT, KIND, SIZE, WORK = -16, -12, -8, -4
"""Offsets of the header's words from a reference."""

ASTRAY = (ArithmeticError, LookupError, ValueError, struct.error)
"""What Python raises for addresses outside, or for words in the arena that a program damaged."""

FREE = 0
"""The kind of a block that is not in use; its first word links to the next free one."""

_GRAIN = 16
SMALL = 1024
"""The largest block, with its header, that has a free list."""
_HEADS = range(FREE_LISTS >> 2, (FREE_LISTS + SMALL >> 2) + 1)
"""The words that are heads of free lists."""
LAST, LAST_SIZE = HEAP + HEADER, SMALL + _GRAIN
"""The block for the text of an exception for which nothing else is left."""
ROUNDED = 1 << 16
"""Blocks above small ones and up to this size have one of few sizes, so that they are reused."""
MANY = 200
"""Objects that die together from which on something may be quicker than one by one."""
LARGE = 1 << 17
"""Bytes of a block that takes a while to fill, or to look through."""
_CHUNK = 1 << 16


def _up(size: int, grain: int) -> int:
    """Return a size rounded up to a multiple."""
    return -(-size // grain) * grain


def large_size(size: int) -> int:
    """Return the size of a block, more than a small one, that has room for so many bytes.

    >>> [large_size(size) for size in (1040, 1152, 1168, 2064, 65536, 100_000)]
    [1152, 1152, 1280, 2304, 65536, 100000]
    """
    if size > ROUNDED:
        return _up(size, _GRAIN)
    return _up(size, 1 << ((size - 1).bit_length() - 4))


class Arena:
    """The memory of one machine.

    The views ``bytes``, ``words`` (signed), ``pointers`` (unsigned), ``bigs``, ``reals``,
    ``shorts`` and ``floats`` are the same memory, indexed in units of their items. An access that
    leaves them raises IndexError or struct.error; engines turn that into the trap for nil.
    """

    def __init__(self, limit: int) -> None:
        self._map = reserve_space(min(HEAP + limit, SPAN))
        self.limit = min(limit, SPAN - HEAP) // _GRAIN * _GRAIN
        self.bytes = memoryview(self._map)[UNDERRUN : UNDERRUN + HEAP + self.limit]
        self.words = self.bytes.cast("i")
        self.pointers = self.bytes.cast("I")
        self.bigs = self.bytes.cast("q")
        self.reals = self.bytes.cast("d")
        self.shorts = self.bytes.cast("h")
        self.floats = self.bytes.cast("f")
        self.peak = 0
        """The most bytes that were ever taken from the limit."""
        self.reserved = 0
        """Bytes that host objects take from the limit."""
        self._start = HEAP + (LAST_SIZE if self.limit >= _CHUNK else 0)
        self.pointers[CHUNK >> 2] = self.pointers[CHUNK_END >> 2] = HEAP
        self.settle: Callable[[], None] = lambda: None
        """What takes back free blocks that others keep, before the heap is walked."""
        self.keep: Callable[[int], bool] = lambda ref: False
        """Who keeps a large block that is freed for the next one of its size, if anybody does."""
        self.outlasts: Callable[[int], bool] = lambda ref: False
        """Who keeps the memory of an object that died, if anybody does: see ``remains.py``."""
        self.pause: Callable[[], None] = lambda: None
        """What long work calls every few milliseconds: it raises LimitError if time is up."""
        self.bury: Callable[[list[int]], bool] = lambda dying: False
        """What frees many objects whose counts are 0, and what they keep, if that is quicker."""
        self.hurries = False
        """Whether only little is to be freed, and the rest left to the collector."""
        self.release_frames: Callable[[int, int, bool], bool] = lambda start, end, are_left: False
        """What releases what frames refer to, if that is quicker: see ``process.Stack``."""
        self.kept_back = 0
        """Bytes of holes that no block is cut from: see ``shortage.py``."""
        self._forget_free()
        if self.limit:
            self.pointers[(LAST + SIZE) >> 2] = LAST_SIZE
            self.give_hole(self._start, HEAP + self.limit - self._start)

    @property
    def base(self) -> int | None:
        """The host's address of the arena, if all 32-bit addresses and a bit more are mapped."""
        if len(self._map) < 1 << 32:
            return None
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map)) + UNDERRUN

    # Typed access; addresses are in bytes and need not be aligned

    def word(self, address: int) -> int:
        """Return the signed word at an address."""
        return self.words[address >> 2] if not address & 3 else self._unaligned("=i", address)

    def set_word(self, address: int, value: int) -> None:
        """Store a signed word."""
        struct.pack_into("=i", self.bytes, self._checked(address, 4), value)

    def pointer(self, address: int) -> int:
        """Return the reference at an address."""
        return self.pointers[address >> 2] if not address & 3 else self._unaligned("=I", address)

    def set_pointer(self, address: int, value: int) -> None:
        """Store a reference without counting it."""
        struct.pack_into("=I", self.bytes, self._checked(address, 4), value)

    def big(self, address: int) -> int:
        """Return the big at an address."""
        return self.bigs[address >> 3] if not address & 7 else self._unaligned("=q", address)

    def set_big(self, address: int, value: int) -> None:
        """Store a big."""
        struct.pack_into("=q", self.bytes, self._checked(address, 8), value)

    def real(self, address: int) -> float:
        """Return the real at an address."""
        return self.reals[address >> 3] if not address & 7 else self._unaligned("=d", address)

    def set_real(self, address: int, value: float) -> None:
        """Store a real."""
        struct.pack_into("=d", self.bytes, self._checked(address, 8), value)

    def byte(self, address: int) -> int:
        """Return the byte at an address."""
        return self.bytes[address]

    def set_byte(self, address: int, value: int) -> None:
        """Store a byte."""
        self.bytes[address] = value

    def short(self, address: int) -> int:
        """Return the signed 16-bit integer at an address."""
        return int(self._unaligned("=h", address))

    def set_short(self, address: int, value: int) -> None:
        """Store a signed 16-bit integer."""
        struct.pack_into("=h", self.bytes, self._checked(address, 2), value)

    def float32(self, address: int) -> float:
        """Return the 32-bit float at an address as a real."""
        return float(self._unaligned("=f", address))

    def set_float32(self, address: int, value: float) -> None:
        """Store a real that is a 32-bit float."""
        struct.pack_into("=f", self.bytes, self._checked(address, 4), value)

    def view(self, address: int, size: int) -> memoryview:
        """Return the bytes at an address as a writable view."""
        return self.bytes[self._checked(address, size) : address + size]

    def _unaligned(self, layout: str, address: int) -> Any:
        size = struct.calcsize(layout)
        return struct.unpack_from(layout, self.bytes, self._checked(address, size))[0]

    def _checked(self, address: int, size: int) -> int:
        """Return an address at which so many bytes can be accessed; raises IndexError."""
        if address < 0 or address + size > len(self.bytes):
            raise IndexError("an address outside of the arena")
        return address

    # Blocks

    def allocate(self, size: int, is_record: bool = False, clears: bool = True) -> int | None:
        """Return the reference of a new block with room for so many bytes, all zero.

        Its count is 1 and its kind ``FREE`` until the caller sets it. None if memory is short.
        Small records are kept apart by their exact size: one that is not cleared is the last of its
        size that was freed, and still holds what that held, all but its first word.
        """
        total = HEADER + _up(size, _GRAIN) if size else HEADER + _GRAIN
        if total <= SMALL:
            if is_record:
                total = HEADER + max(_up(size, 4), 4)
            ref = self._small(total)
        else:
            total = large_size(total)
            ref, clears = self.from_hole(total), True
        if ref is not None:
            if clears:
                self.fill(ref, total - HEADER)
            self._begin(ref, total)
        return ref

    def fill(self, start: int, size: int, unit: bytes = b"\0") -> None:
        """Fill memory with a byte, with pauses."""
        piece = unit * min(size, LARGE)
        for at in range(start, start + size, LARGE):
            end = min(at + LARGE, start + size)
            self.bytes[at:end] = piece[: end - at]
            if size > LARGE:
                self.pause()

    def _begin(self, ref: int, total: int) -> None:
        """Write the header of a new block."""
        at = ref >> 2
        self.words[at - 4] = 1
        self.pointers[at - 2] = total
        self.words[at - 1] = 0

    def free(self, ref: int) -> None:
        """Give a block back."""
        at = ref >> 2
        size = self.pointers[at - 2]
        if ref == LAST and size == LAST_SIZE:
            self.words[at - 3] = FREE
            return
        if size > SMALL:
            if not self.keep(ref):
                self.give_back(ref)
            return
        head = (FREE_LISTS + size) >> 2
        self.words[at - 3] = FREE
        self.pointers[at] = self.pointers[head]
        self.pointers[head] = ref

    def give_back(self, ref: int) -> None:
        """Make a hole of a large block."""
        self.give_hole(ref - HEADER, self.pointers[(ref + SIZE) >> 2])

    def capacity(self, ref: int) -> int:
        """Return how many bytes a block has room for."""
        return self.pointers[(ref + SIZE) >> 2] - HEADER

    def blocks(self) -> Iterator[int]:
        """Yield the reference of every block in use, by address."""
        return (at + HEADER for at, _, is_free in self._walk() if not is_free)

    def reserve(self, size: int) -> bool:
        """Take bytes of the limit for something outside of the arena, and say whether they fit."""
        if self.reserved + size > self._hole_bytes:
            return False
        self.reserved += size
        self.peak = max(self.peak, self.used)
        return True

    @property
    def used(self) -> int:
        """Bytes taken from the limit, by blocks in use or kept for small ones, and by the host."""
        return self.limit - self._hole_bytes + self.reserved

    def _forget_free(self) -> None:
        for at in _HEADS:
            self.pointers[at] = NIL
        self._holes: list[int] = []
        self._hole_sizes: dict[int, int] = {}
        self._hole_bytes = self._start - HEAP
        self._too_large = SPAN
        """From this size on no block can be cut from any hole."""

    def prepare_walk(self) -> int:
        """Make the heap blocks and holes only; return the address behind the last block."""
        self.settle()
        self._close_chunk()
        last, end = self._holes[-1] if self._holes else HEAP, HEAP + self.limit
        return last if last + self._hole_sizes.get(last, 0) == end else end

    def _walk(self) -> Iterator[tuple[int, int, bool]]:
        """Yield address and size of every block and hole, and whether it is free.

        Raises ValueError where a program has damaged a header.
        """
        self.prepare_walk()
        at, end = HEAP, HEAP + self.limit
        while at < end:
            index = at >> 2
            size = _up(self.pointers[index + 2], _GRAIN)
            if size < _GRAIN or size > end - at:
                raise ValueError("a damaged block")
            yield at, size, self.words[index + 1] == FREE
            at += size

    def _small(self, total: int) -> int | None:
        """Take a small block from its free list or the chunk."""
        head = (FREE_LISTS + total) >> 2
        ref = self.pointers[head]
        if ref != NIL:
            self.pointers[head] = self.pointers[ref >> 2]
            return ref
        room = _up(total, _GRAIN)
        start = self.pointers[CHUNK >> 2]
        if self.pointers[CHUNK_END >> 2] - start < room:
            if not self._open_chunk(room):
                return None
            start = self.pointers[CHUNK >> 2]
        self.pointers[CHUNK >> 2] = start + room
        return start + HEADER

    def _open_chunk(self, total: int) -> bool:
        self._close_chunk()
        for size in (_CHUNK, SMALL, total):
            block = self.from_hole(size)
            if block is not None:
                self.pointers[CHUNK >> 2] = block - HEADER
                self.pointers[CHUNK_END >> 2] = block - HEADER + size
                return True
        return False

    def _close_chunk(self) -> None:
        """Turn what is left of the chunk into a hole, so that the heap can be walked."""
        start, end = self.pointers[CHUNK >> 2], self.pointers[CHUNK_END >> 2]
        if start < end:
            self.give_hole(start, end - start)
        self.pointers[CHUNK >> 2] = self.pointers[CHUNK_END >> 2] = HEAP

    def from_hole(self, total: int) -> int | None:
        """Cut a block from the first hole that is large enough; None if there is none."""
        if total > self._hole_bytes - self.reserved - self.kept_back or total >= self._too_large:
            return None
        for number, start in enumerate(self._holes):
            size = self._hole_sizes[start]
            if size >= total:
                del self._holes[number], self._hole_sizes[start]
                self._hole_bytes -= size
                taken = self.limit - self._hole_bytes + self.reserved - (size - total)
                self.peak = max(self.peak, taken)
                self.pointers[(start >> 2) + 2] = total
                if size > total:
                    self.give_hole(start + total, size - total)
                return start + HEADER
        self._too_large = total
        return None

    def give_hole(self, start: int, size: int) -> None:
        """Make a hole of memory that nobody uses, joined with those that touch it."""
        self._hole_bytes += size
        number = bisect.bisect_left(self._holes, start)
        if number < len(self._holes) and self._holes[number] == start + size:
            size += self._hole_sizes.pop(self._holes.pop(number))
        if number and (before := self._holes[number - 1]) + self._hole_sizes[before] == start:
            start, size = before, size + self._hole_sizes[before]
        else:
            self._holes.insert(number, start)
        self._hole_sizes[start] = size
        if size >= self._too_large:
            self._too_large = SPAN
        self.words[(start >> 2) + 1], self.pointers[(start >> 2) + 2] = FREE, size
