"""The commands as processes: they end at once, with all that was to be done before the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from typer.main import get_group

from llmbol_cli import cluster, dis, nn, render


def ended(code: str, *words: str, out: int = subprocess.PIPE) -> tuple[int, str, str]:
    script = f"import sys; from llmbol_cli import entry; {code}"
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stdout, done.stderr


def test_results_and_statuses_are_those_of_the_command():
    status, out, err = ended("entry.nn()", "layers")
    assert (status, err) == (0, "")
    assert "Linear" in out
    assert ended("entry.nn()", "summary", "none")[::2] == (
        1,
        "error: none: no such file or directory\n",
    )
    assert ended("entry.dis()", "nothing")[0] == 2


def test_what_waits_for_the_end_is_done():
    threads = "import atexit, threading; atexit.register(print, 'handler'); "
    threads += "last = lambda: (threading.main_thread().join(), print('thread')); "
    threads += "threading.Thread(target=last).start(); "
    status, out, _ = ended(threads + "entry.dis()", "--version")
    assert status == 0
    assert out.splitlines()[1:] == ["thread", "handler"]


def test_an_interruption_while_the_command_is_loaded_ends_it_quietly():
    interrupted = (
        "finder = type('F', (), {'find_spec': lambda self, name, *rest: interrupt(name)})()\n"
        "def interrupt(name):\n"
        "    if name == 'llmbol_cli.nn': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, finder)\n"
    )
    assert ended(f"\n{interrupted}entry.nn()", "layers") == (130, "", "")


def test_nothing_is_loaded_before_an_interruption_is_heeded():
    script = (
        "import __future__, sys\n"
        "class Once:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if not name.startswith('llmbol_cli'):\n"
        "            sys.meta_path.remove(self)\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Once())\n"
        "for name in ('collections', 'importlib', 'threading', 'typing'):\n"
        "    sys.modules.pop(name, None)\n"
        "from llmbol_cli.entry import nn\n"
        "nn()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_full_disk_is_noticed():
    with open("/dev/full", "w") as full:
        status, _, err = ended("entry.nn()", "layers", out=full.fileno())
    assert (status, err) == (1, "error: standard output: no space left on device\n")


@pytest.mark.skipif(not hasattr(signal, "SIGPIPE"), reason="no signal for such pipes")
@pytest.mark.parametrize("words", [[], ["--help"]])
@pytest.mark.parametrize(
    ("command", "what"), [("dis", "isa"), ("nn", "layers"), ("cluster", "start")]
)
def test_all_commands_end_alike_when_nobody_reads(command, what, words):
    reader, writer = os.pipe()
    os.close(reader)
    words = words if command != "cluster" else ["--help"]
    status, _, err = ended(f"entry.{command}()", what, *words, out=writer)
    os.close(writer)
    assert (status, err) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("command", [dis, nn, cluster], ids=["dis", "nn", "cluster"])
def test_only_the_command_that_is_called_is_made(command):
    whole = get_group(command.app)
    for name, made in whole.commands.items():
        (only,) = get_group(render.called(command.app, [name, "--option"])).commands.items()
        assert only[0] == name
        assert [p.name for p in only[1].params] == [p.name for p in made.params]
        assert getattr(only[1], "commands", {}).keys() == getattr(made, "commands", {}).keys()
    for words in ([], ["--help"], ["none"]):
        assert render.called(command.app, words) is command.app
