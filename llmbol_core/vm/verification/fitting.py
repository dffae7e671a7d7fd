"""Whether accesses to a value fit a layout, and whether two layouts agree."""

from __future__ import annotations

from typing import NamedTuple

from llmbol_core.vm.isa import WORD_SIZE
from llmbol_core.vm.verification.origins import Access, Use
from llmbol_core.vm.verification.structure import Layout

ALIGNED = (2, 4, 8)
"""Sizes of numbers; bytes may be copied from anywhere."""


class Wanted(NamedTuple):
    """Where a value for an origin is stored or taken from: the layout there, and an offset."""

    layout: Layout
    offset: int
    writes: bool


def misfit(access: Access, offset: int, layout: Layout) -> str:
    """Return why an access does not fit a layout; empty if it fits."""
    if not 0 <= offset <= layout.size - access.size:
        return f"{access.size} bytes at {offset} reach beyond the {layout.size} there"
    if access.use is Use.WHOLE and access.size != layout.size:
        return f"an element has {layout.size} bytes, not {access.size}"
    if access.use is Use.POINTER:
        return "" if offset in layout.pointers else f"there is no pointer at {offset}"
    if access.size in ALIGNED and offset % min(access.size, WORD_SIZE):
        return f"{access.size} bytes at {offset} are not aligned"
    if access.use is Use.WRITE and layout.overlaps(offset, access.size):
        return f"a number at {offset} lies over a pointer"
    return ""


def mismatch(value: Layout, wanted: Wanted) -> str:
    """Return why a channel's value does not fit a place; empty if it fits."""
    layout, start = wanted.layout, wanted.offset
    if start + value.size > layout.size:
        return f"{value.size} bytes at {start} reach beyond the {layout.size} there"
    end = start + value.size
    there = {p - start for p in layout.pointers if start - WORD_SIZE < p < end}
    missing = value.pointers - there
    if wanted.writes:
        missing |= there - value.pointers
    if missing:
        return f"the channel and the place disagree about the pointer at {min(missing) + start}"
    return ""
