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


# What Inferno's library says of numbers that there are no results for.
FAULTS = [
    ("div", (5, 0), "mpdiv: divide by zero"),
    ("mod", (5, 0), "mpdiv: divide by zero"),
    ("expmod", (3, -1, 7), "mpexp: negative exponent"),
    ("expmod", (3, 4, 0), "mpdiv: divide by zero"),
    ("invert", (2, 4), "mpinvert: no inverse"),
    ("invert", (-2, 5), "mpinvert: no inverse"),
]


@pytest.mark.parametrize(("name", "numbers", "why"), FAULTS)
def test_faults_have_the_librarys_texts(name, numbers, why):
    call = Caller("$IPints")
    with pytest.raises(Trap, match=why):
        call(f"IPint.{name}", *(call("IPint.inttoip", n) for n in numbers))


def test_powers_modulo_negative_numbers_and_powers_of_nothing():
    call = Caller("$IPints")
    for numbers, power in (((3, 4, -7), 4), ((3, 0, 0), 1)):
        value = call("IPint.expmod", *(call("IPint.inttoip", n) for n in numbers))
        assert call("IPint.iptoint", value) == power
