"""Functions that share code, or whose code does not lie in one piece: machine code knows all of it.

The programs are framed as those of ``test_attacks.py`` are, and look for numbers as those do.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.jit.engine import JitEngine
from llmbol_core.vm.jit.modulecode import code_of
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.forging import MIXED
from tests.vm.test_attacks import assembled

LOOK = (
    " movp 12(mp),36(fp)\n new $7,0(44(fp))\n movp 32(fp),36(fp)\n new $5,40(fp)\n"
    " movw $77,8(36(fp))\n movw 8(40(fp)),60(fp)\n beqw 60(fp),$77,bad\n addw $1,88(fp)\n"
)
CALLS = "frame $2,48(fp)\n call 48(fp),f\n frame $2,48(fp)\n call 48(fp),h\n ret\n"
PROGRAMS = {
    # Between the beginning of a function and its loop stands another function.
    "a slot whose address is taken before a loop elsewhere": (
        f"{CALLS} f: movw $0,88(fp)\n lea 32(fp),44(fp)\n jmp m\n h: ret\n"
        f" m: {LOOK} bltw 88(fp),$300,m\n ret\n bad: raise 16(mp)"
    ),
    "a slot whose address is taken where a jump to an address leads": (
        f"frame $2,48(fp)\n call 48(fp),f\n ret\n f: movw $0,88(fp)\n movpc $x,52(fp)\n"
        f" jmp 52(fp)\n m: {LOOK} bltw 88(fp),$300,m\n ret\n bad: raise 16(mp)\n"
        " x: lea 32(fp),44(fp)\n jmp m"
    ),
    "a frame made before a loop elsewhere": (
        "new $7,4(mp)\n movw $0,84(fp)\n"
        " x: frame $2,48(fp)\n call 48(fp),f\n addw $1,84(fp)\n bltw 84(fp),$50,x\n"
        " beqw 92(fp),$1,z\n new $5,32(fp)\n movw $77,8(4(mp))\n movw 8(32(fp)),60(fp)\n"
        " beqw 60(fp),$77,bad\n ret\n bad: raise 16(mp)\n"
        " z: frame $2,52(fp)\n call 52(fp),h\n ret\n"
        " g: movw 4(mp),44(fp)\n ret\n k: ret\n f: movw $0,88(fp)\n frame $2,48(fp)\n jmp m\n"
        " h: frame $9,48(fp)\n call 48(fp),k\n ret\n"
        " m: addw $1,88(fp)\n bltw 88(fp),$40,m\n call 48(fp),g\n ret\n"
        " desc $8,8,(0,4)\n desc $9,96,(44)"
    ),
}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, code_cache: str) -> None:
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


@pytest.mark.parametrize("what", PROGRAMS)
def test_what_runs_before_is_known_wherever_it_stands(tmp_path: Path, what: str) -> None:
    out, limits = io.BytesIO(), Limits(8 << 20, instructions=300_000)
    streams, module = Streams(stdout=out, stderr=out), assembled("a", PROGRAMS[what], {})
    given = HOST_MODULES, Namespace(tmp_path), limits, streams
    with InfernoVM(*given, engine=MIXED) as machine:
        machine.load_module("a", module)
        machine.execute("a", "init", [])
        assert isinstance(machine.engine, JitEngine)
        assert machine.engine.compiled is not None


def test_functions_that_share_code_have_one_body() -> None:
    text = "frame $2,48(fp)\n call 48(fp),f\n ret\n f: movw $1,60(fp)\n g: ret\n h: jmp g\n"
    calls = " z: frame $2,48(fp)\n call 48(fp),h\n lea 32(fp),44(fp)\n lea 60(fp),16(48(fp))\n ret"
    code = code_of(assembled("a", text + calls, {}))
    assert [*code.body(0)] == [0, 1, 2]
    assert [*code.body(3)] == [*code.body(4)] == [*code.body(5)] == [3, 4, 5]
    assert [*code.body(6)] == [*range(11)]  # nobody calls it: any function might be its own
    assert code.exposing(6) == [(8, 32)]
