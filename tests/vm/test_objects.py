"""Objects of the heap: what they hold, and that exactly what nothing refers to is gone."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.errors import Trap
from llmbol_core.vm import strings, traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.collector import collect_cycles
from llmbol_core.vm.heaptypes import BIG, BYTE, POINTER, REAL, WORD
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.strings import new_strings

PAIR = TypeDescriptor(0, 12, b"\xa0")  # pointer, word, pointer


@pytest.fixture
def heap():
    heap = Heap(1 << 20)
    heap.collect = lambda: collect_cycles(heap)
    return heap


@given(text=st.text())
def test_strings_come_back(text):
    heap = Heap(1 << 16)
    ref = heap.new_string(text)
    assert heap.string(ref) == text
    assert strings.length(heap, ref) == len(text)
    assert [chr(strings.character(heap, ref, i)) for i in range(len(text))] == list(text)


EDITS = st.tuples(st.sampled_from("ics"), st.integers(0, 9), st.integers(0, 9), st.text(max_size=5))


@given(start=st.text(max_size=6), edits=st.lists(EDITS, max_size=12))
def test_editing_strings_is_like_editing_pythons(start, edits):
    heap = Heap(1 << 16)
    place = heap.new_record(PAIR)
    heap.give(place, heap.new_string(start))
    kept = heap.retain(heap.pointer(place))
    model = start
    for kind, a, b, text in edits:
        if kind == "i" and a <= len(model) and text:
            strings.insert(heap, place, a, ord(text[0]))
            model = model[:a] + text[0] + model[a + 1 :]
        elif kind == "c":
            other = heap.new_string(text)
            strings.concatenate(heap, heap.pointer(place), other, place)
            heap.release(other)
            model += text
        elif kind == "s" and a <= b <= len(model):
            strings.cut(heap, place, a, b)
            model = model[a:b]
        assert heap.string(heap.pointer(place)) == model
    assert heap.string(kept) == start
    heap.release(kept)
    heap.release(place)
    assert heap.objects == 0


def test_a_string_can_be_joined_with_itself(heap):
    place = heap.new_record(PAIR)
    heap.give(place, heap.new_string("ab"))
    for _ in range(4):
        strings.concatenate(heap, heap.pointer(place), heap.pointer(place), place)
    assert heap.string(heap.pointer(place)) == "ab" * 16


def test_a_string_that_grows_is_seldom_copied(heap):
    place, copies, last = heap.new_record(PAIR), 0, NIL
    for index in range(4000):
        strings.insert(heap, place, index, 65 + index % 26)
        copies, last = copies + (heap.pointer(place) != last), heap.pointer(place)
    assert strings.length(heap, last) == 4000
    assert copies < 25


@pytest.mark.parametrize("code", [0, 127, 128, 255, 256, 0xFFFF, 0x10000])
def test_a_string_becomes_as_wide_as_its_characters(heap, code):
    place = heap.new_record(PAIR)
    heap.give(place, heap.new_string("ab"))
    for index in (1, 2):
        strings.insert(heap, place, index, code)
    assert heap.string(heap.pointer(place)) == "a" + 2 * chr(code)


def test_characters_that_are_none_stay_what_they_are(heap):
    place = heap.new_record(PAIR)
    for index, code in enumerate((-1, 0x7FFFFFFF, 0xD800, 65)):
        strings.insert(heap, place, index, code)
    ref = heap.pointer(place)
    assert [strings.character(heap, ref, i) for i in range(4)] == [-1, 0x7FFFFFFF, 0xD800, 65]
    assert heap.string(ref) == "\ufffd\ufffd\ud800A"


UTF8 = [
    (b"a\xc3\xa9\xf0\x9f\x98\x80", "aé😀"),
    (b"\x80\x80abc", "\ufffd\ufffdabc"),
    (b"ab\xe2\x98", "ab"),
    (b"\xe2\x28\xa1x", "\ufffd(\ufffdx"),
    (b"\xc3", ""),
]


@pytest.mark.parametrize(("data", "text"), UTF8)
def test_wrong_utf8_becomes_replacement_characters(data, text):
    assert strings.decode(data) == text


def test_what_has_no_utf8_is_replaced():
    assert strings.encode("a\ud800b") == "a\ufffdb".encode()


@pytest.mark.parametrize(("kind", "size"), [(BYTE, 1), (WORD, 4), (BIG, 8), (REAL, 8)])
def test_arrays_are_zero_and_hold_their_elements(heap, kind, size):
    ref = heap.new_array(kind, 10)
    assert heap.array_length(ref) == 10
    assert bytes(heap.array_bytes(ref)) == bytes(10 * size)
    heap.array_bytes(ref)[:] = bytes(range(10)) * size
    assert bytes(heap.array_bytes(ref)) == bytes(range(10)) * size


def test_slices_share_elements_and_keep_the_whole_array(heap):
    array = heap.new_array(POINTER, 5)
    for i in range(5):
        heap.give(heap.array_data(array) + 4 * i, heap.new_string(str(i)))
    part = heap.new_slice(array, 1, 3)
    inner = heap.new_slice(part, 1, 2)
    heap.release(array)
    heap.release(part)
    assert heap.array_length(inner) == 2
    assert heap.string(heap.pointer(heap.array_data(inner))) == "2"
    heap.release(inner)
    assert heap.objects == 0


def test_lists_of_strings(heap):
    ref = new_strings(heap, ["one", "", "drei"])
    texts = [heap.string(heap.pointer(heap.head(node))) for node in heap.list_nodes(ref)]
    assert texts == ["one", "", "drei"]
    with pytest.raises(Trap, match=traps.NIL_DEREFERENCE):
        heap.head(NIL)
    heap.release(ref)
    assert heap.objects == 0


def test_a_long_list_is_released_without_recursion():
    heap = Heap(1 << 24)
    ref = new_strings(heap, ["x"] * 100_000)
    heap.release(ref)
    assert heap.objects == 0


def test_copied_values_are_counted(heap):
    one, two = heap.new_record(PAIR), heap.new_record(PAIR)
    heap.give(one, heap.new_string("a"))
    heap.set_word(one + 4, 5)
    heap.give(two + 8, heap.new_string("b"))
    number = heap.type_number(PAIR)
    heap.copy_value(one, two, number)
    heap.copy_value(two, two, number)
    assert heap.objects == 3
    heap.release(one)
    assert heap.string(heap.pointer(two)) == "a"
    assert heap.word(two + 4) == 5
    heap.release_value(two, number)
    assert heap.objects == 1


class Closing:
    closed = 0

    def close(self):
        self.closed += 1


def test_handles_close_with_their_last_reference_and_count_against_the_limit(heap):
    value = Closing()
    ref = heap.new_handle(value, 1000, PAIR)
    assert heap.handle(ref) is value
    assert heap.reserved == 1000
    assert heap.handle(NIL) is None
    heap.retain(ref)
    heap.release(ref)
    assert value.closed == 0
    heap.release(ref)
    assert value.closed == 1
    assert heap.reserved == 0
    assert heap.objects == 0
    with pytest.raises(Trap, match=traps.HEAP_FULL):
        heap.new_handle(value, 1 << 20, PAIR)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda heap: heap.new_array(WORD, -1), traps.NEGATIVE_SIZE),
        (lambda heap: heap.new_array(BIG, 1 << 30), traps.HEAP_FULL),
        (lambda heap: heap.new_array(BYTE, 1 << 21), traps.HEAP_FULL),
        (lambda heap: heap.new_channel(WORD, -1), traps.NEGATIVE_SIZE),
        (lambda heap: heap.plain_type(-4), traps.NEGATIVE_SIZE),
    ],
)
def test_impossible_sizes_trap(heap, make, text):
    with pytest.raises(Trap, match=text):
        make(heap)
    assert heap.objects == 0


@settings(max_examples=100)
@given(seed=st.integers(0, 1 << 32))
def test_exactly_what_can_be_reached_lives(seed):
    rng = random.Random(seed)
    heap = Heap(1 << 20)
    refs = [heap.new_record(PAIR) for _ in range(20)]
    links = {}
    for ref in refs:
        for offset in (0, 8):
            if rng.random() < 0.6:
                links[ref, offset] = rng.choice(refs)
                heap.assign(ref + offset, links[ref, offset])
    kept = {ref for ref in refs if rng.random() < 0.2}
    for ref in refs:
        if ref not in kept:
            heap.release(ref)
    reachable, ahead = set(), list(kept)
    while ahead:
        ref = ahead.pop()
        if ref not in reachable:
            reachable.add(ref)
            ahead += [links[ref, offset] for offset in (0, 8) if (ref, offset) in links]
    assert reachable <= set(heap.blocks())
    collect_cycles(heap)
    assert set(heap.blocks()) == reachable
    for ref in kept:
        heap.release(ref)
    collect_cycles(heap)
    assert heap.objects == 0


def test_cycles_make_room_when_memory_is_short(heap):
    for _ in range(100):
        ref = heap.new_record(PAIR)
        heap.give(ref, heap.new_array(BYTE, 50_000))
        heap.assign(ref + 8, ref)
        heap.release(ref)
    heap.collect()
    assert heap.objects == 0


def test_memory_that_other_sizes_have_left_is_found_without_a_collection():
    heap = Heap(1 << 16)
    number = heap.type_number(TypeDescriptor(0, 8, b""))
    made: list[int] = []
    with pytest.raises(Trap):
        made.extend(heap.new_record(number) for _ in range(5000))
    assert len(made) > 1500
    for ref in made[:-1]:
        heap.release(ref)
    heap.collect = lambda: pytest.fail("cycles were looked for")
    text = heap.new_text("x" * 40_000)
    assert heap.objects == 2
    heap.release(text)
