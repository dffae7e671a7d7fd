"""Pointers whose objects the verifier does not know for sure: what comes of them is looked at.

Each of these programs forges a pointer if one conclusion of the verifier's (``evidence.py``,
``leftover.py``) is left out: that anything may be kept somewhere, that what is kept in two places
may be the same, that an address is used, that a branch leads somewhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm.test_attacks import CALL
from tests.vm.test_detours import Program, modules_of, said

_SENT = "new $5,36(fp)\n movp 36(fp),32(fp)\n"
_PAIR = "\n desc $8,8,(0,4)"
_UNKNOWN = (
    f"newcmp $8,$1,8(mp)\n {_SENT} send 32(fp),8(mp)\n frame $2,48(fp)\n recv 8(mp),32(48(fp))\n"
)
"""Receives pointers in a frame that was made, where nothing is known of the second one."""
_KEPT = (
    " beqw 92(fp),$0,x\n new $7,4(mp)\n x: movp 4(mp),32(fp)\n movw $77,8(32(fp))\n ret\n h: ret"
)
"""Takes what is kept for a record of numbers, as it would be if a branch went elsewhere."""
_RETURNS = "ret\n f: new $5,36(fp)\n movp 36(fp),0(16(fp))\n ret"
_CALLED = " call 48(fp),h\n ret\n h: movw $77,0(16(fp))\n ret"

UNSURE: dict[str, Program] = {
    "a pointer of which nothing is known, in the module data": (
        f"{_UNKNOWN} movp 36(48(fp)),4(mp)\n call 48(fp),h\n{_KEPT}{_PAIR}"
    ),
    "a pointer of which nothing is known, in a record": (
        f"{_UNKNOWN} new $3,40(fp)\n new $7,32(fp)\n movp 32(fp),4(40(fp))\n"
        " movp 36(48(fp)),4(40(fp))\n call 48(fp),h\n movp 4(40(fp)),32(fp)\n"
        f" movw $77,8(32(fp))\n ret\n h: ret{_PAIR}"
    ),
    "a slice of an array of which nothing is known, or an array of numbers": (
        f"{_UNKNOWN.replace('new $5', 'newa $1,$5')} movp 36(48(fp)),32(fp)\n call 48(fp),h\n"
        " slicea $0,$1,32(fp)\n beqw 92(fp),$0,x\n newa $1,$7,32(fp)\n"
        f" x: indx 32(fp),44(fp),$0\n movw $77,8(44(fp))\n ret\n h: ret{_PAIR}"
    ),
    "an object of another module's type": (
        "self 40(fp)\n mnewz 40(fp),$5,32(fp)\n beqw 92(fp),$0,x\n new $7,32(fp)\n"
        " x: movw $77,8(32(fp))\n ret"
    ),
    "an object of another module's type, in the module data": (
        f"self 40(fp)\n mnewz 40(fp),$5,4(mp)\n{_KEPT}"
    ),
    "a pointer of which nothing is known, passed where a record of numbers is, too": (
        f"{_UNKNOWN} call 48(fp),j\n frame $2,48(fp)\n new $7,36(48(fp))\n call 48(fp),j\n ret\n"
        f" j: movw $77,8(36(fp))\n ret{_PAIR}"
    ),
    "the second pointer of a value received in the module data": (
        f"newcmp $8,$1,40(fp)\n {_SENT} send 32(fp),40(fp)\n recv 40(fp),4(mp)\n"
        f"{_KEPT.replace('4(mp)', '8(mp)')}{_PAIR}"
    ),
    "a pointer received in a record that another function knows": (
        "new $3,32(fp)\n new $7,36(fp)\n movp 36(fp),4(32(fp))\n newcp $1,4(mp)\n"
        " new $5,36(fp)\n send 36(fp),4(mp)\n frame $2,52(fp)\n movp 32(fp),32(52(fp))\n"
        " call 52(fp),j\n movp 4(32(fp)),36(fp)\n movw $77,8(36(fp))\n ret\n"
        " j: recv 4(mp),4(32(fp))\n ret"
    ),
    "a result in the module data": (
        f"frame $2,48(fp)\n lea 4(mp),16(48(fp))\n call 48(fp),j\n{_KEPT}\n"
        " j: new $5,32(fp)\n movp 32(fp),0(16(fp))\n ret"
    ),
    "another module's result in the module data": (
        f"{CALL.format(' lea 4(mp),16(48(fp))')}{_KEPT}",
        _RETURNS,
    ),
    "another module's result in a record": (
        CALL.format(
            "new $3,32(fp)\n new $7,36(fp)\n movp 36(fp),4(32(fp))\n lea 4(32(fp)),16(48(fp))"
        )
        + " movp 4(32(fp)),36(fp)\n movw $77,8(36(fp))\n ret",
        _RETURNS,
    ),
    "a result of the module's own, in an element of an array that is not known": (
        CALL.format("newa $1,$4,32(48(fp))") + " ret",
        f"ret\n f: indx 32(fp),52(fp),$0\n frame $2,48(fp)\n lea 0(52(fp)),16(48(fp))\n{_CALLED}",
    ),
    "a result of the module's own, in a record that is not known": (
        CALL.format("new $5,32(48(fp))") + " ret",
        f"ret\n f: frame $2,48(fp)\n lea 8(32(fp)),16(48(fp))\n{_CALLED}",
    ),
    "a value received in a record that is not known": (
        CALL.format("new $5,32(48(fp))") + " ret",
        "ret\n f: newcw $1,36(fp)\n send $77,36(fp)\n recv 36(fp),8(32(fp))\n ret",
    ),
    "another handle in the place of the one that a frame was made for, behind a branch": (
        CALL.format(" load 4(mp),$0,32(fp)\n movp 40(fp),32(48(fp))\n movp 32(fp),36(48(fp))")
        + ' ret\n string @mp+4,"/c.dis"',
        (
            "ret\n f: beqw 92(fp),$1,x\n mframe 32(fp),$0,48(fp)\n lea 40(fp),16(48(fp))\n"
            " movp 36(fp),32(fp)\n jmp y\n x: mframe 32(fp),$0,48(fp)\n"
            " lea 40(fp),16(48(fp))\n y: mcall 48(fp),$0,32(fp)\n ret"
        ),
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "a result that others change before it is read again": (
        "newcw 8(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n"
        + CALL.format(" lea 4(mp),16(48(fp))\n movp 8(mp),36(48(fp))")
        + " ret\n h: new $5,32(fp)\n movp 32(fp),4(mp)\n send $1,8(mp)\n ret",
        (
            "ret\n f: new $7,32(fp)\n movp 32(fp),0(16(fp))\n recv 36(fp),60(fp)\n"
            " movp 0(16(fp)),40(fp)\n movw $77,8(40(fp))\n ret"
        ),
    ),
}


@pytest.mark.parametrize("what", UNSURE)
def test_what_is_not_sure_is_looked_at(tmp_path: Path, what: str) -> None:
    how = said(modules_of(UNSURE[what]), tmp_path)
    assert "type check: " in how
    assert "lies over a pointer" in how or "where a pointer is" in how
