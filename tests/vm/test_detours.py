"""Programs that make pointers of numbers by detours: refused, or stopped before they do.

They are framed as those of ``test_attacks.py`` are, and run in the interpreter of ``oracle.py``,
which sees whatever is not what it is taken for, even where nothing comes of it. Each goes with what
the verifier, the linker or a guard says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbol_core.errors import VerifyError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.verifier import prove_module
from tests.vm.forging import Modules, outcome
from tests.vm.test_attacks import CALL, assembled

Program = str | tuple[str, ...]
"""The code of module a, or those of a, of b, which it loads, and of c, which that loads."""
PASSED = CALL.format("movp 32(fp),32(48(fp))") + " ret"
ARRAY = (
    "newa $4,$7,36(fp)\n newcw $1,32(fp)\n send $77,32(fp)\n"
    + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))")
    + " ret"
)
DATA = "self 36(fp)\n newcp $1,32(fp)\n send 36(fp),32(fp)\n" + CALL.format(
    " movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))"
)
TABLE = (
    DATA.replace("newcp", "newcw").replace("send 36(fp)", "send $4")
    + " case $1,24(mp)\n x: ret\n word @mp+24,1,0,5,x,x\n"
    + ' link -1,-1,0,".mp"'
)
WAITED = "movw $0,56(fp)\n x: addw $1,56(fp)\n bltw 56(fp),$3,x"
NO_RECORD = "type check: the address leads to no record and to no element"
ONE = "movw $0,60(fp)\n movw $1,64(fp)\n"
"""The beginning of an alt table that receives from one channel."""
RECORD = "h: new $3,32(fp)\n new $7,36(fp)\n movp 36(fp),4(32(fp))\n movp 32(fp),4(mp)\n"
"""A function that keeps a record with a pointer to 16 bytes of numbers."""
MADE = "frame $2,48(fp)\n call 48(fp),h\n"
ON = CALL.format(" lea 0(16(fp)),16(48(fp))")
FIVE = "ret\n f: new $5,32(fp)\n movp 32(fp),0(16(fp))\n ret"
SHARED = ONE + "movw 4(mp),68(fp)\n lea 0(16(fp)),72(fp)\n alt 60(fp),76(fp)\n ret"
"""The end of one function and all of another, h: a number is received where the result goes."""
SENT = "ret\n f: new $5,36(fp)\n send 36(fp),32(fp)\n ret"
"""A function that returns, or sends, a record of another type."""
CHANGED = (
    "new $5,40(fp)\n movp 40(fp),4(32(fp))\n movp 4(mp),36(fp)\n movp 4(36(fp)),40(fp)\n"
    " movw $77,8(40(fp))\n ret"
)
"""The pointer in the record changes; who knows the record takes it for what it was."""
OVER = "type check: a number at 8 lies over a pointer"
UNKNOWN = "52(fp) is not known to hold an address"
BEHIND = "52(fp) holds the word behind an address, at 0, no address"
NO_CHANNEL = "68(fp) is not known to hold a channel"

# fmt: off
DETOURS: dict[str, tuple[Program, str]] = {
    # Bytes that begin inside of a pointer.
    "a value over part of a variable": (
        "movmp 60(fp),$6,18(mp)\n movp 16(mp),36(fp)\n ret",
        "the value and the place disagree about the pointer at -2 behind 18"),
    "a value over part of a field": (
        "new $3,32(fp)\n movmp 60(fp),$6,5(32(fp))\n movp 4(32(fp)),36(fp)\n ret",
        "the value and the place disagree about the pointer at -1 behind 5"),
    "a byte received into a pointer of the frame": (
        "newcb $1,32(fp)\n send $77,32(fp)\n movp 16(mp),36(fp)\n recv 32(fp),37(fp)\n ret",
        "the channel and the place disagree about the pointer at 36"),
    "a byte received into a variable": (
        "newcb $1,32(fp)\n send $77,32(fp)\n recv 32(fp),17(mp)\n ret",
        "the channel and the place disagree about the pointer at 16"),
    "a byte received into a field": (
        "newcb $1,32(fp)\n send $77,32(fp)\n new $3,36(fp)\n recv 32(fp),5(36(fp))\n ret",
        "the channel and the place disagree about the pointer at 4"),
    "a byte received by alt into a pointer": (
        (f"newcb $1,32(fp)\n send $77,32(fp)\n {ONE} movw 32(fp),68(fp)\n lea 37(fp),72(fp)\n"
        " alt 60(fp),76(fp)\n ret"), "the channel and the place disagree about the pointer at 36"),
    "a byte returned into a pointer of the frame": (
        ("movp 16(mp),32(fp)\n" + CALL.format(" lea 33(fp),16(48(fp))") + " ret",
         "ret\n f: cvtwb $77,0(16(fp))\n ret"), "it returns 1 bytes at 0, where a pointer is,"),
    "a byte returned into a variable": (
        (CALL.format(" lea 17(mp),16(48(fp))") + " ret",
         "ret\n f: cvtwb $77,0(16(fp))\n ret"), "it returns 1 bytes at 0, where a pointer is,"),
    "a byte received into a field, both unknown": (
        ("new $3,36(fp)\n movp 16(mp),4(36(fp))\n newcb $1,32(fp)\n send $77,32(fp)\n"
         + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))") + " ret",
         "ret\n f: recv 36(fp),5(32(fp))\n ret"), "disagree about the pointer at -1"),
    "the number of a channel in an array, over part of a pointer": (
        ("newcw $1,32(fp)\n send $77,32(fp)\n newa $1,$4,36(fp)\n indx 36(fp),52(fp),$0\n"
         " movp 32(fp),0(52(fp))\n" + CALL.format(" movp 36(fp),32(48(fp))") + " ret",
         f"ret\n f: {ONE} movw 32(fp),68(fp)\n lea 41(fp),72(fp)\n alt 60(fp),76(fp)\n ret"),
        "would be written over a pointer"),
    "pointers that are not where pointers are": (
        ("new $8,32(fp)\n" + PASSED + "\n desc $8,16,(4,8)",
         "ret\n f: movmp 5(32(fp)),$4,36(fp)\n ret"), "5(32(fp)),$4,36(fp): 5 is not aligned"),
    # The end of a value whose size is no multiple of a word.
    "half of a pointer of a frame for another module": (
        (CALL.format(" movmp 60(fp),$8,44(48(fp))") + ' ret\n desc $8,6,"00"',
         'ret\n g: ret\n f: ret\n desc $8,96,(32,36,48)\n link 8,g,1,"f"'),
        "a caller stores 6 bytes at 44, where a pointer is,"),
    "what lies behind a frame for another module": (
        (CALL.format(" movmp 60(48(fp)),$8,64(fp)") + ' ret\n desc $8,20,"00"',
         'ret\n g: ret\n f: ret\n desc $8,64,(32,36)\n link 8,g,1,"f"'),
        "a caller stores 20 bytes at 60, beyond the 64 in its frame"),
    # The header of an array that is taken for a record.
    "a value received into the header of an array": (
        (ARRAY, "ret\n f: lea 4(32(fp)),44(fp)\n recv 36(fp),0(44(fp))\n ret"), NO_RECORD),
    "a value received by alt into the header of an array": (
        (ARRAY, (f"ret\n f: {ONE} movw 36(fp),68(fp)\n lea 4(32(fp)),72(fp)\n alt 60(fp),76(fp)\n"
         " ret")), NO_RECORD),
    "a value sent from the header of an array": (
        (ARRAY, "ret\n f: lea 4(32(fp)),44(fp)\n send 0(44(fp)),36(fp)\n ret"), NO_RECORD),
    "a result in the header of an array": (
        (ARRAY, ("ret\n f: frame $2,48(fp)\n lea 4(32(fp)),16(48(fp))\n movp 36(fp),36(48(fp))\n"
         " call 48(fp),h\n ret\n h: recv 36(fp),0(16(fp))\n ret")), NO_RECORD),
    "the header of an array or one of its elements": (
        (ARRAY, ("ret\n f: beqw 92(fp),$0,x\n indx 32(fp),44(fp),$0\n jmp y\n"
         " x: lea 0(32(fp)),44(fp)\n y: recv 36(fp),0(44(fp))\n ret")), NO_RECORD),
    # Module data, of which others may not know as much as its type tells.
    "a pointer received into module data that is not exported": (
        (DATA + " ret", (f"ret\n f: movw 0(32(fp)),52(fp)\n lea 4(52(fp)),44(fp)\n {WAITED}\n"
         " recv 36(fp),0(44(fp))\n ret")), NO_RECORD),
    "a number received into a table of exported data": (
        (TABLE, "ret\n f: movw 0(32(fp)),52(fp)\n recv 36(fp),36(52(fp))\n ret"),
        "where there is room for 0"),
    "a result in a table of exported data": (
        (TABLE, (f"ret\n f: movw 0(32(fp)),52(fp)\n lea 36(52(fp)),44(fp)\n {WAITED}\n"
         " frame $2,48(fp)\n lea 0(44(fp)),16(48(fp))\n movp 36(fp),36(48(fp))\n call 48(fp),h\n"
         " ret\n h: recv 36(fp),0(16(fp))\n ret")), "beyond the 0 where a caller"),
    # Words that are taken for what they are not known to be.
    "an element's word as the address of module data": (
        ("newa $4,$7,32(fp)\n indx 32(fp),44(fp),$0\n movw $4096,0(44(fp))\n"
        " movw 0(44(fp)),52(fp)\n movw $77,4(52(fp))\n ret"), UNKNOWN),
    "the word of an unknown element as the address of module data": (
        ("newa $4,$7,32(fp)\n" + PASSED, ("ret\n f: indx 32(fp),44(fp),$0\n movw 0(44(fp)),52(fp)\n"
         " movw $77,4(52(fp))\n ret")), BEHIND),
    "a field's word as the address of module data": (
        ("new $7,32(fp)\n" + PASSED, ("ret\n f: lea 0(32(fp)),44(fp)\n movw 0(44(fp)),52(fp)\n"
         " movw $77,4(52(fp))\n ret")), BEHIND),
    "the word where the result goes as the address of module data": (
        ("frame $2,48(fp)\n lea 60(fp),16(48(fp))\n call 48(fp),h\n ret\n"
        " h: movw 0(16(fp)),52(fp)\n movw $77,4(52(fp))\n ret"), UNKNOWN),
    "a field's word as a channel": (
        ("new $7,32(fp)\n movw $4096,8(32(fp))\n" + PASSED,
         f"ret\n f: {ONE} movw 8(32(fp)),68(fp)\n lea 84(fp),72(fp)\n nbalt 60(fp),76(fp)\n ret"),
        "type check: there is no pointer at 8"),
    "an element's word as a channel": (
        ("newa $1,$7,32(fp)\n indx 32(fp),44(fp),$0\n movw $4096,8(44(fp))\n" + PASSED,
         (f"ret\n f: indx 32(fp),44(fp),$0\n {ONE} movw 8(44(fp)),68(fp)\n lea 84(fp),72(fp)\n"
         " nbalt 60(fp),76(fp)\n ret")), "type check: there is no pointer at 8"),
    "one of two words as a channel": (
        ("new $7,32(fp)\n movw $4096,8(32(fp))\n" + PASSED,
         (f"ret\n f: {ONE} lea 84(fp),72(fp)\n new $5,36(fp)\n newcw $1,8(36(fp))\n"
         " beqw 92(fp),$1,x\n movw 8(32(fp)),68(fp)\n jmp y\n x: movw 8(36(fp)),68(fp)\n"
         " y: nbalt 60(fp),76(fp)\n ret")), "type check: there is no pointer at 8"),
    "the word of a frame that was made as a channel": (
        (f"frame $2,48(fp)\n movw $4096,44(48(fp))\n {ONE} movw 44(48(fp)),68(fp)\n"
        " lea 84(fp),72(fp)\n nbalt 60(fp),76(fp)\n call 48(fp),h\n ret\n h: ret"), NO_CHANNEL),
    "what is where the result goes as a channel": (
        ("movp 16(mp),36(fp)\n frame $2,48(fp)\n lea 36(fp),16(48(fp))\n call 48(fp),h\n ret\n"
        f" h: beqw 92(fp),$0,x\n newcw $1,0(16(fp))\n x: {ONE} movw 0(16(fp)),68(fp)\n"
        " lea 84(fp),72(fp)\n nbalt 60(fp),76(fp)\n ret"), NO_CHANNEL),
    # A table that a function of the same module writes as its result.
    "an own result over a table": (
        ("frame $2,48(fp)\n lea 20(mp),16(48(fp))\n call 48(fp),h\n case $1,24(mp)\n x: ret\n"
        " h: movw $6,16(16(fp))\n ret\n word @mp+24,1,0,5,x,x"),
        "a table that is jumped through would be written at 36"),
    # Pointers from others, in fields of records that are made further down.
    "a result in a field": (
        ((f"{MADE}{CALL.format(' lea 4(4(mp)),16(48(fp))')} movp 4(4(mp)),36(fp)\n"
         f" movw $77,8(36(fp))\n ret\n {RECORD} ret"),
         "ret\n f: new $5,32(fp)\n movp 32(fp),0(16(fp))\n ret"), OVER),
    "a value received in a field": (
        ((f"{MADE} frame $2,48(fp)\n call 48(fp),i\n recv 8(mp),4(4(mp))\n movp 4(4(mp)),36(fp)\n"
         f" movw $77,8(36(fp))\n ret\n {RECORD} newcp $1,8(mp)\n ret\n"
         f" i: {CALL.format(' movp 8(mp),32(48(fp))')} ret"),
         "ret\n f: new $5,36(fp)\n send 36(fp),32(fp)\n ret"), OVER),
    "a result that is passed on into a variable": (
        ((f"new $7,8(mp)\n frame $2,48(fp)\n lea 8(mp),16(48(fp))\n call 48(fp),g\n"
         f" movp 8(mp),36(fp)\n movw $77,8(36(fp))\n ret\n g: {ON} ret"), FIVE), OVER),
    "a result that is passed on into a field": (
        ((f"{MADE} frame $2,48(fp)\n lea 4(4(mp)),16(48(fp))\n call 48(fp),g\n"
         f" movp 4(4(mp)),36(fp)\n movw $77,8(36(fp))\n ret\n {RECORD} ret\n g: {ON} ret"), FIVE),
        OVER),
    "a result that is received into a variable": (
        ((f"newcp $1,4(mp)\n new $7,8(mp)\n frame $2,48(fp)\n lea 8(mp),16(48(fp))\n"
         f" call 48(fp),g\n movp 8(mp),36(fp)\n movw $77,8(36(fp))\n ret\n"
         f" g: frame $2,48(fp)\n call 48(fp),i\n recv 4(mp),0(16(fp))\n ret\n"
         f" i: {CALL.format(' movp 4(mp),32(48(fp))')} ret"), SENT), OVER),
    "a result that is received into a field": (
        ((f"{MADE} newcp $1,8(mp)\n frame $2,48(fp)\n lea 4(4(mp)),16(48(fp))\n call 48(fp),g\n"
         f" movp 4(4(mp)),36(fp)\n movw $77,8(36(fp))\n ret\n {RECORD} ret\n"
         f" g: frame $2,48(fp)\n call 48(fp),i\n recv 8(mp),0(16(fp))\n ret\n"
         f" i: {CALL.format(' movp 8(mp),32(48(fp))')} ret"), SENT), OVER),
    # The address for a result in code that belongs to two functions.
    "a result that alt receives in the code of two functions": (
        ("newcw $1,4(mp)\n send $77,4(mp)\n new $3,32(fp)\n frame $2,48(fp)\n"
        f" lea 4(32(fp)),16(48(fp))\n call 48(fp),h\n h: {SHARED}"),
        "type check: it returns 4 bytes at 0, where a pointer is,"),
    "a result that alt receives, of a function that has none": (
        ("newcw $1,4(mp)\n send $77,4(mp)\n new $3,32(fp)\n frame $2,48(fp)\n"
        f" lea 8(32(fp)),16(48(fp))\n call 48(fp),h\n h: {SHARED}"), "dereference of nil"),
    # A record, known as one in a variable, that is in a slot of which nothing is known.
    "a record where a result could be": (
        ((f"{MADE} movp 4(mp),32(fp)\n load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n"
         f" lea 28(fp),16(48(fp))\n mcall 48(fp),$0,40(fp)\n {CHANGED}\n {RECORD} ret"),
         "ret\n f: movw $3,0(16(fp))\n ret"), OVER),
    "a record that is in a slot on one way only": (
        (f"{MADE} newcw $1,8(mp)\n beqw 92(fp),$0,x\n recv 8(mp),28(fp)\n jmp y\n"
        f" x: movp 4(mp),36(fp)\n y: movp 36(fp),32(fp)\n {CHANGED}\n {RECORD} ret"), OVER),
    # What a function leaves as it is where it could return something.
    "an argument received into a local": (
        ("newcmp $8,$1,4(mp)\n new $5,36(fp)\n movp 36(fp),32(fp)\n send 32(fp),4(mp)\n"
         + CALL.format(" recv 4(mp),32(48(fp))") + " ret\n desc $8,8,(0,4)",
         ("ret\n f: frame $2,48(fp)\n lea 36(fp),16(48(fp))\n call 48(fp),h\n movw $77,8(36(fp))\n"
         " ret\n h: beqw 60(fp),$0,z\n new $7,32(fp)\n movp 32(fp),0(16(fp))\n z: ret")), OVER),
}
# fmt: on


def modules_of(code: Program) -> Modules:
    """Return a program as modules."""
    texts = dict(zip("abc", [code] if isinstance(code, str) else code, strict=False))
    return {letter: assembled(letter, text, texts) for letter, text in texts.items()}


def said(modules: Modules, folder: Path) -> str:
    """Return why a program is refused, or else what comes of it."""
    try:
        for module in modules.values():
            prove_module(module)
    except VerifyError as error:
        return str(error)
    return outcome(modules, folder)


@pytest.mark.parametrize("what", DETOURS)
def test_detours_lead_nowhere(tmp_path: Path, what: str) -> None:
    code, why = DETOURS[what]
    assert why in said(modules_of(code), tmp_path)


HONEST: dict[str, Program] = {
    "an argument that is used as a variable for results": (
        CALL.format("movp 0(mp),32(48(fp))\n lea 56(fp),16(48(fp))") + " bnew 56(fp),$6,bad\n ret\n"
        " bad: raise 16(mp)",
        (
            "ret\n f: frame $2,48(fp)\n lea 32(fp),16(48(fp))\n call 48(fp),h\n"
            " lenc 32(fp),0(16(fp))\n ret\n h: movp 16(mp),0(16(fp))\n ret"
        ),
    ),
    "an argument that is used as a variable for results of others": (
        CALL.format("movp 0(mp),32(48(fp))\n lea 56(fp),16(48(fp))") + " bnew 56(fp),$6,bad\n ret\n"
        " bad: raise 16(mp)",
        (
            "ret\n f: self 40(fp)\n mframe 40(fp),$-2,48(fp)\n lea 32(fp),16(48(fp))\n"
            " mcall 48(fp),$-2,40(fp)\n lenc 32(fp),0(16(fp))\n ret\n"
            " h: movp 16(mp),0(16(fp))\n ret\n"
            ' link 2,h,2,"h"'
        ),
    ),
    "bytes beside a pointer": (
        "newcb $1,32(fp)\n send $7,32(fp)\n recv 32(fp),47(fp)\n newcmp $8,$1,36(fp)\n"
        " send 45(fp),36(fp)\n recv 36(fp),25(mp)\n movmp 25(mp),$8,45(fp)\n"
        ' cvtbw 47(fp),56(fp)\n beqw 56(fp),$7,x\n raise 16(mp)\n x: ret\n desc $8,3,"00"'
    ),
    "results and values in exported data before a table": (
        DATA.replace("newcp", "newcw").replace("send 36(fp)", "send $4")
        + " addw 20(mp),24(mp),56(fp)\n beqw 56(fp),$8,x\n raise 16(mp)\n"
        ' x: case $1,28(mp)\n y: ret\n word @mp+28,1,0,5,y,y\n link -1,-1,0,".mp"',
        (
            "ret\n f: frame $2,48(fp)\n movp 36(fp),36(48(fp))\n movw 0(32(fp)),52(fp)\n"
            " lea 20(52(fp)),16(48(fp))\n call 48(fp),h\n send $4,36(fp)\n"
            " recv 36(fp),24(52(fp))\n ret\n h: recv 36(fp),0(16(fp))\n ret"
        ),
    ),
    "a result that is passed on by the code of two functions": (
        (
            "new $3,32(fp)\n frame $2,48(fp)\n lea 8(32(fp)),16(48(fp))\n call 48(fp),h\n"
            " frame $2,48(fp)\n lea 60(fp),16(48(fp))\n call 48(fp),i\n"
            " addw 8(32(fp)),60(fp),60(fp)\n beqw 60(fp),$6,x\n raise 16(mp)\n x: ret\n"
            f" i: jmp j\n h: jmp j\n j: {ON} ret"
        ),
        "ret\n f: movw $3,0(16(fp))\n ret",
    ),
    "a channel in a field of an element": (
        (
            f"newa $2,$5,32(fp)\n indx 32(fp),44(fp),$1\n newcw $1,8(44(fp))\n send $7,8(44(fp))\n"
            f" {CALL.format(' movp 32(fp),32(48(fp))')} ret"
        ),
        (
            f"ret\n f: indx 32(fp),44(fp),$1\n {ONE} movw 8(44(fp)),68(fp)\n lea 84(fp),72(fp)\n"
            " alt 60(fp),76(fp)\n beqw 84(fp),$7,x\n raise 16(mp)\n x: ret"
        ),
    ),
}


@pytest.mark.parametrize("what", HONEST)
def test_honest_programs_run(tmp_path: Path, what: str) -> None:
    modules = modules_of(HONEST[what])
    for engine in ("", "jit"):
        assert outcome(modules, tmp_path, engine) == "ended"


CHECKED = """
    load 0(mp),$0,32(fp)
    frame $1,48(fp)
    movp 32(fp),32(48(fp))
    lea 32(fp),16(48(fp))
    call 48(fp),checked
    load 4(mp),$1,36(fp)
    frame $1,48(fp)
    movp 36(fp),32(48(fp))
    lea 36(fp),16(48(fp))
    call 48(fp),checked
    mframe 32(fp),$0,48(fp)
    lea 60(fp),16(48(fp))
    mcall 48(fp),$0,32(fp)
    mframe 36(fp),$0,48(fp)
    lea 40(fp),16(48(fp))
    mcall 48(fp),$0,36(fp)
    lenc 40(fp),64(fp)
    addw 60(fp),64(fp),64(fp)
    beqw 64(fp),$9,end
    raise 8(mp)
end: ret
checked: movp 32(fp),0(16(fp))
    ret
    module A
    entry 0,1
    desc $0,12,(0,4,8)
    desc $1,96,(32,36,40)
    var @mp,12
    link 1,0,0x4244b354,"init"
    string @mp+0,"/b.dis"
    string @mp+4,"/c.dis"
    string @mp+8,"forged"
    ldts @ldt,2
    word @ldt+0,1
    ext @ldt+4,1,"f"
    word @ldt+8,1
    ext @ldt+12,1,"f"
"""


def test_handles_of_several_modules_go_through_one_function(tmp_path: Path) -> None:
    """A polymorphic function, as many programs have one, looks whether a module was loaded."""
    texts = {"b": "ret\n f: movw $3,0(16(fp))\n ret", "c": "ret\n f: movp 16(mp),0(16(fp))\n ret"}
    modules = {letter: assembled(letter, text, texts) for letter, text in texts.items()}
    modules["a"] = parse_assembly(CHECKED, "a")
    for engine in ("", "jit"):
        assert outcome(modules, tmp_path, engine) == "ended"
