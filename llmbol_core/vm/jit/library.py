"""The runtime's functions in LLVM's language: those that are wanted, and what they call."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from llmbol_core.vm.jit.runtime import State
from llmbol_core.vm.jit.source import FUNCTIONS
from llmbol_core.vm.jit.translator import Translator


@functools.cache
def _translated(name: str) -> tuple[str, frozenset[str]]:
    """Return the text of a function, and the names of those that it calls."""
    translator = Translator(FUNCTIONS[name])
    return translator.text(), frozenset(translator.called)


def texts(names: Iterable[str], is_region: bool = False) -> str:
    """Return the text of functions and of all that they call; regions call those that are shared.

    What they call are the native interpreter's functions, through a table.
    """
    found: dict[str, str] = {}
    work = sorted(names)
    while work:
        name = work.pop()
        if name not in found:
            is_elsewhere = is_region and FUNCTIONS[name].is_shared
            found[name], called = (_stub(name), ()) if is_elsewhere else _translated(name)
            work += sorted(called)
    return "\n".join(found[name] for name in sorted(found))


def shared_names() -> list[str]:
    """Return the names of the functions that are shared, in the order of their table."""
    return sorted(name for name, function in FUNCTIONS.items() if function.is_shared)


def _stub(name: str) -> str:
    function = FUNCTIONS[name]
    kinds = function.parameters.values()
    given = "".join(f", {kind} %a{i}" for i, kind in enumerate(kinds))
    return f"""define internal {function.result} @{name}(ptr %m, ptr %s{given}) alwaysinline {{
 %p = getelementptr i64, ptr %s, i64 {State.SHARED:d}
 %table = load ptr, ptr %p
 %q = getelementptr ptr, ptr %table, i64 {shared_names().index(name)}
 %f = load ptr, ptr %q
 %r = call {function.result} %f(ptr %m, ptr %s{given})
 ret {function.result} %r
}}
"""
