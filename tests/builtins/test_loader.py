"""$Loader: a program that looks into itself and makes a module of its own code.

``data/loads.dis`` is ``data/loads.b`` compiled by Inferno's limbo; then its imports got $Loader's
own signatures, since Limbo has no way to call what newmod returns. The output is Inferno's.
"""

import io
from contextlib import suppress
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.builtins.loader import _fields
from llmbol_core.errors import LimitError, Trap
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.engines import ENGINES, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.heaptypes import BYTE
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.builtins.calling import Borrowed, Caller

EXPECTED = """\
2 links
twice 75e8db6d
init 4244b354
-1
bad tdesc
1
-1
bad idx
0
1
40
1
nil parameters
0 0
1
"""


def test_a_program_makes_a_module():
    out = io.BytesIO()
    with InfernoVM(HOST_MODULES, streams=Streams(stdout=out)) as vm:
        vm.run(str(Path(__file__).parent / "data/loads.dis"), [], host=True)
    assert out.getvalue().decode() == EXPECTED


MAKER = """
    movp 8(mp),32(fp)
    load 0(mp),$0,40(fp)
    {data_map} mframe 40(fp),$0,48(fp)
    movw $8,32(48(fp))
    movp 36(fp),36(48(fp))
    lea 4(mp),16(48(fp))
    mcall 48(fp),$0,40(fp)
    {code} mframe 40(fp),$2,48(fp)
    movp 16(mp),32(48(fp))
    movw $512,36(48(fp))
    movw $2,40(48(fp))
    movp 36(fp),44(48(fp))
    movp 4(mp),48(48(fp))
    lea 32(fp),16(48(fp))
    mcall 48(fp),$2,40(fp)
    {types} {links} mframe 32(fp),$0,48(fp)
    mcall 48(fp),$0,32(fp)
    new $4,4(4(mp))
    mframe 32(fp),$1,48(fp)
    mcall 48(fp),$1,32(fp)
    raise 16(mp)
    module Maker
    entry 0,1
    desc $0,64,(0,4,8,16)
    desc $1,96,(32,36,40)
    desc $2,1
    desc $3,16
    desc $4,16
    desc $5,8,(4)
    var @mp,64
    link 1,0,0x4244b354,"init"
    string @mp+0,"$Loader"
    string @mp+16,"forged"
    ldts @ldt,1
    word @ldt+0,4
    ext @ldt+0,0x62a7cf80,"dnew"
    ext @ldt+0,0xcd936c80,"ext"
    ext @ldt+0,0x6de26f71,"newmod"
    ext @ldt+0,0xc1d58785,"tnew"
"""
MADE = """
    new $2,4(mp)
    ret
    movp 4(mp),32(fp)
    movp 8(32(fp)),36(fp)
    ret
    desc $0,8,(4)
    desc $1,64,(32,36)
    desc $2,16,(8)
    var @mp,8
    module Made
"""


def _bytes(numbers):
    """Make an array of byte at 36(fp)."""
    code = f"newa ${len(numbers)},$2,36(fp)\n"
    for at, number in enumerate(numbers):
        code += f"indb 36(fp),44(fp),${at}\ncvtwb ${number},0(44(fp))\n"
    return code


def _instructions(module):
    """Make an array of Inst at 36(fp)."""
    code = f"newa ${len(module.instructions)},$3,36(fp)\n"
    for at, instruction in enumerate(module.instructions):
        opcode, modes, *words = _fields(instruction)
        code += f"indx 36(fp),44(fp),${at}\ncvtwb ${opcode},0(44(fp))\ncvtwb ${modes},1(44(fp))\n"
        for place, word in zip((4, 8, 12), words, strict=True):
            code += f"movw ${word},{place}(44(fp))\n"
    return code


def _call(link, *arguments):
    """Call a function that is given the made module first."""
    code = f"mframe 40(fp),${link},48(fp)\nmovp 32(fp),32(48(fp))\n"
    for at, argument in enumerate(arguments):
        letter = "p" if "fp" in argument else "w"
        code += f"mov{letter} {argument},{36 + 4 * at}(48(fp))\n"
    return f"{code}lea 60(fp),16(48(fp))\nmcall 48(fp),${link},40(fp)\n"


@pytest.mark.parametrize("name", ENGINES)
def test_the_data_of_a_made_module_can_be_changed_by_who_made_it(name):
    made, out = parse_assembly(MADE, "made"), io.BytesIO()
    text = MAKER.format(
        data_map=_bytes(made.types[0].pointer_map),
        code=_instructions(made),
        types="".join(
            _bytes(kind.pointer_map) + _call(3, f"${kind.size}", "36(fp)")
            for kind in made.types[1:]
        ),
        links=_call(1, "$0", "$0", "$1") + _call(1, "$1", "$2", "$1"),
    )
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, streams=streams, engine=engine(name)) as vm:
        vm.load_module("maker", parse_assembly(text, "maker"))
        with pytest.raises(Trap, match="type check: there is no pointer at 8"):
            vm.execute("maker", "init", [])


@pytest.mark.parametrize("name", ["link", "ifetch", "tdesc"])
def test_what_is_no_module_is_none(name):
    call = Caller("$Loader")
    with pytest.raises(Trap, match="type check"):
        call(name, Borrowed(call.heap.new_text("text")))


def test_types_that_programs_make_count_against_their_memory():
    call = Caller("$Loader", limit=1 << 20)

    def make(size):
        call.heap.release(call("dnew", size, call.array(BYTE, b"\x80")))
        return len(call.heap.shapes)

    assert [make(8), make(8), make(12)] == [1, 1, 2]
    with pytest.raises(Trap, match="out of memory"):
        sum(map(make, range(16, 3000)))
    assert 100 < len(call.heap.shapes) < 1024


TWO = """
    movw $1,0(16(fp))
    ret
    movp 4(mp),0(16(fp))
    ret
    again: jmp again
    desc $0,8,(4)
    desc $1,64,(32,36)
    var @mp,8
    module Made
"""
"""Functions that return a number and a pointer, and one that does not return."""
CALL = "mframe 32(fp),$0,48(fp)\nlea 60(fp),16(48(fp))\nmcall 48(fp),$0,32(fp)\n"
USES = {
    "a link that leads elsewhere": (
        _call(1, "$0", "$0", "$1"),
        f"movw $0,56(fp)\nx: {CALL} bnew 60(fp),$1,bad\n addw $1,56(fp)\n bltw 56(fp),$3000,x\n"
        + _call(1, "$0", "$2", "$1")
        + "bnew 60(fp),$0,bad\njmp x",
        "type check: it returns a pointer at 0, where none is, where a caller wants its result",
    ),
    "a module in use": (
        _call(1, "$0", "$4", "$1"),
        "mframe 32(fp),$0,48(fp)\nmspawn 48(fp),$0,32(fp)\n"
        + _call(1, "$1", "$2", "$1")
        + "bnew 60(fp),$-1,bad",
        "",
    ),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("what", USES)
def test_links_of_a_made_module_change_while_nobody_runs_it(what, name):
    made, out = parse_assembly(TWO, "made"), io.BytesIO()
    first, then, why = USES[what]
    head, tail = MAKER.split("    {types}")
    text = head.format(data_map=_bytes(made.types[0].pointer_map), code=_instructions(made))
    kind = made.types[1]
    text += _bytes(kind.pointer_map) + _call(3, f"${kind.size}", "36(fp)") + first + then
    text += "\nexit\nbad: raise 16(mp)\n" + tail.partition("raise 16(mp)")[2]
    limits = Limits(instructions=1_000_000)
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, limits=limits, streams=streams, engine=engine(name)) as vm:
        vm.load_module("maker", parse_assembly(text, "maker"))
        with suppress(LimitError, Trap):
            vm.execute("maker", "init", [])
    assert out.getvalue().decode() == (f'[Maker] Broken: "{why}"\n' if why else "")
