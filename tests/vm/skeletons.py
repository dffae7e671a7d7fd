"""The skeletons of ``smallscope.py``: programs with holes, and what may be put into each hole.

``nop`` marks a hole. ``data/letters.txt`` lists the letters, and says what they can name.
"""

from __future__ import annotations

from typing import NamedTuple

from llmbol_core.builtins import HOST_MODULES
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
_DATA = "movw 0(40(fp)),44(fp)\n again:"
"""Takes the address of the data of the module that was loaded."""

_ODD = f'{_PAIR}\n desc $9,8,"00"\n desc $10,6,"00"\n desc $11,40,(36)\n desc $12,4,"00"'
"""Types of a real, of sizes that are no whole words, and with a pointer at the end."""

_CASES = f"""
newcmp $8,$1,8(mp)\n send 32(fp),8(mp)\n movp 16(mp),4(mp)\n again: nop\n ret
there: new $5,36(fp)\n ret\n i: movp 16(mp),0(16(fp))\n movw $5,0(16(fp))\n{_END}
module A
entry 0,1
desc $0,128,(0,4,8,12,16,40,44,52,56)
desc $1,96,(32,36,40)
desc $2,96,(32,36,40)
desc $3,16,(4)
desc $4,4,(0)
desc $5,16,(8)
desc $6,8,"00"
desc $7,16,"00"
desc $8,8,(0,4)
var @mp,128
link 1,0,0x4244b354,"init"
string @mp+16,"forged"
word @mp+36,2
string @mp+40,"f"
string @mp+44,"g"
word @mp+48,there
string @mp+52,"x"
word @mp+60,again,again
word @mp+72,1
long @mp+80,5,9
word @mp+96,there
word @mp+104,again
"""
"""Tables of strings and of bigs, the last ones in a module of its own."""

_UNKNOWN = (
    "newcmp $8,$1,8(mp)\n new $5,36(fp)\n movp 36(fp),32(fp)\n send 32(fp),8(mp)\n"
    " frame $2,48(fp)\n recv 8(mp),32(48(fp))\n movp 36(48(fp)),32(fp)\n call 48(fp),j\n"
    " new $7,36(fp)\n movw $0,60(fp)\n movw $1,64(fp)\n lea 84(fp),72(fp)\n"
)
"""Makes a pointer of which nothing is known, and the beginning of an alt table."""


def _built_in(name: str, *functions: str) -> str:
    """Return the beginning of a module that has loaded a built-in one, and its list of imports."""
    known = HOST_MODULES[name].functions
    found = [f for function in functions if (f := known.find(function))]
    imports = "".join(f' ext @ldt+0,{f.signature},"{f.name}"\n' for f in found)
    return (
        f' string @mp+4,"{name}"\n string @mp+8,"%s %d\\n"\n word @ldt+0,{len(found)}\n{imports}'
        f"{_ODD}\n load 4(mp),$0,40(fp)\n again: nop\n{_END}"
    )


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
    "slices": Skeleton((f"again: nop\n{_END}",), (_letters("slices"),)),
    "bytes": Skeleton((f"again: nop\n{_END}\n{_ODD}",), (_letters("bytes"),)),
    "maps": Skeleton(
        ((f"self 40(fp)\n again: nop\n ret\n p: movp 32(fp),0(16(fp))\n{_END}\n"
          f" {_ODD.replace(chr(34) + '00' + chr(34), '(4)', 1)}"),),
        (_letters("maps"),),
    ),
    "cases": Skeleton((_CASES,), (_letters("cases"),)),
    "raising": Skeleton(
        ((f"again: nop\n end: ret\n caught: nop\n ret\n named: nop\n{_END}\n"
          f" g: movp 16(mp),0(16(fp))\n raise 4(mp)\n{_PAIR}\n"
          ' exception again,end,40,-1,2,1\n exctab "forged*",named\n exctab "array*",caught\n'
          " exctab *,caught"),),
        (_letters("raising"), _letters("catching"), _letters("catching")),
    ),
    "waiting": Skeleton(
        ((f"newcw 8(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n new $7,4(mp)\n lea 8(4(mp)),44(fp)\n"
          f" again: nop\n end: ret\n caught: nop\n{_END}\n h: nop\n ret\n"
          " g: recv 8(mp),0(16(fp))\n raise 16(mp)\n"
          " exception again,end,40,-1,0,0\n exctab *,caught"),),
        (_letters("waiting"), _letters("woken"), _letters("disturbing")),
        is_alone=False,
    ),
    "owning": Skeleton(
        (f"{_LOADED.replace('again:', _DATA)} {_END}\n{_PAIR}",
         (f"ret\n f: nop\n{_END}\n i: movw $77,0(16(fp))\n ret\n word @mp+20,2\n"
          f' word @mp+24,0,1\n link -1,-1,0,".mp"\n{_PAIR}')),
        (_letters("owning"), _letters("owned")),
    ),
    "passing": Skeleton(
        (f"{_LOADED} {_END}",
         ("ret\n f: load 0(mp),$0,40(fp)\n nop\n ret\n"
          f" i: movw $77,0(16(fp))\n{_END}"),
         f"ret\n f: nop\n{_END}"),
        (_letters("passing"), _letters("between"), _letters("returning")),
    ),
    "linking": Skeleton(
        ((' word @ldt+0,2\n ext @ldt+0,1,"f"\n ext @ldt+0,2,"g"\n load 0(mp),$0,40(fp)\n'
          f" again: nop\n ret\n i: ret\n{_END}\n desc $8,64,(36)\n desc $9,128,(32,36,40,100)"),
         f'ret\n f: nop\n ret\n g: nop\n{_END}\n desc $8,64,(36)\n link 8,g,2,"g"'),
        (_letters("linking"), _letters("linked"), _letters("linked")),
    ),
    "handles": Skeleton(
        (f'{_LOADED} ret\n k: nop\n{_END}\n link 2,k,5,"k"', f"ret\n f: nop\n{_END}"),
        (_letters("handles"), _letters("visited"), _letters("back")),
    ),
    "given": Skeleton(
        (_built_in("$Sys", "tokenize", "utfbytes", "char2byte", "print", "sprint", "byte2char",
                   "fildes", "aprint"),),
        (_letters("given"),),
    ),
    "computed": Skeleton(
        (_built_in("$Math", "dot", "sort", "norm2", "export_int", "gemm", "import_int"),),
        (_letters("computed"),),
    ),
}  # fmt: skip
