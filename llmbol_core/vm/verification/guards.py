"""Guards: what is left to be checked while a program runs, before an instruction.

The verifier proves most accesses from the module alone. What lies behind a pointer that came from
elsewhere is not known there; but every object in the heap knows its type. So a guard compares,
before the instruction runs, the type of the actual object with what the instruction does to it. A
nil pointer passes: the instruction itself then traps.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.vm.isa import WORD_SIZE, Mode
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.verification.needs import Need
from llmbol_core.vm.verification.origins import Use

if TYPE_CHECKING:
    from llmbol_core.vm.verification.structure import Layout


class Of(IntEnum):
    """What a guard looks at in an object, and which fields of a ``Guard`` matter for it."""

    RECORD = 0
    """The object itself, which is a record: the pieces lie in it."""
    KIND = 1
    """Only whether the object is of a kind, whose letter ``kind`` is."""
    ELEMENT = 2
    """An element of an array: it has ``size`` bytes, if that is not 0, and the pieces lie in it."""
    HEAD = 3
    """The first value of a list: the pieces lie in it."""
    SENT = 4
    """The value that a channel carries, which is read from a place; see ``Guard.link``."""
    RECEIVED = 5
    """The value that a channel carries, which is written to a place; see ``Guard.link``."""
    LINK = 6
    """The function that link ``link`` of a handle leads to: it is called as ``need`` says."""
    MARKED = 7
    """An object in which an address is taken that may outlast it: it is marked."""
    RESULT = 8
    """A record or element for the result of a function, ``size`` bytes from its start: a record if
    ``kind`` is R.

    The function is the one that link ``number`` of the handle at ``link`` leads to; without a
    handle, the module's own with the entry ``number``.
    """


class Piece(NamedTuple):
    """Bytes of a value and what is done with them."""

    offset: int
    size: int
    use: Use


class Guard(NamedTuple):
    """One check: where the pointer is, and what its object must be.

    ``pieces`` must lie in the value and be pointers or numbers as they are used. ``kind`` is the
    letter of the object's kind; none is that of a record.

    Of what a channel carries (SENT and RECEIVED), ``size`` is the room in the place, whose pointers
    are the pieces, if those are known. If they are not, ``link`` is what they are looked for in
    when the instruction runs: in the object there, so far from its start as ``size`` says, which is
    a record if ``kind`` is R, or the value in it that an address leads to; if ``size`` is negative,
    at the address there; if ``kind`` is K, so far from the start of the frame there.
    If ``number`` is given it is the entry of the function whose result the place is, and ``size``
    how far into the result.
    """

    where: Operand
    of: Of
    pieces: tuple[Piece, ...] = ()
    size: int = 0
    kind: str = ""
    link: Operand = ABSENT
    need: Need | None = None
    number: Operand = ABSENT

    def misfit(
        self, size: int, pointers: tuple[int, ...], locked: Iterable[int] | None = None
    ) -> str:
        """Return why a value of a type does not fit; empty if it fits.

        ``locked`` are the words that numbers may not overwrite, if they are not just the pointers.
        """
        if self.of in (Of.SENT, Of.RECEIVED):
            return self._mismatch(size, pointers)
        if self.of is Of.ELEMENT and self.size and size != self.size:
            return f"an element has {size} bytes, not {self.size}"
        for piece in self.pieces:
            there = pointers if piece.use is Use.POINTER or locked is None else locked
            if why := misfit(piece, size, there):
                return why
        return ""

    def _mismatch(self, size: int, pointers: tuple[int, ...]) -> str:
        """Return why a channel's value does not fit the place."""
        if size > self.size:
            return f"a value has {size} bytes, where there is room for {self.size}"
        there = {piece.offset for piece in self.pieces if piece.offset < size}
        wrong = there ^ set(pointers)
        what = "the channel and the place disagree about the pointer"
        return f"{what} at {min(wrong)}" if wrong else ""

    def to_row(self) -> list[Any]:
        """Return this as numbers and texts, but for where the pointer is."""
        need = self.need.to_row() if self.need else None
        pieces = [list(piece) for piece in self.pieces]
        ends = [list(map(int, operand)) for operand in (self.link, self.number)]
        return [ends, int(self.of), pieces, self.size, self.kind, need]

    @classmethod
    def from_row(cls, row: list[Any]) -> Guard:
        """Return the guard of a row made by ``to_row``, of a pointer that is nowhere yet."""
        ends, of, pieces, size, kind, need = row
        link, number = (Operand(Mode(mode), value, base) for mode, value, base in ends)
        found = tuple(Piece(at, length, Use(use)) for at, length, use in pieces)
        needed = Need.from_row(need) if need else None
        return cls(ABSENT, Of(of), found, size, kind, link, needed, number)


def misfit(piece: Piece, size: int, pointers: Iterable[int]) -> str:
    """Return why an access does not fit a value; empty if it fits."""
    if not 0 <= piece.offset <= size - piece.size:
        return f"{piece.size} bytes at {piece.offset} reach beyond the {size} there"
    if piece.use is Use.POINTER:
        return "" if piece.offset in pointers else f"there is no pointer at {piece.offset}"
    if piece.use is not Use.WRITE:
        return ""
    end = piece.offset + piece.size
    if any(piece.offset - WORD_SIZE < p < end for p in pointers):
        return f"a number at {piece.offset} lies over a pointer"
    return ""


def value_pieces(layout: Layout, at: int, use: Use) -> tuple[Piece, ...]:
    """Return the accesses to the parts of a whole value."""
    pieces = [Piece(at + p, WORD_SIZE, Use.POINTER) for p in sorted(layout.pointers)]
    start = 0
    for end in (*sorted(layout.pointers), layout.size):
        if end > start:
            pieces.append(Piece(at + start, end - start, use))
        start = end + WORD_SIZE
    return tuple(pieces)


def fits_all(layouts: Iterable[Layout], pieces: Iterable[Piece]) -> bool:
    """Whether there are layouts, and all of them have the pieces."""
    known = list(layouts)
    return bool(known) and not any(
        misfit(piece, layout.size, layout.pointers) for layout in known for piece in pieces
    )
