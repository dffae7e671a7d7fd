"""The engines by name: what runs the instructions of a machine's processes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbol_core.errors import UsageError, nearest
from llmbol_core.vm.interpreter import Interpreter

if TYPE_CHECKING:
    from llmbol_core.vm.channels import Channels
    from llmbol_core.vm.jit.kept import CompileStats
    from llmbol_core.vm.machine import InfernoVM

ENGINES = {
    "auto": "machine code for what turns out to be hot",
    "interpreter": "no machine code",
    "jit": "machine code for whatever runs",
}


def engine(name: str) -> Callable[[InfernoVM, Channels], Interpreter]:
    """Return what makes the engine of a name, for ``InfernoVM(engine=...)``; raises UsageError."""
    if name not in ENGINES:
        hint = nearest(name, ENGINES) or f": expected one of {', '.join(ENGINES)}"
        raise UsageError(f"unknown engine {name!r}{hint}")
    if name == "interpreter":
        return Interpreter
    from llmbol_core.vm.jit.engine import JitEngine

    if name == "auto":
        return JitEngine
    return functools.partial(JitEngine, threshold=0, at_once=True)


def compiled_by(engine: Interpreter) -> CompileStats | None:
    """Return what an engine has compiled, if it compiles and had reason to."""
    stats: CompileStats | None = getattr(engine, "compiled", None)
    return stats if stats is not None and stats.units else None
