"""Object files as running code: a linker and loader for what the compiler here makes.

Such an object refers to nothing but itself and a few functions of the C library. Loading one takes
well under a millisecond and needs no compiler. Objects of other formats, or with relocations that
are not known here, go to LLVM's loader.

The format is ELF's: a header, a table of sections, tables of symbols and of relocations.
https://gitlab.com/x86-psABIs/x86-64-ABI describes those of this processor.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from llmbol_core.native.library import Library

_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_X86_64 = 62
_IN_MEMORY, _NO_BITS, _RELOCATIONS, _SYMBOLS = 2, 8, 4, 2
_UNDEFINED, _ABSOLUTE = 0, 0xFFF1


class _Unknown(Exception):
    """Something in an object that is left to LLVM."""


def load_object(data: bytes, names: Iterable[str]) -> Library:
    """Load an object file and find functions in it by name."""
    wanted = list(names)
    try:
        return _Image(data).library(wanted)
    except _Unknown:
        from llmbol_core.native import llvm

        return llvm.load_object(data, wanted)


class _Section(NamedTuple):
    """A row of the table of sections."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Image:
    """One object in memory."""

    def __init__(self, data: bytes) -> None:
        if len(data) < _HEADER.size:
            raise _Unknown
        header = _HEADER.unpack_from(data)
        magic, bits, order, machine, table, count = (header[i] for i in (0, 1, 2, 4, 8, 14))
        if (magic, bits, order, machine) != (b"\x7fELF", 2, 1, _X86_64):
            raise _Unknown
        if not hasattr(mmap, "PROT_EXEC"):
            raise _Unknown
        self._data = data
        rows = (_SECTION.unpack_from(data, table + _SECTION.size * n) for n in range(count))
        self._sections = [_Section(*row) for row in rows]
        self._places: dict[int, int] = {}
        self._memory = self._placed()
        self._start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._symbols = self._found()
        self._doors: dict[int, int] = {}
        self._relocate()
        self._seal()

    def library(self, names: Iterable[str]) -> Library:
        """Return the wanted functions of the code."""
        named = {name: address for name, address in self._symbols if name}
        return Library(self._memory, {name: named[name] for name in names})

    def _placed(self) -> mmap.mmap:
        """Copy the sections that belong in memory, one after the other."""
        at, kept = 0, []
        for number, section in enumerate(self._sections):
            if section.flags & _IN_MEMORY:
                at = -(-at // max(section.alignment, 1)) * max(section.alignment, 1)
                self._places[number] = at
                kept.append(section)
                at += section.size
        self._next_door = -(-at // _DOOR.size) * _DOOR.size
        memory = mmap.mmap(-1, self._next_door + _DOOR.size * self._count_doors())
        for place, section in zip(self._places.values(), kept, strict=True):
            if section.kind != _NO_BITS:
                content = self._data[section.offset : section.offset + section.size]
                memory[place : place + section.size] = content
        return memory

    def _rows(self, section: _Section, layout: struct.Struct) -> Iterator[tuple[Any, ...]]:
        end = section.offset + section.size
        return layout.iter_unpack(self._data[section.offset : end])

    def _found(self) -> list[tuple[str, int]]:
        """Return names and addresses of the symbols, in the order of their table."""
        found = []
        for section in self._sections:
            if section.kind != _SYMBOLS:
                continue
            names = self._sections[section.link].offset
            for name, _, _, place, value, _ in self._rows(section, _SYMBOL):
                start = names + name
                text = self._data[start : self._data.index(b"\0", start)].decode()
                found.append((text, self._address(text, place, value)))
        return found

    def _count_doors(self) -> int:
        """Return how many doors there may be: one for each symbol, and at least one."""
        sizes = (s.size // _SYMBOL.size for s in self._sections if s.kind == _SYMBOLS)
        return sum(sizes) + 1

    def _door(self, symbol: int) -> int:
        """Return the door for a symbol that may be far away: a jump to an address stored in it."""
        if symbol not in self._doors:
            at = self._next_door
            _DOOR.pack_into(self._memory, at, _JUMP, self._symbols[symbol][1])
            self._doors[symbol], self._next_door = self._start + at, at + _DOOR.size
        return self._doors[symbol]

    def _is_near(self, symbol: int) -> bool:
        return 0 <= self._symbols[symbol][1] - self._start < len(self._memory)

    def _address(self, name: str, section: int, value: int) -> int:
        if section in self._places:
            return self._start + self._places[section] + value
        if section == _ABSOLUTE or (section == _UNDEFINED and not name):
            return value
        if section == _UNDEFINED:
            return _of_process(name)
        return 0

    def _relocate(self) -> None:
        """Put addresses where code and tables need them."""
        for section in self._sections:
            if section.kind == _RELOCATIONS and section.info in self._places:
                base = self._places[section.info]
                for offset, info, addend in self._rows(section, _RELOCATION):
                    symbol, kind = info >> 32, info & 0xFFFFFFFF
                    value = self._symbols[symbol][1]
                    if kind in _THROUGH_TABLE:
                        value = self._door(symbol) + len(_JUMP)
                    elif kind in _CALLED and not self._is_near(symbol):
                        value = self._door(symbol)
                    self._store(kind, base + offset, value + addend)

    def _store(self, kind: int, at: int, value: int) -> None:
        if kind not in _STORED:
            raise _Unknown
        layout, is_relative = _STORED[kind]
        if is_relative:
            value -= self._start + at
        try:
            struct.pack_into(layout, self._memory, at, value)
        except struct.error:
            raise _Unknown from None

    def _seal(self) -> None:
        """Make the code executable and read-only."""
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if protect(self._start, len(self._memory), mmap.PROT_READ | mmap.PROT_EXEC):
            raise _Unknown


_THROUGH_TABLE = frozenset({9, 41, 42})
"""Relocations that want the place of an address: R_X86_64_GOTPCREL, GOTPCRELX, REX_GOTPCRELX."""
_CALLED = frozenset({4})
_STORED = {1: ("<Q", False), 2: ("<i", True), 4: ("<i", True), 24: ("<q", True)}
"""What is stored for R_X86_64_64, PC32, PLT32 and PC64, and whether it is relative to its place."""
_STORED |= dict.fromkeys(_THROUGH_TABLE, ("<i", True))
_JUMP = b"\xff\x25\x02\0\0\0\x66\x90"
"""A jump to the address behind it."""
_DOOR = struct.Struct("<8sQ")


@functools.cache
def _of_process(name: str) -> int:
    """Return the address of a function of the C library."""
    try:
        address = ctypes.cast(ctypes.CDLL(None)[name], ctypes.c_void_p).value
    except (AttributeError, OSError):
        address = None
    if address is None:
        raise _Unknown
    return address
