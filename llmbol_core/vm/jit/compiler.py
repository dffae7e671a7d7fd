"""Compiling what is hot: functions of modules, together with those they call."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.jit.decoded import DecodedCode
from llmbol_core.vm.jit.region import Code, Region
from llmbol_core.vm.jit.units import CompileStats, code_of, compile_unit, unit_of

if TYPE_CHECKING:
    from llmbol_core.vm.heaptypes import HeapType
    from llmbol_core.vm.loader import LoadedModule

__all__ = ["CompileStats", "Compiler", "Native"]


class Native:
    """What one machine has of a module in native form: decoded instructions, compiled regions."""

    def __init__(self, loaded: LoadedModule, handlers: Mapping[str, int], threshold: int) -> None:
        self.decoded = DecodedCode(loaded, handlers, threshold)
        self.code = code_of(loaded.module)
        self.regions: dict[int, Region] = {}
        self.libraries: list[Any] = []
        self._types = array("I", loaded.types or [0])
        self._functions = array("Q", bytes(8 * max(1, len(self.code.instructions))))

    @property
    def tables(self) -> tuple[int, int, int]:
        """Where native code finds the heap's numbers of types, machine code, and instructions."""
        types, functions = self._types.buffer_info()[0], self._functions.buffer_info()[0]
        return types, functions, self.decoded.address

    def install(self, region: Region, entry: int, function: int) -> None:
        """Let machine code run a region, given where its two functions are."""
        self.regions[region.start] = region
        self._functions[region.start] = function
        for pc, number in region.entries.items():
            if not self.decoded.is_entry(pc):
                self.decoded.enter(pc, entry, number, 0 if number else region.size)


class Compiler:
    """Compiles for one machine."""

    def __init__(self) -> None:
        self.stats = CompileStats()

    def hot(self, native: Native, pc: int, frame: HeapType) -> bool:
        """Compile the function at a pc, given its frame's layout; false if it is not to be."""
        region = self._containing(native, pc) or _region(native.code, pc, frame)
        return region.start in native.regions or self._compile(native, region)

    @staticmethod
    def _containing(native: Native, pc: int) -> Region | None:
        """Return the compiled region that can be entered at a pc."""
        for region in native.regions.values():
            if pc in region.entries:
                return region
        return None

    def _compile(self, native: Native, first: Region) -> bool:
        """Compile a region and what it calls; false if it is too long."""
        unit = unit_of(native.code, first)
        if unit is None:
            return False
        library = compile_unit(unit, self.stats)
        native.libraries.append(library)
        for pc, region in unit.items():
            if pc not in native.regions:
                addresses = library.addresses
                native.install(region, addresses[f"o{pc}"], addresses[f"f{pc}"])
        return True


def _region(code: Code, pc: int, frame: HeapType) -> Region:
    """Return the function that an instruction is part of, or what can be reached from there."""
    region = Region(code, code.function(pc), frame)
    return region if pc in region.entries else Region(code, pc, frame)
