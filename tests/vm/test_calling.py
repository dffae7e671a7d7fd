"""Calls from Python: what goes in and comes out, what is refused, and that nothing stays behind."""

from __future__ import annotations

import functools
import math
import threading
from contextlib import suppress

import numpy as np
import pytest

from llmbol_core.errors import LinkError, LlmbolError, SourceError, Trap, UsageError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.limbo import parse_declarations, parse_type
from llmbol_core.vm.machine import InfernoVM
from tests.vm import ledger
from tests.vm.objects import DATA_DIRECTORY

CALLS = (DATA_DIRECTORY / "limbo/calls.dis").read_bytes()


@pytest.fixture
def vm():
    with InfernoVM() as machine:
        machine.load_module("calls", CALLS)
        yield machine


# fmt: off
VALUES = [
    ("words",  [5, -3],                             8),
    ("words",  [-(1 << 31), 1],                     (1 << 31) - 1),
    ("words",  [True, np.int32(4)],                 -3),
    ("bytes",  [255],                               255),
    ("bigs",   [-(1 << 63)],                        -(1 << 63)),
    ("reals",  [2],                                 2.0),
    ("reals",  [np.float32(0.5)],                   0.5),
    ("reals",  [-math.inf],                         -math.inf),
    ("text",   ["é☃😀"],                            "é☃😀3"),
    ("text",   [None],                              "0"),
    ("turned", [b"abc"],                            b"cba"),
    ("turned", [bytearray(b"xy")],                  b"yx"),
    ("turned", [memoryview(b"a-b-c")[::2]],         b"cba"),
    ("turned", [memoryview(b"mv")],                 b"vm"),
    ("turned", [[1, 2, 255]],                       b"\xff\2\1"),
    ("turned", [np.array([1, 2], np.uint8)],        b"\2\1"),
    ("turned", [None],                              b""),
    ("nested", [(1, ("s", 2.5))],                   ((2.5, "s"), 1)),
    ("rows",   [[[1, 2], [3], [], None]],           [[2, 2], [4], [], []]),
    ("rows",   [[]],                                []),
    ("rows",   [np.array([[1, 2], [3, 4]])],        [[2, 2], [4, 4]]),
    ("lists",  [[["a", "b"], ["c"], None]],         [["b", "a"], ["c"], []]),
    ("pairs",  [[(1, "a"), (2, "b")]],              [("a", 1), ("b", 2)]),
    ("pairs",  [[]],                                []),
    ("blocks", [[b"ab", b"", b"c"]],                [b"c", b"", b"ab"]),
    ("cubes",  [[[[1.0]], [[2.5, 3]], []]],         [[[1.0]], [[2.5, 3.0]], []]),
    ("few",    [range(5)],                          5),
    ("names",  [["a", None, "é"]],                  ["a", "", "é"]),
    ("four",   [],                                  (1, "two", 3.5, 1 << 40)),
    ("nils",   [],                                  ("", [], [])),
    ("item",   [[7, 8, 9], 2],                      9),
]
REFUSED = [
    ("words",  [1 << 31, 0], "argument 1 of words: 2147483648 is no int: it goes from -2147483648"),
    ("words",  [0, 1 << 80],                   "argument 2 of words: 1208925819614629174706176"),
    ("bytes",  [256],                          "256 is no byte: it goes from 0 to 255"),
    ("bytes",  [-1],                           "-1 is no byte"),
    ("bigs",   [1 << 63],                      "9223372036854775808 is no big"),
    ("reals",  [10**400],                      r"1000000\d+\.\.\. is no real"),
    ("rows",   [[[1], [1 << 40]]],             "1099511627776 is no int"),
    ("turned", [[1, 300]],                     "300 is no byte"),
]
UNFIT = [
    ("words",  [1.5, 1],     "does not take float, int"),
    ("words",  ["x", 1],     "does not take str, int"),
    ("words",  [{}, 1],      "does not take dict, int"),
    ("words",  [1],          "does not take int"),
    ("words",  [],           "does not take nothing"),
    ("text",   [b"bytes"],   "does not take bytes"),
    ("rows",   [[1, [2]]],   "does not take list"),
    ("nested", [(1, 2)],     "does not take tuple"),
    ("deep",   [],           "types that cannot be told have to be given"),
]
MISFITS = [
    ("words",  ["x", 1],          "fn(a, b: int): int",                     "'x' is no int"),
    ("words",  [1.0, 1],          "fn(a, b: int): int",                     "1.0 is no int"),
    ("words",  [1],               "fn(a, b: int): int",                     "2 arguments, not 1"),
    ("reals",  ["x"],             "fn(r: real): real",                      "'x' is no real"),
    ("text",   [5],               "fn(s: string): string",                  "5 is no string"),
    ("turned", ["text"],          "fn(a: array of byte): array of byte",    "is no array of byte"),
    ("names",  [["a", 5]],        "fn(a: array of string): array of string", "5 is no string"),
    ("pairs",  [[(1, "a"), (2,)]], "fn(l: list of (int, string)): array of (string, int)",
     r"\(2,\) is no \(int, string\)"),
]
# fmt: on


@pytest.mark.parametrize(("name", "values", "wanted"), VALUES)
def test_values_go_in_and_come_out(vm, name, values, wanted):
    for _ in range(2):
        assert vm.execute("calls", name, values) == wanted
    before = vm.heap.objects
    vm.execute("calls", name, values)
    assert vm.heap.objects == before


@pytest.mark.parametrize(("name", "values", "why"), REFUSED)
def test_values_out_of_range_are_refused(vm, name, values, why):
    before = vm.heap.objects
    with pytest.raises(UsageError, match=why):
        vm.execute("calls", name, values)
    assert vm.heap.objects == before


@pytest.mark.parametrize(("name", "values", "why"), UNFIT)
def test_values_that_a_function_does_not_take(vm, name, values, why):
    with pytest.raises(LinkError, match=why):
        vm.execute("calls", name, values)


@pytest.mark.parametrize(("name", "values", "kind", "why"), MISFITS)
def test_values_that_do_not_fit_the_type_that_is_given(vm, name, values, kind, why):
    before = vm.heap.objects
    with pytest.raises(UsageError, match=why):
        vm.execute("calls", name, values, kind)
    assert vm.heap.objects == before


KNOT: list[object] = [1]
KNOT.append(KNOT)


@pytest.mark.parametrize(
    ("name", "entry", "arguments", "why"),
    [
        ("calls", "words", 5, "the arguments should be a sequence, not 5"),
        ("calls", "text", "abc", "the arguments should be a sequence, not 'abc'"),
        ("calls", None, [], "a name should be a text, not None"),
        (7, "words", [1, 2], "a name should be a text, not 7"),
        ("calls", "words", [KNOT, 1], "the arguments of words nest too deeply"),
    ],
)
def test_calls_that_are_none(vm, name, entry, arguments, why):
    for method in (vm.execute, vm.spawn):
        with pytest.raises(UsageError) as error:
            method(name, entry, arguments)
        assert str(error.value) == why


@pytest.mark.parametrize("arguments", [[range(1 << 40)], [range(10**30)], range(1 << 40)])
def test_more_values_than_there_is_memory_for(vm, arguments):
    with pytest.raises(UsageError, match=r"more values than \d+ bytes of memory can hold"):
        vm.execute("calls", "few", arguments)
    with pytest.raises(UsageError, match="more values than"):
        vm.execute("calls", "few", arguments, "fn(l: list of byte): int")


def test_names_are_texts(vm):
    for call in (vm.unload_module, lambda name: vm.load_module(name, CALLS)):
        with pytest.raises(UsageError, match="a name should be a text, not 5"):
            call(5)


def test_a_closed_machine_loads_nothing():
    vm = InfernoVM()
    vm.close()
    with pytest.raises(UsageError, match="the machine is closed"):
        vm.load_module("calls", CALLS)


def test_types_can_be_given(vm):
    kind = "fn(): (int, array of string, list of (int, int))"
    assert vm.execute("calls", "deep", [], kind) == (1, ["a", "b"], [(1, 2), (3, 4)])
    with pytest.raises(LinkError, match=r"is no fn\(\): int"):
        vm.execute("calls", "deep", [], "fn(): int")
    with pytest.raises(LinkError, match="deep is a function, not of type int"):
        vm.execute("calls", "deep", [], "int")
    with pytest.raises(SourceError, match="unknown type 'nosuch'"):
        vm.execute("calls", "deep", [], "fn(): nosuch")


def test_references_pass_as_numbers(vm):
    scope = parse_declarations("P: adt { n: int; s: string; };")
    make, look = (parse_type(kind, scope) for kind in ("fn(n: int): ref P", "fn(p: ref P): int"))
    before = vm.heap.objects
    made = vm.execute("calls", "make", [5], make)
    assert vm.execute("calls", "look", [made], look) == 5
    vm.heap.release(made)
    assert vm.heap.objects == before
    with pytest.raises(Trap, match="dereference of nil"):
        vm.execute("calls", "look", [None], look)


def test_thousands_of_calls_leave_nothing_behind(vm):
    calls = [(name, values) for name, values, _ in VALUES] + [("item", [[1], 5]), ("words", [{}])]

    def call_all(times):
        for _ in range(times):
            for name, values in calls:
                with suppress(LlmbolError):
                    vm.execute("calls", name, values)

    call_all(2)
    before = len(vm.heap.types), vm.heap.objects, vm.get_stats().memory_used
    call_all(30)
    assert (len(vm.heap.types), vm.heap.objects, vm.get_stats().memory_used) == before


def test_machines_run_in_threads_of_their_own():
    found = {}

    def work(number):
        with InfernoVM() as machine:
            machine.load_module("calls", CALLS)
            total = 0
            for i in range(40):
                total += machine.execute("calls", "words", [i, number])
                with pytest.raises(Trap, match="array bounds error"):
                    machine.execute("calls", "item", [[1], i + 1])
            found[number] = total

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: 780 - 40 * number for number in range(4)}


ODD = """
        movw $7,0(16(fp))
        ret
        made: newcw $2,0(16(fp))
        ret
        desc $0,8,""
        desc $1,40,(32)
        desc $2,40,""
        module Odd
        link {frame},0,"fn(x: {kind}): int","f"
        link 2,made,"fn(): chan of int","made"
        ldts @ldt,0
"""
DEEP = functools.reduce(lambda inner, _: [inner], range(5000), list[object]())
STRANGE = [
    ("int", 10**5000, "this int is no int"),
    ("int", DEEP, "this list is no int"),
    ("array of array of int", [b"abc", DEEP], "this list is no int"),
    ("chan of int", 70000, "70000 is no chan of int"),
    ("chan of int", "x", "'x' is no chan of int"),
    ("chan of int", math.nan, "nan is no chan of int"),
    ("array of int", b"ab", None),
    ("array of real", bytearray(b"ab"), None),
]


@pytest.mark.parametrize("number", range(len(STRANGE)))
def test_strange_values_are_refused(number):
    kind, value, why = STRANGE[number]
    module = parse_assembly(ODD.format(kind=kind, frame=2 if kind == "int" else 1))
    with InfernoVM() as vm:
        vm.load_module("odd", module)
        if why:
            with pytest.raises(UsageError, match=why):
                vm.execute("odd", "f", [value], f"fn(x: {kind}): int")
        else:
            assert vm.execute("odd", "f", [value], f"fn(x: {kind}): int") == 7
        ledger.check(vm)


def test_what_a_program_lends_can_be_given_back_as_what_it_is():
    with InfernoVM() as vm:
        vm.load_module("odd", parse_assembly(ODD.format(kind="chan of int", frame=1)))
        lent = [vm.execute("odd", "made", [], "fn(): chan of int") for _ in range(2)]
        assert vm.execute("odd", "f", lent[:1], "fn(x: chan of int): int") == 7
        vm.load_module("other", parse_assembly(ODD.format(kind="chan of real", frame=1)))
        with pytest.raises(UsageError, match="is no chan of real"):
            vm.execute("other", "f", lent[:1], "fn(x: chan of real): int")
        ledger.check(vm)
        before = vm.heap.objects
        vm.take_back(lent[0], parse_type("chan of int"))
        assert vm.heap.objects == before - 1
        for gone in (lent[0], 70000):
            with pytest.raises(UsageError, match=f"{gone} is no chan of int"):
                vm.take_back(gone, "chan of int")
        with pytest.raises(UsageError, match="is no chan of int"):
            vm.execute("odd", "f", lent[:1], "fn(x: chan of int): int")
        ledger.check(vm)
    vm.heap.make_room()
    assert vm.heap.objects == 0


OTHERS = """
    new $2,0(16(fp))
    ret
    newa $4,$2,0(16(fp))
    ret
    consw $7,32(fp)
    movp 32(fp),0(16(fp))
    ret
    desc $0,8
    desc $1,40,(32)
    desc $2,16
    module Others
"""


@pytest.mark.parametrize("pc", [0, 2, 4])
@pytest.mark.parametrize(
    "kind",
    ["string", "array of byte", "array of real", "array of string", "list of string"],
)
def test_results_are_what_the_type_says_or_nothing(pc, kind):
    if pc == 2 and kind in ("array of byte", "array of real"):
        return  # any array of numbers has bytes, and these fill reals
    with InfernoVM() as vm:
        links = f'link 1,{pc},"fn(): {kind}","f"'
        vm.load_module("others", parse_assembly(f"{OTHERS}\n{links}", "others"))
        with pytest.raises(Trap, match="type check"):
            vm.execute("others", "f", [], f"fn(): {kind}")
