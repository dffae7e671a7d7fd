"""What a module needs of the functions of other modules that it calls: frames and results that fit.

A caller gets the frame that it fills from the function's module or, for functions that take a
variable number of arguments, makes it of a type of its own. The verifier notes what it stores
there, and where it wants the result; when the two modules are linked, that is compared with the
frame of the function, and with what it writes as its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.vm.isa import WORD_SIZE, Mode
from llmbol_core.vm.verification.origins import Use

if TYPE_CHECKING:
    from llmbol_core.vm.module import Operand
    from llmbol_core.vm.verification.structure import Layout


class Part(NamedTuple):
    """Bytes of a frame, or where a result goes, and what is done with them."""

    offset: int
    size: int
    use: Use


class Shape(NamedTuple):
    """The size of a place or a frame, and where its pointers are.

    A pointer that begins before a place and reaches into it counts too.
    """

    size: int
    pointers: tuple[int, ...]

    def behind(self, offset: int) -> Shape:
        """Return the rest from an offset on."""
        inside = tuple(p - offset for p in self.pointers if p > offset - WORD_SIZE)
        return Shape(max(self.size - offset, 0), inside)


@dataclass
class Need:
    """All uses of one function: stores into its frame, frames made for it, places of results."""

    stores: set[Part] = field(default_factory=set)
    frames: set[Shape] = field(default_factory=set)
    results: set[Shape] = field(default_factory=set)
    """The places for results, up to the end of the object there."""
    named: set[tuple[int, int]] = field(default_factory=set)
    """Functions of the caller whose result this is, by entry, and offsets in it."""

    def add(self, other: Need) -> None:
        """Add another need to this one."""
        self.stores |= other.stores
        self.frames |= other.frames
        self.results |= other.results
        self.named |= other.named

    def misfits(self, frame: Shape) -> Iterator[str]:
        """Yield what does not fit a frame; its size is 0 for a variable number of arguments."""
        for part in sorted(self.stores):
            if why := _misfit(part, frame):
                yield f"a caller stores {why} in its frame"
        for made in sorted(self.frames - {frame}) if frame.size else ():
            yield f"a caller makes a frame of {made.size} bytes that is not its own"

    def to_row(self) -> list[Any]:
        """Return this as lists of numbers."""
        return [
            sorted(self.stores),
            sorted(self.frames),
            sorted(self.results),
            sorted(self.named),
        ]

    @classmethod
    def from_row(cls, row: list[Any]) -> Need:
        """Return the need of lists made by ``to_row``."""
        stores, frames, results, named = row
        found = parts_of(stores), shapes_of(frames), shapes_of(results)
        return cls(*found, {(entry, offset) for entry, offset in named})


def misfitting(parts: Iterable[Part], place: Shape) -> Iterator[str]:
    """Yield what is done where a result goes that does not fit where a caller wants it."""
    for part in sorted(parts):
        if why := _misfit(part, place):
            does = "reads" if part.use is Use.READ else "returns"
            yield f"it {does} {why} where a caller wants its result"


def value_parts(size: int, pointers: tuple[int, ...]) -> set[Part]:
    """Return the parts that a whole value consists of."""
    words = range(0, size, WORD_SIZE)
    return {
        Part(at, min(WORD_SIZE, size - at), Use.POINTER if at in pointers else Use.WRITE)
        for at in words
    }


def shape(layout: Layout, offset: int, end: int = 1 << 30) -> Shape:
    """Return the shape of an object from an offset on."""
    end = min(end, layout.size)
    inside = sorted(p - offset for p in layout.pointers if offset - WORD_SIZE < p < end)
    return Shape(end - offset, tuple(inside))


def shapes_of(rows: list[Any]) -> set[Shape]:
    """Return shapes from lists of numbers."""
    return {Shape(size, tuple(pointers)) for size, pointers in rows}


def link_number(middle: Operand) -> int:
    """Return the link number that a middle operand gives, or one that no link has."""
    return middle.value if middle.mode is Mode.IMMEDIATE else 1 << 20


def parts_of(rows: list[Any]) -> set[Part]:
    """Return parts from lists of numbers."""
    return {Part(offset, size, Use(use)) for offset, size, use in rows}


def _misfit(part: Part, place: Shape) -> str:
    """Return what does not fit a place; empty if it fits."""
    is_pointer = part.use is Use.POINTER
    if is_pointer and part.offset in place.pointers:
        return ""
    end = part.offset + part.size
    what = "a pointer" if is_pointer else f"{part.size} bytes"
    if end > place.size:
        return f"{what} at {part.offset}, beyond the {place.size}"
    if is_pointer:
        return f"a pointer at {part.offset}, where none is,"
    if part.use is Use.READ:
        return ""
    is_over = any(p < end and part.offset < p + WORD_SIZE for p in place.pointers)
    return f"{what} at {part.offset}, where a pointer is," if is_over else ""
