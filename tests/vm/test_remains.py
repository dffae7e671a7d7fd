"""What a program finds where something has gone that it still has the address of: on all engines.

The modules are those of ``test_attacks.py``, whose variables are 4(mp) and 8(mp); 12(mp) stays nil,
and 16(mp) is "forged".
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbol_core.vm.engines import ENGINES
from tests.vm.forging import outcome
from tests.vm.test_attacks import assembled

ALT = "movw $0,60(fp)\n movw $1,64(fp)\n movw 4(mp),68(fp)\n lea 84(fp),72(fp)\n"
"""A table for the channel, or the array of channels, in a variable."""
PUT, DROP = "movp 16(mp),0(44(fp))\n", "movp 12(mp),4(mp)\n"
CLEAR = "movp 12(mp),32(fp)\n"
IS_NIL = "movp 0(44(fp)),36(fp)\n lenc 36(fp),56(fp)\n beqw 56(fp),$0,x\n raise 16(mp)\n x: ret"

# fmt: off
KEPT = {
    "an array that is replaced by the first of its elements": (
        "newa $2,$4,36(fp)\n newa $2,$4,32(fp)\n indx 32(fp),52(fp),$1\n newa $3,$6,0(52(fp))\n"
        f" indx 36(fp),44(fp),$0\n movp 32(fp),0(44(fp))\n {CLEAR} slicela 0(44(fp)),$0,36(fp)\n"
        " newa $5,$6,32(fp)\n newa $5,$6,40(fp)\n indx 36(fp),44(fp),$1\n"
        " lena 0(44(fp)),60(fp)\n beqw 60(fp),$3,x\n raise 16(mp)\n x: ret"),
    "an array in which a record is replaced that alone keeps it": (
        "newa $2,$4,4(mp)\n newa $2,$4,32(fp)\n indx 4(mp),44(fp),$0\n movp 32(fp),0(44(fp))\n"
        f" indx 32(fp),52(fp),$0\n movp 4(mp),0(52(fp))\n {CLEAR} newa $2,$4,40(fp)\n"
        f" indx 40(fp),52(fp),$1\n newa $3,$6,0(52(fp))\n {DROP}"
        " slicela 40(fp),$0,0(44(fp))\n newa $2,$4,32(fp)\n newa $2,$4,36(fp)\n ret"),
}
"""Arrays that last as long as the instruction that copies elements from or to them."""
EMPTY = {
    "an element of an array":
        f"newa $4,$4,4(mp)\n indx 4(mp),44(fp),$1\n {PUT} {DROP} {IS_NIL}",
    "an element of a slice":
        f"newa $4,$4,4(mp)\n slicea $1,$3,4(mp)\n indx 4(mp),44(fp),$1\n {PUT} {DROP} {IS_NIL}",
    "an element of an array in an array": (
        "newa $1,$4,4(mp)\n indx 4(mp),52(fp),$0\n newa $4,$4,0(52(fp))\n"
        f" indx 0(52(fp)),44(fp),$1\n {PUT} {DROP} {IS_NIL}"),
    "a field of a record":
        f"new $3,4(mp)\n lea 4(4(mp)),44(fp)\n {PUT} {DROP} {IS_NIL}",
    "a number in an element": (
        f"newa $4,$6,4(mp)\n indx 4(mp),44(fp),$1\n movw $5,0(44(fp))\n {DROP}"
        " beqw 0(44(fp)),$5,x\n raise 16(mp)\n x: ret"),
    "an array of channels": (
        "newa $1,$4,4(mp)\n indx 4(mp),44(fp),$0\n newcw $1,32(fp)\n send $7,32(fp)\n"
        f" movp 32(fp),0(44(fp))\n {ALT} {DROP} nbalt 60(fp),76(fp)\n beqw 76(fp),$1,x\n"
        " raise 16(mp)\n x: ret"),
}
NO_CHANNEL = {
    "a channel with a value":
        f"newcw $1,4(mp)\n send $7,4(mp)\n {ALT} {DROP} nbalt 60(fp),76(fp)\n ret",
    "one of two channels": (
        "newcw $1,4(mp)\n send $7,4(mp)\n newcw $1,8(mp)\n movw $0,60(fp)\n movw $2,64(fp)\n"
        f" movw 4(mp),68(fp)\n lea 84(fp),72(fp)\n movw 8(mp),76(fp)\n lea 88(fp),80(fp)\n {DROP}"
        " alt 60(fp),92(fp)\n ret"),
    "a channel that somebody waits at": (
        "newcw 4(mp)\n newcw 8(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n recv 8(mp),56(fp)\n"
        f" {ALT} {DROP} nbalt 60(fp),76(fp)\n ret\n"
        " h: send $1,8(mp)\n send $7,4(mp)\n ret"),
}
# fmt: on


@pytest.mark.parametrize("name", ["", *ENGINES])
def test_a_slice_that_has_gone_has_no_elements(tmp_path: Path, name: str) -> None:
    code = (
        "x: newa $100,$2,4(mp)\n slicea $3,$9,4(mp)\n indx 4(mp),44(fp),$2\n frame $2,48(fp)\n"
        " lea 4(44(fp)),16(48(fp))\n call 48(fp),h\n addw $1,60(fp),60(fp)\n"
        f" bltw 60(fp),$20,x\n ret\n h: {DROP} movw $77,0(16(fp))\n ret"
    )
    assert outcome({"a": assembled("a", code, {"a": code})}, tmp_path, name) == "ended"


@pytest.mark.parametrize("name", ["", *ENGINES])
@pytest.mark.parametrize("what", KEPT)
def test_what_is_copied_is_kept(tmp_path: Path, what: str, name: str) -> None:
    code = KEPT[what]
    assert outcome({"a": assembled("a", code, {"a": code})}, tmp_path, name) == "ended"


@pytest.mark.parametrize("name", ["", *ENGINES])
@pytest.mark.parametrize("what", [*EMPTY, *NO_CHANNEL])
def test_what_has_gone_is_nil(tmp_path: Path, what: str, name: str) -> None:
    code = EMPTY.get(what) or NO_CHANNEL[what]
    how = outcome({"a": assembled("a", code, {"a": code})}, tmp_path, name)
    assert how == "ended" if what in EMPTY else "dereference of nil" in how
