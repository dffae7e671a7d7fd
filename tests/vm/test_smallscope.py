"""All short programs that verify forge nothing; if the verifier checks less, some do, and it shows.

``python -m tests.vm.smallscope`` tries longer ones.
"""

from __future__ import annotations

import pytest

from llmbol_core.vm.objects import Heap
from llmbol_core.vm.verification.lifetimes import Lifetimes
from llmbol_core.vm.verification.typeflow import Step
from llmbol_core.vm.verification.usage import Usage
from tests.vm import claims
from tests.vm.areas import Blocks, Forgery
from tests.vm.skeletons import SKELETONS
from tests.vm.smallscope import scope, tasks, try_tasks

SHORT = [name for name in SKELETONS if not SKELETONS[name].is_row]
WEAKENED = {
    "numbers over pointers": (Step, "_check_touch", "records", "new $3,32(fp)"),
    "numbers over tables": (Step, "check_tables", "labels", "movw $1,24(mp)"),
    "results": (
        Usage,
        "_check_result",
        "results",
        "frame $2,48(fp); lea 32(fp),16(48(fp)); call 48(fp),h",
    ),
    "frames": (Lifetimes, "_check", "results", "frame $2,48(fp)"),
}


def starting(name: str, letter: str) -> int:
    """Return the task of programs that begin with a letter."""
    return SKELETONS[name].letters[0].index(letter)


def test_short_programs_that_verify_forge_nothing() -> None:
    found, wrong = try_tasks(range(len(tasks(SHORT))), SHORT, 1)
    assert wrong == []
    assert found["accepted"] > 250
    assert found["refused"] > 60


def test_machine_code_does_what_the_oracle_does() -> None:
    first = starting("handlers", "raise 16(mp)")
    found, wrong = try_tasks([first], ["handlers"], 1, engine="jit")
    assert wrong == []
    assert found["jit"] == 1


@pytest.mark.parametrize("what", WEAKENED)
def test_a_weaker_verifier_is_found_out(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, method, name, letter = WEAKENED[what]
    claims._followed.cache_clear()
    monkeypatch.setattr(kind, method, lambda *given: None)
    _, wrong = try_tasks([starting(name, letter)], [name], 2)
    claims._followed.cache_clear()
    assert any("Forgery" in one for one in wrong)


def test_holes_are_filled_and_labels_follow() -> None:
    again = starting("records", "addw $1,88(fp); bltw 88(fp),$2,again")
    over = starting("records", "beqw 92(fp),$0,skip")
    modules, extents = scope("records").program([(over, again, over)])
    code = modules["a"].instructions
    assert extents == [range(4)]
    assert [i.destination.value for i in code if i.op.effect.name == "BRANCH"] == [3, 0, 4]
    assert code[4].op.mnemonic == "ret"
    there = starting("labels", "movpc $there,44(fp)")
    modules, _ = scope("labels").program([(there, there)])
    code = modules["a"].instructions
    assert {code[i.source.value].op.mnemonic for i in code if i.op.mnemonic == "movpc"} == {"new"}


def test_what_is_written_to_blocks_that_are_freed_is_seen() -> None:
    heap = Heap(1 << 16)
    blocks = Blocks(heap)
    ref = heap.allocate(16)
    assert ref is not None
    heap.free(ref)
    blocks.check_freed()
    heap.words[ref + 8 >> 2] = 77
    with pytest.raises(Forgery, match="was written after it was freed"):
        blocks.check_freed()
