"""The machine as its users see it: load, execute, limits, figures."""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock, LimitError, LinkError, LlmbolError, Trap, UsageError
from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.host import Sleep
from llmbol_core.vm.isa import OPS, Mode
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import Instruction, Operand
from llmbol_core.vm.objectfile import read_module
from llmbol_core.vm.stackcode import BytecodeLoader
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.programs import assemble, host_module
from tests.vm.test_process import HOST, LOAD_HOST


def test_stack_code_runs():
    with InfernoVM() as vm:
        vm.load_module("m", BytecodeLoader.create_module(bytes([0x00, 0x01, 0x05, 0xFF])))
        assert vm.execute("m", "main", []) == 5


ECHO = """
words:   movw 32(fp),0(16(fp))
        ret
bigs:    movl 32(fp),0(16(fp))
        ret
reals:   movf 32(fp),0(16(fp))
        ret
refs:    movp 32(fp),0(16(fp))
        ret
bytes:   movb 32(fp),0(16(fp))
        ret
pairs:   movw 32(fp),0(16(fp))
        movp 36(fp),4(16(fp))
        ret
nones:   ret
        desc $0,8,""
        desc $1,40,""
        desc $2,40,"0080"
        desc $3,40,"0040"
        module Echo
        {links}
        ldts @ldt,0
"""
FUNCTIONS = [
    ("words", 1, "fn(n: int): int", [-5], -5),
    ("bigs", 1, "fn(n: big): big", [1 << 40], 1 << 40),
    ("bytes", 1, "fn(n: byte): byte", [200], 200),
    ("reals", 1, "fn(x: real): real", [0.1], 0.1),
    ("reals", 1, "fn(x: real): real", [2], 2.0),
    ("refs", 2, "fn(s: string): string", ["é☃"], "é☃"),
    ("refs", 2, "fn(s: string): string", [None], ""),
    ("refs", 2, "fn(a: array of byte): array of byte", [b"\x00\xff"], b"\x00\xff"),
    ("refs", 2, "fn(l: list of string): list of string", [["a", ""]], ["a", ""]),
    ("refs", 2, "fn(l: list of int): list of int", [[1, -2]], [1, -2]),
    ("refs", 2, "fn(a: array of real): array of real", [[1.5, 2]], [1.5, 2.0]),
    ("refs", 2, "fn(a: array of big): array of big", [[1 << 40]], [1 << 40]),
    ("refs", 2, "fn(a: array of string): array of string", [["x"]], ["x"]),
    ("refs", 2, "fn(a: array of int): array of int", [[]], []),
    ("pairs", 3, "fn(n: int, s: string): (int, string)", [3, "x"], (3, "x")),
    ("pairs", 3, "fn(t: (int, string)): (int, string)", [(3, "x")], (3, "x")),
    ("nones", 1, "fn(n: int)", [3], None),
    ("nones", 1, "fn(n: int): (int, real, string)", [3], (0, 0.0, "")),
]


@pytest.mark.parametrize(("label", "frame", "kind", "arguments", "wanted"), FUNCTIONS)
def test_values_go_in_and_come_out(label, frame, kind, arguments, wanted):
    module = parse_assembly(ECHO.format(links=f'link {frame},{label},"{kind}","f"'))
    with InfernoVM() as vm:
        vm.load_module("echo", module)
        for _ in range(2):
            assert vm.execute("echo", "f", arguments) == wanted
    assert vm.heap.objects == 0


def test_calls_that_do_not_fit_say_so():
    with InfernoVM() as vm:
        vm.load_module("test", assemble("ret"))
        with pytest.raises(LinkError, match=r"tset: no module.*did you mean 'test'"):
            vm.execute("tset", "main")
        with pytest.raises(LinkError, match=r"no exported function 'mian' \(did you mean 'main'"):
            vm.execute("test", "mian")
        with pytest.raises(LinkError, match="does not take str, int"):
            vm.execute("test", "main", ["x", 1])


def test_module_data_stays_between_calls_and_machines_are_apart():
    module = assemble("addw $1,64(mp)\nmovw 64(mp),0(16(fp))\nret")
    with InfernoVM() as one, InfernoVM() as two:
        one.load_module("m", module)
        two.load_module("m", module)
        assert [one.execute("m", "main") for _ in range(3)] == [1, 2, 3]
        assert two.execute("m", "main") == 1
        one.load_module("m", module)
        assert one.execute("m", "main") == 1


def test_figures():
    with InfernoVM(limits=Limits(1 << 20)) as vm:
        vm.load_module("m", assemble("movw $3,0(16(fp))\nret"))
        vm.execute("m", "main")
        stats = vm.get_stats()
    assert (stats.modules, stats.processes, stats.processes_started) == (1, 0, 1)
    assert stats.instructions == 2
    assert stats.memory_limit == 1 << 20
    assert 0 < stats.memory_used < 1 << 16
    assert stats.memory_used <= stats.memory_peak < 1 << 18


@pytest.mark.parametrize(
    ("code", "limits", "error"),
    [
        ("jmp 0", Limits(instructions=100), LimitError),
        ("newa $1048576,$3,32(fp)\nret", Limits(1 << 20), Trap),
        ("newcw 32(fp)\nrecv 32(fp),64(fp)\nret", Limits(), Deadlock),
        ("raise 0(mp)", Limits(), Trap),
    ],
)
def test_a_machine_can_be_used_after_a_program_was_stopped(code, limits, error):
    with InfernoVM(limits=limits) as vm:
        vm.load_module("bad", assemble(code.replace("jmp 0", "x: jmp x"), 'string @mp+0,"e"'))
        vm.load_module("good", assemble("movw $3,0(16(fp))\nret"))
        with pytest.raises(error):
            vm.execute("bad", "main")
        assert vm.get_stats().processes == 0
        vm.limits = Limits()
        assert vm.execute("good", "main") == 3
    assert vm.heap.objects == 0


def test_uncaught_exceptions_name_module_and_place():
    with InfernoVM() as vm:
        vm.load_module("m", assemble("movw $3,64(fp)\nraise 0(mp)", 'string @mp+0,"fail:e"'))
        with pytest.raises(Trap) as caught:
            vm.execute("m", "main")
    assert (caught.value.name, caught.value.module, caught.value.pc) == ("fail:e", "Test", 1)


PROGRAMS = sorted(DATA_DIRECTORY.glob("*.dis"))


def damaged(module, rng):
    """Return a module with a few instructions, operands or data changed."""
    code = list(module.instructions)
    for _ in range(rng.choice([1, 1, 3, 10])):
        at = rng.randrange(len(code))
        place = rng.choice(["opcode", "source", "middle", "destination"])
        if place == "opcode":
            code[at] = code[at]._replace(opcode=rng.randrange(len(OPS)))
        else:
            modes = list(Mode)[:4] if place == "middle" else list(Mode)
            value = rng.choice([0, 4, 8, 32, 40, 65532, rng.randrange(1 << 16), -1])
            value = value & 0x7FFF if place == "middle" else value
            operand = Operand(rng.choice(modes), value, 4 * rng.randrange(40))
            code[at] = Instruction(**{**_parts(code[at]), place: operand})
    return replace(module, instructions=tuple(code))


def _parts(i):
    parts = ("opcode", "source", "middle", "destination")
    return {part: getattr(i, part) for part in parts}


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_an_unverified_program_does_it_ends_in_the_machine(seed):
    rng = random.Random(seed)
    module = damaged(read_module(rng.choice(PROGRAMS).read_bytes()), rng)
    limits = Limits(1 << 20, threads=50, instructions=20_000, seconds=5.0)
    with InfernoVM(HOST_MODULES, limits=limits, verify=False) as vm:
        vm.load_module("m", module)
        with suppress(LlmbolError):
            vm.execute("m", "init", [])
        assert vm.get_stats().processes == 0


@pytest.mark.parametrize("module", [None, 5, ["m.dis"], "m\0.dis"])
def test_what_cannot_be_a_module_is_refused(module):
    with InfernoVM() as vm, pytest.raises(UsageError, match="a module should be a Module"):
        vm.load_module("m", module)


def test_a_machine_in_use_refuses_other_threads():
    refused: list[str] = []

    def meanwhile():
        for attempt in (vm.close, vm.wait, partial(vm.execute, "m", "main")):
            try:
                attempt()
            except UsageError as error:
                refused.append(str(error))

    def work(call):
        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join()

    with InfernoVM(host_module(work=work)) as vm:
        vm.load_module("m", assemble(LOAD_HOST, HOST))
        vm.execute("m", "main")
        vm.execute("m", "main")
    assert refused == ["another thread is using this InfernoVM: each needs one of its own"] * 6


@pytest.mark.parametrize(
    ("last", "seconds"), [("jmp $5", 0.0), ("jmp $1", 0.001), ("ret", 600.0)],
    ids=["runs", "runs and sleeps", "sleeps"],
)  # fmt: skip
def test_another_thread_can_kill_a_process(last, seconds):
    has_begun = threading.Event()

    def work(call):
        has_begun.set()
        return Sleep(seconds)

    limits = Limits(1 << 20, seconds=60.0)
    with InfernoVM(host_module(work=work), limits=limits) as vm:
        vm.load_module("m", assemble(LOAD_HOST.replace("ret", last), HOST))
        pids = [vm.spawn("m", "main") for _ in range(3)]
        thread = threading.Thread(target=vm.wait)
        thread.start()
        has_begun.wait()
        for pid in pids:
            vm.kill(pid)
        thread.join()
        with pytest.raises(UsageError, match="no process 1: there is none"):
            vm.kill(1)
    assert vm.get_stats().objects == 0
