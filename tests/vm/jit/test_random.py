"""Random verified programs on strings, lists and channels: all engines do the same."""

from __future__ import annotations

import random

import pytest

from llmbol_core.errors import Deadlock, Trap
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.traps import HEAP_FULL
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

TEXTS = ["", "a", "-12", "99999999999999999999", " 7x", "\u00e9t\u00e9", "\u4e2d\u6587", "ab" * 40]
STRINGS = [32, 36, 40, 44]
NUMBERS = [64, 68, 72, 76]
SOME = [-1, 0, 1, 2, 3, 9, 65, 122, 233, 256, 0x4E2D, 32000]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def outcome(engine, module, entry="main", **limits):
    """Return what a program returns, or what ends it and where; nothing may be left in the heap."""
    with InfernoVM(limits=Limits(1 << 22, **limits), engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        try:
            found = vm.execute("test", entry)
        except Trap as trap:
            found = trap.name, trap.pc
        except Deadlock as error:
            found = str(error)
        instructions = vm.scheduler.instructions
    vm.heap.collect()
    assert vm.heap.objects == 0
    return found, instructions


SEEDS = [*range(25), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(25, 400))]


def others(seed):
    """Return the engines to compare with the reference; compiling takes long."""
    return ("native", "compiled") if seed % 5 == 0 else ("native",)


class Writer:
    """Writes instructions with random operands."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def text(self):
        return f"{self.rng.choice(STRINGS)}(fp)"

    def target(self):
        return self.text() if self.rng.random() < 0.8 else "28(mp)"

    def any_text(self):
        rng = self.rng
        return self.text() if rng.random() < 0.6 else f"{rng.randrange(8) * 4}(mp)"

    def number(self):
        rng = self.rng
        return f"{rng.choice(NUMBERS)}(fp)" if rng.random() < 0.6 else f"${rng.choice(SOME)}"

    def slot(self):
        return f"{self.rng.choice(NUMBERS)}(fp)"

    def string_instruction(self, following):
        rng, small = self.rng, self.number
        compare = f"b{rng.choice(['eq', 'ne', 'lt', 'le', 'gt', 'ge'])}c"
        return rng.choice([
            lambda: f"movp {self.any_text()},{self.target()}",
            lambda: f"addc {self.any_text()},{self.any_text()},{self.target()}",
            lambda: f"addc {self.any_text()},{self.target()}",
            lambda: f"insc {small()},{small()},{self.target()}",
            lambda: f"insc {small()},$0,{self.target()}",
            lambda: f"slicec $0,{self.slot()},{self.target()}",
            lambda: f"slicec {small()},{small()},{self.target()}",
            lambda: f"indc {self.any_text()},$0,{self.slot()}",
            lambda: f"indc {self.any_text()},{small()},{self.slot()}",
            lambda: f"lenc {self.any_text()},{self.slot()}",
            lambda: f"cvtwc {small()},{self.target()}",
            lambda: f"cvtcw {self.any_text()},{self.slot()}",
            lambda: f"cvtcl {self.any_text()},96(fp)\n cvtlc 96(fp),{self.target()}",
            lambda: f"cvtca {self.any_text()},48(fp)\n lena 48(fp),{self.slot()}",
            lambda: f"cvtca {self.any_text()},48(fp)\n cvtac 48(fp),{self.target()}",
            lambda: f"consp {self.any_text()},52(fp)\n lenl 52(fp),{self.slot()}",
            lambda: f"consp {self.any_text()},52(fp)\n headp 52(fp),{self.target()}",
            lambda: f"consp {self.any_text()},52(fp)\n tail 52(fp),52(fp)",
            lambda: f"{compare} {self.any_text()},{self.any_text()},{following}",
            lambda: f"andw $7,{self.slot()}",
        ])()  # fmt: skip


def string_program(seed):
    """Return a program that loops over random instructions on strings, and returns them joined."""
    writer = Writer(seed)
    lines = ["movw $0,80(fp)"]
    for slot in STRINGS:
        lines.append(f"movp {writer.any_text()},{slot}(fp)")
    lines.append("again: addw $1,80(fp)")
    for number in range(writer.rng.randrange(5, 25)):
        lines.append(writer.string_instruction(f"l{number}"))
        lines.append(f"l{number}: runt")
    lines.append(f"bltw 80(fp),${writer.rng.choice([1, 3, 30])},again")
    lines += [f"addc {slot}(fp),32(fp),32(fp)" for slot in STRINGS[1:]]
    for slot in NUMBERS:
        lines += [f"cvtwc {slot}(fp),36(fp)", "addc 36(fp),32(fp),32(fp)"]
    lines += ["movp 32(fp),0(16(fp))", "ret"]
    for slot in NUMBERS:
        lines.insert(0, f"movw $0,{slot}(fp)")
    more = "".join(f'string @mp+{4 * i},"{text}"\n' for i, text in enumerate(TEXTS) if text)
    return assemble("\n".join(lines), more, result="string")


@pytest.mark.parametrize("seed", SEEDS)
def test_strings(seed):
    module = string_program(seed)
    wanted, instructions = outcome("reference", module)
    for engine in others(seed):
        found, ran = outcome(engine, module)
        if wanted[:1] == (HEAP_FULL,):
            # Where that happens depends on how free memory is split.
            assert found[:1] == wanted[:1]
            continue
        assert found == wanted
        assert ran == instructions or engine == "compiled"


def network(seed):
    """Return a program whose workers take from two channels, and which sums what they make of it.

    The sum does not depend on turns.
    """
    rng = random.Random(seed)
    producers, each = rng.randrange(1, 5), rng.randrange(1, 40)
    total = producers * each
    workers = rng.randrange(1, 6)
    quotas = [total // workers] * (workers - 1)
    quotas.append(total - sum(quotas))
    is_text = rng.random() < 0.4
    letter = "p" if is_text else "w"
    waits = rng.choice(["alt", "alt", "nbalt"])
    lines = [f"newc{letter} ${rng.choice([0, 0, 1, 5])},{4 * i}(mp)" for i in range(2)]
    lines.append(f"newcw ${rng.choice([0, 0, 2, 64])},8(mp)")
    starts = [(f"${1000 * i}", f"${each}", "producer") for i in range(producers)]
    starts += [(f"${quota}", "$0", "worker") for quota in quotas]
    rng.shuffle(starts)
    for first, second, function in starts:
        lines += [
            "frame $8,64(fp)", f"movw {first},40(64(fp))", f"movw {second},44(64(fp))",
            f"spawn 64(fp),{function}",
        ]  # fmt: skip
    lines += [
        "movw $0,72(fp)", f"movw ${total},76(fp)",
        "collect: recv 8(mp),80(fp)", "addw 80(fp),72(fp)", "subw $1,76(fp)",
        "bgtw 76(fp),$0,collect", "movw 72(fp),0(16(fp))", "ret",
        "producer: addw 40(fp),44(fp),52(fp)",
        "produce: bgew 40(fp),52(fp),produced",
        *(["cvtwc 40(fp),32(fp)", "andw $1,40(fp),56(fp)"] if is_text
          else ["movw 40(fp),36(fp)", "andw $1,36(fp),56(fp)"]),
        "addw $1,40(fp)",
        "beqw 56(fp),$0,even",
        f"send {'32(fp)' if is_text else '36(fp)'},0(mp)",
        "jmp produce",
        f"even: send {'32(fp)' if is_text else '36(fp)'},4(mp)",
        "jmp produce",
        "produced: ret",
        "worker: movw $0,64(fp)", "movw $2,68(fp)", "movp 0(mp),72(fp)", "movp 4(mp),80(fp)",
        f"lea {'32(fp)' if is_text else '36(fp)'},76(fp)",
        f"lea {'32(fp)' if is_text else '36(fp)'},84(fp)",
        "work: beqw 40(fp),$0,worked",
        f"{waits} 64(fp),88(fp)", "beqw 88(fp),$2,work", "subw $1,40(fp)",
        *(["cvtcw 32(fp),36(fp)"] if is_text else []),
        "mulw $3,36(fp)", "send 36(fp),8(mp)", "jmp work",
        "worked: ret",
    ]  # fmt: skip
    return assemble("\n".join(lines), "desc $8,96,(32,72,80)\n")


@pytest.mark.parametrize("seed", SEEDS)
def test_networks(seed):
    module = network(seed)
    wanted, _ = outcome("reference", module)
    for engine in others(seed):
        assert outcome(engine, module)[0] == wanted
