"""Loops of long functions, compiled by themselves."""

from __future__ import annotations

import functools
import io
import shutil
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.engines import compiled_by, engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.jit import excerpts
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.machine import InfernoVM
from tests.vm.programs import assemble

DATA = Path(__file__).parents[1] / "data" / "limbo"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))


HOT = functools.partial(JitEngine, at_once=True)
"""An engine that compiles what is hot, before it goes on."""


def run(module, made=HOT):
    """Return what a program returns, where it can be entered, and what was compiled."""
    with InfernoVM(HOST_MODULES, engine=made) as vm:
        vm.load_module("test", module)
        value = vm.execute("test", "main")
        stats = compiled_by(vm.engine)
        natives = vm.engine._natives.usual.values() if isinstance(vm.engine, JitEngine) else ()
        pcs = range(len(module.instructions))
        entered = {pc for native in natives for pc in pcs if native.decoded.is_entry(pc)}
    vm.heap.collect()
    assert vm.heap.objects == 0
    return value, entered, stats


def many_loops(counts):
    """Return a function that is many loops, which run so often, and where they begin."""
    loops = [
        f"movw $0,64(fp)\nloop{n}: bgew 64(fp),${count},end{n}\naddw 64(fp),72(fp)\n"
        f"xorw $5,72(fp)\naddw $1,64(fp)\njmp loop{n}\nend{n}: addw $1,72(fp)"
        for n, count in enumerate(counts)
    ]
    code = "\n".join(["movw $0,72(fp)", *loops, "movw 72(fp),0(16(fp))", "ret"])
    return assemble(code), [2 + 7 * n for n in range(len(counts))]


def test_the_hot_loops_of_a_long_function_are_compiled_and_nothing_else():
    module, heads = many_loops([30000 if n % 9 == 4 else 3 for n in range(45)])
    assert len(module.instructions) > excerpts._LONG
    value, entered, stats = run(module)
    assert value == run(module, engine("interpreter"))[0]
    assert entered == {heads[n] for n in range(45) if n % 9 == 4}
    assert stats.instructions <= 7 * 5


def test_loops_of_short_functions_are_compiled_with_what_surrounds_them():
    module, _ = many_loops([30000, 3])
    _, _, stats = run(module)
    assert stats.instructions == len(module.instructions)


NESTED = """
    movw $0,76(fp)
outer: bgew 76(fp),$300,done
    movw $0,64(fp)
inner: bgew 64(fp),$200,next
    addw 64(fp),72(fp)
    addw $1,64(fp)
    jmp inner
next: addw $1,76(fp)
    jmp outer
done: movw 72(fp),0(16(fp))
    ret
"""


def padded(code, count=300):
    """Return a program with many instructions before it."""
    return assemble("\n".join(["movw $0,72(fp)", *["addw $1,72(fp)"] * count, code]))


def test_a_loop_in_a_loop_is_compiled_with_that_and_found_again():
    module = padded(NESTED)
    value, entered, stats = run(module)
    assert (value, stats.cached) == (run(module, engine("interpreter"))[0], 0)
    assert entered == {302, 304}
    for _ in range(2):
        again, entered, stats = run(module)
        assert (again, stats.units, stats.cached) == (value, 1, 1)
        assert entered == {302, 304}


ADDRESS = """
    lea 72(fp),80(fp)
    movw $0,64(fp)
loop: bgew 64(fp),$20000,done
    addw 64(fp),0(80(fp))
    xorw $3,72(fp)
    addw $1,64(fp)
    jmp loop
done: movw 72(fp),0(16(fp))
    ret
"""


def test_slots_stay_in_memory_whose_address_is_taken_elsewhere():
    module = padded(ADDRESS)
    value, entered, _ = run(module)
    assert value == run(module, engine("interpreter"))[0]
    assert entered == {303}


@pytest.mark.parametrize("name", ["lists3", "excs2", "algos", "walks"])
def test_programs_print_what_they_do_on_inferno(monkeypatch, tmp_path, name):
    monkeypatch.setattr(excerpts, "_LONG", 0)
    monkeypatch.setattr(excerpts, "_PART", 0)
    for file in DATA.glob("*.dis"):
        shutil.copy(file, tmp_path)
    out = io.BytesIO()
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), streams=streams, engine=engine("jit")) as vm:
        vm.run(f"/{name}.dis")
    assert out.getvalue().decode() == (DATA / f"{name}.txt").read_text()
