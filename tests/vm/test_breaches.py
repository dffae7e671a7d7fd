"""Programs that got through to memory that is not theirs: refused, or stopped.

They are framed as those of ``test_attacks.py`` are, and run as those of ``test_detours.py``: each
goes with what the verifier, the linker or a guard says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Trap, VerifyError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.engines import ENGINES, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.heaptypes import BYTE, REAL
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import ABSENT
from llmbol_core.vm.objects import ARRAY
from llmbol_core.vm.verification import origins, returned
from llmbol_core.vm.verifier import prove_module
from tests.vm.test_attacks import CALL, run
from tests.vm.test_detours import DETOURS, ONE, OVER, Program, modules_of, said

PAIR = "\n desc $8,8,(0,4)"
UNKNOWN = (
    "newcmp $8,$1,8(mp)\n new $5,36(fp)\n movp 36(fp),32(fp)\n send 32(fp),8(mp)\n"
    " frame $2,48(fp)\n recv 8(mp),32(48(fp))\n movp 36(48(fp)),32(fp)\n call 48(fp),h\n"
)
"""A pointer of which nothing is known in a frame that was made is moved to a slot."""
UNSURE = "it is not sure where the result goes"

# fmt: off
BREACHES: dict[str, tuple[Program, str]] = {
    "a result in a constant": (
        ("frame $2,48(fp)\n lea $5,16(48(fp))\n call 48(fp),h\n ret\n"
         " h: movl 60(fp),200(16(fp))\n ret"), UNSURE),
    "a result of another module in a constant": (
        (CALL.format(" lea $5,16(48(fp))") + " ret",
         "ret\n f: movl 60(fp),200(16(fp))\n movp 16(mp),4(16(fp))\n ret"), UNSURE),
    "an address in one of two records, of which one is not known": (
        (f"{UNKNOWN} new $7,36(fp)\n beqw 92(fp),$1,x\n lea 8(32(fp)),44(fp)\n jmp y\n"
         " x: lea 8(36(fp)),44(fp)\n y: movw $77,0(44(fp))\n movp 8(32(fp)),36(fp)\n ret\n"
         f" h: ret{PAIR}"), OVER),
    "a copy of a channel that a call drops": (
        (f"newcw 8(mp)\n {ONE} movw 8(mp),68(fp)\n lea 84(fp),72(fp)\n frame $2,48(fp)\n"
         " call 48(fp),h\n nbalt 60(fp),76(fp)\n ret\n h: movp 12(mp),8(mp)\n ret"),
        "dereference of nil"),
    "bytes from behind a constant": (
        "movm $5,$32,60(fp)\n ret", "the source of bytes should not be immediate"),
    "a list of bytes from behind a constant": (
        "consm $5,$4000,36(fp)\n ret", "the source of bytes should not be immediate"),
    "a word of one of two records as a channel": (
        (f"{UNKNOWN.replace('$5', '$7')} {ONE} lea 84(fp),72(fp)\n new $5,36(fp)\n"
         " movw $4096,8(32(fp))\n beqw 92(fp),$1,x\n movw 8(32(fp)),68(fp)\n jmp y\n"
         " x: movw 8(36(fp)),68(fp)\n y: nbalt 60(fp),76(fp)\n ret\n"
         f" h: ret{PAIR}"), "type check: there is no pointer at 8"),
}
# fmt: on


@pytest.mark.parametrize("what", BREACHES)
def test_nothing_gets_through(tmp_path: Path, what: str) -> None:
    code, why = BREACHES[what]
    assert why in said(modules_of(code), tmp_path)


@pytest.mark.parametrize("limited", [origins, returned])
def test_addresses_go_to_so_many_places_only(
    monkeypatch: pytest.MonkeyPatch, limited: ModuleType
) -> None:
    monkeypatch.setattr(limited, "MOST_PLACES", 0)
    code, _ = DETOURS["a result that is received into a field"]
    with pytest.raises(VerifyError, match="moved on to too many places"):
        prove_module(modules_of(code)["a"])


def test_instructions_have_the_operands_that_they_need() -> None:
    module = modules_of("movw $1,60(fp)\n ret")["a"]
    code = (module.instructions[0]._replace(source=ABSENT), *module.instructions[1:])
    with pytest.raises(VerifyError, match="needs a source operand"):
        prove_module(replace(module, instructions=code))


INDEX = """
       new $7,4(mp)
       newcw 8(mp)
       newcw 32(fp)
       movw $0,60(fp)
       movw $2,64(fp)
       movw 32(fp),68(fp)
       lea 84(fp),72(fp)
       movw 8(mp),76(fp)
       lea 88(fp),80(fp)
       frame $2,48(fp)
       spawn 48(fp),h
       alt 60(fp),8(4(mp))
       ret
h:     movp 12(mp),4(mp)
       new $8,4(mp)
       lea 8(4(mp)),44(fp)
       movp 12(mp),4(mp)
       movw $1,0(44(fp))
wait:  addw $1,56(fp)
       bltw 56(fp),$9000,wait
       new $5,36(fp)
       send $1,8(mp)
go_on: addw $1,60(fp)
       bltw 60(fp),$99,go_on
       movw 8(36(fp)),56(fp)
       beqw 56(fp),$1,bad
       ret
bad:   raise 16(mp)
       desc $8,200000,"00"
"""
"""The record that an alt's index goes to is dropped, so much else that it must make room, and a
record with a pointer at that place is made before the alt receives something."""


@pytest.mark.parametrize("name", ENGINES)
def test_an_index_of_alt_goes_to_what_was_dropped_or_nowhere(tmp_path: Path, name: str) -> None:
    assert "forged" not in run(tmp_path, name, {"a": INDEX})


FAR = """
       movw $0,70000(mp)
       movw $0,70000(fp)
again: addw $1,70000(mp)
       addw $2,70000(fp)
       movp 0(mp),66000(fp)
       addl 70008(mp),70008(fp)
       bltw 70000(mp),$9000,again
       bnew 70000(fp),$18000,bad
       bnec 66000(fp),0(mp),bad
       bnec 4464(mp),4(mp),bad
       bnec 464(fp),4464(fp),bad
       ret
bad:   raise 0(mp)
       module A
       entry 0,1
       desc $0,100000,(0,4,4464)
       desc $1,80000,(32,36,464,4464,66000)
       var @mp,100000
       string @mp+0,"forged"
       link 1,0,0x4244b354,"init"
"""
"""Numbers at offsets beyond 65535, of which the low 16 bits are those of a pointer."""


@pytest.mark.parametrize("name", ENGINES)
def test_large_offsets_are_what_they_are(tmp_path: Path, name: str) -> None:
    limits, module = Limits(8 << 20, instructions=300_000), parse_assembly(FAR, "a")
    made = engine(name)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), limits, Streams(), engine=made) as machine:
        machine.load_module("a", module)
        machine.execute("a", "init")


GIVEN = """
       load 0(mp),$0,8(mp)
again: {}
       {}
       mcall 48(fp),$0,8(mp)
       addw $1,56(fp)
       bltw 56(fp),$99,again
       ret
       module A
       entry 0,1
       desc $0,64,(0,4,8)
       desc $1,96,(32,36,40)
       desc $2,96,"00"
       desc $3,96,(36)
       desc $4,16,"00"
       var @mp,64
       string @mp+0,"{}"
       string @mp+4,"text"
       ldts @ldt,1
       word @ldt+0,1
       ext @ldt+0,{},"{}"
       link 1,0,0x4244b354,"init"
"""
ARRAY_OF_NUMBERS = (
    "newz $4,32(fp)\n movw $2,0(32(fp))\n movw ${},4(32(fp))\n movw $65552,12(32(fp))\n"
    "mframe 8(mp),$0,48(fp)\n movp 32(fp),32(48(fp))\n movp 32(fp),36(48(fp))"
)
"""A record that looks as an array of numbers of a type does, somewhere in memory."""
RESULT = "lea 64(fp),16(48(fp))"
TEXT = "movw 4(mp),32(48(fp))"
"""The address of a string as a number."""
# fmt: off
TO_BUILT_IN = [
    ("$Math", "dot",    ARRAY_OF_NUMBERS.format(REAL)),
    ("$Math", "norm2",  ARRAY_OF_NUMBERS.format(REAL).removesuffix("\n movp 32(fp),36(48(fp))")),
    ("$Math", "sort",   ARRAY_OF_NUMBERS.format(REAL)),
    ("$Sys",  "print",  f"frame $2,48(fp)\n {TEXT}"),
    ("$Sys",  "sprint", f"frame $2,48(fp)\n {TEXT}"),
    ("$Sys",  "fprint", f"frame $3,48(fp)\n {TEXT}\n movp 4(mp),36(48(fp))"),
    ("$Sys",  "fprint", "frame $3,48(fp)\n movw $1,32(48(fp))\n movp 4(mp),36(48(fp))"),
]
# fmt: on


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(("module", "function", "code"), TO_BUILT_IN)
def test_built_in_functions_follow_no_numbers(
    tmp_path: Path, module: str, function: str, code: str, name: str
) -> None:
    found = HOST_MODULES[module].functions.find(function)
    assert found
    result = {"sprint": "lea 36(fp),16(48(fp))", "sort": ""}.get(function, RESULT)
    text = GIVEN.format(code, result, module, found.signature, function)
    streams, made = Streams(), engine(name)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), streams=streams, engine=made) as machine:
        machine.load_module("a", parse_assembly(text, "a"))
        with pytest.raises(Trap, match="type check"):
            machine.execute("a", "init", [])


NAMED = """
       new $7,32(fp)
       movw 16(mp),0(32(fp))
again: raise 32(fp)
caught: addw $1,56(fp)
       bltw 56(fp),$99,again
       ret
bad:   raise 16(mp)
       exception again,caught,36,-1,1,1
       exctab "forged",bad
       exctab *,caught
"""
"""What is raised begins with a number: the address of a string that a handler knows."""


@pytest.mark.parametrize("name", ENGINES)
def test_an_exception_has_no_number_for_its_name(tmp_path: Path, name: str) -> None:
    assert run(tmp_path, name, {"a": NAMED}) == ""


@pytest.mark.parametrize(("typed", "type_"), [(-1, -1), (2, -1), (0, 99), (0, -2)])
def test_handlers_have_the_labels_and_types_that_they_count(typed: int, type_: int) -> None:
    text = 'a: raise 16(mp)\n b: ret\n exception a,b,32,-1,1,0\n exctab "x",b\n exctab *,b'
    module = modules_of(text)["a"]
    prove_module(module)
    handlers = tuple(handler._replace(typed=typed, type=type_) for handler in module.handlers)
    with pytest.raises(VerifyError, match="labels, or types, than there are"):
        prove_module(replace(module, handlers=handlers))


OTHER_FRAME = f"""
       load 0(mp),$0,8(mp)
       load 4(mp),$1,12(mp)
       new $3,36(fp)
       movw ${ARRAY},4(36(fp))
       movw $100,16(36(fp))
       movw ${BYTE},20(36(fp))
       movw $-1,24(36(fp))
again: addw $1,56(fp)
       bgew 56(fp),$9000,out
       frame $2,48(fp)
       movw 36(fp),32(48(fp))
       addw $16,32(48(fp))
       call 48(fp),h
       movp 8(mp),16(mp)
       mframe 16(mp),$0,48(fp)
       movw $1,36(48(fp))
       lea 64(fp),16(48(fp))
       movp 12(mp),16(mp)
       mcall 48(fp),$0,16(mp)
end:   beqw 64(fp),$0,again
       raise 20(mp)
out:   ret
h:     ret
       exception again,end,32,-1,0,0
       exctab *,again
       module A
       entry 0,1
       desc $0,64,(0,4,8,12,16,20)
       desc $1,96,(32,36,40)
       desc $2,96,"00"
       desc $3,64,"00"
       var @mp,64
       string @mp+0,"$Math"
       string @mp+4,"$Sys"
       string @mp+20,"forged"
       ldts @ldt,2
       word @ldt+0,1
       ext @ldt+0,{{gemm}},"gemm"
       word @ldt+0,1
       ext @ldt+0,{{utfbytes}},"utfbytes"
       link 1,0,0x4244b354,"init"
"""
"""A frame made for a function without arrays, in which a number is left from before, is handed to a
function that takes an array there: to what looks as one in the middle of a record. The handle is
another one at the call than it was when the frame was made."""


@pytest.mark.parametrize("name", ENGINES)
def test_built_in_functions_get_frames_of_their_own(tmp_path: Path, name: str) -> None:
    functions = [HOST_MODULES["$Math"].functions.find("gemm")]
    functions += [HOST_MODULES["$Sys"].functions.find("utfbytes")]
    module = parse_assembly(
        OTHER_FRAME.format(**{f.name: f.signature for f in functions if f}), "a"
    )
    made = engine(name)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), streams=Streams(), engine=made) as machine:
        machine.load_module("a", module)
        machine.execute("a", "init", [])


LONGER_FRAME = (
    (
        "load 0(mp),$0,40(fp)\n new $7,4(mp)\n"
        " x: frame $8,48(fp)\n mcall 48(fp),$0,40(fp)\n addw $1,88(fp)\n bltw 88(fp),$300,x\n"
        " movw $0,88(fp)\n"
        " y: frame $2,48(fp)\n call 48(fp),g\n mframe 40(fp),$0,48(fp)\n mcall 48(fp),$0,40(fp)\n"
        " addw $1,88(fp)\n bltw 88(fp),$5000,y\n"
        " new $5,32(fp)\n movw $77,8(4(mp))\n movw 8(32(fp)),60(fp)\n"
        " beqw 60(fp),$77,bad\n ret\n bad: raise 16(mp)\n"
        " g: frame $2,48(fp)\n call 48(fp),h\n ret\n h: movw 4(mp),44(fp)\n ret\n"
        " desc $8,192,(32,36,40,140)"
    ),
    "ret\n f: movw $0,60(fp)\n x: addw $1,60(fp)\n bltw 60(fp),$9,x\n ret",
)
"""A function becomes hot in frames that begin as its own do and have one more pointer behind; then
it gets its own frames, with the address of a record where that pointer would be."""


@pytest.mark.parametrize("name", ENGINES)
def test_functions_of_other_modules_get_no_longer_frames(tmp_path: Path, name: str) -> None:
    text = run(tmp_path, name, dict(zip("ab", LONGER_FRAME, strict=True)))
    assert "a caller makes a frame of 192 bytes that is not its own" in text


EITHER = (
    (
        "load 0(mp),$0,40(fp)\n beqw 92(fp),$0,x\n self 40(fp)\n x: frame $8,48(fp)\n"
        " mcall 48(fp),$0,40(fp)\n ret\n desc $8,192,(32,36,40,140)"
    ),
    "ret\n f: ret",
)


@pytest.mark.parametrize("name", ENGINES)
def test_nor_do_those_that_only_running_tells(tmp_path: Path, name: str) -> None:
    text = run(tmp_path, name, dict(zip("ab", EITHER, strict=True)))
    assert "type check: a caller makes a frame of 192 bytes that is not its own" in text
