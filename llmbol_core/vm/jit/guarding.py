"""Guards for machine code: types as masks, and the checks of the native interpreter.

Before the place in a type's map that ``@map`` returns there are five words: which of the type's
first 64 words are locked, which of them are pointers, two words for each, and its size in bytes; of
module data only the part that other modules may access. No number may be written over a locked
word. What a guard requires is expressed in such masks too; a guard that they cannot express is left
to Python.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from llmbol_core.vm.arena import KIND, NIL, WORK
from llmbol_core.vm.checks import ELEMENT_TYPE, KINDS
from llmbol_core.vm.heaptypes import TypedArena
from llmbol_core.vm.isa import WORD_SIZE, Mode
from llmbol_core.vm.jit.pacing import charge, goes_on
from llmbol_core.vm.jit.source import Big, W, Word, external, host, host_word, native, wide
from llmbol_core.vm.module import ABSENT, Operand
from llmbol_core.vm.objects import ARRAY, CHANNEL, MODULE
from llmbol_core.vm.remains import MARKED
from llmbol_core.vm.verification.guards import Guard, Of, Piece
from llmbol_core.vm.verification.origins import Use

SIZE, POINTERS, LOCKED = -4, -12, -20
"""Offsets of the size and the masks from that place."""
FAR = 64 * WORD_SIZE
"""Bytes that the masks cover."""
_EVERYWHERE = (1 << 64) - 1
_MOST = (1 << 31) - 1
_ROW = 6
_CELLS = 3
"""Where in a row the last links are kept that have passed."""
_FRAME, _INDIRECT, _LINK, _NUMBER, _IN_FRAME, _MARKED, _OF_SEVERAL = 1, 4, 8, 16, 32, 64, 128
_SOME = 1 << 12
"""Channels between two checks whether the program is to be stopped."""
_CHANNEL = 64
"""Fuel for looking at a channel: the bytes that could be copied meanwhile."""


class Wanted(NamedTuple):
    """What a guard requires of an object: its kind if not 0, where its type is, and the masks.

    ``at`` is 1 if only the kind matters. The pointers of a channel's values must be exactly those
    of the mask, as far as the values reach; the other mask is all ones then.
    """

    kind: int
    at: int
    least: int
    most: int
    pointers: int
    numbers: int


def wanted(guard: Guard) -> Wanted | None:
    """Return what a guard requires in the form of masks; None if they cannot express it."""
    kind = KINDS.get(guard.kind, 0)
    if guard.of in (Of.KIND, Of.LINK, Of.MARKED):
        return Wanted(kind, 1, 0, _MOST, 0, 0)
    if guard.of is Of.RESULT:
        return None
    if guard.of in (Of.SENT, Of.RECEIVED):
        return _of_channel(guard, kind)
    least, most = max((p.offset + p.size for p in guard.pieces), default=0), _MOST
    pointers = numbers = 0
    for piece in guard.pieces:
        mask = _mask(piece)
        if mask < 0:
            return None
        pointers |= mask if piece.use is Use.POINTER else 0
        numbers |= mask if piece.use is Use.WRITE else 0
    at = KIND if guard.of is Of.RECORD else ELEMENT_TYPE[guard.of]
    if guard.size:
        least, most = max(least, guard.size), guard.size
    return Wanted(kind, at, least, most, pointers, numbers)


def _mask(piece: Piece) -> int:
    """Return the mask of an access, 0 for reading a number, -1 if no mask can express it."""
    if piece.use is Use.READ:
        return 0
    if piece.use is Use.POINTER and piece.offset % WORD_SIZE:
        return -1
    first, end = piece.offset // WORD_SIZE, -(-(piece.offset + piece.size) // WORD_SIZE)
    return (1 << end) - (1 << first) if end <= FAR // WORD_SIZE else -1


def _of_channel(guard: Guard, kind: int) -> Wanted | None:
    if guard.link.mode is not Mode.NONE:
        return None
    found = [_mask(piece) for piece in guard.pieces if piece.offset < FAR]
    if -1 in found:
        return None
    window = sum(found)
    return Wanted(kind, ELEMENT_TYPE[guard.of], 0, min(guard.size, FAR), window, _EVERYWHERE)


def masks(size: int, pointers: Iterable[int], locked: Iterable[int]) -> list[int]:
    """Return the words before a type's map."""
    found = []
    for offsets in (locked, pointers):
        bits = sum(1 << at // WORD_SIZE for at in set(offsets) if at < FAR)
        found += [bits & 0xFFFFFFFF, bits >> 32]
    return [*found, size]


def type_maps(heap: TypedArena) -> array[int]:
    """Return the heap's types for native code: the index of each map, then the maps."""
    maps = array("I", [0] * len(heap.types))
    for number, (size, pointers) in enumerate(heap.types):
        maps.extend([0] * (len(maps) % 2))
        maps.extend(masks(*heap.offered(number), heap.locked(number)))
        maps[number] = len(maps)
        maps.extend([size, len(pointers), *pointers])
    return maps


class KnownLinks:
    """The places where the guards of one machine keep the links that have passed them."""

    def __init__(self) -> None:
        self._cells: dict[int, tuple[array[int], int]] = {}

    def add(self, guard: Guard, block: array[int], at: int) -> None:
        """Note where a guard keeps its links."""
        self._cells[id(guard)] = block, at

    def remember(self, guard: Guard, links: int, number: int) -> None:
        """Let a guard pass without Python when the same link of such a handle comes again."""
        block, at = self._cells.get(id(guard), (None, 0))
        if block is not None:
            block[at + 1] = block[at]
            block[at] = number << 32 | links

    def forget_links(self) -> None:
        """Let no guard of a link pass without Python."""
        for block, at in self._cells.values():
            block[at] = block[at + 1] = 0


class GuardTable:
    """The native interpreter's checks before instructions; ``place`` is the table's address."""

    def __init__(
        self, count: int, guards: Mapping[int, Sequence[Guard]], links: KnownLinks
    ) -> None:
        self._guards, self._links = guards, links
        self._blocks: dict[int, array[int]] = {}
        self._table = array("Q", bytes(8 * count)) if guards else array("Q", [0])
        self.place = self._table.buffer_info()[0]

    def enter(self, pc: int, handler: int, handlers: Mapping[str, int]) -> int:
        """Return the handler to call for an instruction whose own handler is given."""
        if pc not in self._guards:
            return handler
        guards = self._guards[pc]
        rows = [_row(guard) for guard in guards]
        if not all(rows):
            return handlers["python"]
        block = array("q", [handler, len(rows), *(word for row in rows for word in row or ())])
        for index, guard in enumerate(guards):
            if guard.of is Of.LINK:
                self._links.add(guard, block, 2 + _ROW * index + _CELLS)
        self._blocks[pc] = block
        self._table[pc] = block.buffer_info()[0]
        return handlers["guarded"]


def row_offset(index: int) -> int:
    """Return the offset of an instruction's guard from the address in the table."""
    return 16 + 8 * _ROW * index


_HOW = {Mode.FP: _FRAME, Mode.FP_INDIRECT: _FRAME | _INDIRECT, Mode.MP_INDIRECT: _INDIRECT}
"""How the place of a pointer is found, by the mode of the operand."""


def _row(guard: Guard) -> list[int] | None:
    where, of, pieces, size, kind, link, _, _ = guard
    how, place = _HOW.get(where.mode, 0), where.value | where.base << 32
    if of is Of.MARKED:
        return [how | _MARKED, place, 0, 0, 0, 0]
    if of is Of.LINK:
        how |= _LINK | (link.mode is Mode.IMMEDIATE) * _NUMBER
        how |= (link.mode is Mode.FP) * _IN_FRAME
        return [how, place, link.value, 0, 0, 0]
    words = _required(of, pieces, size, kind, link)
    if words is None:
        return None
    return [how | (of is Of.RECEIVED) * _OF_SEVERAL, place, *words]


@functools.lru_cache(maxsize=1 << 12)
def _required(
    of: Of, pieces: tuple[Piece, ...], size: int, kind: str, link: Operand
) -> tuple[int, ...] | None:
    """Return the words for what a guard requires, as many do; None if masks cannot express it."""
    asked = wanted(Guard(ABSENT, of, pieces, size, kind, link))
    if asked is None:
        return None
    kind_and_type = asked.kind << 32 | (asked.at & NIL)
    signed = [m - (1 << 64) if m >> 63 else m for m in (asked.pointers, asked.numbers)]
    return kind_and_type, asked.least | asked.most << 32, *signed


@external
def misfits(number: Word, least: Word, most: Word, pointers: Big, numbers: Big) -> bool:
    """Whether a type does not meet the requirements."""
    raise NotImplementedError


@native
def link_passes(row: Big, handle: Word, fp: Word, mp: Word) -> Word:
    """Whether a link is one of the last that have passed a guard."""
    how, number = host_word[row], host_word[row + 16]
    if not how & _NUMBER:
        number = W[number + (fp if how & _IN_FRAME else mp)]
    return known_link(row, handle, number)


@native
def known_link(row: Big, handle: Word, number: Word) -> Word:
    """Whether a numbered link is one of the last that have passed a guard."""
    if W[handle - 12] != MODULE:
        return 0
    key = wide(number) << 32 | wide(W[handle + 4])
    return 1 if host[row + 8 * _CELLS] == key or host[row + 8 * _CELLS + 8] == key else 0


@native
def passes(block: Big, fp: Word, mp: Word) -> Word:
    """Whether all guards of an instruction let it run."""
    count, row = host[block + 8], block + 16
    while count != 0:
        how = host_word[row]
        start = fp if how & _FRAME else mp
        if how & _INDIRECT:
            start = W[start + host_word[row + 12]]
        ref = W[start + host_word[row + 8]] if start != NIL else NIL
        if ref != NIL and not row_passes(row, ref, fp, mp):
            return 0
        row += _ROW * 8
        count -= 1
    return 1


@native
def row_passes(row: Big, ref: Word, fp: Word, mp: Word) -> Word:
    """Whether a guard lets an object pass."""
    if host_word[row] & _LINK:
        return link_passes(row, ref, fp, mp)
    if host_word[row] & _MARKED:
        return W[ref + WORK] & MARKED
    if host_word[row] & _OF_SEVERAL and W[ref - 12] == ARRAY:
        return channels_pass(row, ref)
    kind, at = host_word[row + 20], host_word[row + 16]
    if kind != 0 and W[ref - 12] != kind:
        return 0
    if at == 1:
        return 1
    least, most = host_word[row + 24], host_word[row + 28]
    return 0 if misfits(W[ref + at], least, most, host[row + 32], host[row + 40]) else 1


@native
def channels_pass(row: Big, array: Word) -> Word:
    """Whether values of an array's channels fit after their index: see ``misfit_of_channels``."""
    pointers, known, position = host[row + 32], -1, 0
    if pointers & 1 or misfits(W[array + 4], 4, 4, 1, host[row + 40]):
        return 0
    length, data = W[array], W[array + 12]
    while position < length:
        channel = W[data + 4 * position]
        if channel != NIL:
            if W[channel - 12] != CHANNEL:
                return 0
            number = W[channel]
            if number != known:
                if misfits(number, 0, host_word[row + 28] - 4, pointers >> 1, host[row + 40]):
                    return 0
                known = number
        position += 1
        if (position & _SOME - 1) == 0:
            charge(_SOME * _CHANNEL)
            if not goes_on():
                return 0
    charge(_CHANNEL * (position & _SOME - 1))
    return 1


MISFITS = f"""
; Whether a type has too few or too many bytes, not pointers here or not room for numbers there; or,
; if all words are to have room for numbers, not just these pointers.
define internal i1 @misfits(
 ptr %m, ptr %s, i32 %number, i32 %least, i32 %most, i64 %pointers, i64 %numbers) alwaysinline {{
 %map = call ptr @map(ptr %s, i32 %number)
 %sp = getelementptr i8, ptr %map, i64 {SIZE}
 %size = load i32, ptr %sp
 %short = icmp slt i32 %size, %least
 %long = icmp sgt i32 %size, %most
 %pp = getelementptr i8, ptr %map, i64 {POINTERS}
 %there = load i64, ptr %pp
 %both = and i64 %there, %pointers
 %lacking = icmp ne i64 %both, %pointers
 %lp = getelementptr i8, ptr %map, i64 {LOCKED}
 %locked = load i64, ptr %lp
 %hit = and i64 %locked, %numbers
 %over = icmp ne i64 %hit, 0
 %wrong = or i1 %lacking, %over
 %up = add i32 %size, 3
 %words = lshr i32 %up, 2
 %wz = zext i32 %words to i64
 %past = icmp ugt i64 %wz, 63
 %reach = shl i64 1, %wz
 %within = sub i64 %reach, 1
 %mask = select i1 %past, i64 -1, i64 %within
 %differs = xor i64 %there, %pointers
 %inside = and i64 %differs, %mask
 %unlike = icmp ne i64 %inside, 0
 %is_exact = icmp eq i64 %numbers, -1
 %other = select i1 %is_exact, i1 %unlike, i1 %wrong
 %a = or i1 %short, %long
 %r = or i1 %a, %other
 ret i1 %r
}}
"""
