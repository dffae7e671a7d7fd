"""What programs see of processes, variables and descriptors, and how they wait for one another.

``data/processes.dis``, ``data/waits.dis`` and ``data/failures.dis`` are compiled by Inferno's limbo
from the sources beside them; ``data/processes.txt`` and ``data/failures.txt`` are what Inferno
prints.
"""

import io
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Deadlock, Trap
from llmbol_core.vm.engines import engine
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.files.openfile import DMDIR, OREAD, OWRITE, FileFault, OpenFile
from llmbol_core.vm.files.pipes import PipeEnd
from llmbol_core.vm.machine import InfernoVM

DATA = Path(__file__).parent / "data"


def run(tree, name, *arguments, **options):
    """Return what a program of the data prints in an empty tree, and what is reported of it."""
    out = io.BytesIO()
    (tree / "main.dis").write_bytes((DATA / f"{name}.dis").read_bytes())
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(tree), streams=streams, **options) as vm:
        vm.run("/main.dis", arguments)
    return out.getvalue().decode()


def test_processes_as_files(tmp_path):
    # Which of two processes that hear of an exception prints first is left open.
    expected = (DATA / "processes.txt").read_text()
    assert sorted(run(tmp_path, "processes").splitlines()) == sorted(expected.splitlines())


@pytest.mark.parametrize("name", ["interpreter", "auto"])
def test_failures_in_built_in_functions(tmp_path, name):
    expected = (DATA / "failures.txt").read_text()
    assert run(tmp_path, "failures", engine=engine(name)) == expected


def test_writers_wait_for_readers(tmp_path):
    assert run(tmp_path, "waits", "full") == "100000 written\n100000 read\n"


def test_a_stream_ends_with_the_pipe_it_comes_from(tmp_path):
    parts = "".join(f"part {i};" for i in range(5))
    assert run(tmp_path, "waits", "stream") == f"{parts}\n35 streamed\n"


def test_a_pipe_that_nobody_writes_to_is_a_deadlock(tmp_path):
    with pytest.raises(Deadlock, match="waits for another end"):
        run(tmp_path, "waits", "forever")


@pytest.fixture
def machine(tmp_path):
    """Return a machine with one process, which does not run."""
    with InfernoVM(HOST_MODULES, Namespace(tmp_path)) as vm:
        vm.load_module("w", DATA / "waits.dis")
        vm.spawn("w", "init", ["w", "full"])
        (vm.engine.process,) = vm.scheduler.processes.values()
        yield vm


# fmt: off
CONTENTS = [
    ("/prog/1/status",   "       1        1    inferno    0:00.0      ready     1K Waits[$Sys]"),
    ("/prog/1/pgrp",     "          1 "),
    ("/prog/1/ns",       "cd /\n"),
    ("/prog/1/fd",       "/\n  0 r  c    0 (0000000000000000 0 00)     0        0 /dev/null\n"),
    ("/prog/1/exception", ""),
    ("#d/0ctl",          "  0 r  c    0 (0000000000000000 0 00)     0        0 /dev/null\n"),
]
REFUSED = [
    ("/prog/1/ctl",  OREAD,  "permission denied"),
    ("/prog/1/wait", OWRITE, "permission denied"),
    ("/prog/1/pgrp", OWRITE, "permission denied"),
    ("/prog/2/pgrp", OREAD,  "'/prog/2' file does not exist"),
    ("/prog/1/none", OREAD,  "'/prog/1/none' does not exist"),
    ("/prog/1/fd/x", OREAD,  "'/prog/1/fd' not a directory"),
    ("/prog/1",      OWRITE, "file is a directory"),
    ("/fd/0",        OWRITE, "inappropriate use of fd"),
    ("/fd/01",       OREAD,  "'/fd/01' file does not exist"),
    ("#Z/x",         OREAD,  "unknown device in # filename"),
]
# fmt: on


@pytest.mark.parametrize(("name", "text"), CONTENTS)
def test_contents(machine, name, text):
    found = machine.environment.namespace.open(name, OREAD).read(1000).decode()
    assert found.startswith(text)


def test_descriptors_are_opened_when_they_are_created(machine):
    space, environment = machine.environment.namespace, machine.engine.process.environment
    one, other = PipeEnd.pair()
    number = environment.descriptors.add(one)
    space.create(f"/fd/{number}", OWRITE, 0o666).write(b"through")
    assert other.read(9) == b"through"
    for name, why in (("/fd/77", "mounted directory forbids creation"), ("/fd", "permission")):
        with pytest.raises(FileFault, match=why):
            space.create(name, OREAD, 0o666)


@pytest.mark.parametrize(("name", "mode", "why"), REFUSED)
def test_what_cannot_be_opened(machine, name, mode, why):
    with pytest.raises(FileFault) as fault:
        machine.environment.namespace.open(name, mode)
    assert str(fault.value) == why


# fmt: off
DESCRIBED = [
    ("/dev/cons",     "cons",   0o666, "c"),
    ("/dev/time",     "time",   0o644, "c"),
    ("/dev/random",   "random", 0o444, "c"),
    ("/prog/1/ctl",   "ctl",    0o200, "p"),
    ("/prog/1/fd",    "fd",     0o444, "p"),
    ("/prog/1",       "1",      DMDIR | 0o555, "p"),
    ("/env",          "#e",     DMDIR | 0o555, "e"),
    ("/chan/served",  "served", 0o660, "s"),
]
# fmt: on


@pytest.mark.parametrize(("name", "called", "mode", "device"), DESCRIBED)
def test_files_are_described_as_on_inferno(machine, name, called, mode, device):
    space = machine.environment.namespace
    space.serve("/chan", "served", OpenFile)
    entry = space.stat(name)
    assert (entry.name, entry.mode, chr(entry.device_type)) == (called, mode, device)
    if not mode & DMDIR:
        assert space.open(name, OWRITE if mode == 0o200 else OREAD).stat().mode in (mode, 0o666)
    for listed in space.open("/chan", OREAD).entries():
        assert (listed.name, listed.mode) == ("served", 0o660)


@pytest.mark.parametrize("name", ["/env/none", "/fd/77", "/prog/9/ctl"])
def test_what_is_not_there_is_neither_removed_nor_a_place_for_others(machine, name):
    space = machine.environment.namespace
    for do in (lambda: space.remove(name), lambda: space.create(f"{name}/x", OWRITE, 0o600)):
        with pytest.raises(FileFault, match="does not exist"):
            do()


def test_directories(machine):
    space = machine.environment.namespace
    assert [entry.name for entry in space.open("/prog", OREAD).entries()] == ["1"]
    assert "status" in [entry.name for entry in space.open("#p/1", OREAD).entries()]
    assert {"env", "fd", "prog"} <= {entry.name for entry in space.open("/", OREAD).entries()}
    space.change_directory("/prog/1")
    assert space.open("status", OREAD).path == "/prog/1/status"
    with pytest.raises(FileFault, match="permission denied"):
        space.from_here()


def test_a_device_can_be_bound_elsewhere(machine):
    space = machine.environment.namespace
    space.bind("#p", "/fd", 0)
    assert space.stat("/fd/1/pgrp").device_type == ord("p")
    inner = space.from_here()
    assert inner.stat("#p/1").name == "1"
    with pytest.raises(FileFault, match="does not exist"):
        inner.stat("/fd")


def test_stack(machine):
    text = machine.environment.namespace.open("/prog/1/stack", OREAD).read(100).decode()
    assert text.split()[1::4] == ["00000000", str(DATA / "waits.dis")]


def test_variables_count_against_the_memory(machine):
    space, heap = machine.environment.namespace, machine.heap
    own = machine.engine.process.environment
    before = heap.reserved
    space.create("/env/name", OWRITE, 0o666).write(b"x" * 1000)
    taken = heap.reserved - before
    assert 1000 < taken < 2000
    assert own.variables is machine.environment.variables
    other = own.variables.fork(is_empty=False)
    assert (other.get("name"), heap.reserved - before) == (b"x" * 1000, 2 * taken)
    other.set("name", b"")
    assert heap.reserved - before == 2 * taken - 1000
    del other
    space.remove("/env/name")
    assert heap.reserved == before

    def make(number):
        return space.create(f"/env/{number}", OWRITE, 0o666).write(b"x" * 16_000)

    with pytest.raises(Trap, match="out of memory"):
        sum(map(make, range(heap.limit // 10_000)))
