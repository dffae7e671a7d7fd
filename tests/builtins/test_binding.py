"""Binding: what a declaration makes of a Python function, and how values pass."""

from contextlib import suppress
from typing import Any

import pytest

from llmbol_core.builtins import HOST_MODULES, built_in, signature_of
from llmbol_core.builtins.binding import Binding
from llmbol_core.errors import LinkError, LlmbolError, Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import RESULT, HostCall
from llmbol_core.vm.layout import ModuleType, frame, pointer_map
from llmbol_core.vm.limbo import parse_declarations
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import STACK, Heap
from llmbol_core.vm.process import TYPE
from tests.builtins.calling import Borrowed, Caller
from tests.vm.test_limbo import ROWS

TYPES = """
Pair: adt {
    name: string;
    at: (int, real);
};
"""

# fmt: off
# type, what the function is given or gives back
VALUES = [
    ("int",              -5),
    ("byte",             250),
    ("big",              -(1 << 60)),
    ("real",             0.25),
    ("string",           "naïve ☃ 😀"),
    ("string",           ""),
    ("(int, string)",    (3, "x")),
    ("Pair",             ("n", (1, 2.5))),
    ("list of string",   ["a", "", "c"]),
    ("list of (int, Pair)", [(1, ("a", (2, 3.0))), (4, ("b", (5, 6.0)))]),
    ("list of int",      []),
]
ARRAYS = [
    ("byte", [0, 255]),
    ("int",  [1, -2]),
    ("big",  [1 << 40, -1]),
    ("real", [0.5, -1e300]),
]
# fmt: on


def run(bound, name, fill):
    """Call a function through a frame that ``fill`` prepares; return heap and result address."""
    heap = Heap(1 << 20)
    base = heap.new_object(STACK, 1024)
    heap.bytes[base : base + 1024] = b"\xff" * 1024
    heap.set_pointer(base + RESULT, base + 512)
    fill(heap, base)
    function = next(f for f in bound.module.functions if f.name == name)
    function.run(HostCall(None, None, heap, base, None))  # type: ignore[arg-type]
    return heap, base + 512


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_values_pass_both_ways(kind, value):
    bound = Binding("Test", TYPES)
    seen = []

    @bound.function(f"echo: fn(x: {kind}): {kind}")
    def echo(call, x):
        seen.append(x)
        return x

    declared = bound.declared("echo").result
    heap, result = run(
        bound, "echo", lambda heap, base: bound.encoder(declared)(heap, base + 32, value)
    )
    assert seen == [value]
    assert bound.decoder(declared)(heap, result) == value


@pytest.mark.parametrize(("kind", "value"), ARRAYS)
def test_arrays_arrive_as_writable_views(kind, value):
    bound = Binding("Test")

    @bound.function(f"double: fn(x: array of {kind})")
    def double(call, x):
        assert x.tolist() == value
        x[0] = x[1]

    declared = bound.declared("double").arguments[0].type
    given = bytes(value) if kind == "byte" else value
    heap, _ = run(
        bound, "double", lambda heap, base: bound.encoder(declared)(heap, base + 32, given)
    )
    objects = [ref for ref in heap.blocks() if heap.type_of(ref) != STACK]
    item = {"byte": "B", "int": "i", "big": "q", "real": "d"}[kind]
    assert heap.array_bytes(objects[0]).cast(item).tolist() == [value[1], value[1]]


def test_integers_wrap():
    bound = Binding("Test")

    @bound.function("many: fn(): (int, big, byte)")
    def many(call):
        return 1 << 31, 1 << 63, 257

    heap, at = run(bound, "many", lambda heap, base: None)
    assert (heap.word(at), heap.big(at + 8), heap.byte(at + 16)) == (-(1 << 31), -(1 << 63), 1)


def test_a_result_releases_what_was_there():
    bound = Binding("Test")

    @bound.function("text: fn(): string")
    def text(call):
        return "new"

    def fill(heap, base):
        heap.set_pointer(base + 512, heap.new_string("old"))

    heap, at = run(bound, "text", fill)
    assert heap.string(heap.pointer(at)) == "new"
    assert heap.objects == 1


def test_a_short_tuple_leaves_the_rest():
    bound = Binding("Test")

    @bound.function("half: fn(): (int, string)")
    def half(call):
        return (-1,)

    heap, at = run(bound, "half", lambda heap, base: heap.set_word(base + 512, 5))
    assert heap.word(at) == -1
    assert heap.pointer(at + 4) == NIL


def test_varargs_are_aligned_in_the_frame():
    bound = Binding("Test")
    seen = []

    @bound.function("show: fn(s: string, *)")
    def show(call, s, rest):
        seen.extend([s, rest.word(), rest.real(), rest.word(), rest.big(), rest.string()])

    def fill(heap, base):
        made = TypeDescriptor(-1, 72, pointer_map(72, (32, 64)))
        heap.set_word(base + TYPE, heap.type_number(made))
        heap.set_word(base + 36, 1)
        heap.set_real(base + 40, 2.5)
        heap.set_word(base + 48, 3)
        heap.set_big(base + 56, 4)
        heap.set_pointer(base + 64, heap.new_string("five"))

    run(bound, "show", fill)
    assert seen == ["", 1, 2.5, 3, 4, "five"]


def test_varargs_are_what_the_frame_has():
    bound = Binding("Test")

    @bound.function("show: fn(s: string, *)")
    def show(call, s, rest):
        return rest.string()

    def fill(heap, base):
        heap.set_word(base + TYPE, heap.type_number(TypeDescriptor(-1, 40, pointer_map(40, (32,)))))
        heap.set_word(base + 36, 70000)

    with pytest.raises(Trap, match="type check"):
        run(bound, "show", fill)


def test_references_to_handled_adts():
    bound = Binding("Test", "Box: adt { id: int; };")
    kept = {7: "seven"}
    bound.reference("Box", lambda heap, ref: kept.get(ref), lambda heap, value: 7 if value else NIL)

    @bound.function("same: fn(b: ref Box): ref Box")
    def same(call, box):
        assert box == "seven"

    heap, at = run(bound, "same", lambda heap, base: heap.set_pointer(base + 32, 7))
    assert heap.pointer(at) == NIL


def test_the_interface_is_limbo():
    text = built_in("$Sys").interface()
    module = parse_declarations(text)["Sys"]
    assert isinstance(module, ModuleType)
    assert {"PATH"} <= set(module.constants)
    assert set(module.functions) == {f.name for f in HOST_MODULES["$Sys"].functions}
    assert "\tsleep:\tfn(period: int): int;\n" in text


@pytest.mark.parametrize("module", ["$Sys", "$Math"])
def test_every_function_of_inferno_is_there_with_its_frame(module):
    found = {f.name: f for f in HOST_MODULES[module].functions}
    rows = {row[0].partition("->")[2]: row for row in ROWS if row[0].startswith(module)}
    assert set(found) == set(rows)
    assert list(found) == sorted(found)
    for name, (_, word, size, pointers, *_) in rows.items():
        assert f"{found[name].signature:08x}" == word
        assert found[name].frame.size == int(size)
        assert found[name].frame.pointer_map == bytes.fromhex(pointers.replace("-", ""))


def test_signatures_by_name():
    assert signature_of("$Sys", "sleep") == 0xE67BF126
    with pytest.raises(LinkError, match="did you mean 'sleep'"):
        signature_of("$Sys", "slep")
    with pytest.raises(LinkError, match="no such built-in module"):
        signature_of("$Sis", "sleep")


def test_arrays_of_other_elements_are_refused():
    bound = Binding("Test", "")
    bound.function("f: fn(x: array of real): int")(lambda call, values: len(values))
    with pytest.raises(Trap, match="type check"):
        run(bound, "f", lambda heap, base: heap.set_pointer(base + 32, heap.new_bytes(b"abc")))


ENTRY = ("name", "", "", "", (0, 0, 0), 0, 0, 0, 0, 0, 0)
"""A Dir of $Sys, the only value of several words that a function takes."""


@pytest.mark.parametrize("module", HOST_MODULES)
def test_numbers_in_an_object_of_another_kind_are_not_followed(module):
    """Each pointer that a function takes leads to numbers, which lie outside of all memory."""
    for function in HOST_MODULES[module].functions:
        parts = frame(built_in(module).declared(function.name)).arguments
        pointers = [n for n, part in enumerate(parts) if [*part.type.pointers()] == [0]]
        for at in pointers:
            call = Caller(module)
            other = call.heap.new_record(TypeDescriptor(-1, 32))
            call.heap.view(other, 32)[:] = b"\x7f" * 32
            given: list[Any] = [1 if part.type.size <= 8 else ENTRY for part in parts]
            for n in pointers:
                given[n] = Borrowed(other if n == at else NIL)
            with suppress(LlmbolError):
                call(function.name, *given)
