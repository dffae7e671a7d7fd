"""Stack code: what is lifted is proved, runs, and gives the right value; the rest is refused."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbol_core.errors import AssemblyError, DisFormatError, LlmbolError, UsageError
from llmbol_core.vm.module import Module
from llmbol_core.vm.objectfile import read_module, write_module
from llmbol_core.vm.stackcode import (
    BytecodeLoader,
    assemble_stackcode,
    lift,
    parse_source,
    parse_stackcode,
)
from llmbol_core.vm.stackops import MAX_CODE, STACK_OPS, decode
from llmbol_core.vm.verifier import verify_module

PROGRAMS = Path(__file__).parents[2] / "specs" / "programs"


def run(module: Module) -> object:
    machine = pytest.importorskip("llmbol_core.vm.machine").InfernoVM()
    machine.load_module("m", module)
    return machine.execute("m", "main", [])


def test_the_front_page() -> None:
    module = BytecodeLoader.create_module([0x00, 0x01, 0x05, 0xFF])
    assert [e.name for e in module.exports] == ["main"]
    assert run(module) == 5


MAX = 2**31 - 1
PARITY = """
        PUSH 5 CALL odd,1 HALT
  odd:  LOAD 0 JZ no  LOAD 0 PUSH 1 SUB CALL even,1 RET  no:  PUSH 0 RET
  even: LOAD 0 JZ yes LOAD 0 PUSH 1 SUB CALL odd,1  RET  yes: PUSH 1 RET
"""
VALUES = [
    ("PUSH 2 PUSH 3 ADD HALT", 5),
    ("PUSH 2 PUSH 3 SUB HALT", -1),
    ("PUSH16 -300 PUSH 7 DIV HALT", -42),
    ("PUSH16 -300 PUSH 7 MOD HALT", -6),
    (f"PUSH32 {MAX} PUSH 1 ADD HALT", -(2**31)),
    ("PUSH64 5000000000 PUSH 1 BIG ADD HALT", 5000000001),
    ("PUSH64 -5000000000 NEG HALT", 5000000000),
    ("PUSHF 1.5 PUSHF -0.25 MUL HALT", -0.375),
    ("PUSHF 2.5 WORD HALT", 3),
    ("PUSHF 1e300 PUSHF 1e300 MUL HALT", math.inf),
    ("PUSH 7 REAL NEG HALT", -7.0),
    ("PUSH 7 NEG HALT", -7),
    ("PUSH 12 PUSH 10 AND PUSH 1 OR PUSH 3 XOR HALT", 10),
    ("PUSH 1 PUSH 4 SHL HALT", 16),
    ("PUSH64 -16 PUSH 2 SHR HALT", -4),
    ("PUSH 1 PUSH 2 SWAP SUB HALT", 1),
    ("PUSH 1 PUSHF 2.5 SWAP POP HALT", 2.5),
    ("PUSH 3 DUP MUL HALT", 9),
    ("PUSH 3 PUSH 4 LT HALT", 1),
    ("PUSHF 4.0 PUSHF 3.0 LE HALT", 0),
    ("PUSH 3 PUSH 3 EQ PUSH 3 PUSH 3 NE ADD HALT", 1),
    ("PUSH64 4 PUSH64 3 GT PUSH64 3 PUSH64 4 GE ADD HALT", 1),
    ("PUSH 0 JZ a PUSH 1 HALT a: PUSH 2 HALT", 2),
    ("PUSH 0 JNZ a PUSH 1 HALT a: PUSH 2 HALT", 1),
    ("PUSH 9 STORE 200 LOAD 200 NOP HALT", 9),
    ("PUSH 0 JZ b a: PUSH 5 STORE 1 b: LOAD 1 JZ a LOAD 1 HALT", 5),
    ("PUSH 8 PUSHF 0.5 CALL f, 2 HALT f: LOAD 0 REAL LOAD 1 MUL RET", 4.0),
    (PARITY, 1),
    ("JMP a b: HALT a: PUSH 1 JMP b", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[t[:40] for t, _ in VALUES])
def test_programs_give_their_value(text: str, value: float) -> None:
    module = parse_stackcode(text)
    verify_module(module)
    assert lift(assemble_stackcode(text)) == module
    assert read_module(write_module(module)) == module
    found = run(module)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "value"), [("add", 5), ("factorial", math.factorial(20)), ("newton", math.sqrt(2))]
)
def test_example_programs(name: str, value: float) -> None:
    path = PROGRAMS / f"{name}.stack"
    assert run(parse_source(path.read_text("utf-8"), str(path))) == pytest.approx(value, rel=1e-15)


def test_every_instruction_is_in_some_program() -> None:
    words = set(" ".join(text for text, _ in VALUES).split())
    assert {op.mnemonic for op in STACK_OPS.values()} - words == set()


BAD = [
    ("ADD HALT", "1:1: ADD needs 2 on the stack, which holds 0"),
    ("HALT", "1:1: HALT needs 1 on the stack, which holds 0"),
    ("", "1:1: there is no code"),
    ("PUSH 1", "1:1: the code ends without HALT"),
    (
        "PUSH 1\nPUSH 1 JZ x PUSH 1\nx: HALT HALT",
        "3:4: the stack holds word on one way to here, word word on",
    ),
    ("PUSH 1 JMP 1", "1:8: goes to 1, which is inside an instruction"),
    ("PUSH 1 JMP 99", "1:8: goes to 99, which is outside the code"),
    ("PUSH 300 HALT", "1:6: 300 does not fit PUSH, which takes 0 to 255; PUSH16"),
    ("PUSHF 1.5 PUSH 2 ADD HALT", "1:18: ADD cannot take real word"),
    ("PUSHF 1.5 PUSHF 2.0 AND HALT", "1:21: AND cannot take real real"),
    ("LOAD 3 HALT", "1:1: local 3 is loaded but never stored"),
    ("PUSH 1 STORE 0 PUSHF 1.0 STORE 0", "1:26: local 0 is a word elsewhere, not a real"),
    ("CALL f,0 HALT f: JMP f", "1:1: the function at 5 never returns"),
    ("x: JMP x", "1:4: the program never reaches HALT"),
    ("PUSH 1 RET", "1:8: RET outside a function"),
    ("CALL f,0 HALT f: PUSH 1 HALT", "1:25: HALT inside a function: expected RET"),
    ("CALL 0,0 HALT", "1:1: the main program cannot be called"),
    ("PUSH 1 CALL f,1 PUSHF 1.0 CALL f,1 HALT f: LOAD 0 RET", "1:27: 20 is called with real and"),
    ("PUSH 0 JZ f CALL f,0 HALT f: PUSH 1 RET", "1:30: belongs to the function at "),
    ("push 5", "1:1: unknown mnemonic 'push' (did you mean 'PUSH'?)"),
    ("PUSH x HALT", "1:6: 'x' is not defined"),
    ("CALL 4 HALT", "1:8: expected ',', found 'HALT'"),
    ("PUSHF x HALT", "1:7: expected a real number"),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=[m[:30] for _, m in BAD])
def test_bad_programs_are_refused_with_their_place(text: str, message: str) -> None:
    with pytest.raises(AssemblyError) as error:
        parse_stackcode(text, "x.stack")
    assert str(error.value).startswith(f"x.stack:{message}")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (b"", "at byte 0: there is no code"),
        (b"\x01", "at byte 0: the code ends inside the operand of PUSH"),
        (b"\x00\x77", "at byte 1: there is no instruction 0x77"),
        (b"\x01\x05", "at byte 0: the code ends without HALT"),
        (b"\x01\x05\x10\xff", "at byte 2: ADD needs 2 on the stack, which holds 1"),
        ([1, 5, 256], "at byte 2: 256 is no byte"),
        ([1, 5, "x"], "at byte 2: 'x' is no byte"),
        ([1, 2.5], "at byte 1: 2.5 is no byte"),
        (bytes(MAX_CODE + 1), "at byte 65536: 65537 bytes of code are too many"),
        (b"\x01\x01\x09\x30\x00\x02", "at byte 2: the stack holds"),
    ],
)
def test_bad_bytes_are_refused_with_their_offset(code: list[int], message: str) -> None:
    with pytest.raises(DisFormatError) as error:
        BytecodeLoader.create_module(code)
    assert message in str(error.value)


def test_labels_reach_all_of_the_longest_code() -> None:
    assert [*decode(bytes(MAX_CODE), lambda at, why: DisFormatError("code", at, why))] == [
        *range(MAX_CODE)
    ]


@given(st.lists(st.sampled_from([*STACK_OPS, 0, 1, 2, 3, 4, 8]), max_size=60))
def test_whatever_is_lifted_can_be_verified(code: list[int]) -> None:
    with suppress(DisFormatError):
        verify_module(BytecodeLoader.create_module([1, 1, 1, 2, *code, 1, 1, 0xFF]))


@given(st.text(st.sampled_from("PUSH ADLT:0123,\nx=\"'#"), max_size=50))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with suppress(LlmbolError):
        parse_source(text, "x.stack")


def test_the_dialect_is_told_by_path_or_first_mnemonic() -> None:
    assert parse_source("x: PUSH 1 HALT", "x.s").name == "StackCode"
    assert parse_source("ret", "x.s").name == ""
    with pytest.raises(AssemblyError, match="unknown mnemonic 'ret'"):
        parse_source("ret", "x.stack")


@pytest.mark.parametrize("code", [None, 5, "0105FF"])
def test_stack_code_is_a_sequence(code):
    with pytest.raises(UsageError, match="stack code should be bytes or numbers, not"):
        BytecodeLoader.create_module(code)
