"""Calling functions under another rounding of reals, and what exceptions that has had.

The processor's settings belong to a thread, and are put back before a call returns. Where the C
library has no functions for them, everything is rounded to nearest and nothing has happened.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

_T = TypeVar("_T")
NEAREST, DOWN, UP, TO_ZERO = range(4)
INVALID, ZERO_DIVIDE, OVERFLOW, UNDERFLOW, INEXACT = (1 << n for n in range(5))


class _Environment(NamedTuple):
    """C's functions; its numbers for ways of rounding, and for the exceptions in our order."""

    library: Any
    modes: tuple[int, ...]
    exceptions: tuple[int, ...]


_FUNCTIONS = "feclearexcept", "fesetround", "fetestexcept"
_X86 = (0, 0x400, 0x800, 0xC00), (0x01, 0x04, 0x08, 0x10, 0x20)
_ARM = (0, 0x800000, 0x400000, 0xC00000), (0x01, 0x02, 0x04, 0x08, 0x10)
_NUMBERS = {"x86_64": _X86, "AMD64": _X86, "i686": _X86, "aarch64": _ARM, "arm64": _ARM}


@functools.cache
def _environment() -> _Environment | None:
    numbers = _NUMBERS.get(platform.machine())
    for name in (None, "libm.so.6"):
        try:
            library = ctypes.PyDLL(name)
        except (OSError, TypeError):
            continue
        if numbers and all(hasattr(library, function) for function in _FUNCTIONS):
            return _Environment(library, *numbers)
    return None


def call_rounding(mode: int, function: Callable[..., _T], *arguments: Any) -> tuple[_T, int]:
    """Return a function's result, its reals rounded in a way, and which exceptions it has had."""
    found = _environment()
    if found is None:
        return function(*arguments), 0
    library, modes, exceptions = found
    every = sum(exceptions)
    library.feclearexcept(every)
    library.fesetround(modes[mode])
    try:
        result = function(*arguments)
        raised = library.fetestexcept(every)
    finally:
        library.fesetround(modes[NEAREST])
    return result, sum(1 << n for n, bit in enumerate(exceptions) if raised & bit)
