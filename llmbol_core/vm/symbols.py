"""Symbol files: what ``limbo -g`` tells about a module's source, in a file NAME.sbl beside it.

    limbo .sbl 2.1
    name of the module
    count, then source files, one a line
    count, then for each instruction the source it was made from, and the number of its statement
    count, then types; ``@n`` elsewhere means the n-th of these
    count, then functions: pc ``:`` name, arguments, locals, type of the result
    global variables

A source is ``[file:][line.]column,[file:][line.]column`` and a blank, where what is left out is as
before. Variables, arguments and fields are a count and then, each on a line, offset ``:`` name
``:`` source type. A type is a letter with what belongs to it::

    n nothing   b byte   i int   B big   f real   s string   N nil   P polymorphic
    A array of   C chan of   L list of   R ref   t size ``.`` fields   F arguments result
    a name ' ' source size, fields   p the same, then variants: tag ``:`` source [size, fields]
    m name, source, variables

Format: Inferno's sbl(6), and version 2.1 as its compiler writes it, where modules and functions
also list what they have. Types become those of ``layout.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from llmbol_core.errors import FormatError
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    NONE,
    REAL,
    STRING,
    Adt,
    Basic,
    Field,
    Function,
    ModuleType,
    Pick,
    Reference,
    Tuple,
    Type,
)
from llmbol_core.vm.module import NAMES

VERSIONS = {"limbo .sbl 2.0": 20, "limbo .sbl 2.1": 21}
ANY = Basic("any", "P")
"""Nil's type, and those that a polymorphic function does not know: some reference."""

_BASIC = {"n": NONE, "b": BYTE, "i": INT, "B": BIG, "f": REAL, "s": STRING, "N": ANY, "P": ANY}
_REFERENCES = {"A": "array", "C": "chan", "L": "list", "R": "ref"}
_NUMBER = re.compile(rb"\s*(-?\d{1,9})")


class Indexed(Type):
    """A type by its place in the table of types, which may still be read."""

    def __init__(self, table: list[Type], index: int) -> None:
        self._table, self._index = table, index

    @property
    def target(self) -> Type:
        """The type itself."""
        return self._table[self._index]

    def __str__(self) -> str:
        return str(self.target)


def resolved(kind: Type) -> Type:
    """Return a type with its own parts."""
    while isinstance(kind, Indexed):
        kind = kind.target
    return kind


@dataclass(frozen=True)
class Source:
    """Text that something comes from; lines count from 1, columns from 0."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class SymbolFunction:
    """A function, from its first pc on; offsets of arguments and locals count from the frame."""

    pc: int
    name: str
    arguments: tuple[Field, ...]
    locals: tuple[Field, ...]
    result: Type

    @property
    def type(self) -> Function:
        """The function's type."""
        return Function(self.arguments, self.result)

    @cached_property
    def variables(self) -> dict[str, Field]:
        """Arguments and locals by name; of several locals the first one."""
        return {v.name: v for v in reversed((*self.arguments, *self.locals))}


@dataclass(frozen=True)
class Symbols:
    """All that a symbol file says. ``sources`` and ``statements`` are indexed by pc."""

    module: str
    files: tuple[str, ...]
    sources: tuple[Source, ...]
    statements: tuple[int, ...]
    functions: tuple[SymbolFunction, ...]
    globals: tuple[Field, ...]

    @cached_property
    def variables(self) -> dict[str, Field]:
        """The global variables by name."""
        return {v.name: v for v in self.globals}

    def pcs_of_line(self, line: int, file: str = "") -> list[int]:
        """Return where the code of a line begins: the first pc of each stretch of it."""
        wanted = file or (self.files[0] if self.files else "")
        at = [pc for pc, s in enumerate(self.sources) if s.line == line and s.file == wanted]
        return [pc for pc in at if pc - 1 not in set(at)]


def symbol_path(path: str) -> str:
    """Return where the symbol file of an object file would be.

    >>> symbol_path("/dis/sh.dis"), symbol_path("sh")
    ('/dis/sh.sbl', 'sh.sbl')
    """
    return path.removesuffix(".dis") + ".sbl"


def read_symbols(data: bytes | memoryview, path: str = "<bytes>") -> Symbols:
    """Return what a symbol file says. Raises FormatError."""
    reader = _Reader(bytes(data), path)
    try:
        return reader.symbols()
    except RecursionError:
        raise reader.error("types that never end") from None


class _Reader:
    """A place in a symbol file."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data, self._path, self._at = data, path, 0
        self._version = 0
        self._files: tuple[str, ...] = ()
        self._file = self._line = 0
        self._types: list[Type] = []

    def error(self, why: str) -> FormatError:
        return FormatError(self._path, self._at, f"damaged symbol file: {why}")

    def symbols(self) -> Symbols:
        magic = self._until("\n", "the first line")
        if magic not in VERSIONS:
            self._at = 0
            known = " or ".join(map(repr, VERSIONS))
            raise self.error(f"it begins with {magic[:32]!r}, not with {known}")
        self._version = VERSIONS[magic]
        name = self._until("\n", "the module's name")
        self._files = tuple(self._until("\n", "a file's name") for _ in self._rows("files"))
        sources, statements = [], []
        for _ in self._rows("instructions"):
            sources.append(self._source())
            statements.append(self._line_end_number())
        self._read_types()
        functions = tuple(self._function() for _ in self._rows("functions"))
        variables = self._fields()
        return Symbols(name, self._files, tuple(sources), tuple(statements), functions, variables)

    def _read_types(self) -> None:
        count = len(self._rows("types"))
        self._types.extend([NONE] * count)
        for index in range(count):
            self._types[index] = self._type()
        for kind in self._types:
            str(kind)  # raises RecursionError if it consists of itself

    # Items

    def _function(self) -> SymbolFunction:
        pc = self._number("a function's pc")
        self._expect(":")
        name = self._until("\n", "a function's name")
        return SymbolFunction(pc, name, self._fields(), self._fields(), self._type())

    def _fields(self) -> tuple[Field, ...]:
        return tuple(self._field() for _ in self._rows("variables"))

    def _field(self) -> Field:
        offset = self._number("a variable's offset")
        self._expect(":")
        name = self._until(":", "a variable's name")
        self._source()
        kind = self._type()
        self._expect("\n")
        return Field(name, kind, offset)

    def _source(self) -> Source:
        start = self._position(",")
        self._position(" ")
        return start

    def _position(self, end: str) -> Source:
        column = self._number("a source")
        if self._accept(":"):
            self._file, column = column, self._number("a source's line")
        if self._accept("."):
            self._line, column = column, self._number("a source's column")
        self._expect(end)
        if not 0 <= self._file < len(self._files):
            raise self.error(f"file {self._file} of {len(self._files)}")
        return Source(self._files[self._file], self._line, column)

    # Types

    def _type(self) -> Type:
        letter = self._take()
        if letter in _BASIC:
            return _BASIC[letter]
        if letter in _REFERENCES:
            return Reference(_REFERENCES[letter], self._type())
        compound: dict[str, Callable[[], Type]] = {
            "@": self._indexed,
            "t": self._tuple,
            "F": self._function_type,
            "a": self._adt,
            "p": self._adt_with_picks,
            "m": self._module,
        }
        if letter not in compound:
            self._at -= 1
            raise self.error(f"no type begins with {letter!r}")
        return compound[letter]()

    def _indexed(self) -> Type:
        index = self._line_end_number()
        if not 0 <= index < len(self._types):
            raise self.error(f"type {index} of {len(self._types)}")
        return Indexed(self._types, index)

    def _tuple(self) -> Type:
        size = self._number("a tuple's size")
        self._expect(".")
        return Tuple(self._fields(), size, 4)

    def _function_type(self) -> Type:
        arguments = self._fields() if self._version > 20 else ()
        return Function(arguments, self._type())

    def _adt(self) -> Adt:
        name = self._until(" ", "a type's name")
        self._source()
        size = self._line_end_number()
        return Adt(name, self._fields(), size=size)

    def _adt_with_picks(self) -> Adt:
        adt = self._adt()
        last: Pick | None = None
        for _ in self._rows("variants"):
            tag = self._until(":", "a variant's name")
            self._source()
            if self._accept("\n"):
                if last is None:
                    raise self.error("the first variant is like the one before")
                last = Pick(adt, tag, last.own, last.size)
            else:
                size = self._line_end_number()
                last = Pick(adt, tag, self._fields(), size)
            adt.picks[tag] = last
        return adt

    def _module(self) -> Type:
        name = self._until("\n", "a module's name")
        self._source()
        members = self._fields() if self._version > 20 else ()
        return ModuleType(name, {m.name: m.type for m in members})

    # Characters

    def _rows(self, what: str) -> range:
        """Read how many items follow; none takes less than two bytes."""
        count = self._line_end_number()
        if not 0 <= count <= (len(self._data) - self._at) // 2:
            raise self.error(f"{count} {what} in {len(self._data) - self._at} bytes")
        return range(count)

    def _line_end_number(self) -> int:
        value = self._number("a number")
        self._expect("\n")
        return value

    def _number(self, what: str) -> int:
        found = _NUMBER.match(self._data, self._at)
        if not found:
            self._missing(what)
        self._at = found.end()
        return int(found[1])

    def _until(self, end: str, what: str) -> str:
        stop = self._data.find(end.encode(), self._at)
        if stop < 0:
            self._missing(what)
        text = self._data[self._at : stop].decode(*NAMES)
        self._at = stop + 1
        return text

    def _take(self) -> str:
        if self._at >= len(self._data):
            self._missing("a type")
        self._at += 1
        return chr(self._data[self._at - 1])

    def _accept(self, character: str) -> bool:
        is_next = self._data[self._at : self._at + 1] == character.encode()
        self._at += is_next
        return is_next

    def _expect(self, character: str) -> None:
        if not self._accept(character):
            self._missing(repr(character))

    def _missing(self, what: str) -> NoReturn:
        found = self._data[self._at : self._at + 12].decode("latin-1")
        raise self.error(f"expected {what}, found {found!r}" if found else f"it ends before {what}")
