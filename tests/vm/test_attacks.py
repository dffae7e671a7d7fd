"""Programs that write numbers where pointers are kept, once what they write to has gone: contained.

The verifier accepts them, as it must accept honest programs that look the same, or refuses them.
What they write to is then kept until nobody can reach it any more, or the instruction traps. Each
looks afterwards whether 77 lies where a pointer should, and raises "forged" if so.

Every module has frames of types 1 and 2 (96 bytes, pointers at 32, 36 and 40); types 3 (16 bytes,
pointer at 4), 4 (a pointer), 5 (16 bytes, pointer at 8), 6 (8 bytes) and 7 (16 bytes); and module
data with pointers at 0 (the path of the module that it loads), 4, 8, 12 (always nil) and 16
("forged").
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import LlmbolError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.engines import ENGINES, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verification.guards import Of
from llmbol_core.vm.verifier import prove_module

FRAME = """
    module {name}
    entry 0,1
    desc $0,64,(0,4,8,12,16)
    desc $1,96,(32,36,40)
    desc $2,96,(32,36,40)
    desc $3,16,(4)
    desc $4,4,(0)
    desc $5,16,(8)
    desc $6,8,"00"
    desc $7,16,"00"
    var @mp,64
    link 1,0,0x4244b354,"init"
    string @mp+0,"/{loads}.dis"
    string @mp+16,"forged"
    ldts @ldt,1
    word @ldt+0,{count}
"""
NEXT = {"a": "b", "b": "c", "c": ""}


def assembled(letter: str, code: str, modules: Mapping[str, str]) -> Module:
    """Return one of several modules: with the frame above, unless it has one of its own."""
    if "\nmodule " in code:
        return parse_assembly(code, letter)
    count = int(NEXT[letter] in modules)
    frame = FRAME.format(name=letter.upper(), loads=NEXT[letter], count=count)
    links = 'ext @ldt+0,1,"f"\n' * count + 'link 2,f,1,"f"\n' * (letter != "a")
    return parse_assembly(f"{code}\n{frame}\n{links}", letter)


def run(folder: Path, name: str, modules: Mapping[str, str], memory: int = 8 << 20) -> str:
    """Run module a on an engine; return all that it says."""
    for letter, code in modules.items():
        module = assembled(letter, code, modules)
        (folder / f"{letter}.dis").write_bytes(write_module(module))
    out = io.BytesIO()
    limits = Limits(memory, instructions=300_000)
    streams = Streams(stdout=out, stderr=out)
    made = engine(name)
    with InfernoVM(HOST_MODULES, Namespace(folder), limits, streams, engine=made) as machine:
        try:
            machine.run("/a.dis")
        except LlmbolError as error:
            return f"{out.getvalue().decode()} {error}"
    return out.getvalue().decode()


# A function makes 8 pointers where 4 values of 8 bytes were, and looks at the third.
MANY = " newa $8,$4,32(fp)\n"
BAD = " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)\n"
LOOK = f" indx 32(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n{BAD}"
ALONE = {
    "a result into an element of an array that is dropped": (
        "newa $4,$6,4(mp)\n indx 4(mp),44(fp),$1\n frame $2,48(fp)\n lea 0(44(fp)),16(48(fp))\n"
        " call 48(fp),h\n ret\n"
        f" h: movp 12(mp),4(mp)\n{MANY} movw $77,0(16(fp))\n{LOOK}"
    ),
    "a result into a record that is dropped": (
        "new $7,4(mp)\n frame $2,48(fp)\n lea 8(4(mp)),16(48(fp))\n call 48(fp),h\n ret\n"
        " h: movp 12(mp),4(mp)\n new $5,32(fp)\n movw $77,0(16(fp))\n movw 8(32(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
    ),
    "an element of one of two arrays": (
        "newa $4,$6,32(fp)\n newa $4,$6,36(fp)\n beqw 92(fp),$0,x\n indx 36(fp),44(fp),$1\n jmp y\n"
        " x: indx 32(fp),44(fp),$1\n y: movp 12(mp),32(fp)\n newa $8,$4,40(fp)\n"
        " movw $77,0(44(fp))\n indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
    ),
    "an element of an array that another of the same variable takes the place of": (
        "newa $3,$5,4(mp)\n indx 4(mp),44(fp),$2\n frame $2,48(fp)\n call 48(fp),h\n"
        " movw $77,0(44(fp))\n ret\n h: newa $1,$5,4(mp)\n ret"
    ),
    "a value received into an element of an array that is dropped": (
        "newcw 8(mp)\n newa $4,$6,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n"
        " indx 4(mp),44(fp),$1\n recv 8(mp),0(44(fp))\n ret\n"
        f" h: movp 12(mp),4(mp)\n{MANY} send $77,8(mp)\n{LOOK}"
    ),
    "a value received into a record that is dropped": (
        "newcw 8(mp)\n new $7,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n"
        " recv 8(mp),8(4(mp))\n ret\n"
        " h: movp 12(mp),4(mp)\n new $5,32(fp)\n send $77,8(mp)\n movw 8(32(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
    ),
    "a value received by alt into an array that is dropped": (
        "newcw 8(mp)\n newa $4,$6,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n"
        " indx 4(mp),44(fp),$1\n movw $0,60(fp)\n movw $1,64(fp)\n movw 8(mp),68(fp)\n"
        " lea 0(44(fp)),72(fp)\n alt 60(fp),76(fp)\n ret\n"
        f" h: movp 12(mp),4(mp)\n{MANY} send $77,8(mp)\n{LOOK}"
    ),
    "a pointer sent from an array that is dropped": (
        "newcp 8(mp)\n newa $8,$4,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n"
        " indx 4(mp),44(fp),$2\n send 0(44(fp)),8(mp)\n ret\n"
        " h: movp 12(mp),4(mp)\n newa $4,$6,32(fp)\n indx 32(fp),52(fp),$1\n"
        " movw $77,0(52(fp))\n recv 8(mp),36(fp)\n movw 36(fp),56(fp)\n beqw 56(fp),$77,bad\n"
        " ret\n bad: raise 16(mp)"
    ),
    "an array that another process drops before its element is written": (
        "frame $2,48(fp)\n spawn 48(fp),h\n"
        " x: newa $4,$6,4(mp)\n movw $1,60(fp)\n indx 4(mp),44(fp),$1\n"
        " movw $77,0(44(fp))\n jmp x\n"
        f" h: movp 12(mp),4(mp)\n{MANY}"
        " indx 32(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n beqw 56(fp),$77,bad\n"
        " addw $1,60(fp),60(fp)\n addw $1,60(fp),60(fp)\n jmp h\n bad: raise 16(mp)\n"
        " exception x,h,32,-1,0,0\n exctab *,x"
    ),
    "a channel that another process drops before alt": (
        "frame $2,48(fp)\n spawn 48(fp),h\n"
        " x: newcw $1,4(mp)\n movw $0,60(fp)\n movw $1,64(fp)\n movw 4(mp),68(fp)\n"
        " lea 80(fp),72(fp)\n nbalt 60(fp),76(fp)\n jmp x\n"
        " h: movp 12(mp),4(mp)\n new $7,32(fp)\n new $5,36(fp)\n movw 8(36(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n jmp h\n bad: raise 16(mp)"
    ),
    "a number as the place for a result": (
        "new $3,32(fp)\n movw 32(fp),52(fp)\n addw $4,52(fp),52(fp)\n frame $2,48(fp)\n"
        " movw 52(fp),16(48(fp))\n call 48(fp),h\n movw 4(32(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n h: movw $77,0(16(fp))\n ret\n bad: raise 16(mp)"
    ),
    "the address of an argument": (
        "frame $2,48(fp)\n lea 32(48(fp)),52(fp)\n movw $77,0(52(fp))\n call 48(fp),h\n ret\n"
        " h: movw 32(fp),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
    ),
    "an array that came from one of two channels": (
        "newcp $1,4(mp)\n newa $1,$4,32(fp)\n send 32(fp),4(mp)\n"
        " movw $0,60(fp)\n movw $2,64(fp)\n movw 4(mp),68(fp)\n lea 36(fp),72(fp)\n"
        " movw 4(mp),76(fp)\n lea 36(fp),80(fp)\n alt 60(fp),84(fp)\n indx 36(fp),44(fp),$0\n"
        " movw $77,0(44(fp))\n movw 0(44(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)"
    ),
    "the field of a record that came from one of two channels": (
        "newcp $1,4(mp)\n new $3,32(fp)\n send 32(fp),4(mp)\n"
        " movw $0,60(fp)\n movw $2,64(fp)\n movw 4(mp),68(fp)\n lea 36(fp),72(fp)\n"
        " movw 4(mp),76(fp)\n lea 36(fp),80(fp)\n alt 60(fp),84(fp)\n lea 4(36(fp)),44(fp)\n"
        " movw $77,0(44(fp))\n movw 0(44(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)"
    ),
    "two pointers received into a frame": (
        "newcmp $8,$1,4(mp)\n new $7,32(fp)\n new $5,36(fp)\n send 32(fp),4(mp)\n"
        " frame $2,48(fp)\n recv 4(mp),32(48(fp))\n call 48(fp),h\n movw 8(36(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n h: movp 36(fp),40(fp)\n frame $2,52(fp)\n"
        " new $7,32(52(fp))\n call 52(fp),i\n movw $77,8(36(fp))\n ret\n i: ret\n"
        " bad: raise 16(mp)\n desc $8,8,(0,4)"
    ),
    "a result that a handler writes": (
        "new $3,32(fp)\n frame $2,48(fp)\n lea 4(32(fp)),16(48(fp))\n call 48(fp),h\n"
        " movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " h: raise 0(mp)\n i: movw $77,0(16(fp))\n ret\n bad: raise 16(mp)\n"
        " exception h,i,32,-1,0,0\n exctab *,i"
    ),
    "a result that two functions write together": (
        "new $3,32(fp)\n frame $2,48(fp)\n lea 4(32(fp)),16(48(fp))\n call 48(fp),h\n"
        " movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n frame $2,48(fp)\n"
        " lea 60(fp),16(48(fp))\n call 48(fp),i\n ret\n bad: raise 16(mp)\n"
        " h: jmp j\n i: jmp j\n j: movw $77,0(16(fp))\n ret"
    ),
    "a value received over an address": (
        "newcm $12,$1,4(mp)\n new $3,32(fp)\n movw 32(fp),60(fp)\n addw $4,60(fp),60(fp)\n"
        " send 52(fp),4(mp)\n newa $1,$6,36(fp)\n indx 36(fp),72(fp),$0\n recv 4(mp),64(fp)\n"
        " movw $77,0(72(fp))\n movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)"
    ),
    "a value received over a frame": (
        "newcm $12,$1,4(mp)\n new $3,32(fp)\n movw 32(fp),60(fp)\n addw $-40,60(fp),60(fp)\n"
        " send 52(fp),4(mp)\n frame $2,72(fp)\n recv 4(mp),64(fp)\n"
        " movw $77,44(72(fp))\n movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)"
    ),
    "a result that alt receives": (
        "newcw $1,4(mp)\n send $77,4(mp)\n new $3,32(fp)\n frame $2,48(fp)\n"
        " lea 4(32(fp)),16(48(fp))\n call 48(fp),h\n movw 4(32(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)\n"
        " h: movw $0,60(fp)\n movw $1,64(fp)\n movw 4(mp),68(fp)\n lea 0(16(fp)),72(fp)\n"
        " alt 60(fp),76(fp)\n ret"
    ),
    "the number that alt gives, into a record that is dropped": (
        "newcw 8(mp)\n new $7,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n newcw 32(fp)\n"
        " movw $0,60(fp)\n movw $2,64(fp)\n movw 8(mp),68(fp)\n lea 84(fp),72(fp)\n"
        " movw 32(fp),76(fp)\n lea 88(fp),80(fp)\n alt 60(fp),8(4(mp))\n ret\n"
        " h: movp 12(mp),4(mp)\n new $5,32(fp)\n send $77,8(mp)\n movw 8(32(fp)),56(fp)\n"
        " bnew 56(fp),$-1,bad\n ret\n bad: raise 16(mp)"
    ),
    "a channel that came with another value": (
        "newcmp $8,$1,4(mp)\n newcp $1,40(fp)\n send 16(mp),40(fp)\n send 36(fp),4(mp)\n"
        " movp 12(mp),40(fp)\n beqw 92(fp),$77,x\n recv 4(mp),32(fp)\n movw 36(fp),68(fp)\n"
        " jmp y\n x: newcw $1,36(fp)\n movw 36(fp),68(fp)\n y: movw $0,60(fp)\n"
        " movw $1,64(fp)\n lea 80(fp),72(fp)\n nbalt 60(fp),76(fp)\n bnew 80(fp),$0,bad\n"
        " ret\n bad: raise 16(mp)\n desc $8,8,(0,4)"
    ),
    "a byte of a pointer": (
        "newcmp $8,$1,4(mp)\n newcb $1,40(fp)\n send 16(mp),40(fp)\n send 36(fp),4(mp)\n"
        " movp 12(mp),40(fp)\n recv 4(mp),32(fp)\n movw 36(fp),68(fp)\n jmp y\n"
        " x: newcw $1,36(fp)\n movw 36(fp),68(fp)\n y: movw $0,60(fp)\n movw $1,64(fp)\n"
        " beqw 92(fp),$77,x\n lea 80(fp),72(fp)\n nbalt 60(fp),76(fp)\n bnew 80(fp),$0,bad\n"
        " ret\n bad: raise 16(mp)\n desc $8,8,(0,4)"
    ),
    "an array of channels where one is to be sent to": (
        "newa $1,$4,36(fp)\n indx 36(fp),44(fp),$0\n newcp $1,32(fp)\n new $7,40(fp)\n"
        " movw $77,8(40(fp))\n send 40(fp),32(fp)\n movp 32(fp),0(44(fp))\n new $5,32(fp)\n"
        " movw $1,60(fp)\n movw $0,64(fp)\n movw 36(fp),68(fp)\n lea 28(fp),72(fp)\n"
        " nbalt 60(fp),76(fp)\n movp 8(32(fp)),40(fp)\n movw 40(fp),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
    ),
    "the arguments, where a function may return something": (
        "frame $2,48(fp)\n lea 36(fp),16(48(fp))\n call 48(fp),h\n movw $77,8(36(fp))\n"
        " raise 16(mp)\n h: beqw 60(fp),$0,z\n new $7,32(fp)\n movp 32(fp),0(16(fp))\n z: ret"
    ),
    "what was there before, where a function returns nothing": (
        "frame $2,48(fp)\n lea 36(fp),16(48(fp))\n newa $1,$6,36(fp)\n call 48(fp),h\n"
        " movw $77,8(36(fp))\n raise 16(mp)\n"
        " h: beqw 60(fp),$0,z\n new $7,32(fp)\n movp 32(fp),0(16(fp))\n z: ret"
    ),
    "an address behind nil": (
        "lea 4140(32(fp)),44(fp)\n movw $77,0(44(fp))\n raise 16(mp)"
    ),
    "a value received behind nil": (
        "newcw 4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n recv 4(mp),4(32(fp))\n raise 16(mp)\n"
        " h: send $77,4(mp)\n ret"
    ),
    "a pointer received by alt behind nil": (
        "newcp 4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n movw $0,60(fp)\n movw $1,64(fp)\n"
        " movw 4(mp),68(fp)\n lea 4(32(fp)),72(fp)\n alt 60(fp),76(fp)\n raise 16(mp)\n"
        " h: send 16(mp),4(mp)\n ret"
    ),
    "a function that begins behind its call": (
        "new $5,32(fp)\n frame $2,48(fp)\n movp 16(mp),32(48(fp))\n call 48(fp),h\n"
        " h: movp 8(32(fp)),36(fp)\n movw 36(fp),56(fp)\n bnew 56(fp),$-1,bad\n ret\n"
        " bad: raise 16(mp)"
    ),
    "a result of one of two functions": (
        "l: new $7,36(fp)\n frame $2,48(fp)\n lea 36(fp),16(48(fp))\n beqw 92(fp),$0,z\n"
        " call 48(fp),i\n ret\n z: call 48(fp),h\n movw 8(36(fp)),56(fp)\n"
        " bnew 56(fp),$78,bad\n addw $1,84(fp)\n bltw 84(fp),$1000,l\n ret\n bad: raise 16(mp)\n"
        " i: ret\n h: new $7,32(fp)\n movw $78,8(32(fp))\n movp 32(fp),0(16(fp))\n ret"
    ),
    "a result into a string that is kept where results have their address": (
        "frame $2,48(fp)\n lea 4(16(mp)),16(48(fp))\n call 48(fp),h\n raise 16(mp)\n"
        " h: movw $77,0(16(fp))\n ret"
    ),
    "an argument that is made in its place": (
        "new $5,32(fp)\n frame $2,48(fp)\n cvtwc $1234567,32(48(fp))\n call 48(fp),h\n ret\n"
        " h: beqw 60(fp),$0,x\n new $5,32(fp)\n x: movp 8(32(fp)),36(fp)\n raise 16(mp)"
    ),
    "an array in whose place alt receives another one": (
        "newcp $1,36(fp)\n send 16(mp),36(fp)\n newa $4,$6,32(fp)\n indx 32(fp),44(fp),$1\n"
        " movw $0,60(fp)\n movw $1,64(fp)\n movw 36(fp),68(fp)\n lea 32(fp),72(fp)\n"
        " nbalt 60(fp),76(fp)\n newa $8,$4,40(fp)\n movw $77,0(44(fp))\n"
        " indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n" + BAD
    ),
    "an array that is replaced by the address of its slot": (
        "newa $4,$6,32(fp)\n indx 32(fp),44(fp),$1\n lea 32(fp),72(fp)\n"
        " movp 16(mp),0(72(fp))\n newa $8,$4,40(fp)\n movw $77,0(44(fp))\n"
        " indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n" + BAD
    ),
    "an array that is dropped behind what is received before its element": (
        "newcw $1,8(mp)\n send $1,8(mp)\n newa $4,$6,4(mp)\n indx 4(mp),72(fp),$1\n"
        " recv 8(mp),60(fp)\n movp 12(mp),4(mp)\n newa $8,$4,32(fp)\n movw $77,0(72(fp))\n"
        + LOOK
    ),
    "the length of an array, sent as a pointer": (
        "newa $77,$4,36(fp)\n indx 36(fp),44(fp),$0\n newcp $1,32(fp)\n new $7,40(fp)\n"
        " send 0(36(fp)),32(fp)\n movp 32(fp),0(44(fp))\n recv 32(fp),40(fp)\n"
        " movw 40(fp),56(fp)\n beqw 56(fp),$77,bad\n new $5,32(fp)\n movw $1,60(fp)\n"
        " movw $0,64(fp)\n movw 36(fp),68(fp)\n lea 28(fp),72(fp)\n nbalt 60(fp),76(fp)\n"
        " ret\n bad: raise 16(mp)"
    ),
    "an array whose variable a value written before it reaches": (
        "newa $4,$6,8(mp)\n indx 8(mp),44(fp),$1\n movmp 32(fp),$8,4(mp)\n newa $8,$4,40(fp)\n"
        " movw $77,0(44(fp))\n indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n"
        f"{BAD}\n desc $8,8,(0,4)"
    ),
    "an array in an array over which elements are copied": (
        "newa $1,$4,36(fp)\n newa $1,$4,32(fp)\n indx 36(fp),44(fp),$0\n"
        " newa $4,$6,0(44(fp))\n indx 0(44(fp)),60(fp),$1\n slicela 32(fp),$0,36(fp)\n"
        " newa $8,$4,40(fp)\n movw $77,0(60(fp))\n indx 40(fp),52(fp),$2\n"
        f" movw 0(52(fp)),56(fp)\n{BAD}"
    ),
    "an array in an array that is dropped": (
        "newa $1,$4,36(fp)\n indx 36(fp),44(fp),$0\n newa $4,$6,0(44(fp))\n"
        " indx 0(44(fp)),60(fp),$1\n movp 12(mp),36(fp)\n newa $8,$4,40(fp)\n"
        " movw $77,0(60(fp))\n indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n" + BAD
    ),
    "an array in a record that is dropped": (
        "new $3,36(fp)\n lea 4(36(fp)),44(fp)\n newa $4,$6,0(44(fp))\n"
        " indx 0(44(fp)),60(fp),$1\n movp 12(mp),36(fp)\n newa $8,$4,40(fp)\n"
        " movw $77,0(60(fp))\n indx 40(fp),52(fp),$2\n movw 0(52(fp)),56(fp)\n" + BAD
    ),
    "a field that others write between its storing and its reading": (
        "newcw 8(mp)\n new $3,4(mp)\n frame $2,48(fp)\n spawn 48(fp),h\n new $7,36(fp)\n"
        " movp 4(mp),32(fp)\n l: addw $1,92(fp),92(fp)\n movp 36(fp),4(32(fp))\n"
        " x: movp 4(32(fp)),40(fp)\n movw $77,8(40(fp))\n bltw 92(fp),$20000,l\n exit\n"
        " jmp x\n h: new $5,36(fp)\n movp 4(mp),32(fp)\n m: movp 36(fp),4(32(fp))\n"
        " movp 8(36(fp)),40(fp)\n movw 40(fp),56(fp)\n bnew 56(fp),$-1,bad\n"
        " addw $1,92(fp),92(fp)\n bltw 92(fp),$20000,m\n exit\n bad: raise 16(mp)"
    ),
    "a result into a variable that its address alone tells from nil": (
        "lea 8(mp),44(fp)\n frame $2,48(fp)\n lea 0(44(fp)),16(48(fp))\n call 48(fp),h\n"
        " beqw 92(fp),$0,x\n new $7,32(fp)\n jmp y\n x: movp 8(mp),32(fp)\n"
        " y: movw $77,8(32(fp))\n movp 4(mp),36(fp)\n movp 8(36(fp)),40(fp)\n"
        f" movw 40(fp),56(fp)\n{BAD} h: new $5,32(fp)\n movp 32(fp),4(mp)\n"
        " movp 32(fp),0(16(fp))\n ret"
    ),
    "a record that a string is put behind": (
        "new $7,36(fp)\n movw $5000,0(36(fp))\n frame $2,48(fp)\n movp 36(fp),32(48(fp))\n"
        " call 48(fp),h\n ret\n h: addc 16(mp),32(fp)\n lenc 32(fp),60(fp)\n"
        " bgtw 60(fp),$1000,bad\n ret\n bad: raise 16(mp)"
    ),
    "what was where a result goes, sent from there": (
        "newcp $2,4(mp)\n new $5,36(fp)\n frame $2,48(fp)\n lea 36(fp),16(48(fp))\n"
        " call 48(fp),h\n recv 4(mp),32(fp)\n movw $77,8(32(fp))\n raise 16(mp)\n"
        " h: send 0(16(fp)),4(mp)\n new $7,32(fp)\n movp 32(fp),0(16(fp))\n ret"
    ),
    "what was where a result goes, sent from there by alt": (
        "newcp $2,4(mp)\n new $5,36(fp)\n frame $2,48(fp)\n lea 36(fp),16(48(fp))\n"
        " call 48(fp),h\n recv 4(mp),32(fp)\n movw $77,8(32(fp))\n raise 16(mp)\n"
        " h: movw $1,60(fp)\n movw $0,64(fp)\n movw 4(mp),68(fp)\n lea 0(16(fp)),72(fp)\n"
        " nbalt 60(fp),76(fp)\n new $7,32(fp)\n movp 32(fp),0(16(fp))\n ret"
    ),
    "numbers read far behind a record that a result goes to": (
        "new $7,4(mp)\n frame $2,48(fp)\n lea 8(4(mp)),16(48(fp))\n call 48(fp),h\n"
        " raise 16(mp)\n h: movw 60000(16(fp)),60(fp)\n ret"
    ),
    "no place for the result": (
        "frame $2,48(fp)\n call 48(fp),h\n ret\n h: movw $77,0(16(fp))\n ret"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", ALONE)
def test_one_module(tmp_path, what, name):
    found = run(tmp_path, name, {"a": ALONE[what]})
    assert "forged" not in found


def test_what_others_hold_is_marked_and_not_refused():
    code = ALONE["an array in an array that is dropped"]
    found = prove_module(assembled("a", code, {"a": code}))
    assert [guard.of for guard in found.guards[3]] == [Of.MARKED]


CALL = " load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n{}\n mcall 48(fp),$0,40(fp)\n"
DEEP = (
    " load 0(mp),$0,40(fp)\n new $3,32(fp)\n movp 40(fp),4(32(fp))\n new $3,36(fp)\n"
    " movp 32(fp),4(36(fp))\n new $3,32(fp)\n movp 36(fp),4(32(fp))\n movp 32(fp),4(mp)\n"
    " movp 4(mp),36(fp)\n movp 4(36(fp)),36(fp)\n movp 4(36(fp)),36(fp)\n movp 4(36(fp)),36(fp)\n"
    " new $3,32(fp)\n mframe 36(fp),$0,48(fp)\n{} mcall 48(fp),$0,36(fp)\n"
)
BETWEEN = {
    "an argument for a module that was kept deep in records": (
        DEEP.format(" movw $77,36(48(fp))\n") + " ret",
        "ret\n f: movw 36(fp),56(fp)\n" + BAD,
    ),
    "the result of a module that was kept deep in records": (
        DEEP.format(" lea 32(fp),16(48(fp))\n") + " movw 32(fp),56(fp)\n" + BAD,
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "its result into a record": (
        DEEP.format(" lea 4(32(fp)),16(48(fp))\n") + " movw 4(32(fp)),56(fp)\n" + BAD,
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "a nil that another module writes": (
        CALL.format("") + " movw 0(40(fp)),44(fp)\n movp 0(mp),12(44(fp))\n"
        " mframe 40(fp),$0,48(fp)\n mcall 48(fp),$0,40(fp)\n ret",
        ("ret\n f: movw 12(mp),60(fp)\n beqw 60(fp),$-1,n\n beqw 92(fp),$0,x\n new $5,32(fp)\n"
        " jmp y\n x: movp 12(mp),32(fp)\n y: movp 8(32(fp)),36(fp)\n movw 36(fp),56(fp)\n"
        ' bnew 56(fp),$-1,bad\n n: ret\n bad: raise 16(mp)\n link -1,-1,0,".mp"'),
    ),
    "the data of a module, which its handle begins with": (
        " load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n movp 40(fp),32(48(fp))\n"
        " mcall 48(fp),$0,40(fp)\n movw 0(40(fp)),56(fp)\n" + BAD,
        "ret\n f: movw $77,0(32(fp))\n ret",
    ),
    "a pointer that is read by the address of its slot alone": (
        "new $7,36(fp)\n movw $77,8(36(fp))\n"
        + CALL.format("movp 36(fp),32(48(fp))")
        + " ret",
        "ret\n f: movw $0,92(fp)\n movw $0,88(fp)\n lea 36(fp),44(fp)\n beqw 92(fp),$0,x\n"
        " new $5,36(fp)\n jmp y\n x: movp 32(fp),36(fp)\n y: beqw 88(fp),$0,z\n"
        " new $5,40(fp)\n jmp w\n z: movp 0(44(fp)),40(fp)\n w: movp 8(40(fp)),32(fp)\n"
        " movw 32(fp),56(fp)\n" + BAD,
    ),
    "a value received into a frame for another module": (
        ("newcw $1,36(fp)\n send $77,36(fp)\n load 0(mp),$0,40(fp)\n movw $14,84(fp)\n"
        " mframe 40(fp),$0,48(fp)\n recv 36(fp),32(48(fp))\n mcall 48(fp),$0,40(fp)\n ret"),
        "ret\n f: movw 32(fp),56(fp)\n" + BAD,
    ),
    "a number read as a pointer in a frame for another module": (
        ("movw $77,92(fp)\n load 0(mp),$0,40(fp)\n frame $2,48(fp)\n movw $77,44(48(fp))\n"
        " call 48(fp),h\n mframe 40(fp),$0,48(fp)\n movp 44(48(fp)),32(48(fp))\n"
        " mcall 48(fp),$0,40(fp)\n ret\n h: ret"),
        "ret\n f: movw 32(fp),56(fp)\n" + BAD,
    ),
    "a third module's result in the name of another": (
        CALL.format(" lea 36(fp),16(48(fp))")
        + " movw 36(fp),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)",
        "ret\n f: " + CALL.format(" lea 0(16(fp)),16(48(fp))") + " ret",
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "another module's result into an element of a third one's array": (
        "newa $1,$4,36(fp)\n" + CALL.format(" movp 36(fp),32(48(fp))") + " ret",
        "ret\n f: indx 32(fp),52(fp),$0\n" + CALL.format(" lea 0(52(fp)),16(48(fp))")
        + " movw 0(52(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)",
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "a value received into an element, both unknown": (
        "newa $1,$4,36(fp)\n newcw $1,32(fp)\n send $77,32(fp)\n"
        + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))") + " ret",
        ("ret\n f: indx 32(fp),52(fp),$0\n recv 36(fp),0(52(fp))\n"
        " movw 0(52(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"),
    ),
    "a value received into a field by its address, both unknown": (
        "new $3,36(fp)\n newcw $1,32(fp)\n send $77,32(fp)\n"
        + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))") + " ret",
        ("ret\n f: lea 4(32(fp)),52(fp)\n recv 36(fp),0(52(fp))\n"
        " movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"),
    ),
    "a value received by alt, both unknown": (
        "newa $1,$4,36(fp)\n newcw $1,32(fp)\n send $77,32(fp)\n"
        + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))") + " ret",
        ("ret\n f: frame $1,48(fp)\n movp 32(fp),32(48(fp))\n movp 36(fp),36(48(fp))\n"
        " call 48(fp),h\n ret\n"
        " h: indx 32(fp),52(fp),$0\n movw $0,60(fp)\n movw $1,64(fp)\n movw 36(fp),68(fp)\n"
        " lea 0(52(fp)),72(fp)\n alt 60(fp),76(fp)\n"
        " movw 0(52(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"),
    ),
    "a number sent as a pointer, both unknown": (
        "newa $1,$6,36(fp)\n indx 36(fp),52(fp),$0\n movw $77,0(52(fp))\n newcp $1,32(fp)\n"
        + CALL.format(" movp 36(fp),32(48(fp))\n movp 32(fp),36(48(fp))")
        + f" recv 32(fp),36(fp)\n movw 36(fp),56(fp)\n{BAD}",
        "ret\n f: indx 32(fp),52(fp),$0\n send 0(52(fp)),36(fp)\n ret",
    ),
    "the address of a field of another module's record": (
        "new $3,36(fp)\n" + CALL.format(" movp 36(fp),32(48(fp))") + " ret",
        ("ret\n f: lea 4(32(fp)),52(fp)\n movw $77,0(52(fp))\n movw 4(32(fp)),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"),
    ),
    "a result into a field of another module's record, by its address": (
        "new $3,36(fp)\n" + CALL.format(" movp 36(fp),32(48(fp))") + " ret",
        ("ret\n f: lea 0(32(fp)),52(fp)\n frame $2,48(fp)\n lea 4(52(fp)),16(48(fp))\n"
        " call 48(fp),h\n movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)\n h: movw $77,0(16(fp))\n ret"),
    ),
    "the address of an argument for another module": (
        (" load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n lea 32(48(fp)),52(fp)\n"
        " movw $77,0(52(fp))\n mcall 48(fp),$0,40(fp)\n ret"),
        "ret\n f: movw 32(fp),56(fp)\n beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)",
    ),
    "a frame for a function of one module, and a call of another's": (
        (" load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n load 4(mp),$0,32(fp)\n"
        " movp 40(fp),32(48(fp))\n movp 32(fp),36(48(fp))\n mcall 48(fp),$0,40(fp)\n ret\n"
        ' string @mp+4,"/c.dis"'),
        ("ret\n f: mframe 32(fp),$0,48(fp)\n lea 40(fp),16(48(fp))\n"
        " mcall 48(fp),$0,36(fp)\n movw 40(fp),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"),
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "a frame for a function of one module, and another's handle in its place": (
        (
            " load 0(mp),$0,40(fp)\n mframe 40(fp),$0,48(fp)\n load 4(mp),$0,32(fp)\n"
            " movp 40(fp),32(48(fp))\n movp 32(fp),36(48(fp))\n mcall 48(fp),$0,40(fp)\n ret\n"
            ' string @mp+4,"/c.dis"'
        ),
        (
            "ret\n f: mframe 32(fp),$0,48(fp)\n movp 36(fp),32(fp)\n lea 40(fp),16(48(fp))\n"
            " mcall 48(fp),$0,32(fp)\n movw 40(fp),56(fp)\n"
            " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)"
        ),
        "ret\n f: movw $77,0(16(fp))\n ret",
    ),
    "the number of a channel in an array, over a pointer": (
        ("newcw $1,32(fp)\n send $77,32(fp)\n newa $78,$4,36(fp)\n indx 36(fp),52(fp),$77\n"
        " movp 32(fp),0(52(fp))\n" + CALL.format(" movp 36(fp),32(48(fp))") + " ret"),
        ("ret\n f: movw $0,60(fp)\n movw $1,64(fp)\n movw 32(fp),68(fp)\n"
        " lea 36(fp),72(fp)\n alt 60(fp),76(fp)\n movw 36(fp),56(fp)\n"
        " beqw 56(fp),$77,bad\n ret\n bad: raise 16(mp)\n"),
    ),
    "a frame of the caller's own in place of the function's": (
        (
            CALL.format(" lea 36(fp),16(48(fp))")
            + " mframe 36(fp),$-1,48(fp)\n frame $2,48(fp)\n lea 32(fp),16(48(fp))\n"
            " mcall 48(fp),$-1,36(fp)\n movw 32(fp),56(fp)\n bnew 56(fp),$77,x\n"
            " raise 16(mp)\n x: exit"
        ),
        "movw $77,0(16(fp))\n ret\n f: self 32(fp)\n movp 32(fp),0(16(fp))\n ret",
    ),
    "a result over an address": (
        (
            "new $3,32(fp)\n newa $1,$6,36(fp)\n indx 36(fp),72(fp),$0\n"
            + CALL.format(" movw 32(fp),44(48(fp))\n lea 64(fp),16(48(fp))")
            + " movw $77,0(72(fp))\n movw 4(32(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
            " bad: raise 16(mp)"
        ),
        "ret\n f: addw $4,44(fp),44(fp)\n movw 44(fp),8(16(fp))\n ret",
    ),
    "a result over a table": (
        CALL.format(" lea 20(mp),16(48(fp))")
        + " case $1,24(mp)\n x: ret\n y: raise 16(mp)\n z: ret\n word @mp+24,1,0,5,x,z",
        "ret\n f: movw $6,16(16(fp))\n ret",
    ),
    "a pointer in a frame of the caller's own, where the function has a local": (
        (" load 0(mp),$0,40(fp)\n frame $2,48(fp)\n new $5,36(fp)\n movp 36(fp),36(48(fp))\n"
        " mcall 48(fp),$0,40(fp)\n movw 8(36(fp)),56(fp)\n beqw 56(fp),$77,bad\n ret\n"
        " bad: raise 16(mp)"),
        ("ret\n f: frame $2,48(fp)\n lea 36(fp),16(48(fp))\n call 48(fp),h\n"
        " movw $77,8(36(fp))\n ret\n h: beqw 60(fp),$0,z\n new $7,32(fp)\n"
        " movp 32(fp),0(16(fp))\n z: ret"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", BETWEEN)
def test_several_modules(tmp_path, what, name):
    found = run(tmp_path, name, dict(zip("abc", BETWEEN[what], strict=False)))
    assert "forged" not in found


DROPPED = (
    "x: {}\n frame $2,48(fp)\n lea {},16(48(fp))\n call 48(fp),h\n"
    " addw $1,60(fp),60(fp)\n bltw 60(fp),$3000,x\n raise 16(mp)\n"
    " h: movp 12(mp),4(mp)\n movw $77,0(16(fp))\n ret"
)
AGAIN = {
    "arrays": DROPPED.format("newa $100,$6,4(mp)\n indx 4(mp),44(fp),$9", "0(44(fp))"),
    "records": DROPPED.format("new $7,4(mp)", "8(4(mp))"),
    "slices": DROPPED.format(
        "newa $100,$6,4(mp)\n slicea $3,$9,4(mp)\n indx 4(mp),44(fp),$2", "4(44(fp))"
    ),
    "arrays in a cycle": (
        "x: newa $100,$4,4(mp)\n indx 4(mp),44(fp),$9\n movp 4(mp),0(44(fp))\n"
        " indx 4(mp),44(fp),$7\n frame $2,48(fp)\n lea 0(44(fp)),16(48(fp))\n call 48(fp),h\n"
        " addw $1,60(fp),60(fp)\n bltw 60(fp),$3000,x\n raise 16(mp)\n"
        " h: movp 12(mp),4(mp)\n movp 16(mp),0(16(fp))\n ret"
    ),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", AGAIN)
def test_memory_of_what_was_dropped_is_used_again(tmp_path, what, name):
    assert "forged" in run(tmp_path, name, {"a": AGAIN[what]}, 1 << 18)
