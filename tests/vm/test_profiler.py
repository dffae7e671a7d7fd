"""Profiling: counts of instructions, functions and stacks."""

from __future__ import annotations

import functools
import io

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.inspection import Inspector
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.profiler import DEEPEST, ProfiledInterpreter, Profiler
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.observed import PICKS, read_data
from tests.vm.programs import assemble

RECURSION = """
    frame $1,64(fp)
    movw ${depth},56(64(fp))
    call 64(fp),down
    movw $1,0(16(fp))
    ret
down:
    beqw 56(fp),$0,out
    frame $1,64(fp)
    subw $1,56(fp),56(64(fp))
    call 64(fp),down
out: ret
"""


def profiled(profiler, out=None):
    engine = functools.partial(ProfiledInterpreter, profiler=profiler)
    vm = InfernoVM(HOST_MODULES, streams=Streams(None, out, io.BytesIO()), engine=engine)
    profiler.inspector = Inspector(vm, read_data)
    return vm


def profile(program):
    profiler = Profiler()
    with profiled(profiler) as vm:
        vm.load_module("test", program)
        vm.execute("test", "main")
        return profiler, profiler.profile(), vm.get_stats().instructions


def test_recursion_counts_once_in_its_total():
    profiler, found, instructions = profile(assemble(RECURSION.format(depth=4)))
    assert found.instructions == instructions == 5 + 4 * 5 + 2
    rows = {row.function: row for row in found.functions}
    assert (rows["main"].calls, rows["main"].own, rows["main"].total) == (1, 5, 27)
    assert (rows["@5"].calls, rows["@5"].own, rows["@5"].total) == (5, 22, 22)
    assert list(profiler.collapsed()) == [
        "Test.main 5",
        *[f"Test.main{';Test.@5' * depth} 5" for depth in (1, 2, 3, 4)],
        f"Test.main{';Test.@5' * 5} 2",
    ]


def test_instructions_are_counted_one_by_one():
    _, found, _ = profile(assemble(RECURSION.format(depth=4)))
    counts = {row.pc: row.count for row in found.hottest}
    assert counts == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 5, 6: 4, 7: 4, 8: 4, 9: 5}
    assert found.hottest[0].instruction == "beqw 56(fp),$0,$9"
    assert found.hottest[0].percent == pytest.approx(100 * 5 / 27)


def test_deep_recursion_is_cut_off_in_the_stacks_only():
    profiler, found, _ = profile(assemble(RECURSION.format(depth=1000)))
    assert {row.function: row.calls for row in found.functions} == {"main": 1, "@5": 1001}
    stacks = [line.rsplit(" ", 1) for line in profiler.collapsed()]
    assert max(path.count(";") + 1 for path, _ in stacks) == DEEPEST
    assert sum(int(count) for _, count in stacks) == found.instructions


@pytest.mark.parametrize("path", sorted(DATA_DIRECTORY.glob("*.dis")), ids=lambda p: p.stem)
def test_all_that_runs_is_attributed(path):
    """Also over exceptions, processes and modules: costs add up, and callers cost what calls do."""
    profiler, out = Profiler(), io.BytesIO()
    with profiled(profiler, out) as vm:
        vm.run(str(path), host=True)
        found, stats = profiler.profile(), vm.get_stats()
    assert found.instructions == stats.instructions
    assert found.processes == stats.processes_started
    assert sum(int(line.rsplit(" ", 1)[1]) for line in profiler.collapsed()) == found.instructions
    for row in found.functions:
        assert 0 < row.own <= row.total <= found.instructions
    with InfernoVM(HOST_MODULES, streams=Streams(None, plain := io.BytesIO())) as vm:
        vm.run(str(path), host=True)
    assert out.getvalue() == plain.getvalue()


def test_symbol_files_name_functions_and_lines():
    profiler = Profiler()
    with profiled(profiler) as vm:
        vm.run(str(PICKS), host=True)
        found = profiler.profile(1)
    assert {row.function for row in found.functions} >= {"simp", "Expr.text", "eval", "deriv"}
    assert found.hottest[0].source == "picks.b:32"
