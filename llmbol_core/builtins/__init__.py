"""The built-in modules of a Dis program: $Sys, $Math, $Ml, $Loader, $Keyring, $Crypt and $IPints.

Each is a file of its own, imported when a program first loads the module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from llmbol_core.errors import LinkError, nearest

if TYPE_CHECKING:
    from llmbol_core.builtins.binding import Binding
    from llmbol_core.vm.host import HostModule

# fmt: off
# name        where its binding lives
_HOMES = {
    "$Sys":     "llmbol_core.builtins.sys",
    "$Math":    "llmbol_core.builtins.math",
    "$Ml":      "llmbol_core.builtins.ml",
    "$Keyring": "llmbol_core.builtins.security",
    "$Crypt":   "llmbol_core.builtins.security",
    "$IPints":  "llmbol_core.builtins.ipints",
    "$Loader":  "llmbol_core.builtins.loader",
}
# fmt: on


def built_in(name: str) -> Binding:
    """Return the binding of a built-in module by the name that programs load it by.

    Raises KeyError if there is none.
    """
    found: Binding = importlib.import_module(_HOMES[name]).binding
    return found


def signature_of(module: str, function: str) -> int:
    """Return the link signature of a built-in module's function. Raises LinkError."""
    if module not in _HOMES:
        raise LinkError(module, f"no such built-in module{nearest(module, _HOMES)}")
    functions = HOST_MODULES[module].functions
    found = functions.find(function)
    if found is None:
        raise LinkError(module, f"no function {function!r}{nearest(function, functions.names)}")
    return found.signature


class _HostModules(Mapping[str, "HostModule"]):
    """The host modules by name, each made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, HostModule] = {}

    def __getitem__(self, name: str) -> HostModule:
        if name not in self._made:
            self._made[name] = built_in(name).module._replace(name=name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


HOST_MODULES: Mapping[str, HostModule] = _HostModules()
"""What a machine may be given as its built-in modules."""
