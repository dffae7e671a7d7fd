"""The names that ``llmbol_core`` itself offers."""

from __future__ import annotations

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import llmbol_core

HOMES = llmbol_core._HOMES


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(llmbol_core.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    typed = {name.asname: node.module for node in imports for name in node.names if name.asname}
    assert typed == HOMES


@pytest.mark.parametrize("name", HOMES)
def test_each_is_documented_where_it_lives(name):
    found = getattr(llmbol_core, name)
    assert found is getattr(importlib.import_module(HOMES[name]), name)
    assert inspect.getdoc(found)
    assert name in dir(llmbol_core)


def test_parts_and_layers_are_found_and_nothing_else():
    assert llmbol_core.vm.__name__ == "llmbol_core.vm"
    assert llmbol_core.linear is llmbol_core.nn.Linear
    for name in ("liner", "_private", "__path_of_nothing__"):
        with pytest.raises(AttributeError, match=name):
            getattr(llmbol_core, name)
