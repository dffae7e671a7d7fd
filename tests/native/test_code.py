"""Machine code that was made before: loaded without a compiler."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from llmbol_core import deploy
from llmbol_core.native import code, cpu, llvm, processor
from llmbol_core.native.library import function
from llmbol_core.nn.builder import build_model
from llmbol_core.nn.checkpoint import save

TEXT = """
define i32 @five_more(i32 %a) {
 %b = add i32 %a, 5
 ret i32 %b
}
"""

needs_own_loader = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="objects of this system are loaded by LLVM",
)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMBOL_CACHE", str(tmp_path / "cache"))


def never(*_):
    raise AssertionError("compiled twice")


def test_code_is_compiled_once(elsewhere, monkeypatch):
    for _ in range(2):
        made = code.library("test", TEXT, ["five_more"])
        five_more = function(made.addresses["five_more"], ctypes.c_int32, ctypes.c_int32)
        assert five_more(4) == 9
        monkeypatch.setattr(llvm, "compile_text", never)


def test_the_processor_is_looked_at_once(elsewhere, monkeypatch):
    found = processor.host_processor.__wrapped__()
    monkeypatch.setattr(processor, "detected", never)
    assert processor.host_processor.__wrapped__() == found
    assert found.triple
    assert "+" in found.features


def test_the_compiler_is_told_apart_by_its_version():
    assert f"'{version('llvmlite')}'" in cpu.compiler_version()


WATCH = """
import sys
from importlib import import_module
sys.argv = sys.argv[1:]
try:
    import_module(f"llmbol_cli.{sys.argv[0]}").main()
finally:
    print("llvmlite" if "llvmlite" in sys.modules else "no compiler", file=sys.stderr)
"""


@needs_own_loader
@pytest.mark.parametrize("command", [["nn", "infer"], ["dis", "run"]], ids=" ".join)
def test_a_process_that_finds_its_code_loads_no_compiler(command, tmp_path):
    source, program = str(tmp_path / "model.gguf"), str(tmp_path / "model.dis")
    samples = str(tmp_path / "x.npy")
    network = build_model("model", [3, 8, 8]).conv2d(3, 8, 3).batchnorm(8).relu().flatten()
    save(network.linear(288, 4).softmax().build(), source)
    deploy.compile(source, program)
    np.save(samples, np.ones((2, 3, 8, 8), np.float32))
    file = source if command[0] == "nn" else program
    line = [sys.executable, "-c", WATCH, *command, file, samples]
    runs = [subprocess.run(line, capture_output=True, check=True) for _ in range(2)]
    if runs[-1].stderr != b"no compiler\n":  # others may have filled the cache meanwhile
        runs.append(subprocess.run(line, capture_output=True, check=True))
    assert len({run.stdout for run in runs}) == 1
    assert runs[-1].stdout
    assert runs[-1].stderr == b"no compiler\n"
