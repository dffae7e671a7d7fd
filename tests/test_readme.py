"""Executes the README: its two set-up commands, its tour of the commands, its Python snippets.

In a ``console`` block a line that begins with ``$ `` is run by the shell and the lines below it are
what it prints. Measured numbers, those with a decimal point, need not be the same on every machine.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SETUP = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
TOUR = [text for kind, text in BLOCKS if kind == "console"]
SNIPPETS = [text for kind, text in BLOCKS if kind == "python"]


def steps(text):
    """Yield (command, expected output) for each ``$ `` line of a console block."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def matches(expected, got):
    """Compare line by line: ``...`` is anything, a number with a point any number with a point."""
    wanted, lines = expected.rstrip().splitlines(), got.rstrip().splitlines()
    return len(wanted) == len(lines) and all(map(matches_line, wanted, lines))


def matches_line(expected, got):
    parts = re.split(r"(\.\.\.|-?\d+\.\d+(?:e[-+]\d+)?|\s+)", expected.strip())
    return re.fullmatch("".join(map(pattern_of, parts)), got.strip()) is not None


def pattern_of(part):
    if part == "...":
        return ".*"
    if re.fullmatch(r"-?\d+\.\d+(e[-+]\d+)?", part):
        return r"-?\d+(\.\d+)?(e[-+]\d+)?"
    return r"\s+" if part.isspace() else re.escape(part)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """Return a folder with the specs in it and an environment that finds our commands."""
    folder = tmp_path_factory.mktemp("tour")
    shutil.copytree(ROOT / "specs", folder / "specs")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LLMBOL_STATE": str(folder / "state"),
        "COLUMNS": "100",
    }
    yield folder, environment
    subprocess.run(["cluster", "stop"], env=environment, capture_output=True, check=False)


def test_opens_with_two_setup_commands():
    assert len(SETUP) == 2
    assert SETUP[0].endswith("nn demo")
    assert SETUP[1].endswith("pytest")


@pytest.mark.cluster
def test_tour_prints_what_the_readme_shows(workshop):
    folder, environment = workshop
    for command, expected in (step for block in TOUR for step in steps(block)):
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True
        )
        printed = done.stdout + done.stderr
        assert matches(expected, printed), f"$ {command}\n{printed}\nexpected:\n{expected}"


@pytest.mark.cluster
def test_snippets_run_in_order(workshop):
    folder, environment = workshop
    program = folder / "snippets.py"
    body = "\n".join(SNIPPETS)
    program.write_text(
        f"def main():\n{re.sub('^', '    ', body, flags=re.MULTILINE)}\n"
        "\nif __name__ == '__main__':\n    main()\n"
    )
    done = subprocess.run(
        [sys.executable, program], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shown = [
        m for text in SNIPPETS for m in re.findall(r"^\s*print\(.*?# (.*)$", text, re.MULTILINE)
    ]
    assert matches("\n".join(shown), done.stdout), done.stdout


@pytest.mark.slow
@pytest.mark.cluster
def test_first_setup_command_on_a_fresh_copy(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tmp_path / name)
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    environment["LLMBOL_STATE"] = str(tmp_path / "state")
    done = subprocess.run(
        SETUP[0], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "agree" in done.stdout
