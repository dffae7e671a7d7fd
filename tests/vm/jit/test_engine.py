"""Programs on the fast engine: what they print, where they fail, how they are stopped."""

from __future__ import annotations

import functools
import io
import signal
import threading
import time
from collections.abc import Callable

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import LimitError, Trap, UsageError
from llmbol_core.native import llvm
from llmbol_core.vm.engines import compiled_by, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.exceptions import Level
from llmbol_core.vm.jit import background, compiler
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.jit.kept import Tier, cost_of
from llmbol_core.vm.jit.modulecode import heap_type
from llmbol_core.vm.jit.modulenative import Quick
from llmbol_core.vm.jit.units import compile_module
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.objectfile import read_module
from tests.vm.conftest import ENGINES
from tests.vm.objects import VECTORS
from tests.vm.programs import assemble

SIZES = {
    "alu": 5000, "arrays": 300, "bigs": 2000, "channels": 50, "dispatch": 300, "fib": 15,
    "lists": 5, "mandel": 20, "matmul": 10, "nbody": 50, "qsort": 400, "sieve": 2000,
    "strings": 100, "trees": 6,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def run(module, engine_name="jit", limits=None, entry="main", arguments=()):
    with InfernoVM(HOST_MODULES, limits=limits, engine=engine(engine_name)) as vm:
        vm.load_module("test", module)
        value = vm.execute("test", entry, arguments)
        stats = compiled_by(vm.engine)
        instructions = vm.scheduler.instructions
    vm.heap.collect()
    assert vm.heap.objects == 0
    return value, stats, instructions


LOOP = """
    movw $0,72(fp)
    movw $0,64(fp)
loop: addw 64(fp),72(fp)
    addw $1,64(fp)
    bltw 64(fp),$30000,loop
    movw 72(fp),0(16(fp))
    ret
"""
ENDLESS = "loop: addw $1,72(fp)\n jmp loop"
FACTORIAL = """
    frame $6,80(fp)
    movw $10,32(80(fp))
    lea 64(fp),16(80(fp))
    call 80(fp),fact
    movw 64(fp),0(16(fp))
    ret
fact: bgtw 32(fp),$1,more
    movw $1,0(16(fp))
    ret
more: frame $6,36(fp)
    subw $1,32(fp),32(36(fp))
    lea 28(fp),16(36(fp))
    call 36(fp),fact
    mulw 28(fp),32(fp),0(16(fp))
    ret
"""


def test_functions_call_each_other():
    value, stats, _ = run(assemble(FACTORIAL))
    assert value == 3628800
    assert stats is not None
    assert stats.functions == 2


PASSED_ON = """
    frame $6,80(fp)
    movw $10,32(80(fp))
    lea 64(fp),16(80(fp))
    call 80(fp),outer
    movw 64(fp),0(16(fp))
    ret
outer: frame $6,24(fp)
    movm 32(fp),$4,{0}(24(fp))
    lea 0(16(fp)),16(24(fp))
    call 24(fp),inner
    ret
inner: addw $1,{0}(fp),0(16(fp))
    ret
"""


@pytest.mark.parametrize("place", [32, 36])
def test_functions_that_are_given_records_let_others_write_their_result(place):
    module = assemble(PASSED_ON.format(place))
    assert run(module)[0] == run(module, "interpreter")[0] == 11


def test_a_hot_loop_is_compiled_while_it_runs(monkeypatch):
    monkeypatch.setattr(background, "background", lambda: None)
    longer = assemble(f"movw $4000000,68(fp)\n{LOOP.replace('$30000', '68(fp)')}")
    value, stats, instructions = run(longer, "auto")
    assert value == -1526072448
    assert stats is not None
    assert stats.functions == 1
    assert 12_000_000 < instructions < 12_000_010


def test_a_short_program_waits_for_no_compiler():
    value, stats, _ = run(assemble(LOOP), "auto")
    assert value == 449985000
    assert stats is None or not stats.units


def test_another_thread_compiles_while_programs_run(monkeypatch):
    """First quickly, then well, since it runs on."""
    monkeypatch.setattr(background, "background", functools.cache(background.Background))
    with InfernoVM(HOST_MODULES, engine=engine("auto")) as vm:
        code = "movw $1000000,68(fp)" + LOOP.replace("$30000", "68(fp)")
        vm.load_module("test", assemble(code))
        until = time.monotonic() + 60
        while time.monotonic() < until and not _is_well_compiled(vm.engine):
            assert vm.execute("test", "main") == 1783293664
        assert _is_well_compiled(vm.engine)


def _is_well_compiled(engine):
    return Tier.BEST in _tiers(engine)


def _tiers(engine):
    return {tier for native in engine._natives.usual.values() for tier in native.tiers}


@pytest.mark.parametrize(("seconds", "tier"), [(1.0, Tier.BEST), (0.0, Tier.QUICK)])
def test_what_runs_is_compiled_well_at_once_while_that_is_soon_done(
    monkeypatch, tmp_path, seconds, tier
):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_WELL", seconds)
    with InfernoVM(HOST_MODULES, engine=engine("jit")) as vm:
        vm.load_module("test", assemble(LOOP))
        assert vm.execute("test", "main") == 449985000
        assert _tiers(vm.engine) == {tier}


def only_native(vm):
    assert isinstance(vm.engine, JitEngine)
    return next(iter(vm.engine._natives.usual.values()))


def test_loops_of_functions_that_are_compiled_with_their_callers_are_entered(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    with InfernoVM(HOST_MODULES, engine=engine("jit")) as vm:
        vm.load_module("test", assemble(COUNTED_AT.format("")))
        assert vm.execute("test", "main") == 1000
        native = only_native(vm)
        stats = compiled_by(vm.engine)
    assert native.code.function(7) == 6
    assert native.decoded.is_entry(7)
    assert native.tiers == {Tier.BEST}
    assert stats is not None
    assert stats.units == 1


def test_what_is_not_waited_for_takes_no_time_from_what_is_compiled_well(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(background, "background", lambda: None)
    least = cost_of(1, Tier.QUICK)
    monkeypatch.setattr(compiler.Compiler, "_can_wait", lambda self, seconds: seconds <= least)
    made = compiler.Compiler()
    with InfernoVM(HOST_MODULES, engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble(LOOP))
        vm.execute("test", "main")
        native = only_native(vm)
        assert made.hot(native, 2, heap_type(native.code.module.types[1]), 1 << 30)
    assert made._well == 0.0
    assert not native.decoded.is_entry(2)


def test_the_time_that_code_has_run_adds_up_over_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(background, "background", lambda: None)
    monkeypatch.setattr(compiler, "_WELL", 0.0)
    monkeypatch.setattr(compiler.Compiler, "_can_wait", lambda self, seconds: True)
    tiers = []
    for _ in range(3):
        made = compiler.Compiler()
        with InfernoVM(HOST_MODULES, engine=ENGINES["native"]) as vm:
            vm.load_module("test", assemble(FACTORIAL))
            vm.execute("test", "main")
            native = only_native(vm)
            fact = native.code.function(9)
            frame = heap_type(native.code.module.types[6])
            assert made.hot(native, fact, frame, 1 << 30)
            source = made._source(native, fact, frame)
            assert source is not None
            assert isinstance(vm.engine, JitEngine)
            cost, natives = source.cost(Tier.BEST), vm.engine._natives.usual
            module = next(iter(natives))
            inner, outer = Level(0, module, 0, fact), Level(0, module, 0, 2)
            made.note([inner, outer], natives, 0.2 * cost)
            for _ in range(2):
                made.note([outer], natives, 0.4 * cost)
            tiers.append(native.tiers)
    assert tiers == [{Tier.QUICK}, {Tier.BEST}, {Tier.BEST}]


def test_what_takes_too_long_to_compile_is_looked_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(background, "background", lambda: None)
    least = cost_of(1, Tier.QUICK)
    monkeypatch.setattr(compiler.Compiler, "_can_wait", lambda self, seconds: seconds <= least)
    looks, look = [], compiler.Compiler._source

    def noted(self, native, pc, frame):
        looks.append(pc)
        return look(self, native, pc, frame)

    monkeypatch.setattr(compiler.Compiler, "_source", noted)
    for _ in range(2):
        made = compiler.Compiler()
        with InfernoVM(HOST_MODULES, engine=ENGINES["native"]) as vm:
            vm.load_module("test", assemble(LOOP))
            vm.execute("test", "main")
            native = only_native(vm)
            frame = heap_type(native.code.module.types[1])
            assert made.hot(native, 2, frame, 1 << 30)
            assert made.hot(native, 2, frame, 1 << 30)
    assert looks == [2]
    monkeypatch.undo()
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    assert compiler.Compiler(at_once=True).hot(native, 2, frame, 1 << 30)
    assert native.decoded.is_entry(2)


def test_nothing_is_looked_at_that_a_program_cannot_wait_for(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    made = compiler.Compiler()
    made._waited = 60.0
    monkeypatch.setattr(made, "_source", lambda *given: pytest.fail("looked at a source"))
    with InfernoVM(HOST_MODULES, engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble(LOOP))
        vm.execute("test", "main")
        native = only_native(vm)
        frame = heap_type(native.code.module.types[1])
        assert made.hot(native, 2, frame, 1 << 30)
        assert not native.decoded.is_entry(2)


def test_code_is_improved_meanwhile_once_the_program_has_run_for_as_long_as_that_takes(monkeypatch):
    made = compiler.Compiler()
    monkeypatch.setattr(made, "_thread", lambda: object())
    cost = cost_of(100, Tier.BEST)
    with InfernoVM(HOST_MODULES, engine=ENGINES["native"]) as vm:
        vm.load_module("test", assemble(LOOP))
        vm.execute("test", "main")
        native = only_native(vm)
    frame = heap_type(native.code.module.types[1])
    quick = Quick(native, 2, frame, None, seconds=cost, instructions=100)
    made._began = time.perf_counter()
    assert not made._is_worth(quick)
    made._began -= 60
    assert made._is_worth(quick)
    quick.seconds = cost / 4
    assert not made._is_worth(quick)


def test_engines_are_known_by_name():
    with pytest.raises(UsageError, match="did you mean 'jit'"):
        engine("jitt")
    with pytest.raises(UsageError, match="expected one of auto, interpreter, jit"):
        engine("none of them")
    _, stats, _ = run(assemble(LOOP), "interpreter")
    assert stats is None


def test_traps_come_from_where_they_are():
    code = "movw $5,64(fp)\nmovw $0,72(fp)\ndivw 72(fp),64(fp)\nret"
    for name in ("interpreter", "jit"):
        with pytest.raises(Trap) as caught:
            run(assemble(code), name)
        assert caught.value.name == "zero divide"
        assert caught.value.pc == 2


@pytest.mark.parametrize(
    "limits", [Limits(instructions=2_000_000), Limits(seconds=0.3)], ids=["instructions", "time"]
)
def test_limits_stop_an_endless_loop(limits):
    run(assemble(LOOP))
    began = time.process_time()
    with pytest.raises(LimitError):
        run(assemble(ENDLESS), limits=limits)
    assert time.process_time() - began < 2.0


@pytest.fixture
def compiling(monkeypatch):
    """Let what is compiled not be done before the test is; yield what happens as it begins."""
    begins: list[Callable[[], object]] = []
    ends, compile_text = threading.Event(), llvm.compile_text

    def wait(*given, **named):
        for function in begins:
            function()
        assert ends.wait(60)
        return compile_text(*given, **named)

    monkeypatch.setattr(llvm, "compile_text", wait)
    yield begins
    ends.set()


def test_time_ends_while_code_is_compiled(compiling):
    begun = threading.Event()
    compiling.append(begun.set)
    code = f"movw $2,72(fp)\n{ENDLESS}"
    with InfernoVM(limits=Limits(seconds=0.2), engine=engine("jit")) as vm:
        vm.load_module("test", assemble(code))
        for _ in range(2):
            with pytest.raises(LimitError, match="time limit: the program was stopped"):
                vm.execute("test", "main")
    assert begun.is_set()
    assert vm.heap.objects == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to no thread here")
def test_a_key_stops_a_program_while_code_is_compiled(compiling):
    thread = threading.get_ident()
    compiling.append(lambda: signal.pthread_kill(thread, signal.SIGINT))
    with InfernoVM(engine=engine("jit")) as vm:
        vm.load_module("test", assemble(f"movw $3,72(fp)\n{ENDLESS}"))
        with pytest.raises(KeyboardInterrupt):
            vm.execute("test", "main")
    assert vm.heap.objects == 0


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to no thread here")
def test_a_key_stops_compiling_ahead_of_time(compiling):
    thread = threading.get_ident()
    compiling.append(lambda: signal.pthread_kill(thread, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        compile_module(assemble(f"movw $4,72(fp)\n{ENDLESS}"))


COUNTED = """
    newaz $1000,$3,32(fp)
over: movw $0,64(fp)
loop: bgew 64(fp),$1000,over
    indw 32(fp),72(fp),64(fp)
    movw 64(fp),0(72(fp))
    addw $1,64(fp)
    jmp loop
"""


@pytest.mark.parametrize("name", ["interpreter", "jit"])
def test_limits_are_exact_in_counted_loops(name):
    with pytest.raises(LimitError, match="ran 123457 of them, process 1 in Test at pc 4"):
        run(assemble(COUNTED), name, limits=Limits(instructions=123_457))


COUNTED_AT = """
    frame $6,80(fp)
    movw $1000,32(80(fp))
    lea 64(fp),16(80(fp))
    call 80(fp),sum
    movw 64(fp),0(16(fp))
    ret
sum: movw $0,24(fp)
    {0}
loop: bgew 24(fp),32(fp),done
    addw $1,24(fp)
    jmp loop
done: movw 24(fp),0(16(fp))
    ret
"""


@pytest.mark.parametrize("place", range(29, 35))
def test_counted_loops_begin_where_parameters_lie(place):
    code = COUNTED_AT.format("addw $0,24(fp)\n" * (place - 7))
    assert run(assemble(code))[0] == 1000


@pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not at hand")
@pytest.mark.parametrize("name", SIZES)
def test_programs_print_the_same_on_both_engines(name):
    printed = []
    for chosen in ("interpreter", "jit"):
        out = io.BytesIO()
        streams = Streams(io.BytesIO(), out, io.BytesIO())
        with InfernoVM(HOST_MODULES, streams=streams, engine=engine(chosen)) as vm:
            path = str(VECTORS / "bench" / f"{name}.dis")
            assert vm.run(path, [str(SIZES[name])], host=True).status == 0
        vm.heap.collect()
        assert vm.heap.objects == 0
        printed.append(out.getvalue())
    assert printed[0] == printed[1]


@pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not at hand")
def test_code_made_ahead_of_time_is_found():
    path = VECTORS / "bench" / "fib.dis"
    made = compile_module(read_module(path.read_bytes(), str(path)))
    assert made.functions >= 3
    with InfernoVM(HOST_MODULES, streams=Streams(), engine=engine("auto")) as vm:
        vm.run(str(path), ["18"], host=True)
        stats = compiled_by(vm.engine)
    assert stats is not None
    assert stats.units == stats.cached == 1


FOREVER = {
    "arithmetic": "loop: addw $1,72(fp)\njmp loop",
    "nested loops": "loop: movw $0,76(fp)\nnext: addw $1,76(fp)\nbltw 76(fp),$1000,next\njmp loop",
    "records": "loop: new $2,32(fp)\njmp loop",
    "cycles": "loop: new $5,32(fp)\nmovp 32(fp),0(32(fp))\njmp loop",
    "arrays": "loop: newa $5000,$3,32(fp)\njmp loop",
    "huge arrays": "loop: newa $500000,$3,32(fp)\njmp loop",
    "text": "loop: addc 20(mp),32(fp)\nlenc 32(fp),72(fp)\nbltw 72(fp),$9999,loop\n"
            "movp 0(mp),32(fp)\njmp loop",
    "long text": "loop: addc 20(mp),32(fp)\naddc 32(fp),32(fp),36(fp)\nlenc 36(fp),72(fp)\n"
                 "bgtw $300000,72(fp),loop\nmovp 0(mp),32(fp)\njmp loop",
    "lists": "loop: consw 72(fp),32(fp)\naddw $1,72(fp)\nbltw 72(fp),$5000,loop\n"
             "movp 0(mp),32(fp)\nmovw $0,72(fp)\njmp loop",
    "calls": "loop: frame $6,64(fp)\ncall 64(fp),leaf\njmp loop\nleaf: ret",
    "recursion": "deep: frame $1,64(fp)\ncall 64(fp),deep\nret",
    "channels": "newcw 0(mp)\nframe $6,64(fp)\nspawn 64(fp),other\nloop: send $1,0(mp)\njmp loop\n"
                "other: recv 0(mp),32(fp)\njmp other",
    "processes": "loop: newcw 0(mp)\nframe $6,64(fp)\nspawn 64(fp),other\nrecv 0(mp),72(fp)\n"
                 "jmp loop\nother: send $1,0(mp)\nret",
    "real text": "loop: addf 88(fp),80(fp)\ncvtfc 80(fp),32(fp)\ncvtcf 32(fp),88(fp)\njmp loop",
}  # fmt: skip
"""Programs that end only because they are stopped, or because memory is short."""


@pytest.mark.parametrize("kind", FOREVER)
@pytest.mark.parametrize("limits", [{"instructions": 20_000}, {"seconds": 0.15}], ids=str)
def test_programs_that_never_end_are_stopped(kind, limits):
    module = assemble(FOREVER[kind], 'string @mp+20,"some text"\n')
    what = "instruction limit" if "instructions" in limits else "time limit"
    with InfernoVM(limits=Limits(32 << 20, **limits), engine=engine("jit")) as vm:
        vm.load_module("test", module)
        with pytest.raises((LimitError, Trap)) as caught:
            vm.execute("test", "main")
        ends_itself = kind == "recursion" and "out of memory: main" in str(caught.value)
        assert what in str(caught.value) or ends_itself
        assert vm.scheduler.instructions <= limits.get("instructions", 1 << 60)
    vm.heap.collect()
    assert vm.heap.objects == 0
