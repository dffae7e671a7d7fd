"""Compiling what is hot: functions of modules, together with those they call."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.jit.decoded import DecodedCode
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.units import CompileStats, Regions, code_of, compile_unit

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

    def install(self, region: Region, entries: dict[int, int], entry: int, function: int) -> None:
        """Let machine code run a region, given where its two functions are.

        ``entries`` are the numbers that ``entry`` takes, by pc.
        """
        self._functions[region.start] = function
        for pc, number in entries.items():
            if not self.decoded.is_entry(pc) or len(entries) > 1:
                self.decoded.enter(pc, entry, number, 0 if number else region.size)


class Compiler:
    """Compiles for one machine."""

    def __init__(self) -> None:
        self.stats = CompileStats()

    def hot(self, native: Native, pc: int, frame: HeapType) -> bool:
        """Compile the function at a pc, given its frame's layout; false if it is not to be."""
        if native.decoded.is_entry(pc):
            return True
        unit = native.regions.unit(native.regions.around(pc, frame))
        if unit is None:
            return False
        library = compile_unit(unit, self.stats)
        native.libraries.append(library)
        addresses = library.addresses
        for start, region in unit.regions.items():
            function = addresses[f"f{start}"]
            if unit.has_entries(start):
                native.install(region, region.entries, addresses[f"o{start}"], function)
            else:
                native.install(region, {start: 0}, function, function)
        return True
