"""The arena: no address leads out of it, blocks never overlap, the limit holds."""

import ctypes
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.vm.arena import HEAP, LAST_SIZE, NIL, Arena
from llmbol_core.vm.shortage import ScarceArena

LIMIT = 1 << 18


def fill(arena, ref, size, byte):
    arena.view(ref, size)[:] = bytes([byte]) * size


@settings(max_examples=50)
@given(seed=st.integers(0, 1 << 32))
def test_blocks_are_zero_apart_and_come_back(seed):
    rng = random.Random(seed)
    arena = ScarceArena(LIMIT)
    held: dict[int, tuple[int, int]] = {}
    for step in range(300):
        if held and rng.random() < 0.45:
            ref = rng.choice(sorted(held))
            size, byte = held.pop(ref)
            assert bytes(arena.view(ref, size)) == bytes([byte]) * size
            arena.free(ref)
        else:
            size = rng.choice([0, 1, 8, 40, rng.randrange(2000), rng.randrange(20_000)])
            ref = arena.allocate(size) or 0
            if not ref:
                continue
            assert ref % 8 == 0
            assert arena.capacity(ref) >= size
            assert bytes(arena.view(ref, size)) == bytes(size)
            arena.set_word(ref - 12, 7)
            held[ref] = (size, step % 251 + 1)
            fill(arena, ref, size, step % 251 + 1)
        if rng.random() < 0.05:
            arena.defragment()
    assert sorted(arena.blocks()) == sorted(held)
    for ref, (size, byte) in held.items():
        assert bytes(arena.view(ref, size)) == bytes([byte]) * size
        arena.free(ref)
    arena.defragment()
    assert arena.used == 0
    assert arena.allocate(LIMIT - LAST_SIZE - 16) is not None


def test_the_limit_holds_and_what_is_freed_serves_other_sizes():
    arena = ScarceArena(LIMIT)
    refs = []
    for size in (48, 32):
        while (ref := arena.allocate(size)) is not None:
            arena.set_word(ref - 12, 7)
            refs.append(ref)
    assert arena.used == LIMIT - LAST_SIZE
    assert LIMIT // 64 * 0.99 < len(refs) <= LIMIT // 64
    assert arena.allocate(1) is None
    for ref in refs:
        arena.free(ref)
    assert arena.allocate(LIMIT // 2) is None
    arena.defragment()
    assert arena.allocate(LIMIT // 2) is not None


def test_the_host_takes_its_share_of_the_limit():
    arena = ScarceArena(LIMIT)
    assert arena.reserve(LIMIT - 4096)
    assert not arena.reserve(8192)
    assert arena.allocate(8192) is None
    assert arena.allocate(2048) is not None
    arena.reserved = 0
    assert arena.allocate(8192) is not None
    arena = ScarceArena(LIMIT)
    assert not arena.reserve(LIMIT + 1)
    assert arena.reserve(LIMIT)
    assert (arena.used, arena.peak) == (LIMIT, LIMIT)
    assert not arena.reserve(1)


ACCESS = [
    ("word", "set_word", -5, 4),
    ("pointer", "set_pointer", 0xFFFFFFFE, 4),
    ("big", "set_big", -(1 << 62), 8),
    ("real", "set_real", 0.1, 8),
    ("byte", "set_byte", 200, 1),
    ("short", "set_short", -300, 2),
    ("float32", "set_float32", 0.5, 4),
]


@pytest.mark.parametrize(("get", "put", "value", "size"), ACCESS)
def test_every_address_can_be_accessed_and_none_outside(get, put, value, size):
    arena = ScarceArena(LIMIT)
    end = HEAP + LIMIT
    for address in range(HEAP, HEAP + 9):
        getattr(arena, put)(address, value)
        assert getattr(arena, get)(address) == value
    for address in (NIL, NIL + 8, end, end - size + 1, -1 if size > 1 else end):
        with pytest.raises(IndexError):
            getattr(arena, get)(address)
        with pytest.raises(IndexError):
            getattr(arena, put)(address, value)


def test_several_arenas_share_nothing():
    one, two = ScarceArena(LIMIT), Arena(LIMIT)
    one.set_word(HEAP, 5)
    assert two.word(HEAP) == 0
    assert one.bytes[HEAP] == 5


def test_the_peak_is_remembered():
    arena = ScarceArena(LIMIT)
    ref = arena.allocate(LIMIT // 2)
    assert ref is not None
    arena.free(ref)
    assert arena.reserve(1000)
    assert arena.used == 1000
    assert LIMIT // 2 < arena.peak < LIMIT


def test_machine_code_can_reach_the_header_of_any_address():
    arena = ScarceArena(LIMIT)
    if arena.base is None:
        pytest.skip("the address space cannot be reserved here")
    for address in (-16, -1, 0, HEAP, (1 << 32) - 1, (1 << 32) + (1 << 16)):
        place = ctypes.c_ubyte.from_address(arena.base + address)
        place.value = 7
        assert place.value == 7
    assert arena.byte(HEAP) == 7
