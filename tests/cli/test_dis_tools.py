"""The commands of `dis` that look into programs: trace, debug, profile, stat, dump, deps."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from llmbol_cli.debug_console import COMMANDS
from llmbol_cli.dis import main

DATA = Path(__file__).parents[1] / "vm" / "data"
VECTORS = DATA / "vectors" / "limbo"


@pytest.fixture
def dis(tmp_path, monkeypatch, capsys):
    """Return a function that runs the command and returns its status and what it wrote."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, script: str = ""):
        monkeypatch.setattr(sys, "argv", ["dis", *words])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(script.encode())))
        with pytest.raises(SystemExit) as ended:
            main()
        out, errors = capsys.readouterr()
        return ended.value.code, out, errors

    return run


@pytest.fixture
def picks(tmp_path):
    for name in ("picks.dis", "picks.sbl"):
        shutil.copy(DATA / name, tmp_path)
    return tmp_path


@pytest.fixture
def printed(dis):
    return dis("run", str(DATA / "picks.dis"))[1]


def test_trace_goes_to_stderr_or_a_file(dis, picks, printed):
    status, out, log = dis("trace", "--function", "eval", "picks.dis")
    assert (status, out) == (0, printed)
    lines = log.splitlines()
    assert len(lines) == 224
    assert lines[0].split()[:5] == ["1", "Picks.eval", "69", "movp", "32(fp),40(fp)"]
    assert dis("trace", "--limit", "3", "-o", "log", "picks.dis") == (0, printed, "")
    assert len((picks / "log").read_text().splitlines()) == 3


def test_trace_says_which_function_never_ran(dis, picks, printed):
    status, out, errors = dis("trace", "--function", "evil", "picks.dis")
    assert (status, out) == (1, printed)
    assert errors == "error: no instruction of a function 'evil' ran (did you mean 'eval'?)\n"


def test_trace_keeps_the_log_of_a_program_that_is_stopped(dis, picks):
    words = ["trace", "-o", "log", "--max-instructions", "10", "picks.dis"]
    status, _, errors = dis(*words)
    assert status == 1
    assert errors.startswith("error: instruction limit")
    assert len((picks / "log").read_text().splitlines()) == 10


def test_profile(dis, picks):
    status, out, _ = dis("profile", "--json", "--flame", "stacks", "picks.dis")
    assert status == 0
    found = json.loads(out)
    assert found["instructions"] == 2017
    assert found["functions"][0] == {
        "module": "Picks", "function": "simp", "calls": 26, "own": 469, "total": 533,
        "percent": pytest.approx(23.25, abs=0.01),
    }  # fmt: skip
    assert len(found["hottest"]) == 20
    stacks = (picks / "stacks").read_text().splitlines()
    assert "Picks.init 342" in stacks
    assert sum(int(line.split()[1]) for line in stacks) == 2017


def test_profile_can_keep_what_the_program_prints(dis, picks, printed):
    status, out, _ = dis("profile", "--top", "1", "--stdout", "out", "picks.dis")
    assert (status, (picks / "out").read_text()) == (0, printed)
    assert out.startswith("instructions  2017\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_profile_names_the_file_that_the_output_does_not_fit_into(dis, picks):
    status, _, errors = dis("profile", "--stdout", "/dev/full", "picks.dis")
    assert (status, errors) == (1, "error: /dev/full: no space left on device\n")


def test_profile_shows_what_was_counted_before_a_limit(dis, picks):
    words = ["profile", "--max-instructions", "100", "picks.dis"]
    status, out, errors = dis(*words)
    assert status == 1
    assert out.startswith("instructions  100\n")
    assert errors.startswith("error: instruction limit")


SCRIPT = """\
# a comment
break eval
continue
print env
print 32(fp)
stack
delete
finish
disassemble
processes
modules
functions
frame 0
breakpoints
catch none
c
"""


def test_debug_follows_a_script(dis, picks):
    status, out, errors = dis("debug", "picks.dis", script=SCRIPT)
    assert (status, errors) == (0, "")
    lines = out.splitlines()
    assert lines[0] == ("start: process 1 Picks.init 297 (picks.b:129): load 8(mp),$0,412(mp)")
    assert lines[1] == "breakpoint 1: Picks 69"
    stop = "breakpoint 1: process 1 Picks.eval 69 (picks.b:53): movp 32(fp),40(fp)"
    at = lines.index(stop)
    assert lines[at + 1] == ('env: list of (string, real) = list {("x", 4.0), ("y", 0.5)}')
    assert lines[at + 2].startswith("32(fp): pointer = @")
    assert lines[at + 3].split() == ["level", "module", "function", "pc", "source", "frame"]
    assert any(line.startswith("finish: process 1 Picks.init ") for line in lines)
    assert any(line.startswith("> init ") for line in lines)
    assert "   69  eval  fn(e: ref Expr, env: list of (string, real)): real" in lines
    assert lines[-1] == "the program ended with status 0"


def test_debug_output_stands_where_the_program_printed(dis, picks, printed):
    script = "b eval\nc\ndelete\nc\n"
    _, out, _ = dis("debug", "picks.dis", script=script)
    first, *rest = printed.splitlines()
    lines = out.splitlines()
    assert lines[2] == first
    assert lines[4:-1] == rest


def test_debug_help_lists_every_command(dis, picks):
    _, out, _ = dis("debug", "picks.dis", script="help\nhelp br\n")
    lines = out.splitlines()[1:]
    assert len(lines) == len(COMMANDS) + 2
    assert all(any(line.startswith(usage) for line in lines) for usage, _, _ in COMMANDS.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("brek init", "unknown command 'brek' (did you mean 'break'?): try help"),
        ("break", "expected a location, such as init or 12"),
        ("break inti", "Picks has no function 'inti' (did you mean 'init'?)"),
        ("break :1", "no code comes from line 1 of picks.b: line 26 has some"),
        ("delete x", "expected a breakpoint's number, found 'x'"),
        ("delete 3", "no breakpoint 3: there is none"),
        ("process 9", "no process 9: there is 1"),
        ("kill 9", "no process 9: there is 1"),
        ("frame 5", "the stack has levels 0 to 0, not 5"),
        ("step many", "expected a count, found 'many'"),
        ("print nods", "no variable 'nods' (did you mean 'nodes'?)"),
        ("print 40(fp) lst of int", "'lst of int' is neither a type of Limbo nor a type letter"),
        ("catch some", "expected all, unhandled, none, found 'some'"),
        ("functions Pics", "no module 'Pics' is loaded (did you mean 'Picks'?)"),
        ("help brek", "unknown command 'brek' (did you mean 'break'?)"),
        ("run", "the program runs: continue goes on, quit ends it"),
        ("print 8(4000(fp))", "8(4000(fp))"),
    ],
)
def test_debug_answers_mistakes_in_one_line(dis, picks, line, message):
    status, _, errors = dis("debug", "picks.dis", script=f"{line}\nquit\n")
    assert status == bool(errors)
    if errors:
        assert errors.startswith(f"error: {message}")
        assert errors.count("\n") == 1
    else:
        assert line.startswith("print 8(")


def test_debug_runs_again(dis, picks):
    script = "c\nstack\nb eval\nb Picks:eval\nrun\nc\nq\n"
    status, out, errors = dis("debug", "picks.dis", script=script)
    assert status == 1
    assert out.count("start: process 1") == 2
    assert "breakpoint 1: once Picks is loaded" in out or "breakpoint 1: Picks 69" in out
    assert "breakpoint 1: process 1 Picks.eval 69" in out
    assert errors.splitlines() == [
        "error: the program does not run: run starts it",
        "error: the program does not run: name the module, as in Module:function",
    ]


def test_debug_stops_at_exceptions(dis, tmp_path):
    path = VECTORS / "crash" / "bounds" / "bounds.dis"
    status, out, errors = dis("debug", str(path), script="c\nstack\nc\n")
    assert status == 1
    assert "exception 'array bounds error', which nothing handles: process 1" in out
    assert errors == '[Bounds] Broken: "array bounds error"\n'
    assert out.splitlines()[-1] == "the program ended with status 1"


def test_debug_gives_the_program_its_own_input(dis, tmp_path):
    status, _, errors = dis("debug", "--stdin", "none", "a.dis")
    assert (status, errors) == (1, "error: none: no such file or directory\n")


def test_a_damaged_symbol_file_is_named_and_left_out(dis, picks):
    (picks / "picks.sbl").write_text("limbo .sbl 2.1\nPicks\n1\npicks.b\nx")
    status, out, errors = dis("debug", "picks.dis", script="q\n")
    assert status == 0
    assert "process 1 Picks.init 297: load" in out
    assert errors == "picks.sbl: at byte 31: damaged symbol file: expected a number, found 'x'\n"


def test_tools_look_into_a_tree(dis, tmp_path, picks):
    tree = tmp_path / "tree" / "dis"
    tree.mkdir(parents=True)
    for name in ("picks.dis", "picks.sbl"):
        shutil.copy(DATA / name, tree)
    words = ["--root", "tree", "/dis/picks.dis"]
    _, out, _ = dis("debug", *words, script="q\n")
    assert "(picks.b:129)" in out
    rows = json.loads(dis("deps", "--json", *words)[1])
    assert [(row["path"], row["state"]) for row in rows] == [("$Sys", "built-in")]


def test_stat_and_dump(dis, picks):
    found = json.loads(dis("stat", "--json", "picks.dis")[1])
    assert sum(row["bytes"] for row in found["sections"]) == found["file_bytes"]
    found = json.loads(dis("dump", "--json", "picks.dis")[1])
    assert found["module"] == "Picks"
    assert found["imports"][0]["limbo"] == "fn(s: string, *): int"
    status, out, _ = dis("dump", "picks.dis")
    assert status == 0
    assert "init    297    17  4244b354   fn(nil: ref Draw->Context" in out


@pytest.mark.parametrize("command", ["trace", "debug", "profile", "stat", "dump", "deps"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "error: x.dis: no such file or directory"),
        (b"\x7fELF", "error: x.dis: at byte 0: bad magic: not a Dis object file"),
        (b"\xc0\x0c\x80\x30", "error: x.dis: at byte 4: the file ends inside"),
    ],
)
def test_errors_are_one_line(dis, command, data, message, tmp_path):
    if data is not None:
        (tmp_path / "x.dis").write_bytes(data)
    status, out, errors = dis(command, "x.dis", script="q\n")
    assert (status, out) == (1, "")
    assert errors.startswith(message)
    assert errors.count("\n") == 1


def test_trace_of_a_file_that_cannot_be_written(dis, picks):
    status, _, errors = dis("trace", "-o", "no/log", "picks.dis")
    assert (status, errors) == (1, "error: no/log: no such file or directory\n")
    assert "log" not in os.listdir(picks)
