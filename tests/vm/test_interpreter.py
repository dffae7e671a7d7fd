"""Instructions that work on objects, text and control: what each does, and how each traps."""

from __future__ import annotations

import pytest

from llmbol_core.errors import LimitError, Trap, VerifyError
from llmbol_core.vm import traps
from llmbol_core.vm.isa import OPS
from llmbol_core.vm.limits import Limits
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.programs import run

ABC = 'string @mp+0,"abc"\nstring @mp+4,"d☃"\nstring @mp+8,""\n'


def read_cases():
    """Return code and what it gives, a number or a trap's text, by name."""
    cases = {}
    for line in (DATA_DIRECTORY / "instructions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, code, wanted = (part.strip() for part in line.split("|"))
            assert name not in cases
            is_number = wanted.removeprefix("-").isdigit()
            cases[name] = (code, int(wanted) if is_number else wanted)
    return cases


CASES = read_cases()

SUFFIX = """
       ret
end:   movw $1,0(16(fp))
       ret
no:    movw $0,0(16(fp))
       ret
double: addw 32(fp),32(fp),0(16(fp))
       ret
sender: send 32(fp),0(mp)
       ret
"""


@pytest.mark.parametrize("name", CASES)
def test_instruction(name):
    code, wanted = CASES[name]
    text = code.replace(";", "\n") + SUFFIX
    at = code.count(";") + 6
    more = ABC + 'string @mp+20,"$self"\nldts @ldt,1\nword @ldt+0,1\n'
    more += 'ext @ldt+4,"fn(n: int): int","double"\n'
    links = f'link 1,0,"fn(): int","main"\nlink 6,{at},"fn(n: int): int","double"'
    for verify in (False, True):
        try:
            found = run(text, more, links=links, verify=verify)
        except Trap as trap:
            found = trap.name
        except VerifyError:
            # What only the reference engine can be asked to run.
            assert verify
            continue
        assert found == wanted


def test_every_handled_instruction_has_a_case():
    seen = {word for code, _ in CASES.values() for word in code.replace(";", " ").split()}
    elsewhere = {"case", "casel", "casec", "goto", "ret"}
    handled = {op.mnemonic for op in OPS if op.meaning is None}
    assert handled - seen - elsewhere == set()


@pytest.mark.parametrize(
    ("value", "wanted"), [(0, 9), (1, 1), (4, 1), (5, 9), (7, 2), (8, 9), (-3, 3), (-2, 9)]
)
def test_case(value, wanted):
    code = f"""
    case ${value},64(mp)
    jmp no
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
    movw $3,0(16(fp))
    ret
    no: movw $9,0(16(fp))
    ret
    """
    table = "word @mp+64,3,-3,-2,6,1,5,2,7,8,4,8"
    assert run(code, table) == wanted


@pytest.mark.parametrize(("value", "wanted"), [(0, 9), (1 << 40, 1), (-(1 << 40), 2), (7, 9)])
def test_casel(value, wanted):
    code = """
    casel 128(mp),64(mp)
    jmp no
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
    no: movw $9,0(16(fp))
    ret
    """
    entries = [(-(1 << 40), 4), (1 << 40, 2)]
    table = "word @mp+64,2,0\n"
    for i, (low, pc) in enumerate(entries):
        table += f"long @mp+{72 + 24 * i},{low},{low + 1}\nword @mp+{88 + 24 * i},{pc},0\n"
    table += f"word @mp+120,6\nlong @mp+128,{value}\n"
    assert run(code, table) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"), [("a", 1), ("b", 9), ("m", 2), ("p", 2), ("x", 2), ("y", 9), ("", 9)]
)
def test_casec(text, wanted):
    code = """
    casec 0(mp),4(mp)
    jmp no
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
    no: movw $9,0(16(fp))
    ret
    """
    table = f"""
    string @mp+0,"{text}"
    word @mp+4,2
    string @mp+8,"a"
    word @mp+16,2
    string @mp+20,"m"
    string @mp+24,"x"
    word @mp+28,4,6
    """
    assert run(code, table, verify=False) == wanted


def test_goto():
    code = """
    goto $1,64(mp)
    movw $1,0(16(fp))
    ret
    movw $2,0(16(fp))
    ret
    """
    assert run(code, "word @mp+60,2,1,3") == 2
    with pytest.raises(Trap, match=traps.ILLEGAL):
        run(code, "word @mp+60,2,1,-1", verify=False)


def test_deep_calls_use_one_more_extent_of_the_stack_after_the_other():
    code = """
    frame $6,64(fp)
    movw $5000,32(64(fp))
    lea 68(fp),16(64(fp))
    call 64(fp),sum
    movw 68(fp),0(16(fp))
    ret
    sum: bgtw 32(fp),$0,more
    movw $0,0(16(fp))
    ret
    more: frame $7,36(fp)
    subw $1,32(fp),32(36(fp))
    lea 40(fp),16(36(fp))
    call 36(fp),sum
    addw 32(fp),40(fp),0(16(fp))
    ret
    """
    code = code.replace("$6", "$8").replace("$7", "$8")
    more = 'desc $8,48,""\n'
    assert run(code, more) == 5000 * 5001 // 2
    with pytest.raises(Trap, match=traps.MAIN_FULL):
        run(code, more, limits=Limits(100_000))


def test_instructions_are_counted():
    code = "loop: addw $1,64(fp)\njmp loop"
    with pytest.raises(LimitError, match="instruction limit: the program ran 10000"):
        run(code, limits=Limits(instructions=10_000))
    with pytest.raises(LimitError, match="time limit"):
        run(code, limits=Limits(seconds=0.02))
