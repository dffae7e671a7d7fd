"""Functions of the host: native code calls some of $Math itself, and has the others called."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from llmbol_core.builtins import HOST_MODULES, built_in, sys
from llmbol_core.builtins.format import format_text
from llmbol_core.errors import Trap
from llmbol_core.vm.conversion import real_to_string, string_to_real
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.heaptypes import BYTE, WORD
from llmbol_core.vm.heaptypes import REAL as REALS
from llmbol_core.vm.host import RESULT
from llmbol_core.vm.jit import stretches
from llmbol_core.vm.jit.hostcode import HOSTED, load_hosted
from llmbol_core.vm.jit.runtime import State
from llmbol_core.vm.layout import BIG, INT, REAL, STRING
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.builtins.calling import Borrowed, Caller
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble, host_module

DATA = Path(__file__).parents[1] / "data" / "limbo"
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.5,
    -2.5,
    710.0,
    -750.0,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
]
CALL = """
    load 20(mp),$0,40(fp)
    mframe 40(fp),$0,44(fp)
    movf 32(fp),32(44(fp))
    lea 0(16(fp)),16(44(fp))
    mcall 44(fp),$0,40(fp)
    ret
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def caller(module, function, kind):
    """Return a module whose main passes its real to a function of a built-in module."""
    more = (
        f'string @mp+20,"{module}"\nldts @ldt,1\nword @ldt+0,1\next @ldt+4,"{kind}","{function}"\n'
    )
    links = 'link 8,0,"fn(x: real): real","main"'
    return assemble(CALL, "desc $8,56,(40)\n" + more, links=links)


class Declined(Exception):
    """Machine code leaves something to Python."""


class NativeCaller(Caller):
    """A process whose calls machine code does."""

    def __init__(self, module):
        load_hosted()
        self.vm = InfernoVM(HOST_MODULES, limits=Limits(1 << 28), engine=ENGINES["native"])
        self.vm.load_module("test", assemble("movw $1,0(16(fp))\nret"))
        assert self.vm.execute("test", "main") == 1
        super().__init__(module, heap=self.vm.heap)
        engine: Any = self.vm.engine
        self.native = engine.new_process(7, 1, self.vm.environment.inherit(), 1 << 12)
        self.native.record[State.SHARED] = engine._shared

    def run(self, function, base):
        engine: Any = self.vm.engine
        if len(self.heap.types) != engine._mapped:
            engine._map_types()
        stretches.begin(engine._words, None)
        kind = ctypes.PYFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
        call = kind(engine._native.handlers[function.native])
        if not call(engine._base, self.native.address, base):
            raise Declined


@functools.cache
def callers(module):
    return Caller(module, limit=1 << 28), NativeCaller(module)


def same(value):
    """Return a value such that equal ones have the same bits."""
    if isinstance(value, tuple | list):
        return [same(part) for part in value]
    return struct.pack("=d", value) if isinstance(value, float) else value


def compare(module, name, *values, rest=()):
    """Call a function both ways; return whether machine code did it."""
    reference, native = callers(module)
    try:
        found = native(name, *values, rest=rest)
    except Declined:
        return False
    assert same(found) == same(reference(name, *values, rest=rest)), (name, values, rest)
    return True


PIECES = ["a", "b", " ", "\t", "%", "0", "\0", "\x7f", "\x80", "\xe4", "\xff", "\u07ff", "\u1234",
          "\ud800", "\udfff", "\ufffd", "\U00010000", "\U0010ffff"]  # fmt: skip
BYTES = [b"a", b"\0", b"\x7f", b"\xc3\xa4", b"\xe1\x88\xb4", b"\xf0\x90\x80\x80",
         b"\xf4\x8f\xbf\xbf", b"\x80", b"\xbf", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80",
         b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xf8", b"\xff", b"\xe1\x88",
         b"\xf0\x90"]  # fmt: skip
WORDS = [0, 1, -1, 9, 10, 255, 256, 65536, 0x10FFFF, 0x110000, 0xD800, (1 << 31) - 1, -(1 << 31)]


def some_real(chance):
    kind = chance.randrange(7)
    if kind == 0:
        return chance.choice(SPECIAL)
    if kind == 1:
        return float(chance.randrange(-1000, 1000))
    if kind == 2:
        return chance.randrange(-(10**6), 10**6) / 10 ** chance.randrange(8)
    if kind < 6:
        return chance.uniform(-4, 4)
    return chance.gauss(0, 1) * 10.0 ** chance.randrange(-30, 30)


def some_text(chance, pieces=PIECES, most=12):
    return "".join(chance.choice(pieces) for _ in range(chance.randrange(most)))


def some_value(chance, kind):
    """Return a value to pass as an argument of a type."""
    if kind is REAL:
        return some_real(chance)
    if kind is INT:
        return chance.choice([*WORDS, chance.randrange(-40, 40)])
    if kind is BIG:
        return chance.choice([*WORDS, (1 << 63) - 1, -(1 << 63), chance.getrandbits(62)])
    if kind is STRING:
        return some_text(chance)
    if str(kind) == "array of byte":
        return b"".join(chance.choice(BYTES) for _ in range(chance.randrange(1, 6)))
    if str(kind) == "list of int":
        return chance.choice([[], [], [1], [2, 0]])
    assert str(kind) == "array of real"
    return [some_real(chance) for _ in range(chance.choice([1, 2, 3, 3, 3, 3, 17]))]


def declared(name):
    module, _, function = name.partition(".")
    return built_in(f"${module}").declared(function)


PRINTING = {"Sys.sprint", "Sys.print", "Sys.fprint", "Sys.aprint"}
ON_FILES = {"Sys.read", "Sys.write", "Sys.pread", "Sys.pwrite", "Sys.seek"}
load_hosted()


def test_modules_and_machine_code_agree_on_which_functions_there_are():
    meant = {f.native for name in ("$Sys", "$Math") for f in HOST_MODULES[name].functions}
    assert meant - {""} == set(HOSTED)


CHANGING = {"Math.gemm", "Math.sort", "Sys.millisec", "Sys.sleep"}


@pytest.mark.parametrize("name", sorted(set(HOSTED) - PRINTING - ON_FILES - CHANGING))
def test_machine_code_does_what_the_function_of_the_host_does(name):
    module, _, function = name.partition(".")
    chance, done = random.Random(name), 0
    kinds = [part.type for part in declared(name).arguments]
    for _ in range(300):
        values = [some_value(chance, kind) for kind in kinds]
        if name in ("Sys.byte2char", "Sys.utfbytes"):
            values[1] = chance.randrange(len(values[0]))
        if name == "Sys.pctl":
            values[0] = chance.choice([0, 0, 0, 1, -(1 << 31)])
        with contextlib.suppress(Trap):
            done += compare(f"${module}", function, *values)
    assert done > 30


def compare_arrays(name, kind, *values):
    """Call a function both ways; its last array must be the same, as must what it traps with."""
    found: list[Any] = []
    for call in callers("$Math"):
        given = [call.array(*v) if isinstance(v, tuple) else v for v in values]
        arrays = [v for v in given if isinstance(v, Borrowed)]
        try:
            call(name, *given)
        except (Declined, Trap) as error:
            found.append(type(error))
            continue
        items = call.items(arrays[-1 if name == "sort" else 2], kind)
        # Of two operands that are not numbers either may be the result.
        found.append([None if item != item else same(item) for item in items])
    if found[1] is Declined:
        return False
    assert found[0] == found[1], (name, values)
    return True


def some_reals(chance, count):
    pool = [0.0, 1.0, 2.0, -1.0, math.nan, math.inf] if chance.random() < 0.3 else [0.0, -0.0, 1.0]
    some = chance.choice([lambda: chance.choice(pool), chance.random, lambda: some_real(chance)])
    return [some() for _ in range(count)]


def test_permutations_are_ordered_as_by_the_function_of_the_host():
    chance, done = random.Random(3), 0
    for size in [*range(60)] * 3 + [300, 1000, 3000, 9000]:
        values = some_reals(chance, max(size, 1))
        indices = chance.choice([list(range(size)), chance.choices(range(len(values)), k=size)])
        done += compare_arrays("sort", "i", (REALS, values), (WORD, indices))
    assert done == 184
    assert not compare_arrays("sort", "i", (REALS, [1.0]), (WORD, [0, 1]))
    assert not compare_arrays("sort", "i", (REALS, [1.0]), (WORD, [-1]))
    native = callers("$Math")[1]
    with pytest.raises(Declined):
        native("sort", native.array(REALS, [1.0]), native.array(WORD, [0] * ((1 << 20) + 1)))


def some_product(chance, most):
    """Return the arguments of a call of gemm."""
    a, b = chance.choice("NTC"), chance.choice("NTC")
    m, n, k = (chance.randrange(0 if chance.random() < 0.1 else 1, most) for _ in range(3))
    shapes = [(m, k) if a == "N" else (k, m), (k, n) if b == "N" else (n, k), (m, n)]
    matrices = []
    for rows, columns in shapes:
        leading = rows + chance.choice([0, 0, 1, 5])
        size = leading * columns - chance.choice([0, leading - rows, 2 * rows])
        matrices += [(REALS, some_reals(chance, max(size, 0))), leading]
    alpha, beta = (chance.choice([0.0, 1.0, -2.5, some_real(chance)]) for _ in range(2))
    return ord(a), ord(b), m, n, k, alpha, *matrices[:4], beta, *matrices[4:]


def test_matrices_are_multiplied_as_by_the_function_of_the_host():
    chance, done = random.Random(4), 0
    for number in range(400):
        done += compare_arrays("gemm", "d", *some_product(chance, 40 if number < 20 else 7))
    assert done > 60


@pytest.mark.parametrize("x", [0.0, -0.0, 1.0, -1.0, 2.5, -2.5, math.nan])
def test_nothing_to_a_power_and_one_are_known(x):
    assert compare("$Math", "pow", x, 0.0)
    assert compare("$Math", "pow", x, -0.0)
    assert compare("$Math", "pow", 1.0, 0.0 if x != x else x)


def test_a_product_in_the_place_of_a_factor_is_left_to_python():
    native = callers("$Math")[1]
    array = native.array(REALS, [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(Declined):
        native("gemm", 78, 78, 2, 2, 2, 1.0, array, 2, array, 2, 0.0, array, 2)


def test_a_sleep_is_left_to_python_unless_it_takes_no_time():
    native = callers("$Sys")[1]
    assert [native("sleep", period) for period in (0, -5)] == [0, 0]
    with pytest.raises(Declined):
        native("sleep", 1)


def test_characters_are_encoded_in_place():
    chance, done = random.Random(4), 0
    for code in [*WORDS, *(ord(piece) for piece in PIECES), *range(0, 0x11000, 0x7F3)]:
        at, found = chance.randrange(4), []
        for caller in callers("$Sys"):
            room = caller.array(BYTE, b"12345")
            with contextlib.suppress(Declined):
                found.append((caller("char2byte", code, room, at), caller.items(room, "B")))
        assert found[0] == found[-1]
        done += len(found) > 1
    assert done > 50


def some_directive(chance):
    """Return a directive and the types and values of its arguments."""
    rest, options = [], ""
    if chance.random() < 0.6:
        options += some_text(chance, "-0+ #u,hl", 3)
    if chance.random() < 0.5:
        options += chance.choice(["1", "5", "12", "*", "07", "80"])
        if options.endswith("*"):
            rest.append((INT, chance.choice([0, 3, 11, -4])))
    if chance.random() < 0.4:
        options += "." + chance.choice(["", "0", "3", "15", "25", "*"])
        if options.endswith("*"):
            rest.append((INT, chance.randrange(12)))
    verb = chance.choice("dddxXoccsssefggGE%qr")
    if verb in "dxXo":
        is_big = chance.random() < 0.4
        kind = BIG if is_big else INT
        options += "b" * is_big
        rest.append((kind, some_value(chance, kind)))
    elif verb not in "%r":
        kind = INT if verb == "c" else STRING if verb in "sq" else REAL
        rest.append((kind, some_value(chance, kind)))
    return f"%{options}{verb}", [] if verb == "%" else rest


def test_text_is_formatted_as_by_the_function_of_the_host():
    chance, done = random.Random(1), 0
    for _ in range(3000):
        template, rest = some_text(chance, PIECES[:4] + PIECES[9:], 4), []
        for _ in range(chance.randrange(1, 4)):
            text, more = some_directive(chance)
            template += text + some_text(chance, "ab\xe4\u1234", 3)
            rest += more
        done += compare("$Sys", "sprint", template, rest=rest)
        done += compare("$Sys", "aprint", template, rest=rest)
    assert done > 1200
    assert not compare("$Sys", "sprint", "%q %r", rest=[(STRING, "it's")])


@pytest.mark.parametrize("template", ["%d %s\n", "%5.2f|%-8s|%bd", "%g %G", "%c%%%x", "plain", ""])
def test_usual_text_is_formatted_in_machine_code(template):
    rest = {
        "%d %s\n": [(INT, -5), (STRING, "text")],
        "%5.2f|%-8s|%bd": [(REAL, 2.345), (STRING, "ab"), (BIG, 1 << 40)],
        "%g %G": [(REAL, 0.1), (REAL, 1e21)],
        "%c%%%x": [(INT, 0x1234), (INT, 255)],
    }
    assert compare("$Sys", "sprint", template, rest=rest.get(template, ()))


def test_digits_behind_the_point_are_rounded_as_by_the_function_of_the_host():
    chance = random.Random(5)
    values = [sign * n / 16 for n in range(200) for sign in (1, -1)]
    values += [near for n in (1e5, 1e9, 99999.995) for near in (math.nextafter(n, 0), n, 9.5 * n)]
    values += [round(chance.uniform(-1e4, 1e4), chance.randrange(9)) for _ in range(500)]
    values += [chance.randrange(10**6) / 1000 + 0.0005 for _ in range(500)]
    values += [chance.uniform(-1, 1) * 10.0 ** chance.randrange(-12, 12) for _ in range(500)]
    done = 0
    for value in values:
        digits = [chance.randrange(4), chance.randrange(4), chance.randrange(12)]
        template = " ".join(f"%.{count}f" for count in digits)
        done += compare("$Sys", "sprint", template, rest=[(REAL, value)] * 3)
    assert done > 0.9 * len(values)


def test_whole_characters_are_counted_in_long_text():
    chance, done = random.Random(6), 0
    for _ in range(300):
        text = some_text(chance, ["some plain text ", *PIECES[:8], *PIECES[9:12]], 20).encode()
        done += compare("$Sys", "utfbytes", text, chance.randrange(len(text) + 1))
    assert done > 200


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_the_host_can_trap_and_be_called_again(engine):
    def work(call):
        x = call.heap.real(call.frame + 32)
        if x < 0:
            raise Trap("less than nothing")
        call.heap.set_real(call.heap.pointer(call.frame + RESULT), 2 * x)

    module = caller("$Host", "work", "fn(n: int): int")
    with InfernoVM(host_module(work=work), limits=Limits(1 << 20), engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        assert vm.execute("test", "main", [4.5]) == 9.0
        with pytest.raises(Trap) as caught:
            vm.execute("test", "main", [-1.0])
        assert caught.value.name == "less than nothing"
        assert caught.value.pc == 4
        assert vm.execute("test", "main", [0.25]) == 0.5
    vm.heap.collect()
    assert vm.heap.objects == 0


def shared(name, result, *parameters):
    """Return a function that regions call."""
    native = callers("$Sys")[1]
    native.vm.engine._map_types()
    kind = ctypes.PYFUNCTYPE(result, ctypes.c_void_p, ctypes.c_void_p, *parameters)
    call = kind(native.vm.engine._native.handlers[f"@{name}"])

    def called(*values):
        stretches.begin(native.vm.engine._words, None)
        return call(native.vm.engine._base, native.native.address, *values)

    return called


def test_reals_become_the_same_text_everywhere():
    chance, done = random.Random(2), 0
    heap, text = callers("$Sys")[1].heap, shared("real_text", ctypes.c_uint32, ctypes.c_double)
    values = [2.0**n for n in range(-1074, 1024)] + [some_real(chance) for _ in range(3000)]
    values += [struct.unpack("=d", chance.randbytes(8))[0] for _ in range(2000)]
    for value in values:
        ref = text(value)
        if ref:
            done += 1
            assert heap.string(ref) == real_to_string(value), value
            heap.release(ref)
    assert done > 5000


def test_text_becomes_the_same_reals_everywhere():
    chance, done = random.Random(3), 0
    heap = callers("$Sys")[1].heap
    read = shared("read_real", ctypes.c_int32, ctypes.c_uint32)
    value = shared("value_read", ctypes.c_double)
    texts = ["1e400", "-1e-400", "123456789012345678", "9007199254740993", "0x10", "1e22", "1e23"]
    texts += [real_to_string(some_real(chance)) + some_text(chance, "e.x 9") for _ in range(2000)]
    texts += [some_text(chance, " \t+-0123456789.eEin") for _ in range(3000)]
    for text in texts:
        if read(heap.new_string(text)):
            done += 1
            assert same(value()) == same(string_to_real(text)), text
    assert done > 4000


def test_usual_text_is_formatted_in_machine_code_for_any_file(monkeypatch):
    formatted: list[str] = []

    def noting(template, *given):
        formatted.append(template)
        return format_text(template, *given)

    monkeypatch.setattr(sys, "format_text", noting)
    out = io.BytesIO()
    streams = Streams(stdout=out)
    with InfernoVM(HOST_MODULES, Namespace(DATA), None, streams, engine=ENGINES["native"]) as vm:
        vm.run("/printed.dis")
    assert out.getvalue().decode() == (DATA / "printed.txt").read_text()
    assert set(formatted) <= {"%r", "%s %q"}
