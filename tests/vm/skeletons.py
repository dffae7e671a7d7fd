"""The skeletons of ``smallscope.py``: programs with holes, and what may be put into each hole.

``nop`` marks a hole. ``data/letters.txt`` lists the letters, and says what they can name.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.vm.objects import DATA_DIRECTORY


class Skeleton(NamedTuple):
    """A program with holes, and the letters of each."""

    code: tuple[str, ...]
    """The modules a, b and c."""
    letters: tuple[tuple[str, ...], ...]
    is_alone: bool = True
    """Whether the first process runs nothing behind a trap in its hole."""
    is_row: bool = False
    """Whether the second hole, for one instruction of any form, follows the first one."""


def _letters(*headings: str) -> tuple[str, ...]:
    """Return the letters below some headings."""
    text = (DATA_DIRECTORY / "letters.txt").read_text()
    sections = dict(part.split("]\n") for part in text.split("\n[")[1:])
    return tuple(line for heading in headings for line in sections[heading].split("\n") if line)


_END = " ret\n skip: ret"
_READY = "newcw $2,32(fp)\n send $77,32(fp)\n newcp $2,4(mp)\n send 16(mp),4(mp)\n"
_PAIR = " desc $8,8,(0,4)"
_LOADED = "load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n mcall 48(fp),$0,40(fp)\n again: nop\n"

_UNKNOWN = (
    "newcmp $8,$1,8(mp)\n new $5,36(fp)\n movp 36(fp),32(fp)\n send 32(fp),8(mp)\n"
    " frame $2,48(fp)\n recv 8(mp),32(48(fp))\n movp 36(48(fp)),32(fp)\n call 48(fp),j\n"
    " new $7,36(fp)\n movw $0,60(fp)\n movw $1,64(fp)\n lea 84(fp),72(fp)\n"
)
"""Makes a pointer of which nothing is known, and the beginning of an alt table."""

SKELETONS: dict[str, Skeleton] = {
    "records": Skeleton(
        (f"again: nop\n{_END}",), (_letters("records", "moves", "behind", "branches"),)
    ),
    "arrays": Skeleton(
        (f"again: nop\n{_END}",), (_letters("arrays", "moves", "behind", "branches"),)
    ),
    "lists": Skeleton((f"again: nop\n{_END}\n{_PAIR}",), (_letters("lists", "branches"),)),
    "channels": Skeleton((f"again: nop\n{_END}\n{_PAIR}",), (_letters("channels", "branches"),)),
    "tables": Skeleton((f"{_READY} again: nop\n{_END}",), (_letters("tables"),)),
    "picks": Skeleton(
        (f"again: nop\n ret\n i: movw $2,0(32(fp))\n new $7,36(fp)\n movp 36(fp),32(fp)\n{_END}",),
        (_letters("picks"),),
    ),
    "results": Skeleton(
        ((f"new $7,4(mp)\n newcp $1,8(mp)\n send 16(mp),8(mp)\n again: nop\n ret\n h: nop\n ret\n"
         f" i: movw $77,0(16(fp))\n{_END}"),),
        (_letters("caller", "places", "branches"), _letters("callee")),
    ),
    "processes": Skeleton(
        ((f"newcw 8(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n again: nop\n ret\n h: nop\n ret\n"
         f" i: movp 12(mp),4(mp)\n movw $77,0(16(fp))\n{_END}"),),
        (_letters("first"), _letters("peer")),
        is_alone=False,
    ),
    "labels": Skeleton(
        (("new $7,32(fp)\n newcw $1,8(mp)\n send $1,8(mp)\n again: nop\n ret\n"
         " there: new $5,36(fp)\n ret\n i: movw $5,0(16(fp))\n ret\n skip: ret\n"
         " word @mp+20,2\n word @mp+24,0,1\n word @mp+36,1,0,5,0,1"),),
        (_letters("labels"),),
    ),
    "handlers": Skeleton(
        ((f"again: nop\n end: ret\n caught: nop\n{_END}\n"
         " i: movp 16(mp),0(16(fp))\n raise 16(mp)\n g: raise 16(mp)\n"
         " exception again,end,40,-1,0,0\n exctab *,caught"),),
        (_letters("handled"), _letters("handled")),
    ),
    "instructions": Skeleton(
        ((f"new $3,32(fp)\n frame $2,48(fp)\n lea 32(fp),16(48(fp))\n movp 32(fp),32(48(fp))\n"
         " call 48(fp),h\n movp 4(32(fp)),36(fp)\n ret\n h: nop\n nop\n ret\n"
         f" i: raise 16(mp)\n{_END}\n{_PAIR}\n"
         " word @mp+20,2\n word @mp+24,0,1\n word @mp+36,1,0,5,0,1"),),
        (_letters("prepared"), ()),
        is_row=True,
    ),
    "unknown": Skeleton(
        ((f"{_UNKNOWN} again: nop\n ret\n i: movw $77,0(16(fp))\n ret\n"
          f" j: movp 32(fp),4(mp)\n{_END}\n{_PAIR}"),),
        (_letters("unknown"),),
    ),
    "foreign": Skeleton(
        (f"{_LOADED} {_END}",
         ("ret\n f: nop\n ret\n i: movw $77,0(16(fp))\n movp 32(fp),36(fp)\n ret\n"
          f" skip: ret\n{_PAIR}")),
        (_letters("foreign"), _letters("other")),
    ),
}  # fmt: skip
