"""file2chan: a program that answers for a file of its own, with a client in another process.

``data/served.dis`` is ``data/served.b`` compiled by Inferno's limbo.
"""

import io
from pathlib import Path

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.namespace import Namespace

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


def test_a_program_serves_a_file(tmp_path):
    out = io.BytesIO()
    (tmp_path / "served.dis").write_bytes((Path(__file__).parent / "data/served.dis").read_bytes())
    vm = InfernoVM(HOST_MODULES, Namespace(tmp_path), streams=Streams(stdout=out))
    vm.run("/served.dis", [])
    assert out.getvalue().decode() == EXPECTED
