"""The runtime's functions in LLVM's language: those that are wanted, and what they call."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable

from llmbol_core.vm.jit.runtime import OFTEN_CALLED, UPKEEP, VALUE_READ, State
from llmbol_core.vm.jit.source import EXTERNAL, FUNCTIONS
from llmbol_core.vm.jit.translator import Translator


@functools.cache
def _translated(name: str) -> tuple[str, frozenset[str]]:
    """Return the text of a function, and the names of those that it calls."""
    translator = Translator(FUNCTIONS[name])
    return translator.text(), frozenset(translator.called)


def texts(names: Iterable[str], elsewhere: Container[str] = ()) -> str:
    """Return the text of functions and of all that they call, except for those ``elsewhere``.

    Those are called through the table of ``SHARED_NAMES``.
    """
    found: dict[str, str] = {}
    work = sorted(names)
    while work:
        name = work.pop()
        if name not in found:
            found[name], called = (stub(name), ()) if name in elsewhere else _translated(name)
            work += sorted(called)
    return "\n".join(found[name] for name in sorted(found))


SHARED_NAMES = (*OFTEN_CALLED, *UPKEEP, VALUE_READ)
"""The functions that are shared, in the order of their table; ``dispatch.WAYS`` follow."""


def stub(name: str) -> str:
    """Return the text of a function that calls the one of its name that is in the table."""
    function = FUNCTIONS.get(name) or EXTERNAL[name]
    kinds = function.parameters.values()
    given = "".join(f", {kind} %a{i}" for i, kind in enumerate(kinds))
    is_void = function.result == "void"
    return f"""define internal {function.result} @{name}(ptr %m, ptr %s{given}) alwaysinline {{
 %p = getelementptr i64, ptr %s, i64 {State.SHARED:d}
 %table = load ptr, ptr %p
 %q = getelementptr ptr, ptr %table, i64 {SHARED_NAMES.index(name)}
 %f = load ptr, ptr %q
 {"" if is_void else "%r = "}call {function.result} %f(ptr %m, ptr %s{given})
 ret {function.result}{"" if is_void else " %r"}
}}
"""
