"""Built-in functions, given objects of all kinds and any numbers, on each engine.

Whatever a program passes on, nothing is taken for what it is not: what native code does is what the
functions of the host do, which they are compared with, and all references are counted afterwards.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.files.openfile import ORDWR, OpenFile
from llmbol_core.vm.groups import kill
from llmbol_core.vm.host import HostFunction
from tests.vm.border import KINDS, PLACE, Border, Part, fits
from tests.vm.conftest import ENGINES

SECRET = -1 << 40
"""Stands for the address of the string."""
ONE = 0x3FF00000
"""The high word of the real 1."""
WORDS = (
    0, 1, -1, 2, 3, 4, 7, 8, 24, 25, 78, 255, 0x7FF0, 0xFFFF, 0x10000, 0x2603, 0xD800, 0x10FFFF,
    ONE, 0x7FEFFFFF, 0x7FF00000, (1 << 28) + 1, (1 << 31) - 1, -(1 << 31), SECRET,
)  # fmt: skip
USUAL = {
    "string": "a template",
    "array of byte": "bytes",
    "array of int": "words",
    "array of real": "reals",
    "array of ref FD": "strings",
    "list of int": "a shape",
    "list of string": "a list of strings",
    "ref FD": "a small record",
}
"""What is passed where nothing is wrong, by type."""
SLOW = ("genprime", "genstrongprime", "gensafeprime", "DSAprimes", "probably_prime", "sleep")
"""Functions that take long for large numbers."""
MILD = ("newmod",)
"""Functions that say in the error string what is wrong."""
BY_CHANCE = (*SLOW, "IPint.random", "random", "millisec")
"""Functions whose results nobody can foresee."""
PLACES = ("nil", "a record", "a record with a string", "strings", "words", "bigs", "pairs")
RANDOM = 40


class Case(NamedTuple):
    """One call: what to give other than usual, by place, and where the result goes."""

    given: dict[int, str | int]
    how: str = "f"
    place: str = "nil"
    alike: str = ""
    """The kind of one object that is passed, or takes the result, wherever there is a pointer."""


def prepare(border: Border) -> None:
    """Have the functions make what only they can make.

    What some return others take, which then return what others take.
    """
    for function in (*border.functions, *border.functions):
        pointers = [p.given for p in border.parts[function.name] if p.is_pointer]
        tries: list[dict[int, Any]] = [{}, *({at: "nil"} for at in pointers)]
        tries += (dict.fromkeys(pointers, name) for name in border.made)
        for given in tries if function.name not in border.made else ():
            fill(border, function, Case(given))
            border.call(function)
            border.keep(function)
            border.clear(function)


def cases(border: Border, function: HostFunction) -> Iterator[Case]:
    """Yield calls of a function, each with something wrong."""
    parts, kinds = border.parts[function.name], [*KINDS, *border.made]
    pointers = [p.given for p in parts if p.is_pointer]
    numbers = [p.given for p in parts if not p.is_pointer]
    words = WORDS[:6] if function.name in SLOW else WORDS
    yield Case({})
    if function.name == "DSAprimes":
        return
    yield from (Case({at: kind}) for at in pointers for kind in kinds)
    yield from (Case({at: word}) for at in numbers for word in words)
    if len(pointers) > 1:
        yield from (Case({}, alike=kind) for kind in kinds)
    if function.result.size:
        yield Case({}, "n")
        yield from (Case({}, how, kind) for how in "re" for kind in PLACES)
        yield from (Case({}, how, alike=kind) for how in "re" for kind in kinds)
    chance = random.Random(function.name)
    for _ in range(RANDOM if parts else 0):
        given: dict[int, str | int] = {at: chance.choice(kinds) for at in pointers}
        yield Case(given | {at: chance.choice(words) for at in numbers})


def usual(border: Border, part: Part, before: Part | None) -> str | int:
    """Return what is passed for a word of an argument."""
    if part.is_pointer:
        made = [name for name in border.made if border.returned(name) == str(part.type)]
        return USUAL.get(str(part.type), made[0] if made else "a string")
    is_second = before is not None and before.type is not None and str(before.type) == "real"
    return ONE if is_second else int(str(part.type) != "real")


def fill(border: Border, function: HostFunction, case: Case) -> None:
    """Put into the module data what a call is given."""
    heap = border.heap
    shared = border.new(case.alike) if case.alike else NIL
    before = None
    for part in border.parts[function.name]:
        what = case.given.get(part.given, usual(border, part, before))
        if isinstance(what, int):
            border.put_number(part.given, border.secret if what == SECRET else what)
        elif case.alike:
            border.put(part.given, heap.retain(shared))
        else:
            border.put(part.given, border.new(what))
        before = part
    border.put(PLACE, shared if case.alike else border.new(case.place))


def outcomes(border: Border, function: HostFunction, share: int) -> list[Any]:
    """Return what comes of calls of a function, one of so many."""
    found = list[Any]()
    start = zlib.crc32(function.name.encode()) % share
    for number, case in enumerate(islice(cases(border, function), start, None, share)):
        fill(border, function, case)
        right = function.name in MILD or all(
            len(case.given) != 1 or fits(border.heap, part.type, border.kept(part.given))
            for part in border.parts[function.name]
            if part.is_pointer and part.given in case.given
        )
        how = border.call(function, case.how)
        assert how or right, (function.name, case)
        found.append((case, how, border.state(function)))
        border.clear(function)
        if not number % 16:
            border.check()
    border.check()
    return found


NATIVE = [
    function for m in HOST_MODULES for function in HOST_MODULES[m].functions if function.native
]
ALL = pytest.param(1, marks=pytest.mark.slow)


@pytest.mark.parametrize("share", [16, ALL])
@pytest.mark.parametrize("name", ["native", pytest.param("compiled", marks=pytest.mark.slow)])
@pytest.mark.parametrize("function", NATIVE, ids=lambda function: function.native)
def test_machine_code_takes_nothing_for_what_it_is_not(
    function: HostFunction, name: str, share: int
) -> None:
    made = [Border(function.module, [function], ENGINES[e]) for e in ("reference", name)]
    expected, got = (outcomes(border, function, share) for border in made)
    for one, other in zip(expected, got, strict=True):
        assert other == one or function.name in BY_CHANCE


@pytest.mark.parametrize("share", [32, ALL])
@pytest.mark.parametrize("module", HOST_MODULES)
def test_the_host_takes_nothing_for_what_it_is_not(module: str, share: int) -> None:
    border = Border(module, list(HOST_MODULES[module].functions), ENGINES["reference"])
    prepare(border)
    for function in border.functions:
        outcomes(border, function, share)


class Slow(OpenFile):
    """A file at which each call waits once; meanwhile something happens."""

    is_stream = waits_for_processes = True

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__("/slow", ORDWR)
        self._meanwhile, self._looks, self._left = meanwhile, 0, b"0123456789"

    def is_ready(self) -> bool:
        """Say so when it is looked at again, after what happens meanwhile."""
        self._looks += 1
        if self._looks == 2:
            self._meanwhile()
        return self._looks > 1

    can_write = is_ready

    def _read(self, count: int, offset: int) -> bytes:
        data, self._left = self._left[:count], b""
        return data

    def _write(self, data: bytes, offset: int) -> int:
        return len(data)


DESCRIPTORS = range(10)
WAITING = [f for f in HOST_MODULES["$Sys"].functions if f.name not in SLOW]


def waits(border: Border, function: HostFunction, how: str, kills: bool) -> bool:
    """Drop all that a call works on while it waits, if it does, and see that it writes nowhere."""
    heap, machine, litter = border.heap, border.machine, list[int]()

    def meanwhile() -> None:
        border.clear(function)
        if kills:
            kill(machine, next(iter(machine.scheduler.processes.values())))
        litter.extend(heap.new_bytes(b"\x7f" * size) for size in (*range(0, 200, 4), 5000))

    fill(border, function, Case({}, how, "pairs" if how == "e" else "a record"))
    for part in border.parts[function.name]:
        if str(part.type) == "ref FD":
            heap.set_word(border.kept(part.given), DESCRIPTORS[-1])
    for number in DESCRIPTORS:
        machine.environment.descriptors.add(Slow(meanwhile), number)
    border.call(function, how)
    assert all(not bytes(heap.array_bytes(ref)).strip(b"\x7f") for ref in litter), function
    for ref in litter:
        heap.release(ref)
    border.clear(function)
    border.check()
    return bool(litter)


@pytest.mark.parametrize("kills", [False, True])
@pytest.mark.parametrize("name", ["reference", "native"])
def test_nothing_that_is_dropped_while_a_call_waits_is_used(name: str, kills: bool) -> None:
    border = Border("$Sys", WAITING, ENGINES[name])
    ways = [(f, how) for f in WAITING for how in ("fre" if f.result.size else "f")]
    assert sum(waits(border, function, how, kills) for function, how in ways) > 10
