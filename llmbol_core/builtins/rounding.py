"""The functions of $Math for processes that are careful of how their reals are rounded.

A square root, an integer, and a product with a power of two are rounded as IEEE 754 says; so means
Inferno's library, but as compiled for its emulator it rounds square roots to nearest. All other
functions do the operations of Inferno's library in the same order, each rounded in the direction
that the process has set, so that their results are Inferno's also then; where a function knows a
result without computing it, what has happened is told from the result.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

from llmbol_core.native.rounding import call_rounding
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.ieee import (
    CAREFUL,
    INEXACT,
    INVALID,
    OVERFLOW,
    ROUNDING,
    ZERO_DIVIDE,
    Arithmetic,
)

EXACT = ("copysign", "fabs", "fmax", "fmin", "fmod", "iamax", "remainder", "sort")
"""Functions whose results are never rounded."""
_WHOLE = ("ceil", "floor")
_POLES = ("atanh", "log", "log10", "log1p", "pow", "y0", "y1", "yn")
"""Functions that divide by zero where they are infinite, but for too large powers."""
_OWN: dict[str, Callable[..., Callable[..., float]]] = {
    "sqrt": lambda arithmetic: arithmetic.sqrt,
    "rint": lambda arithmetic: arithmetic.rint,
    "scalbn": lambda arithmetic: arithmetic.scaled,
    "realbits32": lambda arithmetic: arithmetic.single,
}


def is_careful(call: HostCall) -> bool:
    """Whether a call's process is careful of how its reals are rounded."""
    return bool(call.process.floating & CAREFUL)


def function_of_reals(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of $Math as it is called, for all processes."""

    def called(call: HostCall, *values: Any) -> Any:
        return carefully(call, name, function, *values) if is_careful(call) else function(*values)

    return called


def carefully(
    call: HostCall, name: str, function: Callable[..., Any], *values: Any, is_long: bool = False
) -> Any:
    """Return the result of a function for a process that is careful; raises Trap.

    One that takes long must not touch the machine.
    """
    arithmetic, process = call.machine.engine.arithmetic, call.process
    arithmetic.begin(process)
    if name in _OWN:
        result = _OWN[name](arithmetic)(*values)
    elif name in EXACT:
        result = function(*values)
        _tell(arithmetic, name, values, result)
    else:
        mode = (process.floating & ROUNDING) >> 8
        work = functools.partial(call_rounding, mode, function, *values)
        result, raised = call.apart(work) if is_long else work()
        # Whether Python's comparisons with NaN are invalid depends on how often they have run.
        arithmetic.note(0 if _is_undefined(values) else raised)
        result = _tell(arithmetic, name, values, result)
    arithmetic.end(process, process.pc)
    return result


def _tell(arithmetic: Arithmetic, name: str, values: tuple[Any, ...], result: Any) -> Any:
    """Take note of what the result says has happened; return the result as it is rounded."""
    known = isinstance(result, float) and all(isinstance(value, float | int) for value in values)
    if not known or _is_undefined(values):
        return result
    if math.isnan(result):
        arithmetic.note(INVALID)
    elif math.isinf(result) and all(map(math.isfinite, values)):
        if name in _POLES and not (name == "pow" and values[0]):
            arithmetic.note(ZERO_DIVIDE)
        else:
            arithmetic.note(OVERFLOW | INEXACT)
            return arithmetic.overflowed(result)
    elif name in _WHOLE and result != values[0]:
        arithmetic.note(INEXACT)
    return result


def _is_undefined(values: Iterable[Any]) -> bool:
    """Whether one of some arguments is no number; then so is the result, and nothing happens."""
    return any(isinstance(value, float) and math.isnan(value) for value in values)
