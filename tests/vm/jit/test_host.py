"""Functions of the host: native code calls some of $Math itself, and has the others called."""

from __future__ import annotations

import math
import random
import struct

import pytest

from llmbol_core.builtins import HOST_MODULES
from llmbol_core.errors import Trap
from llmbol_core.vm.host import RESULT
from llmbol_core.vm.jit.runtime import REAL_FUNCTIONS
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from tests.vm.conftest import ENGINES
from tests.vm.programs import assemble, host_module

SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.5,
    -2.5,
    710.0,
    -750.0,
    1e300,
    math.inf,
    -math.inf,
    math.nan,
]
CALL = """
    load 20(mp),$0,40(fp)
    mframe 40(fp),$0,44(fp)
    movf 32(fp),32(44(fp))
    lea 0(16(fp)),16(44(fp))
    mcall 44(fp),$0,40(fp)
    ret
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


def caller(module, function, kind):
    """Return a module whose main passes its real to a function of a built-in module."""
    more = (
        f'string @mp+20,"{module}"\nldts @ldt,1\nword @ldt+0,1\next @ldt+4,"{kind}","{function}"\n'
    )
    links = 'link 8,0,"fn(x: real): real","main"'
    return assemble(CALL, "desc $8,56,(40)\n" + more, links=links)


@pytest.mark.parametrize("name", [*REAL_FUNCTIONS, "sqrt"])
def test_functions_of_reals_are_the_same_everywhere(name):
    chance = random.Random(name)
    values = [*SPECIAL, *(chance.uniform(-4, 4) for _ in range(50))]
    values += [chance.gauss(0, 1) * 10.0 ** chance.randrange(-12, 12) for _ in range(50)]
    module, found = caller("$Math", name, "fn(x: real): real"), []
    for engine in ("reference", "native"):
        with InfernoVM(HOST_MODULES, engine=ENGINES[engine]) as vm:
            vm.load_module("test", module)
            found.append([struct.pack("=d", vm.execute("test", "main", [x])) for x in values])
    assert found[0] == found[1]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_function_of_the_host_can_trap_and_be_called_again(engine):
    def work(call):
        x = call.heap.real(call.frame + 32)
        if x < 0:
            raise Trap("less than nothing")
        call.heap.set_real(call.heap.pointer(call.frame + RESULT), 2 * x)

    module = caller("$Host", "work", "fn(n: int): int")
    with InfernoVM(host_module(work=work), limits=Limits(1 << 20), engine=ENGINES[engine]) as vm:
        vm.load_module("test", module)
        assert vm.execute("test", "main", [4.5]) == 9.0
        with pytest.raises(Trap) as caught:
            vm.execute("test", "main", [-1.0])
        assert caught.value.name == "less than nothing"
        assert caught.value.pc == 4
        assert vm.execute("test", "main", [0.25]) == 0.5
    vm.heap.collect()
    assert vm.heap.objects == 0
