"""The heap's upkeep in native code: cycles and free memory as the reference finds them."""

from __future__ import annotations

import random
from contextlib import contextmanager
from itertools import pairwise

import pytest

from llmbol_core.vm.arena import COUNT, LARGE, NIL
from llmbol_core.vm.heaptypes import POINTER
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.jit.runtime import Machine
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import ARRAY, CHANNEL_HEADER, LIST
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

PAIR = TypeDescriptor(0, 20, b"\xa0")
"""A record with references at 0 and 8."""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def make(heap, rng, other):
    """Make an object that may refer to another one."""
    kind = rng.choice(["text", "array", "list", "slice", "channel", "record"])
    if kind == "text":
        return heap.new_text("x" * rng.choice([1, 40, 3000]))
    if kind == "array":
        return heap.new_array(POINTER, rng.choice([0, 1, 5, 600]))
    if kind == "list":
        return heap.new_list(POINTER, heap.retain(other))
    if kind == "slice" and other != NIL and heap.type_of(other) == ARRAY and heap.word(other):
        return heap.new_slice(other, 0, 1)
    if kind == "channel":
        channel = heap.new_channel(POINTER, 3)
        heap.set_word(channel + 8, 1)
        heap.set_word(channel + 12, 2)
        heap.set_pointer(channel + CHANNEL_HEADER + 8, heap.retain(other))
        return channel
    return heap.new_record(heap.type_number(PAIR))


def fill(heap, rng, least=5, most=120):
    """Make objects that refer to each other at random; return those that somebody holds.

    As in programs a list holds only what is older than it.
    """
    made: list[int] = []
    for _ in range(rng.randrange(least, most)):
        made.append(make(heap, rng, rng.choice(made) if made else NIL))
    for ref in made:
        for slot in heap.slots(ref):
            if heap.pointer(slot) == NIL and rng.random() < 0.7:
                older = made[: made.index(ref)] if heap.type_of(ref) == LIST else made
                heap.assign(slot, rng.choice(older or [NIL]))
    held = [ref for ref in made if rng.random() < 0.15]
    for ref in made:
        if ref not in held:
            heap.release(ref)
    return held


@contextmanager
def heap_of(engine):
    """Yield the heap of a machine whose engine has run, so that its native code is there."""
    with InfernoVM(limits=Limits(1 << 22), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        yield vm.heap


def looked_after(engine, seed):
    """Return what lives after a collection, with its counts, and what is free then."""
    with heap_of(engine) as heap:
        held = fill(heap, random.Random(seed))
        heap.collect()
        living = [(ref, heap.type_of(ref), heap.words[(ref >> 2) - 4]) for ref in heap.blocks()]
        heap.defragment()
        free = list(zip(heap._holes, map(heap._hole_sizes.get, heap._holes), strict=True))
        for ref in held:
            heap.release(ref)
    heap.collect()
    assert heap.objects == 0
    return living, free


@pytest.mark.parametrize("seed", range(40))
def test_cycles_and_free_memory_are_found(seed):
    living, free = looked_after("native", seed)
    wanted, wanted_free = looked_after("reference", seed)
    assert [row[1:] for row in living] == [row[1:] for row in wanted]
    assert sum(size for _, size in free) == sum(size for _, size in wanted_free)


def small_heaps(engine, count):
    """Return what lives after each of so many collections with few objects."""
    with InfernoVM(limits=Limits(1 << 22), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        heap, living = vm.heap, []
        for seed in range(count):
            held = fill(heap, random.Random(seed), 2, 9)
            heap.collect()
            living.append([(heap.type_of(r), heap.words[(r >> 2) - 4]) for r in heap.blocks()])
            for ref in held:
                heap.release(ref)
            heap.collect()
    return [sorted(objects) for objects in living]


def test_few_objects_in_cycles_are_found():
    assert small_heaps("native", 400) == small_heaps("reference", 400)


@pytest.mark.parametrize("goes_up", [True, False])
@pytest.mark.parametrize("place", [0, 700, 6000])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_ring_is_found_beside_a_chain_in_the_order_of_memory(goes_up, place, length):
    with InfernoVM(limits=Limits(1 << 22), engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        heap, before = vm.heap, vm.heap.objects
        number = heap.type_number(PAIR)
        made = [heap.new_record(number) for _ in range(6000 + length)]
        ring, chain = made[place : place + length], made[:place] + made[place + length :]
        if not goes_up:
            chain.reverse()
        for ref, following in pairwise(chain):
            heap.give(ref + 8, following)
        heap.collect()
        assert heap.objects == before + 6000 + length
        for ref, following in zip(ring, ring[1:] + ring[:1], strict=True):
            heap.give(ref, following)
        heap.assign(ring[0] + 8, chain[3000])
        heap.collect()
        assert heap.objects == before + 6000
        assert heap.words[(chain[3000] + COUNT) >> 2] == 1
        heap.release(chain[0])


def test_a_reference_counts_as_often_as_it_stands_in_an_array():
    with InfernoVM(limits=Limits(1 << 24), engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        heap, before = vm.heap, vm.heap.objects
        record = heap.new_record(heap.type_number(PAIR))
        for length in (1, 2, 3, 4095, 20_001):
            array = heap.new_array(POINTER, length)
            for at in range(length):
                heap.assign(heap.array_data(array) + 4 * at, record)
            heap.collect()
            assert heap.words[(record + COUNT) >> 2] == 1 + length
            heap.assign(record, array)
            heap.release(record)
            heap.collect()
            assert heap.objects == before + 2
            heap.retain(record)
            heap.assign(record, NIL)
            heap.release(array)
            assert heap.words[(record + COUNT) >> 2] == 1
        heap.assign(record, record)
        heap.release(record)
        heap.collect()
        assert heap.objects == before


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_large_channel_that_is_in_use_can_be_let_go(engine):
    with InfernoVM(limits=Limits(1 << 22), engine=ENGINES[engine]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        heap, before = vm.heap, vm.heap.objects
        channel = heap.new_channel(POINTER, LARGE)
        heap.set_word(channel + 8, 1)
        heap.set_pointer(channel + CHANNEL_HEADER, heap.new_text("x"))
        heap.release(channel)
        assert heap.objects == before


def texts(heap, count):
    """Return a list of so many strings."""
    ref = NIL
    for _ in range(count):
        ref = heap.new_list(POINTER, ref)
        heap.set_pointer(heap.head(ref), heap.new_text("x"))
    return ref


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_long_list_can_be_let_go(engine):
    with heap_of(engine) as heap:
        before = heap.objects
        heap.release(texts(heap, 5000))
        assert heap.objects == before


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_channels_in_channels_can_be_let_go(engine):
    with heap_of(engine) as heap:
        before, ref = heap.objects, heap.new_text("x")
        for _ in range(5000):
            channel = heap.new_channel(POINTER, 2)
            heap.set_word(channel + 8, 1)
            heap.set_pointer(channel + CHANNEL_HEADER, ref)
            ref = channel
        heap.release(ref)
        assert heap.objects == before


def test_what_is_made_like_a_tree_that_was_freed_lies_in_memory_as_that_did():
    with heap_of("native") as heap:
        number = heap.type_number(TypeDescriptor(0, 8, b"\xc0"))
        made: list[int] = []

        def grow(depth):
            node = heap.new_record(number)
            made.append(node)
            if depth:
                heap.set_pointer(node, grow(depth - 1))
                heap.set_pointer(node + 4, grow(depth - 2) if depth > 1 else NIL)
            return node

        root = grow(9)
        # Native code takes them apart; few objects are Python's business.
        heap.words[(root + COUNT) >> 2] = 0
        assert heap.bury([root])
        again = [heap.new_record(number) for _ in made]
        assert again == made[::-1]
        for ref in again:
            heap.release(ref)


@pytest.mark.parametrize("engine", ["reference", "native"])
def test_what_nothing_refers_to_is_freed_though_no_object_can_be_in_a_cycle(engine):
    with heap_of(engine) as heap:
        before = heap.objects
        kept, left = texts(heap, 3), texts(heap, 2)
        # As whoever frees a list leaves it when the program is stopped meanwhile.
        heap.words[(left + COUNT) >> 2] = 0
        heap.collect()
        assert heap.objects == before + 6
        heap.release(kept)


@pytest.mark.parametrize("length", [2, 3, 400, 6001])
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_ring_is_freed_with_all_that_hangs_on_it(engine, length):
    with heap_of(engine) as heap:
        before = heap.objects
        number, shared = heap.type_number(PAIR), heap.new_text("shared")
        ring = [heap.new_record(number) for _ in range(length)]
        for ref, following in zip(ring, ring[1:] + ring[:1], strict=True):
            heap.assign(ref, following)
            array = heap.new_array(POINTER, length % 5)
            if length % 5:
                heap.assign(heap.array_data(array) + 4 * (length % 5 - 1), shared)
            heap.give(ref + 8, array)
        outside = heap.new_list(POINTER, NIL)
        heap.assign(heap.head(outside), ring[-1])
        for ref in ring:
            heap.release(ref)
        heap.collect()
        assert heap.objects == before + 2 * length + 2
        heap.release(outside)
        heap.collect()
        assert heap.objects == before + 1
        assert heap.words[(shared + COUNT) >> 2] == 1
        heap.release(shared)


def test_what_is_released_at_once_is_not_asked_who_holds_it():
    closed = []

    class Held:
        def close(self):
            closed.append(self)

    def refuse():
        raise AssertionError("looked for who holds the rest, which there is not")

    with InfernoVM(engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        vm.execute("test", "main")
        assert isinstance(vm.engine, JitEngine)
        upkeep = vm.engine._upkeep
        ref = vm.heap.new_handle(Held(), 0, TypeDescriptor(-1, 4))
        vm.heap.pointers[(ref + COUNT) >> 2] = 0
        upkeep._words[Machine.RELEASED] = ref
        upkeep._may_wait = refuse
        upkeep.release_some()
        assert len(closed) == 1
