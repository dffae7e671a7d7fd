"""The modules of one machine in native form, each made when it is first wanted.

There are two of a module: as most processes run it, and as those do that are careful of how reals
are rounded (``ieee.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llmbol_core.vm.jit import careful

if TYPE_CHECKING:
    from llmbol_core.vm.jit.guarding import KnownLinks
    from llmbol_core.vm.jit.modulenative import Native
    from llmbol_core.vm.loader import LoadedModule


class Natives:
    """What native code knows of modules; ``handlers`` are those of the native interpreter.

    ``modules`` get an entry for each by where native code has their instructions.
    """

    def __init__(
        self,
        threshold: int,
        plain_type: Callable[[int], int],
        constant: Callable[[int], int],
        guarded: tuple[KnownLinks, KnownLinks],
        modules: dict[int, LoadedModule],
    ) -> None:
        self.usual: dict[LoadedModule, Native] = {}
        self.careful: dict[LoadedModule, Native] = {}
        self.handlers: Mapping[str, int] = {}
        self._unloaded: list[LoadedModule] = []
        self._threshold, self._modules = threshold, modules
        self._given, self._guarded = (plain_type, constant), guarded

    def all(self, is_careful: bool) -> dict[LoadedModule, Native]:
        """Return those of processes that are careful, or of all others."""
        return self.careful if is_careful else self.usual

    def of(self, loaded: LoadedModule, is_careful: bool) -> Native:
        """Return a module in native form, as far as it has been made."""
        natives = self.all(is_careful)
        native = natives.get(loaded)
        if native is None:
            from llmbol_core.vm.jit.decoded import DecodedCode
            from llmbol_core.vm.jit.modulenative import Native

            handlers, known = self._handlers(is_careful), self._guarded[is_careful]
            decoded = DecodedCode(loaded, handlers, self._threshold, *self._given, known)
            native = natives[loaded] = Native(loaded, decoded, self._given[0], is_careful)
            self._modules[native.decoded.address] = loaded
        return native

    def renew(self) -> None:
        """Use handlers that have come."""
        for is_careful in (False, True):
            for native in self.all(is_careful).values():
                native.decoded.renew(self._handlers(is_careful))

    def _handlers(self, is_careful: bool) -> Mapping[str, int]:
        return careful.handlers(self.handlers) if is_careful else self.handlers

    def unload(self, module: LoadedModule) -> None:
        """Drop what there is of a module, as soon as native code is not running."""
        self._unloaded.append(module)

    def forget_unloaded(self) -> None:
        """Drop what was to be dropped: native code is not running."""
        while self._unloaded:
            gone = self._unloaded.pop()
            for natives in (self.usual, self.careful):
                native = natives.pop(gone, None)
                if native is not None:
                    del self._modules[native.decoded.address]
