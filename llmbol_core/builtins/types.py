"""The Limbo types of functions in object files, which name types only by their signatures."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace

from llmbol_core.builtins import HOST_MODULES, built_in
from llmbol_core.vm.calling import INIT_SIGNATURE
from llmbol_core.vm.layout import Function

_INIT = "fn(nil: ref Draw->Context, argv: list of string)"


def type_of(module: str | None, function: str, signature: int) -> str | None:
    """Return the Limbo type of a function with a signature, or None if that is not known.

    Of a built-in module it is what was declared. Elsewhere it is what some function of $Sys or
    $Math with this signature has, without the names of its arguments.

    >>> type_of("$Sys", "sleep", 0xE67BF126), type_of(None, "double", 0xE67BF126)
    ('fn(period: int): int', 'fn(int): int')
    """
    if module is not None and module in HOST_MODULES:
        known = {name: (number, kind) for name, number, kind in _functions([module])}
        number, kind = known.get(function, (0, None))
        return str(kind) if kind is not None and number == signature else None
    return _types_by_signature().get(signature)


@functools.cache
def _types_by_signature() -> dict[int, str]:
    found = {number: _unnamed(kind) for _, number, kind in _functions(["$Math", "$Sys"])}
    return found | {INIT_SIGNATURE: _INIT}


def _functions(modules: Iterable[str]) -> Iterator[tuple[str, int, Function]]:
    """Yield name, signature and type of the functions of built-in modules."""
    for module in modules:
        binding = built_in(module)
        for function in HOST_MODULES[module].functions:
            yield function.name, function.signature, binding.declared(function.name)


def _unnamed(kind: Function) -> str:
    return str(replace(kind, arguments=tuple(a._replace(name="") for a in kind.arguments)))
