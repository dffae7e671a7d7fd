"""Random verified programs on tuples, their lists, jumps through tables, and exceptions."""

from __future__ import annotations

import random

import pytest

from llmbol_core.vm.assembly import parse_assembly
from tests.vm.jit.test_random import SEEDS, others, outcome

DATA = """
    desc $0,256,(0,4,8,12,16,20,24,28,136,140,148,152)
    desc $1,80,(32)
    desc $2,8,(0)
    desc $3,16,(0,4)
    desc $4,160,(32,36,48,52,64,68,80,84,88,108,116,120,128)
    var @mp,256
    module Test
    link 1,0,"fn(): string","main"
    ldts @ldt,0
    string @mp+0,"zero"
    string @mp+4,"one"
    string @mp+8,"eleven"
    string @mp+12,"two"
    word @mp+132,2
    string @mp+136,"eleven"
    string @mp+140,"one"
    string @mp+148,"two"
"""
"""A function's frame holds tuples of type 3 at 32, 48 and 64, one of type 2 at 88; 84 an object of
type 3; lists of types 3 and 2 and of bigs at 80, 116 and 120; numbers from 92 on, a string at 128.
"""
MAIN = [
    "frame $4,64(fp)", "lea 32(fp),16(64(fp))", "call 64(fp),$5", "movp 32(fp),0(16(fp))", "ret",
]  # fmt: skip
TUPLES = ["32(fp)", "48(fp)", "64(fp)", "0(84(fp))"]
PAIRS = ["88(fp)", "28(mp)"]
BIGS = ["40(fp)", "56(fp)", "72(fp)", "144(fp)", "8(84(fp))", "40(mp)"]
WORDS = ["92(fp)", "100(fp)", "104(fp)", "4(88(fp))"]
REFS = ["32(fp)", "36(fp)", "48(fp)", "52(fp)", "64(fp)", "68(fp)", "88(fp)", "4(84(fp))", "28(mp)"]


class Writer:
    """Writes instructions with random operands."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def instruction(self):
        rng, pick = self.rng, self.rng.choice
        return pick([
            lambda: f"movmp {pick(TUPLES)},$3,{pick(TUPLES)}",
            lambda: f"movmp {pick(TUPLES)},$3,{pick(TUPLES)}",
            lambda: f"movmp {pick(PAIRS)},$2,{pick(PAIRS)}",
            lambda: f"movm {pick(BIGS)},$8,{pick(BIGS)}",
            lambda: f"movm {pick(BIGS)},${rng.randrange(8)},{pick(BIGS)}",
            lambda: f"movm {pick(WORDS[:3])},$4,{pick(WORDS[:3])}",
            lambda: f"consmp {pick(TUPLES)},$3,80(fp)",
            lambda: f"headmp 80(fp),$3,{pick(TUPLES)}",
            lambda: f"consmp {pick(PAIRS)},$2,116(fp)",
            lambda: f"headmp 116(fp),$2,{pick(PAIRS)}",
            lambda: f"consm {pick(BIGS)},$8,120(fp)",
            lambda: f"headm 120(fp),$8,{pick(BIGS)}",
            lambda: f"headm 120(fp),$3,{pick(BIGS)}",
            lambda: "tail 80(fp),80(fp)" if rng.random() < 0.2 else "eclr",
            lambda: f"lenl {pick(['80', '116', '120'])}(fp),{pick(WORDS[:3])}",
            lambda: f"movp {rng.randrange(4) * 4}(mp),{pick(REFS)}",
            lambda: f"movp {pick(REFS)},{pick(REFS)}",
            lambda: f"addw ${rng.randrange(100)},{pick(WORDS[:3])}",
            lambda: f"cvtwl {pick(WORDS[:3])},{pick(BIGS)}",
            lambda: f"addl {pick(BIGS)},{pick(BIGS)}",
            lambda: "newz $3,84(fp)",
            lambda: "movp 20(mp),84(fp)" if rng.random() < 0.1 else "newz $3,84(fp)",
            lambda: f"raise {rng.randrange(4) * 4}(mp)" if rng.random() < 0.2 else "runt",
        ])()  # fmt: skip


def program(seed):
    """Return a program that loops over random instructions and returns what it made, as text."""
    writer = Writer(seed)
    rng = writer.rng
    lines = [f"movw ${n},{word}" for n, word in enumerate(["92(fp)", "96(fp)", *WORDS[1:3]])]
    lines += [f"cvtwl {WORDS[0]},{big}" for big in BIGS[:4]]
    lines += ["movw $0,124(fp)", "newz $3,84(fp)"]
    lines += ["consmp 32(fp),$3,80(fp)", "consmp 88(fp),$2,116(fp)", "consm 40(fp),$8,120(fp)"]
    begin, size = len(MAIN) + len(lines), rng.randrange(6, 40)
    lines.append("addw $1,96(fp)")
    later = sorted(rng.randrange(size // 2, size) for _ in range(3))
    for at in range(size):
        if at < later[0] and rng.random() < 0.15:
            lines += rng.choice([
                ["andw $1,96(fp),100(fp)", "goto 100(fp),168(mp)"],
                [f"casec {rng.choice(REFS)},132(mp)"],
                [f"casel {rng.choice(BIGS)},184(mp)"],
            ])  # fmt: skip
        lines.append(f"l{at}: {writer.instruction()}")
    end = len(MAIN) + len(lines)
    lines.append(f"done: bltw 96(fp),${rng.choice([1, 3, 20])},${begin}")
    for ref in [ref for ref in REFS if "84" not in ref]:
        lines.append(f"addc {ref},128(fp),128(fp)")
    for number in [*WORDS[:3], "124(fp)"]:
        lines += [f"cvtwc {number},32(fp)", "addc 32(fp),128(fp),128(fp)"]
    for number in BIGS[:4]:
        lines += [f"cvtlc {number},32(fp)", "addc 32(fp),128(fp),128(fp)"]
    lines += ["movp 128(fp),0(16(fp))", "ret"]
    landing = len(MAIN) + len(lines)
    lines += ["addw $1,124(fp)", "addc 108(fp),128(fp),128(fp)", "jmp done"]
    places = {f"l{at}": _place([*MAIN, *lines], f"l{at}") for at in later}
    first, second, third = (places[f"l{at}"] for at in later)
    tables = f"""
    word @mp+144,{first}
    word @mp+156,{second},{third}
    word @mp+164,2,{first},{third}
    word @mp+184,2
    long @mp+192,0,5
    word @mp+208,{second}
    long @mp+216,7,60
    word @mp+232,{first}
    word @mp+240,{third}
    exceptions 1
    exception {begin}, {end}, 108, -1, 0, 0
    exctab *, {landing}
    """
    return parse_assembly("\n".join([*MAIN, *lines]) + DATA + tables + "\n", "Test")


def _place(lines, label):
    return next(pc for pc, line in enumerate(lines) if line.startswith(f"{label}:"))


@pytest.mark.parametrize("seed", SEEDS)
def test_tuples_and_exceptions(seed):
    module = program(seed)
    wanted, instructions = outcome("reference", module)
    for engine in others(seed):
        found, ran = outcome(engine, module)
        assert found == wanted
        assert ran == instructions or engine == "compiled"
