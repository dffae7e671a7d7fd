"""Small programs in assembly that tests run."""

from __future__ import annotations

from llmbol_core.vm.assembly import parse_assembly
from llmbol_core.vm.host import Functions, HostFunction, HostModule
from llmbol_core.vm.limbo import signature
from llmbol_core.vm.limits import Limits
from llmbol_core.vm.machine import InfernoVM
from llmbol_core.vm.module import TypeDescriptor

TYPES = """
    desc $0,256,(0,4,8,12,16,20,24,28)
    desc $1,128,(32,36,40,44,48,52)
    desc $2,8,(0)
    desc $3,4,""
    desc $4,8,""
    desc $5,4,(0)
    desc $6,40,""
    desc $7,16,(0,4)
"""
"""Module data: references up to 28, numbers behind. Main's frame: references up to 52.

Then a record of a reference and a word, a word, a big, a reference, a frame with two words from 32,
and one of two references and a big.
"""


def assemble(code, more="", links='link 1,0,"fn(): int","main"', result="int", name="Test"):
    """Return a module whose first instruction begins ``main``, which returns a number."""
    links = links.replace("fn(): int", f"fn(): {result}")
    variables = f"var @mp,256\nmodule {name}\n{links}\n"
    lists = "" if "ldts" in more or "imports" in more else "ldts @ldt,0\n"
    return parse_assembly(f"{code}\n{TYPES}\n{variables}{lists}{more}\n", name)


def run(code, more="", result="int", limits=None, host=None, verify=True, **options):
    """Run such a module and return what ``main`` returns; nothing may be left in the heap."""
    module = assemble(code, more, result=result, **options)
    with InfernoVM(host or {}, limits=limits or Limits(1 << 20), verify=verify) as vm:
        vm.load_module("test", module)
        value = vm.execute("test", "main")
    vm.heap.collect()
    assert vm.heap.objects == 0
    assert vm.heap.reserved == 0
    return value


def host_module(name="$Host", **functions):
    """Return a module of functions fn(n: int): int, each given the call, as a machine wants it."""
    frame = TypeDescriptor(-1, 40)
    word = signature("fn(n: int): int")
    made = Functions(
        sorted(functions), lambda n: HostFunction(n, word, frame, functions[n], module=name)
    )
    return {name: HostModule(name, made)}
