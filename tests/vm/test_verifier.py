"""The verifier: accepts what compilers make, refuses what would break types or memory."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from llmbol_core.errors import DisFormatError, VerifyError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.jit.modulecode import code_of
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.verification.livein import Arguments
from llmbol_core.vm.verifier import _flow, verify_module
from tests.vm.objects import DATA_DIRECTORY, modules, object_files


@pytest.mark.parametrize("path", object_files(), ids=lambda p: p.stem)
def test_compiled_programs_are_accepted(path: Path) -> None:
    try:
        verified = verify_module(read_module(path.read_bytes(), str(path)))
    except (DisFormatError, VerifyError) as error:
        assert "obsolete dis" in str(error)  # noqa: PT017 -- four of Inferno's own files
        return
    assert verified.reached <= verified.instructions


# A program has a frame of type 1 (64 bytes, pointers at 32 and 48), a smaller frame of type 2, an
# object of type 3, and module data with pointers at 0 and 4.
FRAME = """
    module Test
    entry 0,1
    link 1,0,0x4244b354,"init"
    desc $0,64,(0,4)
    desc $1,64,(32,48)
    desc $2,40,(32)
    desc $3,16,(4)
    var @mp,64
    string @mp+0,"text"
    ldts @ldt,1
    word @ldt+0,1
    ext @ldt+0,1,"f"
"""


def program(code: str) -> Module:
    return parse_assembly(f"{code}\n{FRAME}")


GOOD = [
    "movp 0(mp),48(fp)\n ret",
    "movw 0(mp),40(fp)\n ret",
    "new $3,32(fp)\n movp 48(fp),4(32(fp))\n movw $1,8(32(fp))\n ret",
    "frame $2,40(fp)\n lea 44(fp),16(40(fp))\n call 40(fp),f\n ret\n f: ret",
    "frame $2,40(fp)\n movp 0(mp),32(40(fp))\n call 40(fp),f\n ret\n f: ret",
    "movpc $2,40(fp)\n jmp 40(fp)\n ret",
    "lea 56(fp),40(fp)\n movw $1,0(40(fp))\n ret",
    "l: newa $3,$3,32(fp)\n indx 32(fp),40(fp),$1\n movw $7,0(40(fp))\n jmp l",
    "load 0(mp),$0,32(fp)\n mframe 32(fp),$0,40(fp)\n mcall 40(fp),$0,32(fp)\n ret",
    "load 0(mp),$0,4(mp)\n movw 0(4(mp)),40(fp)\n movl 8(40(fp)),56(fp)\n ret",
    "movmp 0(32(fp)),$3,44(fp)\n ret",
    "movm 36(fp),$8,52(fp)\n ret",
    "case 36(fp),8(mp)\n a: ret\n word @mp+8,1,0,5,a,a",
    "goto 36(fp),12(mp)\n a: ret\n word @mp+8,2,a,a",
    "a: raise 0(mp)\n b: ret\n exception a,b,32,-1,0,0\n exctab *,b",
    (
        "frame $2,40(fp)\n frame $1,44(fp)\n call 44(fp),f\n call 40(fp),g\n ret\n"
        " f: movw 60(fp),36(fp)\n ret\n g: ret"
    ),
    "movm 32(fp),$8,40(fp)\n ret",
    # Pointers read as words, the nil that all types share, a pick, a slot that is used again.
    "movp 4(32(fp)),48(fp)\n beqw 4(32(fp)),$-1,a\n a: ret",
    "movp 0(mp),32(fp)\n lenc 32(fp),40(fp)\n movp 4(mp),32(fp)\n lena 32(fp),40(fp)\n ret",
    "beqw 0(32(fp)),$1,a\n movp 4(32(fp)),48(fp)\n ret\n a: movw $1,4(32(fp))\n ret",
    "lenc 32(fp),40(fp)\n movp 48(fp),32(fp)\n lena 32(fp),40(fp)\n ret",
    (
        "frame $2,40(fp)\n new $3,32(fp)\n movp 32(fp),32(40(fp))\n call 40(fp),f\n ret\n"
        " f: movw $1,8(32(fp))\n ret"
    ),
]

RESULT = "frame $2,40(fp)\n lea {}(fp),16(40(fp))\n call 40(fp),f\n ret\n "
BAD = [
    ("movw $1,32(fp)\n ret", "a word would be written over the pointer at 32"),
    ("movw $1,0(mp)\n ret", "a word would be written over the pointer at 0"),
    ("movl 8(mp),48(fp)\n ret", "a big would be written over the pointer at 48"),
    ("movb 40(fp),35(fp)\n ret", "a byte would be written over the pointer at 32"),
    ("lea 36(fp),32(fp)\n ret", "an address would be written over the pointer at 32"),
    ("movp 36(fp),32(fp)\n ret", "there is no pointer at 36"),
    # What is behind pointers that come from elsewhere.
    ("movp 4(32(fp)),48(fp)\n movw $1,4(32(fp))\n ret",
     "4 behind the pointer holds a pointer at pc 0"),
    ("movw $1,4(32(fp))\n movp 32(fp),48(fp)\n movp 4(48(fp)),48(fp)\n ret",
     "4 behind the pointer holds a number at pc 0"),
    ("movp 32(fp),0(mp)\n movl 8(mp),4(0(mp))\n movp 8(0(mp)),48(fp)\n ret",
     "8 behind the pointer holds a number at pc 1"),
    (("a: frame $2,40(fp)\n movp 32(fp),32(40(fp))\n call 40(fp),f\n movp 4(32(fp)),48(fp)\n ret\n"
     " f: movw $1,4(32(fp))\n ret"), "4 behind the pointer holds a pointer at pc 3"),
    (("frame $2,40(fp)\n new $3,32(fp)\n movp 32(fp),32(40(fp))\n call 40(fp),f\n ret\n"
     " f: movw $1,4(32(fp))\n ret"), "an object of type 3, made at pc 1, comes here: a num"),
    (RESULT.format(44) + "f: movl 8(mp),0(16(fp))\n ret",
     "the result goes to 44(fp); pc 4: a number at 44 lies over a pointer"),
    (RESULT.format(41) + "f: movw $1,0(16(fp))\n ret",
     "the result goes to 41(fp); pc 4: 4 bytes at 41 are not aligned"),
    ("lenc 32(fp),40(fp)\n lena 32(fp),40(fp)\n ret", "the array is used as a string at pc 0"),
    ("cvtwc 40(fp),32(fp)\n indw 32(fp),40(fp),$0\n ret", "the array is a string"),
    ("newa $3,$3,32(fp)\n indx 32(fp),40(fp),$1\n movw $7,4(40(fp))\n ret",
     "a word would be written over the pointer at 4"),
    ("movp 32(fp),8(mp)\n ret", "there is no pointer at 8"),
    ("lenc 40(fp),44(fp)\n ret", "there is no pointer at 40"),
    ("movw 64(fp),40(fp)\n ret", "a word at 64 lies outside the 64 bytes there"),
    ("movl 60(fp),40(fp)\n ret", "a big at 60 lies outside the 64 bytes there"),
    ("movw 62(mp),40(fp)\n ret", "a word at 62 lies outside the 64 bytes there"),
    ("movw 42(fp),40(fp)\n ret", "a word at 42 is not aligned"),
    ("movw $-1,4(fp)\n ret", "4(fp) lies in the header of the frame"),
    ("movw $1,0(40(fp))\n ret", "40(fp) is not known to hold an address"),
    ("movw 36(fp),40(fp)\n movw $1,0(40(fp))\n ret", "40(fp) is not known to hold an address"),
    ("movw $1,0(8(mp))\n ret", "8(mp) is no pointer"),
    ("new $3,32(fp)\n movw $1,4(32(fp))\n ret", "a word would be written over"),
    ("new $3,32(fp)\n movw $1,16(32(fp))\n ret", "a word at 16 lies outside the 16 bytes there"),
    ("new $9,32(fp)\n ret", "there is no type 9"),
    ("movw $1,$2\n ret", "the destination is written: it cannot be immediate"),
    ("addf $1,40(fp)\n ret", "the source is no real if it is immediate"),
    ("movw $1,$2,40(fp)\n ret", "has no middle operand"),
    ("movm 36(fp),$8,44(fp)\n ret", "8 bytes would be written over a pointer"),
    ("movm 36(fp),$40,44(fp)\n ret", "40 bytes at 36 reach beyond the 64 there"),
    ("movmp 32(fp),$3,0(48(fp))\n ret", "the value and the place disagree about the pointer at 4"),
    ("movmp 0(48(fp)),$3,36(fp)\n ret", "the value and the place disagree about the pointer at 4"),
    ("movw $1,40(fp)", "the program runs beyond its last instruction"),
    ("jmp 40(fp)\n ret", "the destination is not known to hold a code address"),
    ("call 40(fp),f\n f: ret", "the source is not known to hold a frame"),
    ("frame $3,40(fp)\n call 40(fp),f\n ret\n f: ret", "type 3 is no frame"),
    ("frame $2,40(fp)\n call 40(fp),f\n ret\n f: movw 56(fp),36(fp)\n ret", "a word at 56 lies"),
    ("frame $2,40(fp)\n call 40(fp),f\n f: ret", "pc 2 is reached with frames of types"),
    ("frame $2,40(fp)\n movw $1,32(40(fp))\n ret", "a word would be written over"),
    ("frame $2,40(fp)\n movw $1,8(40(fp))\n ret", "8 lies in the header of the frame made"),
    ("load 0(mp),$0,32(fp)\n mframe 32(fp),$0,40(fp)\n mcall 40(fp),$1,32(fp)\n ret",
     "the frame was made for link 0"),
    ("load 0(mp),$0,32(fp)\n mframe 32(fp),$0,40(fp)\n call 40(fp),f\n f: ret",
     "the frame was made for a function of another module"),
    ("load 0(mp),$1,32(fp)\n ret", "there is no import list 1"),
    ("beqw 36(fp),$0,x\n lea 56(fp),40(fp)\n x: movw $1,0(40(fp))\n ret",
     "40(fp) is not known to hold an address"),
    ("case 36(fp),8(mp)\n ret", "there is no table at 8(mp)"),
    ("case 36(fp),8(mp)\n ret\n word @mp+8,1,0,5,77,0", "the table leads to 77"),
    ("case 36(fp),8(mp)\n ret\n word @mp+8,9,0,5,1,0", "the table of 9 entries at 8(mp) reaches"),
    ("goto 36(fp),40(fp)\n ret", "the table should lie in the module data"),
    ("movpc 36(fp),40(fp)\n ret", "the source should be the number of an instruction"),
]  # fmt: skip

MODULES = [
    (
        "ret\n word @mp+4,1",
        "DEFW at 4: puts numbers where the module data has a pointer",
    ),
    (
        'ret\n string @mp+8,"x"',
        "DEFS at 8: makes a pointer where the module data has none",
    ),
    ("ret\n word @mp+60,1,2", "DEFW at 60: lies outside the module data"),
    ("ret\n word @mp+8,1,2\n byte @mp+11,1", "data items overlap at 11 of the module data"),
    ("ret\n indir @mp+4,0\n apop", "DIND at 4: ind not array"),
    ("ret\n array @mp+4,$3,2\n indir @mp+4,3\n apop", "array init range: element 3 of 2"),
    (
        "ret\n array @mp+4,$3,2\n indir @mp+4,1\n word @mp+4,1\n apop",
        "puts numbers where the array",
    ),
    ("ret\n array @mp+4,$3,2\n indir @mp+4,1\n word @mp+16,1\n apop", "lies outside the array"),
    (
        "ret\n exception 0,1,36,-1,0,0\n exctab *,0",
        "the handler for pc 0 to 1: 36(fp) is no pointer",
    ),
    ("ret\n exception 0,1,32,3,0,0\n exctab *,0", "type 3 has pointers that the frame has not"),
    ("ret\n exception 0,9,32,-1,0,0\n exctab *,0", "handler 0 covers pc 0 to 9 of 1"),
    ("ret\n exception 0,1,32,-1,0,0\n exctab *,4", "handler 0 leads outside the code"),
    ('ret\n link 3,0,1,"g"', "type 3 is no frame: frames begin with 32 bytes of their own"),
    ('ret\n link 1,5,1,"g"', "export 'g' is at pc 5 of 1"),
    ('ret\n desc $4,8,"ff"', "the pointer map of type 4 reaches beyond its 8 bytes"),
    ('ret\n desc $4,6,"80"', "type 4 has pointers, but 6 bytes are no whole words"),
    ("ret\n array @mp+4,$3,-1", "an array cannot have -1 elements"),
    ("ret\n array @mp+4,$9,1", "bad array type"),
    ("load 0(mp),$0,4(mp)\n ret\n flags 0", "obsolete dis"),
]


def test_the_first_type_is_that_of_the_data() -> None:
    good = program("ret")
    with pytest.raises(VerifyError, match="type 0 does not describe the 9999 bytes"):
        verify_module(replace(good, data_size=9999))


def test_types_have_the_numbers_of_their_places() -> None:
    good = program("ret")
    with pytest.raises(VerifyError, match="type 0 has the number"):
        verify_module(replace(good, types=good.types[::-1]))


@pytest.mark.parametrize("code", GOOD)
def test_good_programs(code: str) -> None:
    verify_module(program(code))


@pytest.mark.parametrize(("code", "why"), BAD, ids=lambda t: t[:40])
def test_bad_code_is_refused(code: str, why: str) -> None:
    with pytest.raises(VerifyError) as error:
        verify_module(program(code))
    assert why in error.value.why
    assert error.value.pc >= 0
    assert str(error.value).startswith(f"Test: pc {error.value.pc}: ")


@pytest.mark.parametrize(("text", "why"), MODULES, ids=lambda t: t[:40])
def test_bad_modules_are_refused(text: str, why: str) -> None:
    rest = FRAME.split("ldts")[0] if "flags 0" in text else FRAME
    text = f"{text}\n{rest}"
    with pytest.raises(VerifyError) as error:
        verify_module(parse_assembly(text))
    assert why in error.value.why


def test_tuples_that_the_compiler_takes_from_the_wrong_places_are_refused() -> None:
    data = (Path(__file__).parent / "refused" / "tuples.dis").read_bytes()
    with pytest.raises(
        VerifyError, match=r"pc 2: movp 20\(mp\),48\(fp\): there is no pointer at 48"
    ):
        verify_module(read_module(data))


@given(modules())
def test_any_module_is_verified_or_refused(module: Module) -> None:
    with suppress(VerifyError):
        verify_module(module)


@pytest.mark.parametrize("path", sorted(DATA_DIRECTORY.glob("*.dis")), ids=lambda p: p.stem)
def test_damaged_programs_are_verified_or_refused(path: Path) -> None:
    chance = random.Random(path.stem)
    data = path.read_bytes()
    # Long programs take long to verify; ``fuzz.py`` damages each of them more often.
    for _ in range(min(150, 100_000 // len(data))):
        damaged = bytearray(data)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with suppress(DisFormatError, VerifyError):
            verify_module(read_module(bytes(damaged)))


def test_great_tables_take_no_time() -> None:
    text = "case 36(fp),8(mp)\n ret\n word @mp+8,40000000\n desc $0,500000000\n var @mp,500000000"
    text += '\n desc $1,64\n link 1,0,0,"f"\n module Test'
    began = time.process_time()
    with pytest.raises(VerifyError, match="beyond the data"):
        verify_module(parse_assembly(text))
    assert time.process_time() - began < 1


def test_data_that_claims_to_be_code_is_refused():
    module = parse_assembly('ret module M desc $0,32 link -1,0,0,".mp"')
    with pytest.raises(VerifyError, match=r"export '\.mp' has no frame"):
        verify_module(module)
    verify_module(parse_assembly('ret module M desc $0,32 link -1,-1,0,".mp"'))


MANY_LABELS = """
    {code}
    {ends}
    exception 0,{count},32,-1,{count},0
    {labels}
    module A
    entry 0,1
    desc $0,8,""
    desc $1,96,(32,36)
    var @mp,8
    link 1,0,0x4244b354,"init"
"""


@pytest.mark.parametrize("places", [1, 300])
def test_many_labels_of_a_handler_are_followed_once_for_all_that_it_protects(places: int) -> None:
    labels = "\n".join(f'exctab "{number}",end{number % places}' for number in range(300))
    ends = "\n".join(f"end{number}: ret" for number in range(places))
    code = "\n".join(["movw $1,60(fp)"] * 300)
    text = MANY_LABELS.format(code=code, ends=ends, count=300, labels=labels)
    flow = _flow(parse_assembly(text, "a"))
    order, before = Arguments(flow.found, flow._follow, flow.states)._reached(0)
    assert sorted(order) == [*range(300 + places)]
    assert sum(map(len, before.values())) == 300 + 300 + places
    assert code_of(flow.module).handlers(299) == {*range(300, 300 + places)}
