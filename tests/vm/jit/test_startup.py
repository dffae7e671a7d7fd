"""When programs get the native interpreter."""

from __future__ import annotations

import pytest

from llmbol_core.vm.jit.startup import may_run_long
from tests.vm.programs import assemble


@pytest.mark.parametrize(
    ("code", "goes_back"),
    [
        ("movw $1,0(16(fp))\n ret", False),
        ("jmp end\nmovw $1,0(16(fp))\nend: ret", False),
        ("again: addw $1,64(fp)\n bltw 64(fp),$5,again\n ret", True),
        ("again: jmp again", True),
        ("again: frame $1,64(fp)\n call 64(fp),again\n ret", True),
    ],
)
def test_programs_that_go_back_get_it_before_they_run(code, goes_back):
    assert may_run_long(assemble(code)) == goes_back
