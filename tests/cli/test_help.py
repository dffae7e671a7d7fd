"""Help of every command: one sentence, words for each parameter, and an example that works."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer import BadParameter
from typer.main import get_command

from llmbol_cli import cluster, dis, nn
from llmbol_core import __version__

ROOT = Path(__file__).parents[2]
MODULES = {"dis": dis, "nn": nn, "cluster": cluster}
NOT_RUN = {
    "nn demo": "starts a cluster and takes a minute; test_demo.py runs it",
}
"""Examples of dis and nn that are not run here, each with the reason. Those of cluster need one."""


def walk(command: Any, name: str) -> list[tuple[str, Any]]:
    """Return the names and commands of a tree, groups first, in the order of their declaration."""
    children = getattr(command, "commands", {}).items()
    return [(name, command), *(c for key, child in children for c in walk(child, f"{name} {key}"))]


ALL = {
    name: command
    for app, module in MODULES.items()
    for name, command in walk(get_command(module.app), app)
}
COMMANDS = {name: command for name, command in ALL.items() if not hasattr(command, "commands")}


def example_of(name: str) -> str:
    """Return the only example in the help of a command."""
    (example,) = re.findall(r"^\s*Example: (.*)$", COMMANDS[name].help, re.MULTILINE)
    return str(example)


@pytest.fixture
def run(capsys, monkeypatch):
    """Return a function that runs a command line in this process."""

    def run(words: list[str]) -> SimpleNamespace:
        monkeypatch.setattr(sys, "argv", words)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as ended:
            MODULES[words[0]].main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=ended.value.code, out=out, err=err)

    return run


@pytest.mark.parametrize("name", ALL)
def test_help_is_one_sentence(name):
    sentence = " ".join(ALL[name].help.split("\n\n")[0].split())
    assert re.fullmatch(r"[A-Z].*[^.]\.", sentence), sentence
    assert not re.search(r"[^.]\. [A-Z]", sentence), sentence


@pytest.mark.parametrize("name", [name for name in ALL if name not in COMMANDS])
def test_help_of_a_group_has_the_whole_sentence_of_each_command(name, run):
    shown = run([*name.split(), "--help"])
    assert (shown.code, shown.err) == (0, "")
    letters = "".join(shown.out.split())
    for key, command in ALL[name].commands.items():
        assert "".join((key + command.help.partition("\n\n")[0]).split()) in letters


@pytest.mark.parametrize("app", MODULES)
def test_tells_its_version(app, run):
    assert run([app, "--version"]).out == f"llmbol {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_parameter_has_words(name):
    for parameter in COMMANDS[name].params:
        assert (parameter.help or "").endswith("."), f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_arguments_are_named_in_capitals(name):
    command = COMMANDS[name]
    usage = command.collect_usage_pieces(command.make_context(name, [], resilient_parsing=True))
    for piece in usage[1:]:
        assert re.fullmatch(r"[{[]?[A-Z]+(\.[a-z]+)?(\.\.\.)?[]}]?", piece), piece


FILES = {"DIR", "FILE", "INPUT", "KEY", "LOG", "OUT", "OUTPUT", "PATH", "SPEC", "STACKS"}


@pytest.mark.parametrize(
    ("name", "option"),
    [
        (name, parameter.opts[0])
        for name, command in COMMANDS.items()
        for parameter in command.params
        if parameter.metavar in FILES and not parameter.required and not parameter.multiple
        if parameter.default is None and parameter.param_type_name == "option"
    ],
)
def test_an_empty_file_name_is_not_the_lack_of_one(name, option):
    with pytest.raises(BadParameter, match="expected a name, got an empty text"):
        COMMANDS[name].make_context(name, [option, ""])


@pytest.mark.parametrize("name", COMMANDS)
def test_example_is_one_of_this_command_and_well_formed(name):
    words = shlex.split(example_of(name))
    assert " ".join(words[: len(name.split())]) == name
    COMMANDS[name].make_context(name, words[len(name.split()) :])


@pytest.mark.parametrize("app", ["nn", "dis"])
def test_examples_work_in_order(app, run, tmp_path, monkeypatch):
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    for name, command in COMMANDS.items():
        if name.split()[0] != app or name in NOT_RUN:
            continue
        words = shlex.split(example_of(name))
        result = run(words)
        assert (result.code, result.err) == (0, ""), example_of(name)
        if any("--json" in parameter.opts for parameter in command.params):
            start = len(name.split())
            strict = run([*words[:start], "--json", *words[start:]])
            assert (strict.code, strict.err) == (0, ""), example_of(name)
            json.loads(strict.out, parse_constant=pytest.fail)


def test_what_is_not_run_has_its_own_test():
    assert set(NOT_RUN) <= set(COMMANDS)
    assert '"demo"' in (ROOT / "tests/cli/test_demo.py").read_text()


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
@pytest.mark.parametrize(
    "line", ["stop", "wait first", "nodes drain node-1", "nodes remove node-1"]
)
def test_waiting_takes_a_number_of_seconds(line, seconds, run):
    shown = run(["cluster", *line.split(), "--timeout", seconds])
    assert shown.code == 2
    assert "--timeout" in shown.err
    assert seconds in shown.err
