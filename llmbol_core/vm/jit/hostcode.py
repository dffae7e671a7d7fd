"""Functions of built-in modules for machine code: those that programs call again and again.

Such a function reads and writes the frame of its call itself. It returns 1 if it has done what was
asked for, ``YIELDS`` if other processes are to run next, or 0 if it has done nothing. Then the
engine calls Python's function, which defines the right result. ``HostFunction.native`` says
which functions are meant; a name consists of the module's name, a point, and the function's.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import RESULT
from llmbol_core.vm.jit.pacing import spend
from llmbol_core.vm.jit.runtime import EXTENT_ROWS, LINK_HOSTED, State
from llmbol_core.vm.jit.source import (
    Big,
    W,
    Word,
    host,
    inlined,
    invoke,
    native,
    state,
)
from llmbol_core.vm.jit.stacks import pop_frame
from llmbol_core.vm.jit.values import is_inside

_IN = ("math", "arrays", "elementary", "text", "printing", "control", "files")

HOSTED: dict[str, str] = {}
"""The names of functions in LLVM's language by the names that modules know."""
_CALL = 1 << 11
"""Bytes that could be copied in the time of a call that does little."""
TEXTS: list[str | Callable[[], str]] = []
"""Functions written in LLVM's language itself, or what returns their text."""


def hosted(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a function as the one that machine code calls in place of a built-in module's."""

    def register(python: Callable[..., Any]) -> Callable[..., Any]:
        HOSTED[name] = python.__name__
        return native(python)

    return register


def load_hosted() -> None:
    """Import the modules that register functions in ``HOSTED``."""
    for module in _IN:
        importlib.import_module(f"llmbol_core.vm.jit.builtins.{module}")


@inlined
def result_at(frame: Word, size: Word) -> Word:
    """Return where a call's result of so many bytes goes, or nil."""
    place = W[frame + RESULT]
    return place if place != NIL and is_inside(place, size) else NIL


@native
def call_hosted(link: Big, frame: Word) -> Word:
    """Call a link's function if there is machine code for it; 0 if Python must call it."""
    function = host[link + 8 * LINK_HOSTED]
    if function == 0 or state[State.EXTENT_COUNT] > EXTENT_ROWS:
        return 0
    if not spend(_CALL):
        return 0
    became = invoke(function, frame)
    return became if became and pop_frame(frame) else 0
