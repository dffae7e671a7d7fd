"""The exact arithmetic of reals against the processor's, and what programs see of it."""

from __future__ import annotations

import ctypes
import math
import operator
import random
import struct
from types import SimpleNamespace

import pytest

from llmbol_core.errors import Trap
from llmbol_core.native.rounding import _environment, call_rounding
from llmbol_core.vm.ieee import (
    AT_START,
    CAREFUL,
    EXCEPTIONS,
    HAPPENED,
    INEXACT,
    OVERFLOW,
    UNDERFLOW,
    ZERO_DIVIDE,
    Arithmetic,
)

MODES = range(4)
NEAREST, DOWN, UP, TO_ZERO = MODES
needs_the_processor = pytest.mark.skipif(
    _environment() is None, reason="the C library has no rounding to set"
)


def process(word):
    return SimpleNamespace(floating=word | CAREFUL)


def exact(mode, name, *values):
    """Return what the exact arithmetic makes of values, and the exceptions."""
    arithmetic, running = Arithmetic(), process(mode << 8)
    assert arithmetic.begin(running)
    found = getattr(arithmetic, name)(*values)
    arithmetic.end(running, 0)
    return bits(found), running.floating >> HAPPENED & EXCEPTIONS


def bits(value):
    return "nan" if value != value else struct.pack("=d", value)


def of_processor(mode, function, *values):
    found, raised = call_rounding(mode, function, *values)
    return bits(found), raised


def divided(x, y):
    """Divide as C does."""
    try:
        return x / y
    except ZeroDivisionError:
        return math.nan if x == 0 or x != x else math.copysign(math.inf, x) * math.copysign(1, y)


def to_single(x):
    return ctypes.c_float(x).value


def numbers(rng, count):
    """Yield reals of all kinds: near each other, at the ends of the range, simple ones."""
    ends = [0.0, 1.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, math.inf, math.nan]
    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 0:
            yield rng.choice(ends) * rng.choice([1, -1])
        elif kind == 1:
            yield float(rng.randrange(-9, 10)) / rng.choice([1, 2, 3, 8])
        elif kind == 2:
            yield struct.unpack("=d", rng.randbytes(8))[0]
        elif kind == 3:
            yield math.ldexp(rng.random() + 0.5, rng.randrange(-1080, -1010))
        else:
            yield rng.uniform(-2, 2)


def quiet(value):
    """Return a NaN of the usual kind for one that signals."""
    return math.nan if value != value else value


OPERATIONS = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": divided,
}  # fmt: skip


@needs_the_processor
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_the_processors(name, mode):
    rng = random.Random(f"{name} {mode}")
    for x, y in zip(numbers(rng, 1500), numbers(rng, 1500), strict=True):
        x, y = quiet(x), quiet(y)
        if name == "div" and y == 0:
            found, raised = exact(mode, name, x, y)
            assert found == bits(divided(x, y))
            assert raised == (ZERO_DIVIDE if x and math.isfinite(x) else x == 0)
            continue
        assert exact(mode, name, x, y) == of_processor(mode, OPERATIONS[name], x, y), (x, y)


@needs_the_processor
@pytest.mark.parametrize("mode", MODES)
def test_roots_and_floats_are_the_processors(mode):
    rng = random.Random(mode)
    for x in map(quiet, numbers(rng, 1500)):
        if x >= 0:
            assert exact(mode, "sqrt", x) == of_processor(mode, math.sqrt, x), x
        assert exact(mode, "single", x) == of_processor(mode, to_single, x), x


@needs_the_processor
@pytest.mark.parametrize("mode", MODES)
def test_integers_become_reals_as_on_the_processor(mode):
    # A product of halves that reals hold is rounded as their product is.
    rng = random.Random(mode)
    for _ in range(500):
        x, y = rng.randrange(-(1 << 32), 1 << 32), rng.randrange(1 << 31)
        assert exact(mode, "real", x * y) == of_processor(mode, operator.mul, float(x), float(y))


@pytest.mark.parametrize(
    ("mode", "text", "found"),
    [
        (NEAREST, "0.1", 0x3FB999999999999A), (DOWN, "0.1", 0x3FB9999999999999),
        (UP, "0.1", 0x3FB999999999999A), (UP, "-0.3", 0xBFD3333333333334),
        (DOWN, "1e-320", 0x7E8), (UP, "1e-320", 0x7E9), (UP, "1e-9999999", 1),
        (TO_ZERO, "1e-9999999", 0), (DOWN, "1e400", 0x7FF0000000000000),
        (UP, "1" + "0" * 1000 + "e-1000", 0x3FF0000000000000),
        (UP, "1" + "0" * 1000 + "1e-1001", 0x3FF0000000000001),
        (DOWN, ".9" + "9" * 2000, 0x3FEFFFFFFFFFFFFF), (UP, "1e-0", 0x3FF0000000000000),
        (UP, "0.1e" + "0" * 5000 + "1", 0x3FF0000000000000), (UP, "-0e5", 1 << 63),
    ],
)  # fmt: skip
def test_text_becomes_a_real_as_on_inferno(mode, text, found):
    assert exact(mode, "decimal", text)[0] == struct.pack("=Q", found)


@pytest.mark.parametrize(
    ("mode", "x", "whole"),
    [
        (NEAREST, 2.5, 2.0), (NEAREST, 3.5, 4.0), (DOWN, -2.5, -3.0), (UP, -2.5, -2.0),
        (TO_ZERO, 2.9, 2.0), (UP, -0.5, -0.0), (DOWN, 0.5, 0.0),
    ],
)  # fmt: skip
def test_rint_follows_the_direction(mode, x, whole):
    assert exact(mode, "rint", x) == (bits(whole), INEXACT)


def test_what_is_wanted_is_raised_and_nothing_noted():
    arithmetic, running = Arithmetic(), process(ZERO_DIVIDE | UNDERFLOW)
    arithmetic.begin(running)
    arithmetic.div(1.0, 0.0)
    with pytest.raises(Trap, match=r"^sys: fp: exception status=0004 pc=0x1f$"):
        arithmetic.end(running, 31)
    assert running.floating == CAREFUL | ZERO_DIVIDE | UNDERFLOW


def test_a_tiny_result_is_raised_even_if_it_is_exact():
    for word, raised in ((0, 0), (UNDERFLOW, UNDERFLOW)):
        arithmetic, running = Arithmetic(), process(word)
        arithmetic.begin(running)
        arithmetic.mul(2.2250738585072014e-308, 0.5)
        if raised:
            with pytest.raises(Trap, match="status=0010"):
                arithmetic.end(running, 0)
        else:
            arithmetic.end(running, 0)
            assert running.floating == CAREFUL


def test_a_process_is_not_careful_at_first():
    assert not Arithmetic().begin(SimpleNamespace(floating=AT_START))


@needs_the_processor
def test_the_rounding_of_the_thread_is_put_back():
    def fail():
        raise ValueError("no result")

    with pytest.raises(ValueError, match="no result"):
        call_rounding(UP, fail)
    third = 1.0
    assert third / 3.0 == float.fromhex("0x1.5555555555555p-2")
    assert call_rounding(UP, operator.truediv, third, 3.0) == (
        float.fromhex("0x1.5555555555556p-2"),
        INEXACT,
    )
    assert call_rounding(UP, operator.mul, 1e300, 1e300)[1] == OVERFLOW | INEXACT
