"""Exceptions that instructions raise, handled by native code as the reference engine would."""

from __future__ import annotations

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.vm import exceptions, traps
from llmbol_core.vm.isa import ZERO_DIVIDE
from llmbol_core.vm.jit.trapping import ROW, TRAPS, trap_names
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble

TIMES = 200
LOOP = f"""
    newa $3,$3,52(fp)
    movp 0(mp),48(fp)
    load 4(mp),$0,44(fp)
next: {{trap}}
    addw $1000,80(fp)
    jmp on
caught: lenc 36(fp),76(fp)
    addw 76(fp),80(fp)
on: addw $1,72(fp)
    bltw 72(fp),${TIMES},next
    movw 80(fp),0(16(fp))
    ret
boom: {{boom}}
    ret
"""
TABLE = """
    string @mp+0,"abc"
    string @mp+4,"$self"
    word @mp+40,-2147483648
    ldts @ldt,1
    word @ldt+0,1
    ext @ldt+4,{signature},"boom"
    exceptions 1
    exception 3, {end}, 36, -1, 1, 0
    exctab "*", {caught}
    exctab *, -1
"""
# fmt: off
CASES = [
    # instruction, its exception or how much is added without one
    ("movw 4(32(fp)),76(fp)",          traps.NIL_DEREFERENCE),
    ("movw $1,4(32(fp))",              traps.NIL_DEREFERENCE),
    ("movp 48(fp),0(32(fp))",          traps.NIL_DEREFERENCE),
    ("movw 4(8(mp)),76(fp)",           traps.NIL_DEREFERENCE),
    ("addw 4(32(fp)),72(fp),76(fp)",   traps.NIL_DEREFERENCE),
    ("divw $0,72(fp),4(32(fp))",       ZERO_DIVIDE),
    ("divw 92(fp),72(fp),76(fp)",      ZERO_DIVIDE),
    ("modw 92(fp),72(fp),76(fp)",      ZERO_DIVIDE),
    ("divw $-1,40(mp),76(fp)",         ZERO_DIVIDE),
    ("divw 4(32(fp)),72(fp),76(fp)",   traps.NIL_DEREFERENCE),
    ("divl 88(fp),104(fp),112(fp)",    ZERO_DIVIDE),
    ("indw 52(fp),100(fp),$3",         traps.BOUNDS),
    ("indw 52(fp),100(fp),$-1",        traps.BOUNDS),
    ("indw 32(fp),100(fp),$0",         traps.BOUNDS),
    ("indw 52(fp),100(fp),$2",         1000),
    ("indc 48(fp),$3,76(fp)",          traps.BOUNDS),
    ("indc 32(fp),$0,76(fp)",          traps.NIL_DEREFERENCE),
    ("insc $65,$4,48(fp)",             traps.BOUNDS),
    ("insc $65,$1,32(fp)",             traps.BOUNDS),
    ("slicec $2,$4,48(fp)",            traps.BOUNDS),
    ("slicec $2,$1,48(fp)",            traps.BOUNDS),
    ("slicea $0,$4,52(fp)",            traps.BOUNDS),
    ("slicea $2,$1,52(fp)",            traps.BOUNDS),
    ("slicea $0,$1,32(fp)",            traps.NIL_DEREFERENCE),
    ("slicea $1,$1,32(fp)",            1000),
    ("headw 32(fp),76(fp)",            traps.NIL_DEREFERENCE),
    ("tail 32(fp),32(fp)",             traps.NIL_DEREFERENCE),
    ("send 76(fp),32(fp)",             traps.NIL_DEREFERENCE),
    ("recv 32(fp),76(fp)",             traps.NIL_DEREFERENCE),
    ("mframe 32(fp),$0,64(fp)\n mcall 64(fp),$0,32(fp)", traps.NOT_LOADED),
    ("lena 4(32(fp)),76(fp)",          traps.NIL_DEREFERENCE),
    ("raise 48(fp)",                   "abc"),
]
# fmt: on
BEHIND_NIL = "movw 4(8(mp)),36(fp)"
CALLS = {
    "here": "frame $6,64(fp)\n call 64(fp),boom",
    "through a handle": "mframe 44(fp),$0,64(fp)\n mcall 64(fp),$0,44(fp)",
    "deeper": "mframe 44(fp),$0,64(fp)\n frame $6,68(fp)\n call 68(fp),boom\n"
    " mcall 64(fp),$0,44(fp)",
}


def run(monkeypatch, engine, trap, boom="ret"):
    """Return what the program adds up, how many instructions it runs, and Python's deliveries."""
    delivered, deliver = [], exceptions.deliver

    def noted(*given):
        delivered.append(given[2])
        return deliver(*given)

    monkeypatch.setattr("llmbol_core.vm.interpreter.deliver", noted)
    code = LOOP.format(trap=trap, boom=boom)
    lines = [line for line in code.splitlines() if line.strip()]
    at = {line.split(":")[0].strip(): pc for pc, line in enumerate(lines) if ":" in line}
    links = 'link 1,0,"fn(): int","main"\nlink 6,{},"fn(n: int)","boom"'.format(at["boom"])
    module = assemble(code, "", links=links)
    signature = hex(module.exports[1].signature)
    more = TABLE.format(signature=signature, end=at["caught"] - 2, caught=at["caught"])
    module = assemble(code, more, links=links)
    limits = Limits(1 << 22)
    with InfernoVM(HOST_MODULES, limits=limits, engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        value = vm.execute("test", "main")
        count = vm.get_stats().instructions
    vm.heap.collect()
    assert vm.heap.objects == 0
    return value, count, len(delivered)


@pytest.mark.parametrize(("trap", "wanted"), CASES)
def test_traps_are_handled(trap, wanted, monkeypatch):
    value, count, _ = run(monkeypatch, "reference", trap)
    each = wanted if isinstance(wanted, int) else len(wanted)
    assert value == TIMES * each
    for engine in ("native", "compiled"):
        assert run(monkeypatch, engine, trap)[:2] == (value, count)


@pytest.mark.parametrize("how", CALLS)
@pytest.mark.parametrize("boom", [BEHIND_NIL, "raise 0(mp)"])
def test_functions_that_others_call_raise(how, boom, monkeypatch):
    value, count, _ = run(monkeypatch, "reference", CALLS[how], boom)
    for engine in ("native", "compiled"):
        assert run(monkeypatch, engine, CALLS[how], boom)[:2] == (value, count)


def test_python_does_not_handle_them(monkeypatch):
    for trap in ("movw 4(32(fp)),76(fp)", "indw 52(fp),100(fp),$9", CALLS["through a handle"]):
        for engine in ("native", "compiled"):
            assert run(monkeypatch, engine, trap, BEHIND_NIL)[2] < TIMES // 4


def test_names_fit_their_table():
    names = trap_names()
    assert len(names) == ROW * len(TRAPS)
    for row, name in enumerate(TRAPS):
        assert names[row * ROW + 1 :].startswith(name.encode())
