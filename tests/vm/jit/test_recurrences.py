"""Loops with shorter recurrences: they compute what they did, whatever is put in its place."""

from __future__ import annotations

import ctypes
import random

import pytest

from llmbol_core.native import llvm
from llmbol_core.vm.jit import recurrences
from llmbol_core.vm.jit.latency import Sums, pace
from llmbol_core.vm.jit.looptext import Function
from llmbol_core.vm.jit.recurrences import roots_of, shorten_recurrences, shortened, tried
from llmbol_core.vm.jit.views import cycles_through
from tests.vm.jit.test_random import outcome
from tests.vm.programs import assemble

HASH = """define void @f(i64 %n, ptr %in, ptr %out) {
start:
  %a0 = load i32, ptr %in
  %p = getelementptr i32, ptr %in, i32 1
  %b0 = load i32, ptr %p
  br label %loop

loop:
  %a = phi i32 [ %a0, %start ], [ %a2, %loop ]
  %b = phi i32 [ %b0, %start ], [ %b3, %loop ]
  %i = phi i32 [ 0, %start ], [ %i2, %loop ]
  %k = phi i64 [ 0, %start ], [ %k2, %loop ]
  %b1 = shl i32 %b, 3
  %a1 = xor i32 %b1, %a
  %a2 = add i32 %a1, %i
  %low = and i32 %b, 16777215
  %x = mul nuw nsw i32 %low, 3
  %y = ashr i32 %a2, 5
  %b2 = add nsw i32 %y, %x
  %bit = and i32 %a2, 1
  %even = icmp eq i32 %bit, 0
  %less = select i1 %even, i32 %i, i32 0
  %b3 = sub i32 %b2, %less
  %i2 = add nuw nsw i32 %i, 1
  %k2 = add i64 %k, 1
  %more = icmp slt i64 %k2, %n
  br i1 %more, label %loop, label %end

end:
  %q = getelementptr i32, ptr %out, i32 1
  store i32 %a2, ptr %out
  store i32 %b3, ptr %q
  ret void
}
"""


def loops(text):
    return list(Function(text.strip()[:-1]).loops())


def run(text, count, values):
    """Return what a function makes of some values, which it may write over in its memory."""
    library = llvm.load_object(llvm.compile_text(text, 0), ["f"])
    given = (ctypes.c_int64 * 16)(*values)
    found = (ctypes.c_int64 * 64)()
    function = llvm.function(
        library.addresses["f"], None, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p
    )
    function(count, ctypes.addressof(given), ctypes.addressof(found))
    return list(found)


class TestAHash:
    def test_it_has_to_wait_less_for_itself(self):
        (loop,) = loops(HASH)
        better = shortened(loop, "%new.")
        assert better is not None
        assert pace(loop).cycles == 6
        assert pace(better).cycles < 5
        assert better.leaving[-1] == "  %b3 = sub i32 %b2, %less"

    def test_what_matters_at_the_end_alone_is_computed_there(self):
        inside, end = shorten_recurrences(HASH).split("loop:\n")[1].split("\nend:")
        assert "%b3 =" not in inside
        assert "%b3 = sub i32 %b2, %less" in end

    @pytest.mark.parametrize("count", [1, 2, 3, 50, 1001])
    def test_it_gives_what_it_gave(self, count):
        changed = shorten_recurrences(HASH)
        assert changed != HASH
        values = [random.Random(count).randrange(-(1 << 63), 1 << 63)]
        assert run(changed, count, values) == run(HASH, count, values)

    def test_a_new_name_is_no_old_one(self):
        text = HASH.replace("%a1", "%chain.0.v1")
        changed = shorten_recurrences(text)
        assert "%xchain.0.v1" in changed
        assert run(changed, 99, [5]) == run(HASH, 99, [5])


class TestWhatStaysAsItIs:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("xor i32 %b1, %a", "mul i32 %b1, %a"),
            ("%i2 = add nuw nsw i32 %i, 1", "%i2 = call i32 @g(i32 %i)"),
            ("%y = ashr i32 %a2, 5", "%y = sdiv i32 %a2, 77"),
        ],
    )
    def test_a_loop_that_waits_for_something_else(self, old, new):
        text = HASH.replace(old, new) + "\ndeclare i32 @g(i32)\n"
        assert text.count(new) == 1
        changed = shorten_recurrences(text)
        assert changed == text or new.startswith("mul")

    def test_a_loop_that_branches_inside(self):
        text = HASH.replace(
            "  %less = select i1 %even, i32 %i, i32 0\n",
            "  br i1 %even, label %yes, label %no\n\nyes:\n  br label %no\n\nno:\n"
            "  %less = phi i32 [ %i, %yes ], [ 0, %loop ]\n",
        )
        text = text.replace("%a2, %loop ]", "%a2, %no ]").replace("%b3, %loop ]", "%b3, %no ]")
        text = text.replace("%i2, %loop ]", "%i2, %no ]").replace("%k2, %loop ]", "%k2, %no ]")
        llvm.compile_text(text, 0)
        assert shorten_recurrences(text) == text


class Writer:
    """Writes a function with a random loop of integers, with one way out or two."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.kind = self.chance.choice(("i32", "i64"))
        self.values = []
        self.lines = []

    def operand(self):
        if self.chance.random() < 0.15:
            return str(self.chance.choice((0, 1, 3, 7, -8, 255, self.chance.randrange(1 << 31))))
        return self.chance.choice(self.values)

    def statement(self, number):
        chance, kind, name = self.chance, self.kind, f"%t{number}"
        op = chance.choice(
            ("add", "add", "sub", "xor", "and", "or", "mul", "shl", "shl", "shr", "mask", "choice")
        )
        x, y = chance.choice(self.values), self.operand()
        if op == "mask":
            bits = chance.choice((1, 1, 2, 5, 8, 24, 30))
            text = f"and {kind} {x}, {(1 << bits) - 1 - chance.choice((0, 0, 1))}"
        elif op == "shl":
            text = f"shl {kind} {x}, {chance.choice((1, 2, 3, 5, 17, 31))}"
        elif op == "shr":
            text = f"{chance.choice(('ashr', 'lshr'))} {kind} {x}, {chance.choice((1, 5, 11))}"
        elif op == "choice":
            self.lines.append(f"  %c{number} = icmp {chance.choice(('eq', 'slt'))} {kind} {x}, {y}")
            text = f"select i1 %c{number}, {kind} {self.operand()}, {kind} {self.operand()}"
        else:
            text = f"{op} {kind} {x}, {y}"
        self.lines.append(f"  {name} = {text}")
        self.values.append(name)

    def text(self):
        chance, kind, size = self.chance, self.kind, self.chance.randrange(4, 16)
        phis = [f"%p{n}" for n in range(chance.randrange(2, 5))]
        self.values = [*phis, "%m"]
        self.lines.append(f"  %m = and {kind} %p0, 4095")
        cut = chance.randrange(size) if chance.random() < 0.4 else -1
        latch = "loop" if cut < 0 else "rest"
        before, seen = "", []
        for number in range(size):
            self.statement(number)
            if number == cut:
                seen = list(self.values)
                self.lines.append(f"  %odd = icmp eq {kind} {chance.choice(seen)}, 12345")
                self.lines.append("  br i1 %odd, label %early, label %rest")
                self.lines += ["", "rest:"]
        start = []
        for number, phi in enumerate(phis):
            start.append(f"  %q{number} = getelementptr i64, ptr %in, i32 {number}")
            start.append(f"  %i{number} = load {kind}, ptr %q{number}")
            first = chance.choice((f"%i{number}", str(chance.randrange(1 << 30))))
            after = chance.choice(self.values)
            before += f"  {phi} = phi {kind} [ {first}, %start ], [ {after}, %{latch} ]\n"
        before += f"  %k = phi i64 [ 0, %start ], [ %k2, %{latch} ]\n"
        ends = self.stores(chance.sample(self.values, min(5, len(self.values))), "e")
        early = self.stores(seen[-4:], "o")
        more = "" if cut < 0 else "\n\nearly:\n" + "\n".join(early) + "\n  ret void"
        return "\n".join([
            "define void @f(i64 %n, ptr %in, ptr %out) {", "start:", *start, "  br label %loop", "",
            "loop:", before + "\n".join(self.lines), "  %k2 = add i64 %k, 1",
            "  %more = icmp slt i64 %k2, %n", "  br i1 %more, label %loop, label %end", "",
            "end:", *ends, f"  ret void{more}", "}", "",
        ])  # fmt: skip

    def stores(self, values, letter):
        found = []
        for number, value in enumerate(values):
            place = f"%{letter}{number}"
            found.append(f"  {place} = getelementptr i64, ptr %out, i32 {number}")
            found.append(f"  store {self.kind} {value}, ptr {place}")
        return found


MANY = [*range(60), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(60, 2000))]


class TestRandomLoops:
    @pytest.mark.parametrize("seed", MANY)
    def test_all_views_of_all_values_give_the_same(self, seed):
        text = Writer(seed).text()
        (loop,) = loops(text)
        together = cycles_through(loop)
        roots = roots_of(loop, together)
        chance = random.Random(seed)
        some = [[root for root in roots if chance.random() < 0.5] for _ in range(2)]
        values = [chance.randrange(-(1 << 63), 1 << 63) for _ in range(8)]
        for chosen in [roots, *some]:
            function = Function(text.strip()[:-1])
            (loop,) = function.loops()
            function.put(tried(loop, chosen, together, "%new.").loop, "new.out")
            changed = function.text + "}\n"
            for count in (1, 2, 7, 40):
                assert run(changed, count, values) == run(text, count, values), changed

    @pytest.mark.parametrize("seed", MANY)
    def test_sums_in_any_order_give_the_same(self, seed):
        text = Writer(seed).text()
        function, chance = Function(text.strip()[:-1]), random.Random(seed)
        (loop,) = function.loops()
        ready = {node.name: chance.randrange(20) for node in loop.nodes}
        function.put(Sums(loop, "%new.").ordered(ready), "new.out")
        values = [chance.randrange(-(1 << 63), 1 << 63) for _ in range(8)]
        assert run(function.text + "}\n", 9, values) == run(text, 9, values)


def program(seed):
    """Return a verified program with a loop of words and bigs, some of which are hashes."""
    chance = random.Random(seed)
    letter = chance.choice("wl")
    step = 4 if letter == "w" else 8
    slots = [f"{64 + step * n}(fp)" for n in range(5)]
    start = "movw" if letter == "w" else "cvtwl"
    lines = [f"    {start} ${chance.randrange(-1000, 1000)},{slot}" for slot in slots]
    lines += ["    movw $0,56(fp)", "head:", "    bgew 56(fp),60(fp),done"]
    for number in range(chance.randrange(3, 9)):
        x, y, z = (chance.choice(slots) for _ in range(3))
        kind = chance.randrange(6)
        if kind == 0:
            lines.append(f"    shl{letter} ${chance.choice((1, 2, 3, 7))},{x},{z}")
        elif kind == 1:
            lines.append(f"    shr{letter} ${chance.choice((1, 5, 9))},{x},{z}")
        elif kind == 2 and letter == "w":
            lines.append(f"    andw ${chance.choice((1, 3, 255, 65535))},{x},{z}")
        elif kind == 3 and letter == "w":
            lines.append(f"    andw $1,{x},{z}")
            lines.append(f"    bnew {z},$0,over{number}")
            lines.append(f"    subw 56(fp),{y}")
            lines.append(f"over{number}:")
        else:
            lines.append(f"    {chance.choice(('add', 'sub', 'xor', 'mul'))}{letter} {x},{y},{z}")
    lines += ["    addw $1,56(fp)", "    jmp head", "done:"]
    for slot in slots[1:]:
        lines.append(f"    xor{letter} {slot},{slots[0]}")
    lines.append("    movw 64(fp),0(16(fp))" if letter == "w" else "    cvtlw 64(fp),0(16(fp))")
    body = "\n".join(lines)
    count = chance.choice((3, 40, 3000))
    return assemble(f"    movw ${count},60(fp)\n{body}\n    ret\n")


@pytest.mark.parametrize(
    "seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 150))]
)
def test_programs_do_the_same_compiled(seed, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(recurrences, "_WORTH", 100.0)
    monkeypatch.setattr(recurrences, "_LEAST", 0.0)
    module = program(seed)
    assert outcome("compiled", module) == outcome("reference", module)
