"""Limbo's types and how their values lie in memory: sizes, alignments, pointer maps, frames.

Layouts are those of 32-bit Inferno: a byte takes 1 byte, an int and every reference 4, a big and a
real 8; each part lies at a multiple of its own alignment. Arguments start at byte 32 of a frame,
and the frame's size is a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ARGUMENTS = 32
"""Offset of the first argument in a frame."""
RESULT = 16
"""Offset in a frame of the pointer to the place where the result goes."""
FRAME_ALIGNMENT = 8


class Type:
    """A Limbo type; unless a subclass says otherwise its values are pointers."""

    size: int = 4
    align: int = 4

    def pointers(self) -> Iterator[int]:
        """Yield the byte offset of each pointer in a value of this type."""
        yield 0


@dataclass(frozen=True)
class Basic(Type):
    """A type without parts; the letter stands for it in signatures."""

    name: str
    letter: str
    size: int = 4
    align: int = 4

    def pointers(self) -> Iterator[int]:
        """Yield 0 for a string, nothing for a number."""
        if self.letter == "s":
            yield 0

    def __str__(self) -> str:
        return self.name


# fmt: off
#              name       letter size align
BYTE   = Basic("byte",    "b",   1,   1)
INT    = Basic("int",     "i",   4,   4)
BIG    = Basic("big",     "B",   8,   8)
REAL   = Basic("real",    "r",   8,   8)
STRING = Basic("string",  "s",   4,   4)
NONE   = Basic("nothing", "n",   0,   1)
# fmt: on


@dataclass(frozen=True)
class Fixed(Type):
    """``fixed(scale)``: a word that counts multiples of its scale."""

    scale: float

    def pointers(self) -> Iterator[int]:
        """Yield nothing: a fixed-point number is a word."""
        yield from ()

    def __str__(self) -> str:
        return f"fixed({self.scale:g})"


@dataclass(frozen=True)
class Reference(Type):
    """A pointer to values of another type; the kind is ``ref``, ``list``, ``array`` or ``chan``."""

    kind: str
    element: Type

    def __str__(self) -> str:
        return f"{self.kind} {'' if self.kind == 'ref' else 'of '}{self.element}"


class Field(NamedTuple):
    """A named part of a record or an argument of a function, with the marks of its declaration."""

    name: str
    type: Type
    offset: int = 0
    is_cyclic: bool = False
    is_self: bool = False


class Record(Type):
    """What tuples, ADTs and their variants have in common: fields at offsets."""

    fields: tuple[Field, ...] = ()

    def pointers(self) -> Iterator[int]:
        """Yield the offset of each pointer in each field, in order."""
        for part in self.fields:
            yield from (part.offset + at for at in part.type.pointers())

    @property
    def map(self) -> bytes:
        """The pointer map of a record on its own."""
        return pointer_map(self.size, self.pointers())


@dataclass(frozen=True)
class Tuple(Record):
    """A tuple; its fields are named t0, t1 and so on."""

    fields: tuple[Field, ...]
    size: int
    align: int

    @classmethod
    def of(cls, members: Sequence[Type]) -> Tuple:
        """Lay out a tuple of these types.

        >>> Tuple.of([INT, REAL]).size
        16
        """
        return cls(*place([Field(f"t{i}", kind) for i, kind in enumerate(members)]))

    def __str__(self) -> str:
        return f"({', '.join(str(part.type) for part in self.fields)})"


@dataclass(eq=False)
class Adt(Record):
    """An abstract data type; if it has ``picks``, word 0 holds the number of the variant.

    Two ADTs are the same only if they are the same object: that lets one refer to itself.
    """

    name: str
    fields: tuple[Field, ...] = ()
    picks: dict[str, Pick] = field(default_factory=dict)
    methods: dict[str, Function] = field(default_factory=dict)
    size: int = 0
    align: int = 1

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


@dataclass(eq=False)
class Pick(Record):
    """A variant of an ADT: the fields that all variants share, then its ``own``."""

    adt: Adt
    name: str
    own: tuple[Field, ...] = ()
    size: int = 0
    align: int = 4

    @property
    def fields(self) -> tuple[Field, ...]:  # type: ignore[override]
        """All fields of a value of this variant, the number of the variant excepted."""
        return self.adt.fields + self.own

    def __str__(self) -> str:
        return f"{self.adt.name}.{self.name}"

    __repr__ = __str__


@dataclass(frozen=True)
class Function(Type):
    """The type of a function; only references to functions can be held in variables."""

    arguments: tuple[Field, ...]
    result: Type = NONE
    has_varargs: bool = False
    raises: tuple[str, ...] = ()
    size: int = 0
    align: int = 1

    def pointers(self) -> Iterator[int]:
        """Yield nothing: a function takes no room."""
        yield from ()

    def __str__(self) -> str:
        names = [f"{a.name}: " if a.name else "" for a in self.arguments]
        types = [f"{'self ' * a.is_self}{a.type}" for a in self.arguments]
        words = [name + kind for name, kind in zip(names, types, strict=True)]
        result = "" if self.result is NONE else f": {self.result}"
        raises = f" raises ({', '.join(self.raises)})" if self.raises else ""
        return f"fn({', '.join([*words, *['*'] * self.has_varargs])}){result}{raises}"


@dataclass(eq=False)
class ModuleType(Type):
    """What a module offers; a variable of this type is a handle.

    ``members`` are its functions and data by name, ``types`` its ADTs and named types, and
    ``constants`` the expressions of its constants as they were written.
    """

    name: str
    members: dict[str, Type] = field(default_factory=dict)
    types: dict[str, Type] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)

    @property
    def functions(self) -> dict[str, Function]:
        """The functions by name, the methods of its ADTs as ``Adt.method``, in order of name."""
        found = {n: t for n, t in self.members.items() if isinstance(t, Function)}
        for adt in self.types.values():
            if isinstance(adt, Adt):
                found |= {f"{adt.name}.{n}": t for n, t in adt.methods.items()}
        return dict(sorted(found.items()))

    @property
    def data(self) -> dict[str, Type]:
        """The variables by name, in order of name."""
        return {n: t for n, t in sorted(self.members.items()) if not isinstance(t, Function)}

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__


class Frame(NamedTuple):
    """The frame of a call; its size is 0 for varargs functions, whose callers lay out their own."""

    size: int
    map: bytes
    arguments: tuple[Field, ...]
    result: Type


def place(parts: Iterable[Field], start: int = 0) -> tuple[tuple[Field, ...], int, int]:
    """Place fields one after the other; return them with offsets, the size and the alignment.

    >>> fields, size, align = place([Field("a", BYTE), Field("b", REAL), Field("c", INT)])
    >>> [f.offset for f in fields], size, align
    ([0, 8, 16], 24, 8)
    """
    placed = []
    offset, align = start, 1
    for part in parts:
        offset = _round_up(offset, part.type.align)
        placed.append(Field(part.name, part.type, offset, part.is_cyclic, part.is_self))
        offset += part.type.size
        align = max(align, part.type.align)
    return tuple(placed), _round_up(offset, align), align


def place_adt(adt: Adt, fields: Iterable[Field]) -> None:
    """Give an ADT its fields; its variants, if it has any, are placed behind them."""
    if not adt.picks:
        adt.fields, adt.size, adt.align = place(fields)
        return
    adt.fields, _, align = place(fields, start=INT.size)
    end = max((f.offset + f.type.size for f in adt.fields), default=INT.size)
    adt.size, adt.align = _round_up(end, max(align, INT.align)), max(align, INT.align)
    for pick in set(adt.picks.values()):
        pick.own, size, own_align = place(pick.own, start=end)
        pick.align = max(own_align, adt.align)
        pick.size = _round_up(size, pick.align)


def pointer_map(size: int, pointers: Iterable[int]) -> bytes:
    """Return an object's pointer map, the highest bit of byte 0 for word 0, without final zeros.

    >>> pointer_map(40, [32]).hex()
    '0080'
    """
    bits = bytearray(-(-size // 32))
    for offset in pointers:
        bits[offset // 32] |= 0x80 >> offset // 4 % 8
    return bytes(bits).rstrip(b"\0")


def frame(function: Function) -> Frame:
    """Return where the arguments of a function lie in its frame, and the frame's size and map."""
    arguments, end, _ = place(function.arguments, ARGUMENTS)
    if function.has_varargs:
        return Frame(0, b"", arguments, function.result)
    size = _round_up(end, FRAME_ALIGNMENT)
    pointers = (a.offset + at for a in arguments for at in a.type.pointers())
    return Frame(size, pointer_map(size, pointers), arguments, function.result)


def _round_up(offset: int, align: int) -> int:
    return -(-offset // align) * align
