"""The ``cluster`` command as a user has it: a process that ends, and a cluster that does not."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import numpy as np
import pytest

from llmbol_cli import cluster as command
from llmbol_core import build_model
from llmbol_core.builtins import signature_of
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.task import create_task
from llmbol_core.nn import checkpoint
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.stackcode import parse_source
from tests.conftest import running
from tests.distributed.conftest import eventually, processes_of

ROOT = Path(__file__).parent.parent.parent
CLUSTER = [sys.executable, "-c", "from llmbol_cli.cluster import main; main()"]


def cluster(directory: str, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which takes a tenth of the time."""
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["cluster", *words])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        patch.setenv("LLMBOL_STATE", directory)
        with pytest.raises(SystemExit) as ended:
            command.main()
    shown, told = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), shown, told)


def cluster_process(directory: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a shell does."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [*CLUSTER, *words], capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "PYTHONPATH": path, "LLMBOL_STATE": directory},
    )  # fmt: skip


def assemble(source: Path, program: Path) -> None:
    program.write_bytes(write_module(parse_source(source.read_text(), str(source), signature_of)))


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    made = tempfile.mkdtemp(prefix="lb-")
    yield made
    cluster(made, "stop")
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize("words", [["status"], ["tasks"], ["stop"], ["result", "x"]])
def test_without_a_cluster_every_command_says_how_to_start_one(tmp_path, words):
    ended = cluster(str(tmp_path), *words)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"error: no cluster runs in {tmp_path}; start one with: cluster start\n"
    )


def test_misuse_is_told_in_one_line(tmp_path):
    ended = cluster(str(tmp_path / "s"), "start", "--strategy", "least-laoded")
    assert (ended.returncode, ended.stderr) == (
        1, "error: unknown strategy 'least-laoded' (did you mean 'least-loaded'?)\n",
    )  # fmt: skip
    ended = cluster(str(tmp_path / "s"), "start", "--strategy", "")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: unknown strategy '': expected one of round-robin, ")
    for words, why in (("a b", "'a b' is no name"), (" ,", "nodes without a capability")):
        ended = cluster(str(tmp_path / "s"), "start", "--capabilities", words)
        assert ended.returncode == 1
        assert why in ended.stderr


@pytest.mark.cluster
def test_a_damaged_ledger_is_told_in_one_line(tmp_path):
    directory = tmp_path / "s"
    directory.mkdir(mode=0o700)
    (directory / "ledger.sqlite").write_bytes(b"something else entirely" * 100)
    ended = cluster(str(directory), "start", "--nodes", "1")
    assert ended.returncode == 1
    assert ended.stderr == (
        f"error: the cluster did not start: {directory}/ledger.sqlite: the ledger cannot be "
        "opened: file is not a database; move it away to start with an empty one\n"
    )
    assert eventually(lambda: not processes_of(StateDirectory(directory)), 3)


@pytest.mark.cluster
def test_one_of_two_starts_at_once_wins(tmp_path):
    directory = str(tmp_path / "s")
    with ThreadPoolExecutor() as pool:
        starts = pool.map(lambda _: cluster_process(directory, "start", "--nodes", "1"), range(2))
        one, other = starts
    cluster(directory, "stop")
    assert sorted([one.returncode, other.returncode]) == [0, 1]
    assert one.stderr + other.stderr == (
        f"error: a cluster already runs in {directory}; look at it with: cluster status\n"
    )


@pytest.mark.cluster
def test_the_cluster_outlives_the_shell_that_started_it(directory):
    shell = " ".join(f"'{word}'" for word in [*CLUSTER, "start", "--nodes", "2"])
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "LLMBOL_STATE": directory}
    # A session of its own: when the shell ends, all that is in it hears a hang-up.
    started = subprocess.run(
        ["sh", "-c", f"{shell}; kill -HUP 0"], capture_output=True, text=True, timeout=90,
        start_new_session=True, env=environment, check=False,
    )  # fmt: skip
    assert "node-2" in started.stdout, started.stderr
    status = json.loads(cluster(directory, "status", "--json").stdout)
    assert [node["state"] for node in status["nodes"]] == ["up", "up"]
    assert status["nodes"][0]["capabilities"] == ["inference", "training"]


@pytest.mark.cluster
def test_a_second_start_is_refused(directory):
    ended = cluster(directory, "start")
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"error: a cluster already runs in {directory}")


@pytest.mark.cluster
def test_results_and_tasks_are_shown(directory):
    with Client(StateDirectory(Path(directory))) as client:
        client.submit([create_task("hello", "probe", {"echo": {"a": [1, 2]}})])
        client.wait(["hello"], 20)
        client.submit([create_task("long", "probe", {"seconds": 60})])
    assert cluster(directory, "result", "hello").stdout == '{"a": [1, 2]}\n'
    shown = json.loads(cluster(directory, "result", "hello", "--json").stdout)
    assert (shown["task"]["state"], shown["result"]) == ("done", {"a": [1, 2]})
    early = cluster(directory, "result", "long")
    assert (early.returncode, early.stdout) == (1, "")
    assert early.stderr.startswith("error: task long has not ended: it is ")
    assert "cancelled" in cluster(directory, "cancel", "long").stdout
    assert cluster(directory, "result", "long").stderr == "error: task long: cancelled\n"
    table = cluster(directory, "tasks").stdout.splitlines()
    assert [line.split()[0] for line in table] == ["id", "long", "hello"]


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["tasks", "--limit", "9" * 23], "--limit"),
        (["submit", "run", "p.dis", "--priority", "9" * 23], "its priority: expected"),
        (["submit", "run", "/dev/zero"], "/dev/zero: not a regular file"),
        (["submit", "run", ""], "expected the path of the program"),
        (["submit", "run", "p.dis", "--id", ""], "task id ''"),
        (["submit", "run", "p.dis", "--timeout", "nan"], "its time-out: expected"),
        (["submit", "run", "p.dis", "--timeout", "inf"], "its time-out: expected"),
        (["submit", "run", "p.dis", "-o", "none/y"], "none/y: no such file or directory"),
        (["submit", "run", "p.dis", "-o", "-", "--json"], "both write to standard output"),
        (["result", "hello", "-o", "none/y"], "none/y: no such file or directory"),
        (["result", "x" * 500], "task id 'xxx"),
        (["cancel", "a\nb"], "task id 'a\\nb'"),
    ],
)
def test_what_makes_no_sense_is_told_at_once(directory, words, why):
    ended = cluster(directory, *words)
    assert ended.returncode != 0
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.cluster
def test_results_go_where_they_are_wanted(directory):
    assert cluster(directory, "result", "hello", "-o", "-").stdout == '{"a": [1, 2]}'
    ended = cluster(directory, "wait", "hello", "long", "--json")
    assert [task["state"] for task in json.loads(ended.stdout)] == ["done", "cancelled"]
    assert ended.returncode == 1
    assert cluster(directory, "wait", "hello").returncode == 0


@pytest.mark.cluster
def test_a_program_may_come_by_standard_input(directory, tmp_path):
    program = tmp_path / "hello.dis"
    assemble(ROOT / "specs" / "programs" / "hello.s", program)
    ended = cluster(directory, "submit", "run", "-", stdin=program.read_bytes())
    assert (ended.returncode, ended.stdout) == (0, "hello, world\n")


@pytest.mark.cluster
def test_a_program_gets_the_memory_that_it_was_given(directory, tmp_path):
    program = tmp_path / "hello.dis"
    assemble(ROOT / "specs" / "programs" / "hello.s", program)
    words = ["submit", "run", str(program), "--max-memory"]
    assert cluster(directory, *words, "1M").stdout == "hello, world\n"
    ended = cluster(directory, *words, "64")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "memory" in ended.stderr


@pytest.mark.cluster
def test_files_that_are_missing_are_named(directory):
    ended = cluster(directory, "submit", "run", "nothing.dis")
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: nothing.dis: no such file or directory\n",
    )


@pytest.mark.cluster
def test_logs_are_shown(directory):
    Path(directory, "logs", "node-1.log").write_text("first\nsecond\n")
    assert cluster(directory, "logs", "node-1", "-n", "1").stdout == "node-1: second\n"
    assert "did you mean 'broker'" in cluster(directory, "logs", "brokre").stderr


@pytest.mark.cluster
def test_what_is_old_is_forgotten(directory):
    nothing = json.loads(cluster(directory, "prune", "--older-than", "1d", "--json").stdout)
    assert nothing == {"tasks": 0, "files": 0, "file_mb": 0.0}
    assert "such as 7d" in cluster(directory, "prune", "--older-than", "soon").stderr
    gone = json.loads(cluster(directory, "prune", "--older-than", "0s", "--json").stdout)
    assert gone["tasks"] > 0
    assert "no task 'hello' is known" in cluster(directory, "result", "hello").stderr


@pytest.mark.cluster
def test_stop_stops_everything(directory):
    assert cluster(directory, "stop").returncode == 0
    assert eventually(lambda: not processes_of(StateDirectory(Path(directory))), 1)
    ended = cluster_process(directory, "stop")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: no cluster runs in")


@pytest.mark.cluster
def test_a_cluster_that_is_drained_ends_what_it_began_and_keeps_the_rest(tmp_path):
    directory = str(tmp_path / "s")
    assert cluster(directory, "start", "--nodes", "1").returncode == 0
    with Client(StateDirectory(Path(directory))) as client:
        tasks = [create_task(f"t{i}", "probe", {"seconds": 0.6, "echo": i}) for i in range(3)]
        client.submit(tasks)
        assert eventually(lambda: client.status().running == 1)
    slow = cluster(directory, "stop", "--drain", "--timeout", "0.1")
    assert (slow.returncode, slow.stderr) == (1, "error: 1 tasks still run after 0.1 s\n")
    assert cluster(directory, "stop", "--drain").returncode == 0
    assert cluster(directory, "start", "--nodes", "1", "--threads", "2").returncode == 0
    listed = json.loads(cluster(directory, "tasks", "--json").stdout)
    assert [(task["id"], task["interruptions"]) for task in listed][2:] == [("t0", 0)]
    ended = json.loads(cluster(directory, "wait", "t0", "t1", "t2", "--json").stdout)
    assert [task["state"] for task in ended] == ["done"] * 3
    listed = json.loads(cluster(directory, "nodes", "--json").stdout)
    assert [(node["name"], node["state"]) for node in listed] == [("node-1", "up")]
    shown = cluster(directory, "nodes").stdout.splitlines()
    assert len(json.loads(cluster(directory, "nodes", "--json").stdout)) == len(shown) - 1
    assert shown[1].split()[:2] == ["node-1", "up"]
    assert cluster(directory, "stop").returncode == 0


@pytest.mark.cluster
def test_many_files_and_large_ones_are_worked_on_in_pieces(directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assemble(ROOT / "specs" / "programs" / "hello.s", Path("hello.dis"))
    for name in ("a.txt", "b.txt", "c.txt"):
        Path(name).write_text(name)
    mapped = ("submit", "map", "hello.dis", "--inputs", "*.txt")
    assert cluster(directory, "start").returncode == 0
    printed = cluster(directory, *mapped, "--id", "greet")
    assert (printed.stdout, printed.stderr) == ("hello, world\n" * 3, "")
    assert cluster(directory, *mapped, "-o", "outs/").returncode == 0
    assert Path("outs/b.txt.out").read_text() == "hello, world\n"
    assert cluster(directory, "result", "greet").stdout == "hello, world\n" * 3
    listed = cluster(directory, "wait", "greet").stdout
    assert [line.split()[0] for line in listed.splitlines()[1:]] == [
        f"greet.{n}" for n in (1, 2, 3)
    ]
    Path("file").touch()
    for words, why in (
        (("-o", "file/"), "file/: not a directory"),
        (("-o", "outs/", "--inputs", "outs/../a.txt"), "both be written to outs/: a.txt.out"),
    ):
        ended = cluster(directory, *mapped, *words)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert why in ended.stderr
    nothing = cluster(directory, "submit", "map", "hello.dis", "--inputs", "*.csv")
    assert (nothing.returncode, nothing.stderr) == (1, "error: no file matches '*.csv'\n")
    checkpoint.save(build_model("small", [4]).linear(4, 3).relu().build(), "m.gguf")
    x = np.random.default_rng(0).normal(size=(100_000, 4)).astype(np.float32)
    np.save("x.npy", x)
    asked = ("submit", "infer", "m.gguf", "--input", "x.npy", "--id", "x")
    assert cluster(directory, *asked, "--no-wait").stdout == "x\n"
    assert cluster(directory, *asked, "-o", "y.npy").returncode == 0
    assert np.array_equal(np.load("y.npy"), checkpoint.load_for_inference("m.gguf").run(x))
    assert cluster(directory, "result", "x", "-o", "z.npy").returncode == 0
    assert Path("z.npy").read_bytes() == Path("y.npy").read_bytes()


def test_who_follows_logs_ends_that_with_an_interruption(tmp_path, monkeypatch):
    def interrupted(*arguments, follow):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr("llmbol_core.distributed.logs.read_logs", interrupted)
    assert cluster(str(tmp_path), "logs", "-f").returncode == 0
    assert cluster(str(tmp_path), "logs").returncode == 130


@pytest.mark.cluster
def test_status_can_be_watched_on_a_terminal_and_off_it(directory):
    cluster(directory, "start")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LLMBOL_STATE": directory}
    environment |= {"TERM": "xterm", "COLUMNS": "120", "LINES": "30"}
    watch = [*CLUSTER, "status", "--watch"]
    with running(watch, stdout=subprocess.PIPE, env=environment, text=True) as plain:
        assert plain.stdout is not None
        seen = [line.split() for line in itertools.islice(plain.stdout, 40)]
        assert [words[0] for words in seen if words].count("node-1") >= 2
        plain.send_signal(signal.SIGINT)
        assert plain.wait(10) == 0
    leader, follower = pty.openpty()
    with running(watch, stdout=follower, env=environment) as live:
        os.close(follower)
        shown = b""
        while shown.count(b"node-2") < 2:
            shown += os.read(leader, 4096)
        live.send_signal(signal.SIGINT)
        with suppress(OSError):
            while os.read(leader, 4096):
                pass
        assert live.wait(10) == 0
    os.close(leader)
    # The terminal's other screen, which is left in the end.
    assert b"\x1b[?1049h" in shown
