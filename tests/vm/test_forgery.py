"""Programs that make pointers of numbers, or reach beyond their objects, by detours: all refused.

Each is a few instructions in the module that ``test_verifier.program`` frames: a frame of type 1
(64 bytes, pointers at 32 and 48), one of type 2 (40 bytes, pointer at 32), objects of type 3 (16
bytes, pointer at 4), module data with pointers at 0 and 4, of which the first is a string.
"""

from __future__ import annotations

import pytest

from llmbol_core.errors import VerifyError
from llmbol_core.vm.verifier import prove_module
from tests.vm.test_verifier import program

TYPES = '\n desc $4,4,(0)\n desc $5,64,"00"\n desc $6,80,(32)\n'
CALL = "frame $2,40(fp)\n {}\n call 40(fp),f\n {}\n ret\n f: {}\n ret"
OVER = "a number at 4 lies over a pointer"

# fmt: off
FORGERIES = [
    # Objects of a known type that come back from where they were kept.
    ("new $3,4(mp)\n movw $1,4(4(mp))\n ret", OVER),
    ("new $3,32(fp)\n movp 32(fp),4(mp)\n movw $1,4(4(mp))\n ret", OVER),
    (("new $3,32(fp)\n new $3,48(fp)\n movp 48(fp),4(32(fp))\n movw $1,8(48(fp))\n"
     " movp 4(32(fp)),48(fp)\n movw $1,4(48(fp))\n ret"), OVER),
    ("new $3,32(fp)\n consp 32(fp),48(fp)\n headp 48(fp),32(fp)\n movw $1,4(32(fp))\n ret", OVER),
    (("new $3,32(fp)\n newa $3,$4,48(fp)\n indw 48(fp),40(fp),$0\n movp 32(fp),0(40(fp))\n"
     " indw 48(fp),44(fp),$0\n movp 0(44(fp)),32(fp)\n movw $1,4(32(fp))\n ret"), OVER),
    (("new $3,32(fp)\n newcp $1,48(fp)\n send 32(fp),48(fp)\n recv 48(fp),32(fp)\n"
     " movw $1,4(32(fp))\n ret"), OVER),
    ("beqw 36(fp),$0,a\n new $3,32(fp)\n jmp b\n a: new $5,32(fp)\n b: movw $1,4(32(fp))\n ret",
     OVER),
    ("beqw 36(fp),$0,a\n new $3,32(fp)\n jmp b\n a: new $5,32(fp)\n b: movw $1,40(32(fp))\n ret",
     "4 bytes at 40 reach beyond the 16 there"),
    ("new $3,32(fp)\n lea 0(32(fp)),40(fp)\n movw $1,4(40(fp))\n ret", OVER),
    (("new $3,48(fp)\n a: raise 0(mp)\n b: movw $1,4(48(fp))\n ret\n exception a,b,32,-1,0,0\n"
     " exctab *,b"), OVER),
    (("a: raise 0(mp)\n b: movw 8(32(fp)),40(fp)\n ret\n exception a,b,32,-1,1,0\n"
     ' exctab "x",b\n exctab *,-1'), "the record is a string"),
    # Through functions.
    (CALL.format("new $3,32(fp)\n movp 32(fp),32(40(fp))", "", "movw 0(32(fp)),36(fp)\n"
     " movw $1,4(32(fp))"), OVER),
    (CALL.format("lea 32(fp),16(40(fp))", "movw $1,4(32(fp))", "new $3,32(fp)\n"
     " movp 32(fp),0(16(fp))"), OVER),
    (CALL.format("new $3,32(fp)\n movp 32(fp),32(40(fp))\n lea 48(fp),16(40(fp))",
     "movw $1,4(48(fp))", "movp 32(fp),0(16(fp))"), OVER),
    (CALL.format("new $3,32(fp)\n movp 32(fp),32(40(fp))", "movp 4(32(fp)),48(fp)\n"
     " lena 48(fp),44(fp)", "cvtwc 36(fp),4(32(fp))"), "the string is used as an array"),
    (CALL.format("new $3,48(fp)\n lea 4(48(fp)),16(40(fp))", "", "movw $1,0(16(fp))"), OVER),
    (CALL.format("newcw $1,32(40(fp))\n lea 32(fp),16(40(fp))", "lenc 32(fp),52(fp)",
     "recv 32(fp),0(16(fp))"), "a number at 32 lies over a pointer"),
    # Tags: those that objects have, and those that they are given afterwards.
    (("new $3,4(mp)\n movw $2,0(4(mp))\n movp 4(mp),32(fp)\n beqw 0(32(fp)),$2,a\n ret\n"
     " a: movw $1,4(32(fp))\n ret"), OVER),
    (CALL.format("new $3,48(fp)\n movw $2,0(48(fp))\n movp 48(fp),32(40(fp))\n"
     " movp 48(fp),4(mp)\n movw $7,0(4(mp))", "", "beqw 0(32(fp)),$7,a\n ret\n"
     " a: movw $1,4(32(fp))"), OVER),
    # Lists, arrays and channels of other values.
    ("consw $1234,48(fp)\n headp 48(fp),32(fp)\n ret", "there is no pointer at 0"),
    ("consw $1234,4(mp)\n headp 4(mp),32(fp)\n ret", "there is no pointer at 0"),
    ("consw $5,48(fp)\n consp 0(mp),48(fp)\n tail 48(fp),48(fp)\n headp 48(fp),32(fp)\n ret",
     "there is no pointer at 0"),
    ("consw $1234,48(fp)\n headf 48(fp),40(fp)\n ret", "8 bytes at 0 reach beyond the 4 there"),
    ("consw $1234,48(fp)\n headmp 48(fp),$4,32(fp)\n ret", "there is no pointer at 0"),
    ("newa $3,$4,4(mp)\n indw 4(mp),40(fp),$0\n movw $77,0(40(fp))\n ret",
     "a number at 0 lies over a pointer"),
    ("newa $3,$5,4(mp)\n indx 4(mp),40(fp),$0\n movp 0(40(fp)),32(fp)\n ret",
     "there is no pointer at 0"),
    ("newa $3,$3,4(mp)\n indw 4(mp),40(fp),$1\n movw $77,0(40(fp))\n ret",
     "an element has 16 bytes, not 4"),
    (("newa $3,$4,4(mp)\n movp 4(mp),48(fp)\n slicea $0,$1,48(fp)\n indw 48(fp),40(fp),$0\n"
     " movw $7,0(40(fp))\n ret"), "a number at 0 lies over a pointer"),
    ("newa $3,$5,32(fp)\n newa $99,$4,48(fp)\n slicela 32(fp),$0,48(fp)\n ret",
     "the arrays have elements of different types"),
    ("newcw 48(fp)\n recv 48(fp),32(fp)\n ret", "disagree about the pointer at 32"),
    ("newcp 48(fp)\n send 40(fp),48(fp)\n ret", "disagree about the pointer at 40"),
    ("newcp 48(fp)\n recv 48(fp),40(fp)\n ret", "disagree about the pointer at 40"),
    ("newcm $64,48(fp)\n recv 48(fp),56(fp)\n ret", "64 bytes at 56 reach beyond the 64 there"),
    ("newcm $64,4(mp)\n recv 4(mp),56(fp)\n ret", "64 bytes at 56 reach beyond the 64 there"),
    (("newcw 48(fp)\n movw $0,36(fp)\n movw $1,40(fp)\n movp 48(fp),4(mp)\n movw 4(mp),44(fp)\n"
     " lea 32(fp),48(fp)\n ret"), "would be written over the pointer at 48"),
    ("new $5,4(mp)\n movmp 0(4(mp)),$3,44(fp)\n ret", "there is no pointer at 4"),
    ("new $3,32(fp)\n lenc 32(fp),40(fp)\n ret", "an object of type 3 is used as a string at pc 1"),
    (("newcm $24,$1,48(fp)\n recv 48(fp),32(mp)\n case 36(fp),44(mp)\n a: ret\n"
      " word @mp+44,1,0,5,2,2"), "a table that is jumped through would be written at 32"),
    # Words as addresses, as channels, as module handles.
    (("movw $0,36(fp)\n movw $1,40(fp)\n movw $12345,44(fp)\n movw $70000,52(fp)\n"
     " alt 36(fp),56(fp)\n ret"), "44(fp) is not known to hold a channel"),
    ("movw 52(fp),36(fp)\n movw $1,40(fp)\n alt 36(fp),56(fp)\n ret",
     "the table is not known to begin with two counts"),
    ("alt 8(mp),56(fp)\n ret", "the alt table should lie in the frame"),
    ("new $3,4(mp)\n movw $70000,0(4(mp))\n movw 0(4(mp)),40(fp)\n movw $1,8(40(fp))\n ret",
     "the module handle is used as a record"),
    ("frame $2,40(fp)\n lea 56(fp),16(40(fp))\n spawn 40(fp),f\n ret\n f: movw $1,0(16(fp))\n ret",
     "a function in a process of its own has nobody to give a result to"),
    # Tables that are jumped through.
    ("movw $77,16(mp)\n case 36(fp),8(mp)\n a: ret\n word @mp+8,1,0,5,2,2",
     "a table that is jumped through would be written at 16"),
    ("movm 40(fp),$8,16(mp)\n goto 36(fp),16(mp)\n a: ret\n word @mp+12,2,a,a",
     "a table that is jumped through would be written at 16"),
    ("casec 0(mp),8(mp)\n a: ret\n word @mp+8,1,7,7,a,a", "the table has no string at 12(mp)"),
    (("frame $2,40(fp)\n lea 32(fp),16(40(fp))\n call 40(fp),f\n ret\n"
      " f: movp 0(16(fp)),32(fp)\n ret"), "the result has no pointer at 0 yet"),
    # What is used after it may be gone: elements, objects, channels, frames.
    ("newa $8,$5,32(fp)\n indx 32(fp),40(fp),$1\n movp 4(mp),32(fp)\n movw $7,0(40(fp))\n ret",
     "what the address at 40(fp) leads to may be gone"),
    ("new $3,32(fp)\n lea 0(32(fp)),40(fp)\n new $3,32(fp)\n movp 0(mp),4(40(fp))\n ret",
     "what the address at 40(fp) leads to may be gone"),
    (("new $3,32(fp)\n newa $4,$5,4(32(fp))\n indx 4(32(fp)),40(fp),$1\n movp 4(mp),32(fp)\n"
      " movw $77,0(40(fp))\n ret"), "what the address at 40(fp) leads to may be gone"),
    (("frame $2,40(fp)\n frame $1,44(fp)\n call 40(fp),f\n movp 0(mp),48(44(fp))\n ret\n"
      " f: ret"), "the frame at 40(fp) is not the last one made"),
    ("frame $2,40(fp)\n ret", "the frame at 40(fp) was made and not called"),
    ("frame $2,40(fp)\n frame $2,40(fp)\n call 40(fp),f\n ret\n f: ret",
     "the frame at 40(fp) was made and not called"),
    ("beqw 36(fp),$0,a\n frame $2,40(fp)\n a: ret", "the frames made differ with the ways here"),
    ("frame $4,40(fp)\n ret", "type 4 is no frame: frames begin with 32 bytes of their own"),
    # The same pointer by another way: written by its address, read where it was stored before.
    (("lea 4(mp),44(fp)\n beqw 36(fp),$0,x\n new $3,32(fp)\n jmp y\n x: cvtwc $1,0(44(fp))\n"
      " movp 4(mp),32(fp)\n y: movp 4(32(fp)),48(fp)\n ret"), "the record is used as a string"),
    (("new $5,4(mp)\n lea 48(fp),44(fp)\n new $3,32(fp)\n movp 32(fp),0(44(fp))\n"
      " movp 4(mp),48(fp)\n movp 0(44(fp)),32(fp)\n movp 4(32(fp)),48(fp)\n ret"),
     "there is no pointer at 4"),
    # Behind a jump to an address, the result is written, too.
    (("frame $2,40(fp)\n new $3,32(fp)\n lea 32(fp),16(40(fp))\n call 40(fp),f\n"
      " movp 4(32(fp)),48(fp)\n ret\n f: movpc $j,36(fp)\n jmp 36(fp)\n"
      " j: new $5,32(fp)\n movp 32(fp),0(16(fp))\n ret"), "there is no pointer at 4"),
    (("frame $2,40(fp)\n lea 32(fp),16(40(fp))\n call 40(fp),f\n ret\n"
      " f: lea 0(16(fp)),36(fp)\n movp 0(36(fp)),32(fp)\n ret"),
     "36(fp) holds the address of the result, at 0, no address"),
    # A handler knows one frame, and one place for the result.
    (("frame $2,40(fp)\n call 40(fp),f\n a: raise 0(mp)\n f: raise 0(mp)\n b: ret\n"
      " exception a,b,32,-1,0,0\n exctab *,b"), "is one for several functions"),
    (("frame $2,40(fp)\n call 40(fp),f\n frame $2,40(fp)\n call 40(fp),g\n ret\n"
      " f: raise 0(mp)\n g: raise 0(mp)\n b: ret\n"
      " exception f,b,32,-1,0,0\n exctab *,b"), "is one for several functions"),
    (("frame $2,40(fp)\n beqw 36(fp),$0,a\n lea 44(fp),16(40(fp))\n a: call 40(fp),f\n ret\n"
      " f: movp 32(fp),0(16(fp))\n ret"), "it is not sure where the result goes"),
    (("frame $2,40(fp)\n beqw 36(fp),$0,a\n lea 4(32(fp)),16(40(fp))\n jmp b\n"
      " a: lea 4(48(fp)),16(40(fp))\n b: call 40(fp),f\n ret\n f: movw $1,0(16(fp))\n ret"),
     "it is not sure where the result goes"),
    # Sizes that nobody knows before the program runs.
    (("frame $2,40(fp)\n lea 32(fp),16(40(fp))\n call 40(fp),f\n ret\n f: newcp 32(fp)\n"
      " movp 32(fp),0(16(fp))\n send 0(16(fp)),32(fp)\n ret"),
     "what is sent lies where the result goes"),
    ("movw $1,2(32(fp))\n ret", "2 is not aligned"),
    ("movm 0(48(fp)),36(fp),0(32(fp))\n ret", "the number of bytes should be immediate"),
    ("headm 48(fp),36(fp),0(32(fp))\n ret", "the number of bytes should be immediate"),
    ("newcm 36(fp),48(fp)\n ret", "the number of bytes should be immediate"),
    (("lea 60(fp),56(fp)\n frame $2,40(fp)\n lea 52(fp),16(40(fp))\n call 40(fp),f\n"
      " movw $77,0(56(fp))\n ret\n f: raise 0(mp)\n b: movw $77,4(16(fp))\n ret\n"
      " exception f,b,32,-1,0,0\n exctab *,b"), "8 bytes, where there is room for 4"),
    # Alt tables of what is no address, and of channels that have gone.
    (("newcw 32(fp)\n movw $0,36(fp)\n movw $1,40(fp)\n movw 32(fp),44(fp)\n new $3,48(fp)\n"
      " alt 36(fp),52(fp)\n ret"), "48(fp) is not known to hold an address"),
    (("frame $6,40(fp)\n call 40(fp),f\n ret\n f: newcw 32(fp)\n movw $0,36(fp)\n"
      " movw $1,40(fp)\n movw 32(fp),44(fp)\n lea 60(fp),48(fp)\n movp 0(mp),32(fp)\n"
      " alt 36(fp),56(fp)\n ret"), "the channel at 44(fp) may be gone"),
]
# fmt: on


@pytest.mark.parametrize(("code", "why"), FORGERIES, ids=lambda text: text[:40])
def test_forgeries_are_refused(code: str, why: str) -> None:
    with pytest.raises(VerifyError) as error:
        prove_module(program(code + TYPES))
    assert why in error.value.why


HONEST = [
    # An element is used behind a call whose result lies before the array.
    (
        "newa $2,$4,48(fp)\n indw 48(fp),36(fp),$0\n frame $2,28(fp)\n lea 40(fp),16(28(fp))\n"
        " call 28(fp),f\n movp 0(mp),0(36(fp))\n ret\n f: movw $7,0(16(fp))\n ret"
    ),
    # What looks like the above and is right.
    "new $3,4(mp)\n movw $1,8(4(mp))\n movp 4(4(mp)),32(fp)\n ret",
    "consw $1,48(fp)\n headw 48(fp),40(fp)\n movp 4(mp),48(fp)\n consp 0(mp),48(fp)\n ret",
    "newcw 48(fp)\n send $1,48(fp)\n recv 48(fp),40(fp)\n ret",
    "newcw 48(fp)\n movw $0,36(fp)\n movw $1,40(fp)\n movp 48(fp),4(mp)\n movw 4(mp),44(fp)\n ret",
    # Two variants of a pick, told apart by their tags.
    (
        "beqw 36(fp),$0,a\n new $3,32(fp)\n movw $1,0(32(fp))\n jmp b\n"
        " a: new $5,32(fp)\n movw $2,0(32(fp))\n b: beqw 0(32(fp)),$2,c\n"
        " movp 4(32(fp)),48(fp)\n ret\n c: movw $1,40(32(fp))\n ret"
    ),
    # A polymorphic function: one caller's string is another one's array.
    (
        "frame $2,40(fp)\n movp 0(mp),32(40(fp))\n lea 48(fp),16(40(fp))\n call 40(fp),f\n"
        " lenc 48(fp),44(fp)\n frame $2,40(fp)\n newa $1,$4,32(40(fp))\n lea 48(fp),16(40(fp))\n"
        " call 40(fp),f\n lena 48(fp),44(fp)\n ret\n f: movp 32(fp),0(16(fp))\n ret"
    ),
]


@pytest.mark.parametrize("code", HONEST, ids=lambda text: text[:40])
def test_honest_programs_are_accepted(code: str) -> None:
    prove_module(program(code + TYPES))
