"""Whole numbers of any size: texts that Python itself refuses to read or to write."""

from __future__ import annotations

import pytest

from llmbol_core.errors import Trap
from tests.builtins.calling import Caller

SEVENS = "7" * 9000


@pytest.mark.parametrize("base", [10, 16])
def test_long_numbers_are_read_and_written(base):
    call = Caller("$IPints")
    value = call("IPint.strtoip", f"-{SEVENS}", base)
    assert call("IPint.iptostr", value, base) == f"-{SEVENS}"
    assert call("IPint.strtoip", f"{SEVENS}x", base) is None


def test_numbers_can_be_too_large():
    call = Caller("$IPints", limit=1 << 23)
    with pytest.raises(Trap, match="out of memory: heap"):
        call("IPint.strtoip", SEVENS * 50, 10)
    with pytest.raises(Trap, match="out of memory: heap"):
        call("IPint.strtoip", "7" * 30_000, 10)
