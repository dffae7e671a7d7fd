"""What tests of the virtual machine share: each of some modules' tests runs on all engines."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from llmbol_core.vm.engines import engine
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.machine import InfernoVM

ON_ALL = (
    "test_exceptions", "test_guards", "test_interpreter", "test_leaks", "test_machine",
    "test_process", "test_programs", "test_stops", "test_vectors",
)  # fmt: skip
"""Modules whose tests hold for any engine."""

ENGINES: dict[str, Any] = {
    "reference": engine("interpreter"),
    "native": functools.partial(JitEngine, threshold=1 << 30, at_once=True),
    "compiled": engine("jit"),
}
"""The reference engine, the native interpreter alone, and compiled code wherever there can be."""


COMPILED_SELDOM = ("test_interpreter", "test_vectors")
"""Modules whose tests have so much compiled that this is left to the slow ones."""


def pytest_generate_tests(metafunc):
    module = metafunc.module.__name__.removeprefix("tests.vm.")
    if module in ON_ALL:
        marks = [pytest.mark.slow] if module in COMPILED_SELDOM else []
        chosen = ["reference", "native", pytest.param("compiled", marks=marks)]
        metafunc.parametrize("each_engine", chosen, indirect=True)


@pytest.fixture(scope="session")
def code_cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("code"))


@pytest.fixture(autouse=True)
def each_engine(request, monkeypatch, code_cache):
    if not hasattr(request, "param"):
        return
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)
    made = functools.partialmethod(InfernoVM.__init__, engine=ENGINES[request.param])
    monkeypatch.setattr(InfernoVM, "__init__", made)
