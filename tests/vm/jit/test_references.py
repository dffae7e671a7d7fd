"""Calls through handles of the own module: machine code guesses what they lead to."""

from __future__ import annotations

import pytest

from llmbol_core.errors import LimitError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.engines import engine
from llmbol_core.vm.limbo import signature
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM

WORD, TEXT = signature("fn(n: int): int"), signature("fn(n: int, s: string): string")
PROGRAM = f"""
    load 4(mp),$0,0(mp)
    movw $0,40(fp)
    movw $0,44(fp)
again: andw $1,40(fp),48(fp)
    mframe 0(mp),48(fp),64(fp)
    movw 40(fp),32(64(fp))
    lea 52(fp),16(64(fp))
    mcall 64(fp),48(fp),0(mp)
    addw 52(fp),44(fp)
    mframe 0(mp),$2,64(fp)
    movw 52(fp),36(64(fp))
    movp 32(fp),32(64(fp))
    lea 32(fp),16(64(fp))
    mcall 64(fp),$2,0(mp)
next: addw $1,40(fp)
    bltw 40(fp),$300,again
    movw 44(fp),0(16(fp))
    ret
trouble: addw $1000,44(fp)
    addw $1,40(fp)
    jmp again
quotient: andw $7,32(fp),36(fp)
    divw 36(fp),$840,0(16(fp))
    ret
deeper: bgtw 32(fp),$0,more
    movw $1,0(16(fp))
    ret
more: self 48(fp)
    mframe 48(fp),$1,64(fp)
    subw $20,32(fp),32(64(fp))
    lea 52(fp),16(64(fp))
    mcall 64(fp),$1,48(fp)
    addw 52(fp),32(fp),0(16(fp))
    ret
longer: lenc 32(fp),40(fp)
    bltw 40(fp),$64,grow
    movp 8(mp),0(16(fp))
    ret
grow: cvtwc 36(fp),44(fp)
    addc 44(fp),32(fp),0(16(fp))
    ret
    desc $0,64,(0,4,8)
    desc $1,96,(32,36)
    desc $2,80,(48)
    desc $3,56,(32,44)
    var @mp,64
    module Test
    link 1,0,{signature("fn(): int"):#x},"main"
    link 2,21,{WORD:#x},"quotient"
    link 2,24,{WORD:#x},"deeper"
    link 3,34,{TEXT:#x},"longer"
    ldts @ldt,1
    word @ldt+0,3
    ext @ldt+4,{WORD:#x},"quotient"
    ext @ldt+8,{WORD:#x},"deeper"
    ext @ldt+12,{TEXT:#x},"longer"
    string @mp+4,"$self"
    exceptions 1
    exception 3, 14, 36, -1, 0, 0
    exctab *, 18
"""


def outcome(name, instructions):
    """Return what the program returns or how it is stopped, and how many instructions it ran."""
    with InfernoVM(limits=Limits(1 << 20, instructions=instructions), engine=engine(name)) as vm:
        vm.load_module("test", parse_assembly(PROGRAM, "Test"))
        try:
            found = vm.execute("test", "main")
        except LimitError as error:
            found = str(error)
        ran = vm.scheduler.instructions
    assert vm.get_stats().objects == 0
    return found, ran


@pytest.mark.parametrize("instructions", [None, 20, 777, 5000, 12_345])
def test_references_of_the_own_module(instructions):
    wanted = outcome("interpreter", instructions)
    assert outcome("jit", instructions) == wanted
