"""file2chan: a program that answers for a file of its own, with a client in another process.

``data/NAME.dis`` is ``data/NAME.b`` compiled by Inferno's limbo; the expected output is Inferno's.
"""

import io
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.builtins.served import Server
from llmbol_core.errors import Trap
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.machine import InfernoVM

EXPECTED = """\
[nothi]
[ng ye]
[t]
fprint 8
pread 5 [lo 42]
bad -1 rejected
stat 0 echo
after 1
"""

CLOSED = """\
4 serv
7 ed data
0
read closed 0 0
write closed 1
read closed 0 0
done
"""


def output(tree, name):
    """Return what a program of the data prints in a tree."""
    out = io.BytesIO()
    (tree / "chan").mkdir()
    path = f"{name}.dis"
    (tree / path).write_bytes((Path(__file__).parent / "data" / path).read_bytes())
    with InfernoVM(HOST_MODULES, Namespace(tree), streams=Streams(stdout=out)) as vm:
        vm.run(f"/{path}", [])
    return out.getvalue().decode()


def test_a_program_serves_a_file(tmp_path):
    assert output(tmp_path, "served") == EXPECTED


def test_a_server_hears_that_a_file_is_closed(tmp_path):
    assert output(tmp_path, "closed") == CLOSED


def test_a_served_file_counts_against_the_memory(monkeypatch):
    with InfernoVM() as vm:
        server = Server(vm.heap, vm.engine.channels, 500)
        offered = server.offer()
        assert vm.heap.reserved >= 1024 + 4 * 500
        vm.heap.release(offered)
        assert vm.heap.reserved == 0

        def full(number, capacity):
            raise Trap("out of memory: heap")

        monkeypatch.setattr(vm.heap, "new_channel", full)
        with pytest.raises(Trap):
            server.offer()
        assert not vm.heap.hosted
