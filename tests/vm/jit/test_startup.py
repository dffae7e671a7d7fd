"""When programs get the native interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import chain

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.native.jobs import Job
from llmbol_core.vm.engines import engine as by_name
from llmbol_core.vm.jit import careful, engine, startup, upkeep
from llmbol_core.vm.jit.cold import handled, names_in
from llmbol_core.vm.jit.components import ALL, CORE, needed
from llmbol_core.vm.jit.hostcode import HOSTED
from llmbol_core.vm.jit.library import SHARED_NAMES
from llmbol_core.vm.jit.runtime import BURY, SHARED
from llmbol_core.vm.jit.startup import may_run_long
from llmbol_core.vm.machine import InfernoVM
from tests.vm.programs import assemble


@pytest.mark.parametrize(
    ("code", "goes_back"),
    [
        ("movw $1,0(16(fp))\n ret", False),
        ("jmp end\nmovw $1,0(16(fp))\nend: ret", False),
        ("again: addw $1,64(fp)\n bltw 64(fp),$5,again\n ret", True),
        ("again: jmp again", True),
        ("again: frame $1,64(fp)\n call 64(fp),again\n ret", True),
    ],
)
def test_programs_that_go_back_get_it_before_they_run(code, goes_back):
    assert may_run_long(assemble(code)) == goes_back


COMPILING = """
from llmbol_core.vm.jit.units import compile_module
from tests.vm.programs import assemble
print(compile_module(assemble("cvtfc 80(fp),32(fp)\\ncvtcf 32(fp),80(fp)\\nret")).instructions)
"""


def test_a_process_that_compiles_before_it_runs_anything_knows_the_whole_runtime(code_cache):
    environment = os.environ | {"LLMBOL_CACHE": code_cache}
    command = [sys.executable, "-c", COMPILING]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "3\n", done.stderr


def _got():
    """Return what gets the interpreter, after that, and where its function to free objects is."""
    made = startup._Startup()
    found = made.get(startup.WORTH_COMPILING, None)
    assert found is not None
    return made, lambda: found.shared[found.places[SHARED + BURY]]


def test_what_goes_through_much_memory_is_compiled_well_while_the_program_runs(
    monkeypatch, tmp_path
):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    made, address = _got()
    quick = address()
    made.improve()
    assert not made._job
    made._improves_at = 0.0
    made.improve()
    made._finish(0.001)  # less than it takes
    made.improve()
    assert address() != quick
    again, _ = _got()
    assert again._levels[BURY] == 1


def test_what_goes_through_the_heap_is_compiled_once_for_all_programs(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    first, _ = _got()
    first.hasten(lambda: None)
    monkeypatch.setattr(startup, "_compiled", None)
    again, address = _got()
    again.hasten(lambda: None)
    assert address()
    assert again._levels == {CORE: 0, **dict.fromkeys((BURY, "collect", "list_free"), 1)}


def test_two_threads_may_wait_for_what_is_compiled_well(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    made, address = _got()
    quick = address()

    class Waited(Job[bytes]):
        """A job that two wait for: the one that began last is told first."""

        others = 1

        def wait(self, until=None):
            is_over = super().wait(until)
            if self.others:
                self.others = 0
                made.hasten(lambda: None)
            return is_over

    made._job = BURY, 1, Waited(lambda: startup._compiled(BURY, 1))
    made._make(BURY, 1, None)
    assert made._job is None
    assert address() != quick


# Components


def test_each_instruction_and_function_is_in_one_component():
    names = [name for component in (CORE, *ALL) for name in names_in(component)]
    shared = [name for name in names if name.startswith(SHARED)]
    others = set(names) - set(shared)
    assert len(others) == len(names) - len(shared)
    assert {
        *(op.mnemonic for op in handled()),
        *map(careful.handler_name, careful.handled()),
    } < others
    assert set(HOSTED) < others
    assert {SHARED + name for name in SHARED_NAMES} < set(shared)
    assert set(ALL) == {*chain.from_iterable(map(needed, others)), BURY, "collect", "list_free"}


@pytest.mark.parametrize("component", [CORE, *ALL])
def test_each_component_has_what_it_names(component, monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)
    data = startup._compiled(component, 0)
    found, _ = startup._loaded(data)
    assert list(found) == names_in(component)
    assert all(found.values())


SUMS = """
cvtwf $1,64(fp)
again: cvtfc 64(fp),36(fp)
cvtcf 36(fp),72(fp)
cvtwc 84(fp),32(fp)
addc 32(fp),36(fp)
lenc 36(fp),88(fp)
addw 88(fp),80(fp)
addf 72(fp),64(fp)
addw $1,84(fp)
bltw 84(fp),$40,again
movw 80(fp),0(16(fp))
ret
"""


@pytest.mark.parametrize("often", [1 << 30, 8])
def test_python_stands_in_for_components_until_they_are_wanted_often(often, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    monkeypatch.setattr(startup, "_OFTEN", often)
    monkeypatch.setattr(startup, "WORTH_COMPILING", 0)
    made = startup._Startup()
    for module in (engine, upkeep):
        monkeypatch.setattr(module, "STARTUP", made)
    assert _run(SUMS, engine.JitEngine) == _run(SUMS, by_name("interpreter"))
    expected = {"reals", "text", "real_text", "read_real"} if often == 8 else set()
    assert set(made._levels) == {CORE, BURY} | expected


def _run(code, made):
    with InfernoVM(HOST_MODULES, engine=made) as vm:
        vm.load_module("test", assemble(code))
        return vm.execute("test", "main")
