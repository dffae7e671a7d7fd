"""Whole programs: what Inferno printed when it ran them is what they print here.

A vector is a directory with NAME.dis, expected.txt, perhaps expected.err (lines that standard
error must contain, or regular expressions behind ``~``) and args. A few are copied here; all are
run where the whole set is at hand.
"""

from __future__ import annotations

import io
import re
import shutil

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.objects import DATA_DIRECTORY, VECTORS

COPIED = DATA_DIRECTORY / "vectors"
SLOW = {"algo_bigfact", "algo_qsort", "algo_sieve", "recursion"}
UNINITIALIZED = {"poly": {3}}
"""Lines that show a field of a new record before it was set: zero here, anything in Inferno."""
BENCH = {
    "alu": 500, "arrays": 100, "bigs": 200, "channels": 20, "dispatch": 200, "fib": 12, "lists": 2,
    "mandel": 10, "matmul": 6, "nbody": 20, "qsort": 200, "sieve": 1000, "strings": 50, "trees": 4,
}  # fmt: skip
KNOWN = {"fib": "144", "sieve": "168", "channels": "400"}


def vectors():
    """Yield the directories of all vectors at hand, those copied here first."""
    copied = {path.parent.name: path.parent for path in sorted(COPIED.rglob("expected.txt"))}
    yield from copied.values()
    for path in sorted(VECTORS.rglob("expected.txt")):
        if path.parent.name not in copied:
            yield path.parent


def parameter(path):
    marks = [pytest.mark.slow] if path.name in SLOW else []
    return pytest.param(path, id=path.name, marks=marks)


def run(vector, tree):
    """Run a vector in a fresh tree; return what it printed, and what the machine reported."""
    name = vector.name
    shutil.copytree(vector, tree / "vec" / name)
    (tree / "tmp").mkdir()
    args = (vector / "args").read_text().splitlines() if (vector / "args").exists() else []
    out, err = io.BytesIO(), io.BytesIO()
    limits = Limits(memory=16 << 20, seconds=60.0)
    streams = Streams(io.BytesIO(), out, err)
    with InfernoVM(HOST_MODULES, Namespace(tree, True), limits, streams) as vm:
        try:
            status = vm.run(f"/vec/{name}/{name}.dis", args).status
        except Deadlock as error:
            status = 1
            err.write(str(error).encode())
        assert vm.get_stats().processes == 0
    vm.heap.collect()
    assert vm.heap.objects == 0
    assert vm.heap.reserved == 0
    return out.getvalue(), err.getvalue().decode(), status


@pytest.mark.parametrize("vector", [parameter(path) for path in vectors()])
def test_a_program_prints_what_inferno_prints(vector, tmp_path):
    found, errors, status = run(vector, tmp_path)
    wanted = (vector / "expected.txt").read_bytes()
    ignored = UNINITIALIZED.get(vector.name, set())
    for number, lines in enumerate(zip(found.splitlines(), wanted.splitlines(), strict=True)):
        if number not in ignored:
            assert lines[0] == lines[1]
    assert found.endswith(b"\n") == wanted.endswith(b"\n")
    file = vector / "expected.err"
    reports = file.read_text().splitlines() if file.exists() else []
    for line in reports:
        assert re.search(line[1:] if line.startswith("~") else re.escape(line), errors)
    fails = vector.parent.name == "crash" and vector.name not in ENDS_WELL
    assert status == (1 if fails else 0)


ENDS_WELL = {"exit_with_children", "zero_mod_caught"}


@pytest.mark.parametrize("name", BENCH)
def test_benchmarks_run_at_small_sizes(name):
    path = VECTORS / "bench" / f"{name}.dis"
    if not path.exists():
        pytest.skip("the benchmarks are not at hand")
    out = io.BytesIO()
    with InfernoVM(HOST_MODULES, streams=Streams(None, out, None)) as vm:
        assert vm.run(str(path), [str(BENCH[name])], host=True).status == 0
    printed = out.getvalue().decode().strip()
    assert printed == KNOWN.get(name, printed) != ""
