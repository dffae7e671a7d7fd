"""What is compiled together, and what is taken for constant."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

from llmbol_core import vm
from llmbol_core.vm import jit
from llmbol_core.vm.jit import units
from llmbol_core.vm.jit.identity import READ
from llmbol_core.vm.jit.modulecode import code_of, heap_type
from tests.vm.jit.test_engine import run
from tests.vm.programs import assemble


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, code_cache):
    monkeypatch.setenv("LLMBOL_CACHE", code_cache)


WAITING = """
    movw $0,64(fp)
    frame $9,80(fp)
    movw $1,32(80(fp))
    lea 72(fp),16(80(fp))
    call 80(fp),outer
again: frame $8,80(fp)
    movw 72(fp),32(80(fp))
    lea 68(fp),16(80(fp))
    call 80(fp),inner
    xorw 68(fp),72(fp)
    addw $1,64(fp)
    bltw 64(fp),$400,again
    movw 72(fp),0(16(fp))
    ret
outer: frame $8,36(fp)
    movw 32(fp),32(36(fp))
    newcm $4,48(fp)
    movw $0,40(fp)
fill: addw $1,40(fp)
    bltw 40(fp),$900,fill
    lea 44(fp),16(36(fp))
    call 36(fp),inner
    frame $6,36(fp)
    movw 44(fp),32(36(fp))
    lea 44(fp),16(36(fp))
    call 36(fp),last
    movw 44(fp),0(16(fp))
    ret
inner: movw 32(fp),72(fp)
    frame $6,36(fp)
    movw $7,32(36(fp))
    newcm $4,104(fp)
    lea 40(fp),16(36(fp))
    call 36(fp),last
    addw 72(fp),40(fp),0(16(fp))
    ret
last: addw $1,32(fp),36(fp)
    movw 36(fp),0(16(fp))
    ret
"""


def test_loops_run_while_a_frame_waits_for_its_call(monkeypatch):
    monkeypatch.setattr(units, "_MOST_IN_UNIT", 30)
    module = assemble(WAITING, "desc $8,120,(104)\ndesc $9,56,(48)")
    assert run(module)[0] == run(module, "interpreter")[0]


BETWEEN = """
    movw $0,64(fp)
    movw $7,68(fp)
again: addw 68(fp),64(fp),72(fp)
    divw 68(fp),72(fp),76(fp)
    addw $1,64(fp)
    bltw 64(fp),$400,again
    addw 76(fp),64(fp),0(16(fp))
    ret
"""


def test_code_that_leaves_keeps_what_is_read_from_there_on():
    module = assemble(BETWEEN)
    regions = units.Regions(code_of(module))
    region = regions.at(0, heap_type(module.types[1]))
    unit = regions.unit(region)
    assert unit is not None
    assert [sorted(region.live[pc] - {16}) for pc in (0, 2, 3, 4, 6)] == [
        [], [64, 68], [64, 68, 72], [64, 68, 76], [64, 76]
    ]  # fmt: skip
    left = unit.text().split("x3:")[1].split("br label")[0]
    assert [at for at in (64, 68, 72, 76) if f"store i32 0, ptr %s{at}\n" in left] == [76]


def test_constants_make_nan_as_the_processor_does():
    code = "movf 128(mp),64(fp)\n divf 64(fp),64(fp),0(16(fp))\n ret"
    module = assemble(code, "real @mp+128,0.0", result="real")
    signs = [math.copysign(1, run(module, name)[0]) for name in ("jit", "interpreter")]
    assert signs[0] == signs[1]


def test_kept_code_is_for_these_constants_only():
    # Whatever a module of the engine takes its constants from is part of the key.
    folder = Path(jit.__file__).parent
    assert {name for path in folder.rglob("*.py") for name in constants_of(path)} <= set(READ)


def constants_of(path):
    """Yield the modules of the machine beside the engine from which a file imports constants."""
    for node in ast.parse(path.read_text()).body:
        inside = getattr(node, "module", None) or ""
        if not isinstance(node, ast.ImportFrom) or not inside.startswith(f"{vm.__name__}"):
            continue
        if inside == vm.__name__:
            yield from (a.name for a in node.names if a.name == "traps")
        elif not inside.startswith(jit.__name__) and any(a.name.isupper() for a in node.names):
            yield inside.removeprefix(f"{vm.__name__}.").replace(".", "/")


MANY_POINTERS = """
    movw $0,68(fp)
again: frame $8,64(fp)
    movw 68(fp),32(64(fp))
    lea 68(fp),16(64(fp))
    call 64(fp),more
    bltw 68(fp),$20,again
    movw 68(fp),0(16(fp))
    ret
more: addw $1,32(fp),0(16(fp))
    ret
"""


@pytest.mark.parametrize(("more", "functions"), [(0, 2), (1 << 9, 1)])
def test_functions_are_compiled_unless_their_code_names_very_many_pointers(more, functions):
    kind = f'desc $8,{64 + 32 * more},"007f{"ff" * more}"'
    value, stats, _ = run(assemble(MANY_POINTERS, kind))
    assert value == 20
    assert stats.functions == functions
