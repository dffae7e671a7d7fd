"""The oracle of forgeries: honest programs pass, bad ones do not, random ones that verify do.

``python -m tests.vm.forging`` tries many more.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import LimitError
from llmbol_core.vm.environment import Streams
from llmbol_core.vm.files.namespace import Namespace
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm import forging
from tests.vm.areas import Forgery, check_heap
from tests.vm.claims import Claiming
from tests.vm.objects import DATA_DIRECTORY
from tests.vm.oracle import Checking
from tests.vm.programs import assemble
from tests.vm.test_attacks import assembled

HONEST = ("tuplevars", "adtmods", "alts3", "polys")
LIMITS = Limits(32 << 20, instructions=4000)


@pytest.mark.parametrize("name", HONEST)
def test_honest_programs_keep_what_the_verifier_says(name: str) -> None:
    engines: list[Claiming] = []

    def engine(*given: object) -> Claiming:
        engines.append(Claiming(*given))
        return engines[0]

    namespace = Namespace(Path(DATA_DIRECTORY) / "limbo")
    with InfernoVM(HOST_MODULES, namespace, LIMITS, Streams(), engine=engine) as vm:
        try:
            vm.run(f"/{name}.dis")
        except LimitError:
            assert engines[0].count == LIMITS.instructions
        engines[0].check_counts()
        check_heap(vm.heap)
    assert engines[0].count > 100


FORGED = {
    "movw $77,32(fp)": "a number over a pointer at 32 of the frame",
    "movp 64(fp),32(fp)": "no pointer at 64 of the frame",
    "movw 200(fp),64(fp)": "4 bytes at 200 of the 128 of the frame",
    "movw $77,64(fp)\n movw $1,0(64(fp))": "4d is in no object",
    "new $2,32(fp)\n lenc 32(fp),64(fp)": "the string is of kind",
    "new $2,32(fp)\n movw $1,0(32(fp))": "a number over a pointer at 0 of a record",
    "new $2,32(fp)\n lea 4(32(fp)),64(fp)\n movp 36(fp),32(fp)\n movw $1,0(64(fp))": "in no object",
    "consw $77,32(fp)\n headp 32(fp),36(fp)": "the head is no pointer",
    "newa $1,$5,32(fp)\n indl 32(fp),64(fp),$0": "an element has 4 bytes, not 8",
    "newcw $1,32(fp)\n send $77,32(fp)\n recv 32(fp),36(fp)": "a value of other pointers at 36",
    "frame $6,64(fp)\n ret": "frames were made and not called",
    "frame $6,64(fp)\n frame $6,68(fp)\n call 64(fp),$0": "is not the last one made",
}


@pytest.mark.parametrize("code", FORGED)
def test_forgeries_are_seen(code: str) -> None:
    with InfernoVM(limits=LIMITS, verify=False, engine=Checking) as vm:
        vm.load_module("test", assemble(f"{code}\n ret"))
        with pytest.raises(Forgery, match=FORGED[code]):
            vm.execute("test", "main")


def test_random_programs_that_verify_forge_nothing() -> None:
    found, wrong = forging.try_seeds(range(60))
    assert wrong == []
    assert found["accepted"] > 40
    assert found["refused"] > 40


def test_machine_code_does_what_the_oracle_does() -> None:
    found, wrong = forging.try_seeds(range(1000, 1028), engine="jit")
    assert wrong == []
    assert found["jit"] > 3


@pytest.mark.parametrize("engine", ["", "jit"])
def test_what_is_said_before_a_limit_strikes_is_not_compared(tmp_path: Path, engine: str) -> None:
    code = "x: frame $1,48(fp)\n spawn 48(fp),x\n raise 16(mp)"
    assert forging.outcome({"a": assembled("a", code, {})}, tmp_path, engine) == "LimitError"


def test_the_same_seed_makes_the_same_program() -> None:
    texts = {forging.text(forging.Forger(5).program()) for _ in range(2)}
    assert len(texts) == 1
    assert io.StringIO(texts.pop()).readline()
