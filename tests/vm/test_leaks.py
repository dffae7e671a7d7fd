"""What fails leaves nothing behind, and nothing goes too early: all is gone in the end."""

from __future__ import annotations

import pytest

from llmbol_core.errors import Deadlock, Trap
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm import ledger
from tests.vm.programs import assemble

NIL_DEREFERENCE = "dereference of nil"


def run(code, more="", limits=None):
    """Return what ends a program, or what it returns; all that there is has been counted."""
    with InfernoVM(limits=limits or Limits(1 << 20), verify=True) as vm:
        vm.load_module("test", assemble(code, more))
        try:
            how = vm.execute("test", "main")
        except Trap as trap:
            how = trap.name
        except Deadlock:
            how = "deadlock"
        ledger.check(vm)
    vm.heap.make_room()
    assert vm.heap.objects == 0
    assert vm.heap.reserved == 0
    return how


MAKERS = [
    "new $2", "newz $7", "newa $3,$3", "newaz $3,$5", "newcw", "newcw $2", "newcp $1", "newcm $8",
    "newcmp $7,$1", "cvtwc $77", "cvtca 4(mp)", "cvtfc 64(fp)", "cvtlc 64(fp)", "self",
    "movp 4(mp)",
]  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS)
def test_what_is_made_for_a_place_behind_nil_is_freed(maker):
    code = f"movl 120(mp),64(fp)\n{maker}{' ' if maker == 'self' else ','}0(32(fp))\nret"
    code = code.replace("newcw,", "newcw ")
    assert run(code, 'string @mp+4,"abc"\n') == NIL_DEREFERENCE


def test_where_somebody_waited_for_a_value_is_no_place_that_is_kept_for_it():
    code = (
        "newcw 0(mp)\nnew $7,4(mp)\nframe $8,64(fp)\ncall 64(fp),wait\nret\n"
        "wait: movw $0,64(fp)\nmovw $1,68(fp)\nmovp 0(mp),72(fp)\n"
        "lea 8(4(mp)),76(fp)\nalt 64(fp),80(fp)\nret"
    )
    assert run(code, "desc $8,96,(32,72)\n") == "deadlock"
