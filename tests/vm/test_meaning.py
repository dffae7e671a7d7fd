"""Scalar instructions: each gives what was worked out by hand, wherever its operands lie."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

import llmbol_core.vm.interpreter  # noqa: F401 -- registers the handlers
from llmbol_core.errors import Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.ieee import AT_START, Arithmetic
from llmbol_core.vm.isa import OPCODES, OPS, Effect, Mode
from llmbol_core.vm.module import ABSENT, Instruction, Operand
from llmbol_core.vm.objects import STACK, Heap
from llmbol_core.vm.steps import HANDLERS, StepMaker

SCALARS = {op.mnemonic: op for op in OPS if op.meaning is not None}
NEXT, LABEL = 1, 9


def read_vectors():
    """Return rows of mnemonic and numbers, families taken apart."""
    rows = []
    for line in (Path(__file__).parent / "data" / "scalars.txt").read_text().splitlines():
        words = line.partition("#")[0].split()
        if words:
            stem, _, letters = words[0].rstrip("]").partition("[")
            rows += [(stem + letter, *words[1:]) for letter in letters or [""]]
    return rows


VECTORS = read_vectors()


def test_every_scalar_instruction_has_at_least_three_vectors():
    counts = {name: sum(row[0] == name for row in VECTORS) for name in SCALARS}
    known = {name for name in counts if not name.endswith("c") or name[0] != "b"}
    assert {name for name in known if counts[name] < 3} == set()


def test_every_other_instruction_has_a_handler():
    assert set(HANDLERS) == {op.mnemonic for op in OPS if op.meaning is None}


class Bench:
    """A frame, module data, and a record, in which one instruction runs."""

    def __init__(self):
        self.heap = Heap(1 << 16)
        self.arithmetic, self.process = Arithmetic(), SimpleNamespace(floating=AT_START)
        self.maker = StepMaker(self, self.heap)
        self.fp, self.mp, self.behind = (self.heap.new_object(STACK, 256) for _ in range(3))
        self.heap.set_pointer(self.fp + 64, self.behind)
        self.heap.set_pointer(self.mp + 64, self.behind)

    def run(self, instruction):
        step = self.maker.step(instruction, [], NEXT)
        return step(self.fp >> 2, self.mp >> 2)

    def address(self, operand):
        base = self.fp if operand.mode in (Mode.FP, Mode.FP_INDIRECT) else self.mp
        if operand.mode in (Mode.FP, Mode.MP):
            return base + operand.value
        return self.heap.pointer(base + operand.base) + operand.value

    def put(self, operand, letter, text):
        layout = "=" + {"B": "B", "H": "h", "W": "i", "L": "q", "F": "d", "R": "f"}[letter]
        value = float(text) if letter in "FR" else int(text)
        struct.pack_into(layout, self.heap.bytes, self.address(operand), value)

    def get(self, operand, letter):
        layout = "=" + {"B": "B", "H": "h", "W": "i", "L": "q", "F": "d", "R": "f"}[letter]
        return struct.unpack_from(layout, self.heap.bytes, self.address(operand))[0]


def same(found, wanted, letter):
    if letter in "FR":
        wanted = float(wanted)
        is_same = math.copysign(1, found) == math.copysign(1, wanted) and found == wanted
        return is_same or (math.isnan(found) and math.isnan(wanted))
    return found == int(wanted)


PLACES = {
    "direct": (Operand(Mode.FP, 40), Operand(Mode.FP, 72), Operand(Mode.FP, 80)),
    "module data": (Operand(Mode.MP, 40), Operand(Mode.MP, 72), Operand(Mode.MP, 80)),
    "indirect": (
        Operand(Mode.FP_INDIRECT, 8, 64),
        Operand(Mode.FP, 72),
        Operand(Mode.MP_INDIRECT, 24, 64),
    ),
    "unaligned": (
        Operand(Mode.MP_INDIRECT, 9, 64),
        Operand(Mode.FP, 73),
        Operand(Mode.FP_INDIRECT, 27, 64),
    ),
}


@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("row", VECTORS, ids=" ".join)
def test_meaning(row, places):
    op = SCALARS[row[0]]
    source, middle, destination = PLACES[places]
    bench = Bench()
    branches = op.effect is Effect.BRANCH
    numbers = list(row[1:])
    order = "sm" if branches else "ms"
    for place in order:
        role = op.role(place)
        if role is None:
            continue
        bench.put(source if place == "s" else middle, role.type, numbers.pop(0))
    wanted = numbers.pop(0)
    for offset in (28, 20):
        if numbers:
            bench.heap.set_word(bench.fp + offset, int(numbers.pop(0)))
    if op.mnemonic in ("cvtxx0", "cvtxx1"):
        bench.heap.set_word(bench.fp + 20, int(row[-1]))
    target = Operand(Mode.IMMEDIATE, LABEL) if branches else destination
    instruction = Instruction(op.number, source, middle if op.role("m") else ABSENT, target)
    if wanted == "!":
        with pytest.raises(Trap, match="zero divide"):
            bench.run(instruction)
    elif branches:
        assert bench.run(instruction) == (LABEL if int(wanted) else NEXT)
    else:
        assert bench.run(instruction) == NEXT
        found = bench.get(destination, op.result)
        assert same(found, wanted, op.result), (found, wanted)


STRINGS = [
    ("", "", 0),
    ("a", "b", -1),
    ("b", "a", 1),
    ("ab", "a", 1),
    ("a", "é", -1),
    ("é", "☃", -1),
]
RELATIONS = {"eq": [0], "ne": [-1, 1], "lt": [-1], "le": [-1, 0], "gt": [1], "ge": [0, 1]}


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("left", "right", "order"), STRINGS)
def test_strings_compare_by_code_point(relation, left, right, order):
    bench = Bench()
    source, middle, _ = PLACES["direct"]
    bench.heap.set_pointer(bench.address(source), bench.heap.new_text(left))
    bench.heap.set_pointer(bench.address(middle), bench.heap.new_string(right))
    label = Operand(Mode.IMMEDIATE, LABEL)
    found = bench.run(Instruction(OPCODES[f"b{relation}c"], source, middle, label))
    assert found == (LABEL if order in RELATIONS[relation] else NEXT)


def test_without_a_middle_operand_the_destination_stands_in():
    bench = Bench()
    destination = PLACES["indirect"][2]
    bench.put(destination, "W", 10)
    bench.run(Instruction(OPCODES["subw"], Operand(Mode.IMMEDIATE, 3), ABSENT, destination))
    assert bench.get(destination, "W") == 7


@pytest.mark.parametrize("mnemonic", ["addw", "mulx", "movl", "beqw", "cvtfx"])
def test_an_operand_that_cannot_be_is_an_illegal_instruction(mnemonic):
    bench = Bench()
    source = PLACES["direct"][0]
    with pytest.raises(Trap, match="illegal dis instruction"):
        bench.run(Instruction(OPCODES[mnemonic], source))


@pytest.mark.parametrize("letter", "BWLFP")
def test_nil_leads_outside_of_the_arena(letter):
    bench = Bench()
    bench.heap.set_pointer(bench.fp + 64, NIL)
    for offset in (0, 1, 4, 65535):
        nowhere = Operand(Mode.FP_INDIRECT, offset, 64)
        here = PLACES["direct"][2]
        bench.heap.set_pointer(bench.address(here), NIL)
        for pair in ((nowhere, here), (here, nowhere)):
            with pytest.raises(IndexError):
                bench.run(Instruction(OPCODES[f"mov{letter.lower()}"], pair[0], ABSENT, pair[1]))
