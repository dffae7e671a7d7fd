"""Limbo programs that do a bit of everything: each prints on all engines what it does on Inferno.

The object files in ``data/limbo`` were made by Inferno's compiler from the sources beside them, the
texts by running them on Inferno, but that "zero divide" stands there for what its host calls that.
"""

import io
import shutil
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.jit import stretches
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM

DATA = Path(__file__).parent / "data" / "limbo"


@pytest.mark.parametrize("expected", sorted(DATA.glob("*.txt")), ids=lambda path: path.stem)
def test_programs_print_what_they_do_on_inferno(tmp_path, expected, monkeypatch):
    # Some print whose turn it was: turns end after so many instructions, not after some time.
    monkeypatch.setattr(stretches, "SECONDS", 60.0)
    for file in DATA.glob("*.dis"):
        shutil.copy(file, tmp_path)
    out = io.BytesIO()
    streams = Streams(stdout=out, stderr=out)
    with InfernoVM(HOST_MODULES, Namespace(tmp_path), Limits(32 << 20), streams) as vm:
        vm.run(f"/{expected.stem}.dis")
    assert out.getvalue().decode() == expected.read_text()
