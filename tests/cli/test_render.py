"""What every command does with results, errors and its streams."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from llmbol_cli import render
from llmbol_core.errors import FileError

NN = f"{sys.executable} -c 'from llmbol_cli.nn import main; main()'"


@dataclass
class Row:
    name: str
    value: float


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": os.getcwd()} | environment,
    )  # fmt: skip


def test_json_is_strict(capsys):
    render.show([Row("a", float("nan")), Row("b", float("-inf")), Row("é", 1.5)], True)
    text = capsys.readouterr().out
    assert json.loads(text, parse_constant=pytest.fail) == [
        {"name": "a", "value": None},
        {"name": "b", "value": None},
        {"name": "é", "value": 1.5},
    ]
    assert "é" in text


def test_control_characters_stay_off_the_terminal(capsys):
    render.show([Row("a\x1b[2J\n日本　語\ud800", 1.0)])
    assert capsys.readouterr().out.splitlines()[1] == r"a\x1b[2J\n日本　語\ud800      1"
    with pytest.raises(SystemExit):
        render.fail(FileError("two\nlines\x1b[31m", "gone"))
    assert capsys.readouterr().err == "error: two\\nlines\\x1b[31m: gone\n"


def test_an_error_that_quotes_a_long_word_stays_short(capsys):
    with pytest.raises(SystemExit):
        render.fail(FileError("x" * 1_000_000, "gone"))
    assert capsys.readouterr().err == f"error: {'x' * 1997}...\n"


@pytest.mark.parametrize(
    ("streams", "out", "err"),
    [
        (">&-", "", "error: none: no such file or directory\n"),
        ("2>&-", "", ""),
        (">&- 2>&-", "", ""),
        ("2>/dev/full", "", ""),
    ],
)
def test_closed_and_full_streams(tmp_path, streams, out, err):
    ended = shell(f"cd {tmp_path}; {NN} summary none {streams}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, out, err)


def test_a_reader_that_goes_away_and_a_full_disk_are_no_tracebacks():
    assert shell(f"{NN} layers | true").stderr == ""
    for words in ("layers", "layers --json", "--help", "--version"):
        full = shell(f"{NN} {words} > /dev/full")
        assert full.stderr == "error: standard output: no space left on device\n"
        assert full.returncode == 1


@pytest.mark.parametrize("kind", ["xterm", "dumb"])
def test_progress_is_for_terminals_that_can_overwrite(kind, monkeypatch):
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with render.progress("working") as progress:
        progress(1, 2, "half")
    assert ("working" in terminal.getvalue()) is (terminal.getvalue() != "") is (kind == "xterm")


def test_an_interruption_may_leave_words(monkeypatch, capsys):
    group = render.app("Wait.")

    @group.callback(invoke_without_command=True)
    def wait() -> None:
        interruption = KeyboardInterrupt()
        interruption.add_note("not done")
        raise interruption

    monkeypatch.setattr(sys, "argv", ["wait"])
    group.info.no_args_is_help = False
    with pytest.raises(SystemExit) as ended:
        render.run(group)
    assert (ended.value.code, capsys.readouterr().err) == (130, "not done\n")


def test_encodings_that_lack_letters(tmp_path):
    spec = tmp_path / "é.yaml"
    spec.write_text("name: é\ninput: {shape: [1]}\nlayers: [{ReLU: {name: é}}]\n")
    ended = shell(f"{NN} summary {spec}", PYTHONIOENCODING="ascii")
    assert r"0 ReLU \xe9" in ended.stdout
    ended = shell(f"{NN} summary {spec} --json", PYTHONIOENCODING="ascii")
    assert json.loads(ended.stdout)["layers"][0]["layer"] == "0 ReLU é"
