"""Compiling what is hot: functions of modules, together with those they call."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.jit.decoded import DecodedCode
from llmbol_core.vm.jit.units import CompileStats, Part, Regions, code_of, load_unit

if TYPE_CHECKING:
    from llmbol_core.vm.heaptypes import HeapType
    from llmbol_core.vm.loader import LoadedModule

__all__ = ["CompileStats", "Compiler", "Native"]


class Native:
    """What one machine has of a module in native form: decoded instructions, compiled regions."""

    def __init__(self, loaded: LoadedModule, handlers: Mapping[str, int], threshold: int) -> None:
        self.decoded = DecodedCode(loaded, handlers, threshold)
        self.code = code_of(loaded.module)
        self.regions = Regions(self.code)
        self.libraries: list[Any] = []
        self._types = array("I", loaded.types or [0])
        self._functions = array("Q", bytes(8 * max(1, len(self.code.instructions))))

    @property
    def tables(self) -> tuple[int, int, int]:
        """Where native code finds the heap's numbers of types, machine code, and instructions."""
        types, functions = self._types.buffer_info()[0], self._functions.buffer_info()[0]
        return types, functions, self.decoded.address

    def install(self, part: Part, addresses: Mapping[str, int]) -> None:
        """Let machine code run a function, given where its functions are."""
        function = addresses[f"f{part.start}"]
        self._functions[part.start] = function
        entry = addresses[f"o{part.start}"] if part.has_entries else function
        entries = part.entries if part.has_entries else part.entries[:1]
        for number, pc in enumerate(entries):
            if not self.decoded.is_entry(pc) or len(entries) > 1:
                self.decoded.enter(pc, entry, number, 0 if number else part.frame)


class Compiler:
    """Compiles for one machine."""

    def __init__(self) -> None:
        self.stats = CompileStats()

    def hot(self, native: Native, pc: int, frame: HeapType) -> bool:
        """Compile the function at a pc, given its frame's layout; false if it is not to be."""
        if native.decoded.is_entry(pc):
            return True
        found = load_unit(native.regions, pc, frame, self.stats)
        if found is None:
            return False
        compiled, library = found
        native.libraries.append(library)
        for part in compiled.parts:
            native.install(part, library.addresses)
        return True
