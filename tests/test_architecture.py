"""The house rules that no other tool checks: sizes of files and functions, documents in place."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("llmbol_core/**/*.py"), *ROOT.glob("llmbol_cli/**/*.py")])
TABLES = {"isa.py", "special_tables.py"}
"""Files that are mostly one table, which may be as long as what it lists."""
MAPPED = (
    "distributed", "ml", "native", "nn", "vm", "vm/files", "vm/jit", "vm/jit/builtins",
    "vm/jit/lowering", "vm/verification",
)  # fmt: skip
"""The packages whose documents list all of their modules."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_and_its_functions_stay_small(path):
    text = path.read_text()
    if path.name not in TABLES:
        assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_top_level_holds_nothing_unexpected():
    known = {"pyproject.toml", "llmbol_cli", "llmbol_core", "specs", "tests", "benchmarks"}
    known |= {"README.md", "LICENSE", "PKG-INFO", "build", "dist"}
    names = {p.name for p in ROOT.iterdir() if not p.name.startswith(".")}
    assert names <= known


@pytest.mark.parametrize("package", MAPPED)
def test_the_map_of_a_large_package_names_all_that_is_in_it(package):
    folder = ROOT / "llmbol_core" / package
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    rows = [row for row in re.sub(r"\(.*?\)", "", text).splitlines() if "  " in row]
    names = [re.sub(r"^ *(\S+( \S+)*  +)?", "", row) for row in rows]
    named = re.findall(r"\w+", " ".join(names))
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    there |= {path.parent.name for path in folder.glob("*/__init__.py")}
    assert sorted(named) == sorted(there)
