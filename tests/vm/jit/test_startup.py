"""When programs get the native interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from llmbol_core.native.jobs import Job
from llmbol_core.vm.jit import startup
from llmbol_core.vm.jit.runtime import UPKEEP
from llmbol_core.vm.jit.startup import may_run_long
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
    """Return what gets the interpreter, after that, and where its last functions are."""
    made = startup._Startup()
    found = made.get(startup.WORTH_COMPILING, None)
    assert found is not None
    return made, lambda: list(found.shared[-len(UPKEEP) :])


def test_what_goes_through_much_memory_is_compiled_well_while_the_program_runs_or_at_its_end(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(startup, "wait_at_end", lambda key, wait: None)
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    made, addresses = _got()
    quick = addresses()
    made.improve()
    made._finish(0.0)
    assert addresses() == quick
    made._improves_at = 0.0
    made.improve()
    assert made._job is not None
    made._finish(0.001)  # less than it takes
    assert not set(addresses()) & set(quick)
    again, _ = _got()
    assert not again._is_rough


def test_two_threads_may_wait_for_what_is_compiled_well(monkeypatch, tmp_path):
    monkeypatch.setattr(startup, "wait_at_end", lambda key, wait: None)
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path))
    made, addresses = _got()
    quick = addresses()

    class Waited(Job[bytes]):
        """A job that two wait for: the one that began last is told first."""

        others = 1

        def wait(self, until=None):
            is_over = super().wait(until)
            if self.others:
                self.others = 0
                made.hasten(lambda: None)
            return is_over

    monkeypatch.setattr(made, "_job", Waited(startup._compiled_upkeep))
    made._improve(None)
    assert made._job is None
    assert not set(addresses()) & set(quick)
