"""$Loader: a program that looks into itself and makes a module of its own code.

``data/loads.dis`` is ``data/loads.b`` compiled by Inferno's limbo; then its imports got $Loader's
own signatures, since Limbo has no way to call what newmod returns. The output is Inferno's.
"""

import io
from pathlib import Path

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.machine import InfernoVM

EXPECTED = """\
2 links
twice 75e8db6d
init 4244b354
-1
bad tdesc
1
-1
bad idx
0
1
40
1
nil parameters
0 0
1
"""


def test_a_program_makes_a_module():
    out = io.BytesIO()
    with InfernoVM(HOST_MODULES, streams=Streams(stdout=out)) as vm:
        vm.run(str(Path(__file__).parent / "data/loads.dis"), [], host=True)
    assert out.getvalue().decode() == EXPECTED
