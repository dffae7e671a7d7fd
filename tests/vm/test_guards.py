"""What no module tells by itself is checked while it runs: such programs end with "type check".

Each is a few instructions of module ``a``, and of ``b``, which it loads. Both have frames of type 1
(64 bytes, pointers at 32 and 48) and 2 (40 bytes, pointer at 32), objects of type 3 (16 bytes,
pointer at 4), 4 (a pointer), 5 (64 bytes), 6 (8 bytes) and 7 (16 bytes, pointer at 8), and module
data with pointers at 0 and 4, of which the first is a string.
"""

from __future__ import annotations

import io

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import VerifyError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.isa import Mode
from llmbol_core.vm.jit.guarding import masks, wanted
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Operand
from llmbol_core.vm.objectwriter import write_module
from llmbol_core.vm.verification.guards import Guard, Of, Piece
from llmbol_core.vm.verification.needs import Need, Part, Shape
from llmbol_core.vm.verification.origins import Use
from llmbol_core.vm.verification.proofs import Proof
from llmbol_core.vm.verification.structure import check_structure
from llmbol_core.vm.verification.variables import Variables
from llmbol_core.vm.verifier import prove_module

FRAME = """
    module {name}
    entry 0,1
    desc $0,64,(0,4)
    desc $1,64,(32,48)
    desc $2,40,(32)
    desc $3,16,(4)
    desc $4,4,(0)
    desc $5,64,"00"
    desc $6,8,"00"
    desc $7,16,(8)
    var @mp,64
    link 1,0,0x4244b354,"init"
    string @mp+0,"{text}"
    ldts @ldt,1
    word @ldt+0,{count}
"""
IMPORTS = 'ext @ldt+0,1,"f"\next @ldt+8,2,"g"\n'
CALL = "load 0(mp),$0,48(fp)\n mframe 48(fp),$0,40(fp)\n {}\n mcall 40(fp),$0,48(fp)\n {}\n ret\n"
TYPED = 'exceptions 1\nexception a,b,48,-1,1,1\nexctab "text",b\nexctab *,-1'


def made(code, name, more="", text="text", imports=""):
    frame = FRAME.format(name=name, text=text, count=imports.count("ext"))
    return parse_assembly(f"{code}\n{frame}{imports}{more}\n", name)


def outcome(tmp_path, **modules):
    for name, module in modules.items():
        (tmp_path / f"{name}.dis").write_bytes(write_module(module))
    out = io.BytesIO()
    limits = Limits(4 << 20, instructions=100_000)
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), limits, streams) as vm:
        vm.run("/a.dis")
    return out.getvalue().decode()


RAISED = "a: new $4,32(fp)\n movp 0(mp),0(32(fp))\n raise 32(fp)\n b:"
ALONE = [
    ("self 48(fp)\n mnewz 48(fp),$3,32(fp)\n movw $5,4(32(fp))\n ret",
     "a number at 4 lies over a pointer"),
    ("self 48(fp)\n mnewz 48(fp),$4,32(fp)\n movw $5,12(32(fp))\n ret",
     "4 bytes at 12 reach beyond the 4 there"),
    ("newa $2,$4,32(fp)\n cvtac 32(fp),48(fp)\n ret", "an element has 4 bytes, not 1"),
    ("new $5,32(fp)\n movw $70000,0(32(fp))\n raise 32(fp)\n ret", ""),
    (f"{RAISED} movp 4(48(fp)),32(fp)\n ret\n{TYPED}", "4 bytes at 4 reach beyond the 4 there"),
    (f"{RAISED} movp 48(fp),4(mp)\n movw 8(4(mp)),40(fp)\n ret\n{TYPED}",
     "reach beyond the 4 there"),
    (("newcw $1,32(fp)\n send 36(fp),32(fp)\n movp 32(fp),4(mp)\n consp 4(mp),48(fp)\n"
      " frame $2,40(fp)\n movp 48(fp),32(40(fp))\n call 40(fp),f\n ret\n f: headp 32(fp),32(fp)\n"
      " recv 32(fp),32(fp)\n ret"), "disagree about the pointer at 0"),
    ("self 48(fp)\n movw 0(48(fp)),40(fp)\n movw $70000,8(40(fp))\n ret", "reach beyond the 0"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "why"), ALONE)
def test_what_a_module_cannot_know(tmp_path, code, why):
    found = outcome(tmp_path, a=made(code, "A"))
    assert "type check" in found
    assert why in found


PRINT = 'ext @ldt+0,0xac849033,"print"\n'
PRINTED = [
    # What is given for %s: a number, a list, an array, nothing.
    "frame $8,40(fp)\n movp 4(mp),32(40(fp))\n movw $70000,36(40(fp))",
    "frame $9,40(fp)\n movp 4(mp),32(40(fp))\n consw $7,36(40(fp))",
    "frame $9,40(fp)\n movp 4(mp),32(40(fp))\n newa $4,$6,36(40(fp))",
    "frame $10,40(fp)\n movp 4(mp),32(40(fp))",
]


@pytest.mark.parametrize("given", PRINTED)
def test_what_functions_of_the_host_are_given(tmp_path, given):
    code = f"load 0(mp),$0,48(fp)\n {given}\n lea 60(fp),16(40(fp))\n mcall 40(fp),$0,48(fp)\n ret"
    more = 'desc $8,40,(32)\ndesc $9,40,(32,36)\ndesc $10,36,(32)\nstring @mp+4,"%s"'
    found = outcome(tmp_path, a=made(code, "A", more, text="$Sys", imports=PRINT))
    assert '"type check"' in found


def test_tables_of_exported_data_are_kept(tmp_path):
    code = ("self 48(fp)\n movw 0(48(fp)),40(fp)\n movw $1,16(40(fp))\n case $0,8(mp)\n"
            " a: ret\n b: ret")  # fmt: skip
    more = 'link -1,-1,0,".mp"\nword @mp+8,1,0,5,4,4'
    assert "a number at 16 lies over a pointer" in outcome(tmp_path, a=made(code, "A", more))


PASSED = "new $3,32(fp)\n movp 32(fp),32(40(fp))"
CARRIED = "newcw $1,4(mp)\n send $7,4(mp)\n movp 4(mp),32(40(fp))"
BETWEEN = [
    # What the caller does, and f of the other module; g is there to be called by it.
    (CALL.format(PASSED, ""), "f: movw $70000,4(32(fp))\n ret", "lies over a pointer"),
    (CALL.format(PASSED, ""), "f: movp 8(32(fp)),32(fp)\n ret", "there is no pointer at 8"),
    (CALL.format(PASSED, ""), "f: movw 16(32(fp)),36(fp)\n ret", "reach beyond the 16 there"),
    (CALL.format(PASSED, ""), "f: lenc 32(fp),36(fp)\n ret", "the object is no string"),
    (CALL.format("lea 32(fp),16(40(fp))", "movp 4(32(fp)),48(fp)\n lenc 48(fp),52(fp)"),
     "f: new $5,32(fp)\n movp 32(fp),0(16(fp))\n ret", "there is no pointer at 4"),
    (CALL.format("lea 32(fp),16(40(fp))", "indw 32(fp),52(fp),$0\n movw $1,0(52(fp))"),
     "f: newa $1,$4,32(fp)\n movp 32(fp),0(16(fp))\n ret", "lies over a pointer"),
    (CALL.format("lea 32(fp),16(40(fp))", "headp 32(fp),48(fp)"),
     "f: consw $7,32(fp)\n movp 32(fp),0(16(fp))\n ret", "there is no pointer at 0"),
    (CALL.format(PASSED, ""),
     ("f: frame $2,36(fp)\n lea 4(32(fp)),16(36(fp))\n call 36(fp),h\n ret\n"
      " h: movw $7,0(16(fp))\n ret"), "a number at 4 lies over a pointer"),
    (CALL.format(PASSED, ""),
     ("f: frame $2,36(fp)\n lea 12(32(fp)),16(36(fp))\n call 36(fp),h\n ret\n"
      " h: movw $7,4(16(fp))\n ret"), "4 bytes at 16 reach beyond the 16 there"),
    (CALL.format("newcw $1,32(40(fp))", ""), "f: recv 32(fp),32(fp)\n ret",
     "disagree about the pointer at 0"),
    (CALL.format(f"{CARRIED}\n lea 32(fp),16(40(fp))", ""),
     "f: recv 32(fp),0(16(fp))\n ret", "it returns 4 bytes at 0, where a pointer is"),
    (CALL.format(f"{CARRIED}\n lea 0(mp),16(40(fp))", ""),
     ("f: frame $2,36(fp)\n movp 32(fp),32(36(fp))\n lea 4(16(fp)),16(36(fp))\n"
      " call 36(fp),h\n ret\n h: recv 32(fp),0(16(fp))\n ret"),
     "it returns 4 bytes at 4, where a pointer is"),
    (CALL.format("load 0(mp),$0,32(40(fp))", ""),
     ("f: mframe 32(fp),$1,36(fp)\n movw $1,32(36(fp))\n mcall 36(fp),$1,32(fp)\n ret"),
     "a caller stores 4 bytes at 32, where a pointer is"),
]  # fmt: skip


@pytest.mark.parametrize(("caller", "called", "why"), BETWEEN)
def test_what_passes_between_modules(tmp_path, caller, called, why):
    code = f"ret\n {called}\n g: ret"
    links = 'link 2,f,1,"f"\nlink 2,g,2,"g"'
    modules = {
        "a": made(caller, "A", text="/b.dis", imports=IMPORTS),
        "b": made(code, "B", links, imports=IMPORTS),
    }
    found = outcome(tmp_path, **modules)
    assert "type check" in found
    assert why in found


BEYOND = [
    # Where the caller wants a result, and what is read there.
    ("lea 60(fp),16(40(fp))", "f: movw 4(16(fp)),36(fp)\n ret", "reads 4 bytes at 4, beyond the 4"),
    ("lea 60(mp),16(40(fp))", "f: movl 0(16(fp)),8(mp)\n ret", "reads 8 bytes at 0, beyond the 4"),
    ("new $3,32(fp)\n lea 12(32(fp)),16(40(fp))", "f: movm 4(16(fp)),$4,36(fp)\n ret",
     "reads 4 bytes at 4, beyond the 4"),
    ("newa $2,$6,32(fp)\n indx 32(fp),52(fp),$1\n lea 4(52(fp)),16(40(fp))",
     "f: movmp 0(16(fp)),$6,8(mp)\n ret", "reads 8 bytes at 0, beyond the 4"),
    ("lea 60(fp),16(40(fp))",
     ("f: frame $2,36(fp)\n lea 4(16(fp)),16(36(fp))\n call 36(fp),h\n ret\n"
      " h: addw 0(16(fp)),$1,36(fp)\n ret"), "reads 4 bytes at 4, beyond the 4"),
    # The rest of the frame, of which the caller needs nothing: that may all be the result.
    ("lea 44(fp),16(40(fp))", "f: movl 0(16(fp)),8(mp)\n ret", ""),
]  # fmt: skip


@pytest.mark.parametrize(("given", "called", "why"), BEYOND)
def test_nobody_reads_beyond_the_place_for_a_result(tmp_path, given, called, why):
    links = 'link 2,f,1,"f"\nlink 2,g,2,"g"'
    found = outcome(
        tmp_path,
        a=made(CALL.format(given, ""), "A", text="/b.dis", imports=IMPORTS),
        b=made(f"ret\n {called}\n g: ret", "B", links),
    )
    assert ("where a caller wants its result" in found) == bool(why)
    assert why in found


STORE = "newa $3,$4,32(fp)\n indw 32(fp),52(fp),$1\n movp {},0(52(fp))"
ARRAYS = [
    ("newcw $1,4(mp)\n send $5,4(mp)\n " + STORE.format("4(mp)"), ""),
    ("newcp $1,4(mp)\n " + STORE.format("4(mp)"), "disagree about the pointer at 0"),
    ("newcmp $8,$1,4(mp)\n " + STORE.format("4(mp)"), "has 24 bytes, where there is room for 20"),
    (STORE.format("0(mp)"), "the object is no channel"),
    ("newa $3,$6,32(fp)", "the array has no channels"),
]


@pytest.mark.parametrize(("given", "why"), ARRAYS)
def test_channels_of_an_array_carry_what_there_is_room_for(tmp_path, given, why):
    caller = CALL.format(f"{given}\n movp 32(fp),32(40(fp))", "")
    receive = (
        "f: frame $8,36(fp)\n movp 32(fp),32(36(fp))\n call 36(fp),h\n ret\n"
        " h: movw $0,40(fp)\n movw $1,44(fp)\n movw 32(fp),48(fp)\n lea 60(fp),52(fp)\n"
        " nbalt 40(fp),56(fp)\n ret\n g: ret"
    )
    found = outcome(
        tmp_path,
        a=made(caller, "A", 'desc $8,24,"00"', text="/b.dis", imports=IMPORTS),
        b=made(
            f"ret\n {receive}", "B", 'desc $8,84,(32)\nlink 2,f,1,"f"\nlink 2,g,2,"g"',
            imports=IMPORTS,
        ),
    )  # fmt: skip
    assert ("type check" in found) == bool(why)
    assert why in found


# A word is sent from 8 of an object of type 3, and received there.
HONEST = [
    (CALL.format(PASSED, ""),
     "f: newcw $1,4(mp)\n send 8(32(fp)),4(mp)\n recv 4(mp),8(32(fp))\n ret"),
    (CALL.format(f"newcw $1,4(mp)\n {PASSED}\n movp 4(mp),4(32(fp))", ""),
     "f: send 8(32(fp)),4(32(fp))\n recv 4(32(fp)),8(32(fp))\n ret"),
    (CALL.format(PASSED, ""), "f: movw $7,8(32(fp))\n movp 4(32(fp)),32(fp)\n ret"),
    (CALL.format("movp 32(fp),32(40(fp))", ""),
     "f: beqw 32(fp),$-1,h\n movw 0(32(fp)),36(fp)\n h: ret"),
    (CALL.format("load 0(mp),$0,32(40(fp))", ""),
     ("f: mframe 32(fp),$1,36(fp)\n movp 0(mp),32(36(fp))\n mcall 36(fp),$1,32(fp)\n ret")),
    # An element gets a result behind a call whose own result lies before the element's address.
    (("load 0(mp),$0,4(mp)\n newa $2,$4,32(fp)\n"
      " mframe 4(mp),$0,40(fp)\n movp 32(fp),32(40(fp))\n lea 48(fp),16(40(fp))\n"
      " mcall 40(fp),$0,4(mp)\n indw 48(fp),52(fp),$1\n"
      " mframe 4(mp),$0,40(fp)\n movp 0(mp),32(40(fp))\n lea 32(fp),16(40(fp))\n"
      " mcall 40(fp),$0,4(mp)\n mframe 4(mp),$0,44(fp)\n movp 0(mp),32(44(fp))\n"
      " lea 0(52(fp)),16(44(fp))\n mcall 44(fp),$0,4(mp)\n ret"),
     "f: movp 32(fp),0(16(fp))\n ret"),
    # So does one behind a value that was received before it.
    (("load 0(mp),$0,4(mp)\n newa $2,$4,32(fp)\n"
      " mframe 4(mp),$0,40(fp)\n movp 32(fp),32(40(fp))\n lea 48(fp),16(40(fp))\n"
      " mcall 40(fp),$0,4(mp)\n indw 48(fp),52(fp),$1\n"
      " newcw $1,32(fp)\n send 52(fp),32(fp)\n recv 32(fp),36(fp)\n"
      " mframe 4(mp),$0,44(fp)\n movp 0(mp),32(44(fp))\n"
      " lea 0(52(fp)),16(44(fp))\n mcall 44(fp),$0,4(mp)\n ret"),
     "f: movp 32(fp),0(16(fp))\n ret"),
    # A result goes into one of two kinds of objects, of which one has no place for it.
    (("load 0(mp),$0,4(mp)\n new $6,32(fp)\n beqw 8(mp),$1,over\n new $3,32(fp)\n"
      " over: mframe 4(mp),$0,40(fp)\n movp 0(mp),32(40(fp))\n lea 4(32(fp)),16(40(fp))\n"
      " mcall 40(fp),$0,4(mp)\n ret"),
     "f: movp 32(fp),0(16(fp))\n ret"),
]  # fmt: skip


@pytest.mark.parametrize(("caller", "called"), HONEST)
def test_honest_programs_run(tmp_path, caller, called):
    links = 'link 2,f,1,"f"\nlink 2,g,2,"g"'
    found = outcome(
        tmp_path,
        a=made(caller, "A", text="/b.dis", imports=IMPORTS),
        b=made(f"ret\n {called}\n g: lenc 32(fp),36(fp)\n ret", "B", links, imports=IMPORTS),
    )
    assert found == ""


def test_records_keep_their_tags_while_others_are_called(tmp_path):
    # A record of tag 1 has a string at 8, one of tag 2 a record; the result might reach over it.
    caller = """
        load 0(mp),$0,4(mp)
        new $7,48(fp)
        movw $1,0(48(fp))
        mframe 4(mp),$0,40(fp)
        movp 0(mp),32(40(fp))
        lea 36(fp),16(40(fp))
        mcall 40(fp),$0,4(mp)
        movp 0(mp),8(48(fp))
        frame $2,44(fp)
        movp 48(fp),32(44(fp))
        call 44(fp),$12
        ret
        case 0(32(fp)),16(mp)
        lenc 8(32(fp)),36(fp)
        ret
        frame $2,36(fp)
        movp 8(32(fp)),32(36(fp))
        call 36(fp),$12
        ret
    """
    table = "word @mp+16,2,1,2,13,2,3,15,18"
    called = "ret\n f: movw $7,0(16(fp))\n ret\n g: ret"
    found = outcome(
        tmp_path,
        a=made(caller, "A", table, text="/b.dis", imports=IMPORTS),
        b=made(called, "B", 'link 2,f,1,"f"\nlink 2,g,2,"g"', imports=IMPORTS),
    )
    assert found == ""


def test_results_reach_over_fields_that_are_written_one_by_one():
    # Of the value at 4, the field at 8 is written by itself and that at 12 never; 28 is nil.
    text = """
        entry 0,1
        desc $0,32,(4,8,12,28)
        desc $1,48,(32)
        var @mp,32
        module m
        movp 28(mp),32(fp)
        movp 28(mp),8(mp)
        lea 4(mp),36(fp)
        ret
    """
    variables = Variables(check_structure(parse_assembly(text, "m")))
    assert (variables.end(4), variables.exposed) == (28, {12})


def test_what_a_module_makes_itself_needs_no_guards():
    code = "\n".join((
        "frame $2,40(fp)", "movw $3,36(40(fp))", "lea 32(fp),16(40(fp))", "call 40(fp),f", "ret",
        "f: beqw 36(fp),$0,g", "new $3,32(fp)", "frame $1,28(fp)", "g: ret",
    )).replace("frame $1,28(fp)", "movw 36(fp),8(32(fp))\n movp 32(fp),0(16(fp))")  # fmt: skip
    assert not prove_module(made(code, "A")).guards


def test_a_proof_is_kept_whole():
    where, link = Operand(Mode.FP_INDIRECT, 4, 32), Operand(Mode.IMMEDIATE, 1)
    need = Need({Part(32, 4, Use.POINTER)}, {Shape(40, (32,))}, {Shape(8, ())})
    guards = [
        Guard(where, Of.RECORD, (Piece(4, 4, Use.POINTER),)),
        Guard(where, Of.LINK, kind="Z", link=link, need=need),
    ]
    proof = Proof({(0, 1): need}, {0: {Part(0, 8, Use.READ)}}, {7: guards}, [(8, 24)])
    assert Proof.from_bytes(proof.to_bytes()) == proof


def test_masks_say_what_guards_say():
    guard = Guard(
        Operand(Mode.FP, 32), Of.RECORD, (Piece(4, 4, Use.POINTER), Piece(8, 8, Use.WRITE))
    )
    asked = wanted(guard)
    assert asked is not None
    assert (asked.least, asked.pointers, asked.numbers) == (16, 0b10, 0b1100)
    assert masks(16, (4,), (4, 8)) == [0b110, 0, 0b10, 0, 16]
    assert wanted(guard._replace(pieces=(Piece(256, 4, Use.WRITE),))) is None


# A new object of a number, with tag 0, and code for records of tag 1, which have a pointer there.
TAGGED = """
    new $6,32(fp)
    movw $0,0(32(fp))
    movw $99,4(32(fp))
    {}
    {}
    case 0(32(fp)),16(mp)
    ret
    movp 4(32(fp)),48(fp)
    ret
"""
RETAGGED = [
    ("jmp $4", "jmp $5", ""),
    ("movw 8(mp),0(32(fp))", "jmp $5", ""),
    ("movp 32(fp),48(fp)", "movw $1,0(48(fp))", "there is no pointer at 4"),
    ("lea 0(32(fp)),40(fp)", "movw $1,0(40(fp))", "there is no pointer at 4"),
]


@pytest.mark.parametrize(("first", "then", "why"), RETAGGED)
def test_records_of_one_tag_come_to_code_for_others(first, then, why):
    module = made(TAGGED.format(first, then), "A", "word @mp+16,2,0,1,6,1,2,7,8")
    if why:
        with pytest.raises(VerifyError, match=why):
            prove_module(module)
    else:
        assert [guard.of for guard in prove_module(module).guards[7]] == [Of.RECORD]


def test_what_a_record_of_one_tag_holds_is_nothing_to_code_for_others():
    # The record has a string at 4; code for those of tag 1 takes a record from there.
    code = """
        new $3,32(fp)
        movw $0,0(32(fp))
        movp 0(mp),4(32(fp))
        {}
        {}
        case 0(32(fp)),16(mp)
        ret
        movp 4(32(fp)),48(fp)
        movw 4(48(fp)),36(fp)
        ret
    """
    table = "word @mp+16,2,0,1,6,1,2,7,9"
    honest = made(code.format("jmp $4", "jmp $5"), "A", table)
    assert [guard.of for guard in prove_module(honest).guards[8]] == [Of.RECORD]
    forged = made(code.format("movp 32(fp),48(fp)", "movw $1,0(48(fp))"), "A", table)
    with pytest.raises(VerifyError, match="the record is a string"):
        prove_module(forged)
