"""Native code looks at the clock after a bounded amount of work, and gives up what takes long."""

from __future__ import annotations

import ctypes

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import LimitError
from llmbol_core.vm.arena import COUNT, NIL
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.jit import stretches
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.jit.pacing import PIECE
from llmbol_core.vm.jit.runtime import MOST_OWED, MOST_SLICE, QUANTUM, Machine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.scheduler import Scheduler
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

NATIVE = ["native", "compiled"]
TEXT = 'string @mp+20,"' + "wide \\u1234 text " * 4 + '"\n'
LENGTHENED = "grow: addc 20(mp),32(fp)\nlenc 32(fp),72(fp)\nbltw 72(fp),$20000,grow\n"
COMPARED = """
    addc 20(mp),32(fp),36(fp)
loop:
    beqc 36(fp),32(fp),loop
    bltc 32(fp),36(fp),loop
    jmp loop
"""
COPIES = """
    newa $9000,$3,32(fp)
    newa $9000,$3,36(fp)
loop:
    slicela 32(fp),$0,36(fp)
    jmp loop
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def hurried(monkeypatch):
    """Let each stretch end when native code first looks at the clock."""
    begin = stretches.begin

    def begin_late(words, until):
        begin(words, until)
        words[Machine.UNTIL] = 0

    monkeypatch.setattr(stretches, "begin", begin_late)


class Interrupted:
    """Stops a program when native code has asked so often whether it goes on."""

    def __init__(self, monkeypatch, count):
        self.left = count
        self._ask = ctypes.PYFUNCTYPE(ctypes.c_int)(self.asked)
        address = ctypes.cast(self._ask, ctypes.c_void_p).value
        monkeypatch.setattr(stretches, "SIGNALS", address)
        monkeypatch.setattr(Scheduler, "is_late", property(lambda _: self.left <= 0))

    def asked(self):
        self.left -= 1
        return self.left <= 0


def engine_of(vm) -> JitEngine:
    assert isinstance(vm.engine, JitEngine)
    return vm.engine


def longest_stretch(code, engine, monkeypatch, stretches_seen=40, more=""):
    """Return the most instructions that native code runs of an endless program in a stretch."""
    used, run = [], JitEngine._run_natively

    def run_and_note(self, process, total):
        found = run(self, process, total)
        used.append(found[0])
        if len(used) >= stretches_seen:
            raise LimitError("time", "enough was seen")
        return found

    hurried(monkeypatch)
    monkeypatch.setattr(JitEngine, "_run_natively", run_and_note)
    with InfernoVM(HOST_MODULES, limits=Limits(64 << 20), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble(code, more))
        with pytest.raises(LimitError, match="enough was seen"):
            vm.execute("test", "main")
    return max(used)


KINDS = {
    "arithmetic": ("loop: addw $1,72(fp)\njmp loop", MOST_SLICE + 8192),
    "arrays": ("loop: newa $5000,$3,32(fp)\njmp loop", 2 * QUANTUM / 20_000),
    "copies": (COPIES, 2 * QUANTUM / 36_000),
    "text": (LENGTHENED + "loop: addc 20(mp),32(fp),36(fp)\njmp loop", 1400),
    "comparisons": (LENGTHENED + COMPARED, 1400),
    "numbers": (LENGTHENED.replace("20(mp)", "24(mp)") + "loop: cvtcw 32(fp),72(fp)\njmp loop",
                1400),
    "UTF-8": (LENGTHENED + "loop: cvtca 32(fp),36(fp)\njmp loop", 1400),
}  # fmt: skip
"""Endless loops, and how many of their instructions there are in a stretch at most."""


@pytest.mark.parametrize("engine", NATIVE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_stretch_is_bounded_by_what_its_instructions_cost(kind, engine, monkeypatch):
    code, most = KINDS[kind]
    more = TEXT + 'string @mp+24,"' + " " * 50 + '"\n'
    assert longest_stretch(code, engine, monkeypatch, more=more) <= most + 64


@pytest.mark.parametrize("engine", NATIVE)
def test_few_new_processes_are_there_before_others_have_their_turn(engine, monkeypatch):
    code = ("newcw 0(mp)\nloop: frame $6,64(fp)\nspawn 64(fp),waits\njmp loop\n"
            "waits: recv 0(mp),32(fp)\nret")  # fmt: skip
    assert longest_stretch(code, engine, monkeypatch, stretches_seen=12) <= 8 * MOST_OWED


@pytest.mark.parametrize("engine", NATIVE)
def test_a_long_copy_is_given_up_where_the_program_is_stopped(engine, monkeypatch):
    size = 4 * PIECE
    arrays = f"newa ${size // 4},$3,0(mp)\nnewa ${size // 4},$3,4(mp)"
    module = assemble(
        f"bnew 40(mp),$0,copies\nmovw $1,40(mp)\n{arrays}\nret\ncopies: slicela 0(mp),$0,4(mp)\nret"
    )
    with InfernoVM(limits=Limits(64 << 20), engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        vm.execute("test", "main")
        data = vm.heap.pointer(vm._handles["test"])
        source, target = vm.heap.pointer(data), vm.heap.pointer(data + 4)
        vm.heap.array_bytes(source)[:] = b"\1" * size
        Interrupted(monkeypatch, 2)
        engine_of(vm)._signals = stretches.SIGNALS
        with pytest.raises(LimitError, match="time limit"):
            vm.execute("test", "main")
        assert bytes(vm.heap.array_bytes(target)).count(1) == 2 * PIECE


def ring(heap, number, count):
    """Make objects that refer to each other in a ring, which nobody else does."""
    first = last = heap.new_record(number)
    for _ in range(count - 1):
        new = heap.new_record(number)
        heap.set_pointer(new, last)
        last = new
    heap.set_pointer(first, last)


def test_a_collection_can_be_given_up_anywhere(monkeypatch):
    with InfernoVM(limits=Limits(64 << 20), engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble("ret"))
        vm.execute("test", "main")
        heap = vm.heap
        number = heap.type_number(TypeDescriptor(0, 8, b"\x80"))
        kept = heap.new_array(POINTER, 5000)
        for at in range(5000):
            heap.set_pointer(heap.array_data(kept) + 4 * at, heap.new_record(number))
        before, asked = heap.objects, 0
        for count in range(1, 100):
            ring(heap, number, 9000)
            garbage = heap.new_record(number)
            heap.assign(garbage, heap.pointer(heap.array_data(kept)))
            heap.assign(heap.pointer(heap.array_data(kept)), NIL)
            heap.release(garbage)
            with monkeypatch.context() as patch:
                stop = Interrupted(patch, count)
                try:
                    vm.engine.collect()
                except LimitError:
                    asked = count
            if stop.left > 0:
                break
            vm.engine.collect()
            assert heap.objects == before, count
        assert asked > 8
        vm.engine.collect()
        assert heap.objects == before
        heap.release(kept)
    assert vm.get_stats().objects == 0


@pytest.mark.parametrize("engine", NATIVE)
def test_what_is_freed_is_left_for_later_where_the_program_is_stopped(engine, monkeypatch):
    code = (
        "again: consw 72(fp),32(fp)\naddw $1,72(fp)\nbltw 72(fp),$20000,again\n"
        "movp 0(mp),32(fp)\nbeqw 40(mp),$0,done\nloop: jmp loop\ndone: movw $1,40(mp)\nret"
    )
    with InfernoVM(limits=Limits(64 << 20), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble(code))
        vm.execute("test", "main")
        Interrupted(monkeypatch, 3)
        engine_of(vm)._signals = stretches.SIGNALS
        with pytest.raises(LimitError, match="time limit"):
            vm.execute("test", "main")
        assert engine_of(vm)._words[Machine.PENDING]
    monkeypatch.undo()
    assert vm.get_stats().objects == 0


@pytest.mark.parametrize(("fuel", "is_left"), [(-1, False), (0, True), (QUANTUM, False)])
def test_without_fuel_what_dies_is_freed_at_once_unless_the_time_is_over(
    fuel, is_left, monkeypatch
):
    begin = stretches.begin

    def begin_with_fuel(words, until):
        begin(words, until)
        words[Machine.UNTIL] = words[Machine.DEADLINE]
        words[Machine.FUEL] = fuel

    with InfernoVM(limits=Limits(64 << 20), engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble("ret"))
        vm.execute("test", "main")
        text = vm.heap.new_text("text")
        before = vm.heap.objects
        monkeypatch.setattr(stretches, "begin", begin_with_fuel)
        vm.heap.words[(text + COUNT) >> 2] = 0
        assert vm.heap.bury([text])
        assert (engine_of(vm)._words[Machine.PENDING] == text) is is_left
        monkeypatch.undo()
        assert vm.heap.objects == before - 1
