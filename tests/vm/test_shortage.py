"""When memory is short: all is given out, and what only cycles keep is found before that.

``data/fills.dis`` is compiled by Inferno's limbo from the source beside it.
"""

from __future__ import annotations

import io
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Trap
from llmbol_core.vm.arena import HEADER, LARGE, LAST_SIZE, NIL
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

LIMIT = 1 << 20
PAIR = TypeDescriptor(0, 16, b"\xc0")
"""A record with references at 0 and 4; its block takes 32 bytes."""
BOTH = ["reference", "native"]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


class Filled:
    """A heap with a chain of records, which notes when cycles are looked for."""

    def __init__(self, vm: InfernoVM) -> None:
        self.vm, self.heap, self.chain, self.count = vm, vm.heap, NIL, 0
        self.number = self.heap.type_number(PAIR)
        self.searches: list[int] = []
        """The bytes that were used each time."""
        collect = self.heap.collect

        def noted() -> None:
            self.searches.append(self.heap.used)
            collect()

        self.heap.collect = noted

    def grow(self, most: int = LIMIT) -> None:
        """Make the chain longer, by so many records or until there is no room."""
        for _ in range(most):
            ref = self.heap.new_record(self.number)
            self.heap.set_pointer(ref, self.chain)
            self.chain, self.count = ref, self.count + 1

    def fill(self) -> None:
        """Make the chain longer until there is no room."""
        with pytest.raises(Trap, match="out of memory: heap"):
            self.grow()

    def ring(self) -> None:
        """Make two records that only each other keep."""
        one, other = (self.heap.new_record(self.number) for _ in range(2))
        self.heap.set_pointer(one, other)
        self.heap.set_pointer(other, one)

    def shrink(self, count: int) -> None:
        """Let go of the newest records of the chain."""
        for _ in range(count):
            ref, self.chain = self.chain, self.heap.pointer(self.chain)
            self.heap.set_pointer(ref, NIL)
            self.heap.release(ref)


@contextmanager
def filled(engine):
    """Yield a heap to be filled, of a machine whose engine has run; nothing is left at the end."""
    with InfernoVM(limits=Limits(LIMIT), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        made = Filled(vm)
        yield made
        vm.heap.release(made.chain)
    vm.heap.make_room()
    assert vm.heap.objects == 0


@pytest.mark.parametrize("engine", BOTH)
def test_all_memory_is_given_out_and_no_cycles_are_looked_for_when_it_is_gone(engine):
    with filled(engine) as made:
        made.fill()
        assert made.heap.used > LIMIT - LAST_SIZE - 64
        (used,) = made.searches
        assert LIMIT * 0.98 < used < LIMIT - (LIMIT >> 9)


@pytest.mark.parametrize("engine", BOTH)
def test_who_was_refused_may_have_let_go_of_cycles(engine):
    with filled(engine) as made:
        heap, last = made.heap, NIL
        with suppress(Trap):
            while True:
                ref = heap.new_record(made.number)
                heap.assign(ref, ref)
                heap.set_pointer(ref + 4, last)
                last = ref
        assert heap.refused is not None
        heap.release(last)
        made.grow(1000)


@pytest.mark.parametrize("engine", BOTH)
def test_cycles_in_a_heap_that_is_nearly_full_are_found_for_ever(engine):
    with filled(engine) as made:
        made.grow(LIMIT * 15 // 16 // 32)
        for _ in range(7000):
            made.ring()
        assert len(made.searches) > 3


@pytest.mark.parametrize("engine", BOTH)
def test_cycles_in_memory_that_was_used_before_are_found(engine):
    with filled(engine) as made:
        made.fill()
        made.heap.refused = None
        made.shrink(made.count // 2)
        # Nothing is cut from holes now: blocks are used again.
        for _ in range(20_000):
            made.ring()
        assert len(made.searches) > 2


def ages(engine):
    """Return how much is young after some things that happen to a heap."""
    with filled(engine) as made:
        heap, young = made.heap, []
        made.grow(1000)
        for step in (lambda: made.grow(10), heap.make_room, lambda: made.shrink(400),
                     lambda: made.grow(300), lambda: made.grow(200), heap.make_room):  # fmt: skip
            step()
            heap.defragment()
            young.append(heap.young)
        return [after - young[-1] for after in young]


def test_what_is_young_is_what_was_made_since_cycles_were_looked_for():
    assert ages("native")[1:] == [0, 0, 300 * 32, 500 * 32, 0]
    assert ages("reference")[1:] == [0, 0, 300 * 32, 500 * 32, 0]


def test_some_memory_is_kept_back_again_when_it_is_free():
    with filled("native") as made:
        engine = made.vm.engine
        assert isinstance(engine, JitEngine)
        made.fill()
        engine._upkeep.work_off()
        assert not made.heap.kept_back
        made.shrink(made.count // 2)
        engine._upkeep._looks_from = 0.0
        engine._upkeep.work_off()
        assert made.heap.kept_back
        made.fill()
        assert made.searches[-1] < LIMIT - (LIMIT >> 9)
        assert len(made.searches) == 2


def test_an_old_array_that_dies_is_taken_apart_by_native_code(monkeypatch):
    with filled("native") as made:
        heap, taken = made.heap, list[int]()
        array = heap.new_array(POINTER, LARGE >> 3)
        heap.make_room()
        bury = heap.bury

        def noted(dying):
            taken.extend(dying)
            return bury(dying)

        monkeypatch.setattr(heap, "bury", noted)
        heap.release(array)
        assert taken == [array]


def test_a_size_for_which_no_hole_was_large_enough_may_fit_later():
    heap = Heap(LIMIT)
    heap.kept_back = 0
    refs = [heap.allocate(5000) or 0 for _ in range(3)]
    assert heap.allocate(LIMIT - heap.used - LAST_SIZE - HEADER)
    heap.free(refs[0])
    heap.free(refs[2])
    assert heap.allocate(7000) is None
    heap.free(refs[1])
    assert heap.allocate(7000)


def made(engine, kind):
    """Return how many objects of a structure are made before its program hears of the limit.

    -1 in front means that it never hears of it.
    """
    out = io.BytesIO()
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(), Limits(LIMIT), streams, engine=ENGINES[engine]) as vm:
        vm.run(str(Path(__file__).parent / "data/fills.dis"), [kind], host=True)
    words = out.getvalue().decode().split()
    assert (words[0], words[2], words[4:]) == (kind, "ms,", ["made"])
    return [-1] * (words[1] == "-1") + [int(words[3])]


KINDS = ["list", "dlist", "queue", "table", "rgraph2", "chans", "arrays", "rings"]


@pytest.mark.parametrize("kind", KINDS)
def test_as_much_fits_on_each_engine(kind):
    wanted = made("reference", kind)
    assert (wanted[0] == -1) == (kind == "rings")
    # When free blocks are joined depends on time.
    assert made("native", kind) == pytest.approx(wanted, rel=0.01)
    assert made("compiled", kind) == pytest.approx(wanted, rel=0.01)
