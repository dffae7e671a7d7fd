"""What dies is freed a little later where that takes long and nobody can tell."""

from __future__ import annotations

import pytest

from llmbol_core.vm.arena import COUNT as REFERENCES
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.heaptypes import BIG, BYTE, HANDLE, POINTER, WORD
from llmbol_core.vm.jit import stretches, upkeep
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

COUNT = 8_000
PAIR = TypeDescriptor(0, 8, b"\xc0")
LET_GO = "beqw 40(mp),$0,done\nmovp 8(mp),0(mp)\nloop: addw $1,72(fp)\nbltw 72(fp),$30000,loop\n"
MACHINE = "done: movw $1,40(mp)\nret"


class File:
    """Something that the host keeps for a program."""

    is_closed = False

    def close(self):
        """Take note of it."""
        self.is_closed = True


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Let the time for freeing be over when native code first looks at the clock."""
    begin = stretches.begin

    def begin_late(words, until):
        begin(words, until)
        words[Machine.UNTIL] = min(words[Machine.UNTIL], words[Machine.UNTIL] - (1 << 40))

    monkeypatch.setattr(stretches, "begin", begin_late)
    monkeypatch.setattr(upkeep, "SECONDS", -1.0)


def machine(engine="native"):
    """Return a machine with native code, and a program that lets go of what 0(mp) refers to."""
    vm = InfernoVM(limits=Limits(64 << 20), engine=ENGINES[engine])
    vm.load_module("test", assemble(LET_GO + MACHINE))
    vm.execute("test", "main")
    return vm


def pending(vm):
    """Return what is left to be freed."""
    return vm.engine._words[Machine.PENDING]


def chain(heap, value, count=COUNT):
    """Return a chain of records, the innermost of which takes a reference over."""
    number = heap.type_number(PAIR)
    for _ in range(count):
        ref = heap.new_record(number)
        heap.set_pointer(ref, value)
        value = ref
    return value


def trunk(heap, count):
    """Return a chain of chains."""
    number, ref = heap.type_number(PAIR), NIL
    for _ in range(count):
        new = heap.new_record(number)
        heap.set_pointer(new, ref)
        heap.set_pointer(new + 4, chain(heap, NIL))
        ref = new
    return ref


def test_what_takes_long_to_free_is_left_and_counted_as_freed():
    with machine() as vm:
        before = vm.get_stats().objects
        vm.heap.release(trunk(vm.heap, 3))
        assert pending(vm)
        vm.heap.release(trunk(vm.heap, 2))
        assert vm.get_stats().objects == before
        assert not pending(vm)


def test_what_the_host_keeps_is_closed_at_once():
    with machine() as vm:
        before, file = vm.get_stats().objects, File()
        vm.heap.release(chain(vm.heap, vm.heap.new_handle(file, 0, HANDLE)))
        assert file.is_closed
        assert not pending(vm)
        assert vm.get_stats().objects == before


def row(heap, count, element, tail):
    """Return a list of values of a type before another one, which it takes over."""
    for _ in range(count):
        tail = heap.new_list(element, tail)
    return tail


@pytest.mark.parametrize("count", [1, 255, 256, 257, COUNT])
@pytest.mark.parametrize("element", [BYTE, BIG, POINTER])
def test_lists_are_freed_up_to_what_others_keep(count, element):
    with machine() as vm:
        heap, before = vm.heap, vm.get_stats().objects
        data = heap.pointer(vm._handles["test"])
        kept = row(heap, 2, WORD, NIL)
        for between in (0, 300):
            rest = row(heap, between, WORD, heap.retain(kept))
            heap.give(data, row(heap, count, element, rest))
            vm.execute("test", "main")
            assert heap.pointer(data) == NIL
            assert vm.get_stats().objects == before + 2
        assert heap.pointer(kept + REFERENCES) == 1
        heap.give(data, row(heap, count, element, kept))
        vm.execute("test", "main")
        assert vm.get_stats().objects == before


@pytest.mark.parametrize("engine", ["native", "compiled"])
@pytest.mark.parametrize("where", ["nowhere", "in its data", "inside", "in both", "outside"])
def test_a_program_goes_on_meanwhile_unless_the_host_may_have_to_close_something(
    engine, where, monkeypatch
):
    with machine(engine) as vm:
        heap, before, seen = vm.heap, vm.get_stats().objects, []
        data, file = heap.pointer(vm._handles["test"]), File()
        open_ = NIL if where == "nowhere" else heap.new_handle(file, 0, HANDLE)
        if where in ("in its data", "in both"):
            heap.give(data + 4, chain(heap, open_, 3))
        root = trunk(heap, 6)
        if where in ("inside", "in both"):
            inner = heap.retain(open_) if where == "in both" else open_
            heap.set_pointer(heap.pointer(root + 4) + 4, inner)
        heap.give(data, root)
        enter = vm.engine._enter

        def spied(how):
            seen.append(pending(vm))
            return enter(how)

        monkeypatch.setattr(vm.engine, "_enter", spied)
        vm.execute("test", "main")
        assert any(seen) is (where in ("nowhere", "in its data"))
        assert file.is_closed is (where == "inside")
        heap.assign(data + 4, NIL)
        if where == "outside":
            heap.release(open_)
        assert file.is_closed is (where != "nowhere")
        assert vm.get_stats().objects == before


def test_memory_that_is_about_to_be_free_can_be_had():
    with machine() as vm:
        heap = vm.heap
        vm.get_stats()
        heap.release(trunk(heap, 14))
        assert pending(vm)
        assert heap.new_bytes(b"x" * (50 << 20)) != NIL
