"""Programs whose pointers and addresses get further than it seems: refused, or stopped.

They are framed as those of ``test_attacks.py`` are, and run as those of ``test_detours.py``: each
goes with what the verifier, the linker or a guard says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbol_core.errors import VerifyError
from llmbol_core.vm.verifier import prove_module
from tests.vm.test_attacks import CALL
from tests.vm.test_detours import OVER, Program, modules_of, said

PAIR = "\n desc $8,8,(0,4)"
IN_TWO = (
    "newcmp $8,$1,40(fp)\n new $3,36(fp)\n new $7,4(36(fp))\n movp 16(mp),32(fp)\n"
    " send 32(fp),40(fp)\n recv 40(fp),4(mp)\n"
)
"""A value of two pointers is received into two variables, of which the text only names one."""
JOINED = (
    "new $7,32(fp)\n beqw 92(fp),$0,x\n lea 8(32(fp)),44(fp)\n jmp y\n x: lea 4(8(mp)),44(fp)\n"
    " y: movw $77,0(44(fp))\n ret"
)
"""An address in one of two records: of numbers, or the one that the other variable has."""
KEPT = "movp 8(mp),36(fp)\n movp 4(36(fp)),32(fp)\n movw $77,8(32(fp))\n ret\n"
"""What knows of a record in a variable takes the pointer in it for what it was."""
TOLD = "type check: a caller stores 4 bytes at 36, where a pointer is,"
NUMBER = (
    "new $7,32(fp)\n movw $4096,0(32(fp))\n newcw $2,36(fp)\n send $77,36(fp)\n"
    + CALL.format(" movp 32(fp),32(48(fp))\n {}")
    + " ret"
)
"""A record of numbers, and a channel, are passed on."""
WORD, NO_HANDLE = "movw 0(32(fp)),52(fp)\n", "type check: the object is no module handle"
MOVES = "moves on each time it comes back here"
RECURSION = "frame $2,48(fp)\n lea 60(fp),16(48(fp))\n call 48(fp),h\n ret\n h: movw $7,0(16(fp))\n"
FURTHER = " frame $2,48(fp)\n lea 4(16(fp)),16(48(fp))\n call 48(fp),{}\n ret\n"

# fmt: off
ESCAPES: dict[str, tuple[Program, str]] = {
    # Variables that only values stored before them reach.
    "an address behind a variable that a value reaches": (
        f"{IN_TWO} movp 12(mp),36(fp)\n {JOINED}{PAIR}",
        "type check: a number at 4 lies over a pointer"),
    "an address behind a variable that a result reaches": (
        (CALL.format(" lea 4(mp),16(48(fp))") + f" {JOINED}",
         "ret\n f: movp 16(mp),0(16(fp))\n new $3,36(fp)\n movp 36(fp),4(16(fp))\n ret"),
        "type check: a number at 4 lies over a pointer"),
    "a value received behind a variable that a value reaches": (
        (f"{IN_TWO} newcp $1,40(fp)\n new $5,32(fp)\n send 32(fp),40(fp)\n recv 40(fp),4(8(mp))\n"
         f" movp 4(36(fp)),32(fp)\n movw $77,8(32(fp))\n ret{PAIR}"), OVER),
    # Slots of which nothing is known after an instruction that gave them something.
    "a second pointer received into a frame in the place of another one": (
        ("newcmp $8,$1,4(mp)\n new $3,40(fp)\n new $7,4(40(fp))\n movp 40(fp),8(mp)\n"
         " send 36(fp),4(mp)\n frame $2,48(fp)\n movp 40(fp),40(48(fp))\n recv 4(mp),36(48(fp))\n"
         f" call 48(fp),h\n {KEPT} h: new $5,36(fp)\n movp 36(fp),4(40(fp))\n ret{PAIR}"), OVER),
    "a result of a function that can pass on where it goes": (
        ("frame $2,48(fp)\n lea 32(fp),16(48(fp))\n call 48(fp),h\n new $5,36(fp)\n"
         f" movp 36(fp),4(32(fp))\n {KEPT} h: beqw 92(fp),$1,z\n new $3,32(fp)\n new $7,36(fp)\n"
         " movp 36(fp),4(32(fp))\n movp 32(fp),8(mp)\n movp 32(fp),0(16(fp))\n ret\n"
         " z: frame $2,48(fp)\n lea 0(16(fp)),16(48(fp))\n call 48(fp),i\n ret\n i: ret"), OVER),
    # Handles that are linked by other lists of imports than it seems.
    "a list of imports that is chosen while the program runs": (
        (("movw $0,60(fp)\n load 0(mp),60(fp),40(fp)\n mframe 40(fp),$0,48(fp)\n"
          " movw $77,36(48(fp))\n mcall 48(fp),$0,40(fp)\n ret"),
         "ret\n f: movp 36(fp),32(fp)\n ret"),
        "the import list number should be immediate"),
    "the handle of the module itself or of another one": (
        (CALL.format(" movw $1,60(48(fp))") + " ret",
         ("ret\n f: beqw 60(fp),$0,z\n beqw 92(fp),$0,x\n load 0(mp),$0,40(fp)\n jmp y\n"
          " x: self 40(fp)\n y: mframe 40(fp),$0,48(fp)\n movw $77,36(48(fp))\n"
          " mcall 48(fp),$0,40(fp)\n ret\n z: movp 36(fp),32(fp)\n ret"),
         'ret\n g: ret\n f: ret\n desc $8,96,(32)\n link 8,g,1,"f"'), TOLD),
    # Functions whose number is only known while the program runs.
    "a result of an unknown function, here or there": (
        (("load 0(mp),$0,40(fp)\n new $3,32(fp)\n movp 16(mp),4(32(fp))\n"
          " mframe 40(fp),56(fp),48(fp)\n lea 60(fp),16(48(fp))\n beqw 92(fp),$1,x\n"
          " lea 4(32(fp)),16(48(fp))\n x: mcall 48(fp),56(fp),40(fp)\n"
          " movp 4(32(fp)),36(fp)\n ret"),
         "ret\n f: movw $77,0(16(fp))\n ret"), "it is not sure where the result goes"),
    "a result of an unknown function in a process of its own": (
        (("load 0(mp),$0,40(fp)\n mframe 40(fp),56(fp),48(fp)\n lea 60(fp),16(48(fp))\n"
          " mspawn 48(fp),56(fp),40(fp)\n ret"), "ret\n f: movw $77,0(16(fp))\n ret"),
        "has nobody to give a result to"),
    # Words that are taken for addresses of module data: to store something there, not at once.
    "a result at a number": (
        (NUMBER.format(""), (f"ret\n f: {WORD} frame $2,48(fp)\n lea 4(52(fp)),16(48(fp))\n"
         " call 48(fp),h\n ret\n h: movw $77,0(16(fp))\n ret")), NO_HANDLE),
    "a result of another module at a number": (
        (NUMBER.format(""), (f"ret\n f: {WORD} load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n"
         " lea 4(52(fp)),16(48(fp))\n mcall 48(fp),$0,40(fp)\n ret"),
         "ret\n f: movw $77,0(16(fp))\n ret"), NO_HANDLE),
    "a value received at a number": (
        (NUMBER.format("movp 36(fp),36(48(fp))"), f"ret\n f: {WORD} recv 36(fp),4(52(fp))\n ret"),
        NO_HANDLE),
    "a value sent from a number": (
        (NUMBER.format("movp 36(fp),36(48(fp))"), f"ret\n f: {WORD} send 4(52(fp)),36(fp)\n ret"),
        NO_HANDLE),
    # Addresses that get further and further.
    "an address that moves in a loop": (
        ("new $7,32(fp)\n lea 0(32(fp)),44(fp)\n x: lea 4(44(fp)),44(fp)\n movw $77,0(44(fp))\n"
         " addw $1,56(fp)\n bltw 56(fp),$99,x\n ret"), MOVES),
    "an address that moves in a loop by way of another word": (
        ("newa $4,$7,32(fp)\n indx 32(fp),44(fp),$1\n x: lea 8(44(fp)),52(fp)\n"
         " movw $77,0(44(fp))\n lea 0(52(fp)),44(fp)\n addw $1,56(fp)\n bltw 56(fp),$99,x\n ret"),
        MOVES),
    "a result that goes further with each call": (RECURSION + FURTHER.format("h"), MOVES),
    "a result that goes further with each call of one of two functions": (
        f"{RECURSION}{FURTHER.format('i')} i: {FURTHER.format('h')}", MOVES),
    "a result that goes further with each call by way of a handle": (
        ("newa $1,$8,32(fp)\n indx 32(fp),44(fp),$0\n"
         + CALL.format(" lea 0(44(fp)),16(48(fp))") + ' ret\n desc $8,60000,"00"',
         ("ret\n f: self 40(fp)\n mframe 40(fp),$-2,48(fp)\n lea 4(16(fp)),16(48(fp))\n"
          " mcall 48(fp),$-2,40(fp)\n ret\n")), "it passes on part after part"),
}
# fmt: on

SPREADING = "".join(
    f" beqw 92(fp),$0,x{n}\n lea {1 << n}(44(fp)),44(fp)\n jmp y{n}\n x{n}: lea 0(44(fp)),44(fp)\n"
    f" y{n}: movw $1,60(fp)\n"
    for n in range(15)
)
"""An address is moved on or not, again and again: it can be in tens of thousands of places."""


@pytest.mark.parametrize(
    "code",
    [
        f"new $7,32(fp)\n lea 0(32(fp)),44(fp)\n {SPREADING} cvtwb $7,0(44(fp))\n ret",
        f"newa $4,$7,32(fp)\n indx 32(fp),44(fp),$0\n {SPREADING} ret",
    ],
)
def test_addresses_are_not_followed_everywhere(code: str) -> None:
    with pytest.raises(VerifyError, match="moved on to too many places"):
        prove_module(modules_of(code)["a"])


@pytest.mark.parametrize("what", ESCAPES)
def test_nothing_escapes(tmp_path: Path, what: str) -> None:
    code, why = ESCAPES[what]
    assert why in said(modules_of(code), tmp_path)
