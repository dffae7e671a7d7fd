"""Units of compilation: a function with those it calls, as one object, from the cache if it can be.

What a unit holds depends on the module alone, so that code made for one run, or ahead of time,
serves all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.region import Code, Region

if TYPE_CHECKING:
    from llmbol_core.vm.module import Module

_MOST_IN_UNIT = 1200
_MOST_IN_REGION = 6000
_LEVEL = 2

Unit = dict[int, Region]
"""Regions by where they start; the first is the one that was asked for."""


@dataclass
class CompileStats:
    """What was compiled: functions and instructions, how many units, and of those from the cache.

    ``seconds`` is what all of it took.
    """

    functions: int = 0
    instructions: int = 0
    units: int = 0
    cached: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.functions} functions, {self.instructions} instructions in {self.units} units, "
            f"{self.cached} of them from the cache, in {self.seconds:.3f} s"
        )


def unit_of(code: Code, first: Region) -> Unit | None:
    """Return a function and those it calls, nearest first; None if it is too long to compile."""
    if len(first.pcs) > _MOST_IN_REGION:
        return None
    unit = {first.start: first}
    work, size = [first], len(first.pcs)
    while work:
        for target, number in work.pop(0).callees():
            if target in unit:
                continue
            region = Region(code, target, frame_type(code.module, number))
            size += len(region.pcs)
            if size > _MOST_IN_UNIT:
                return unit
            unit[target] = region
            work.append(region)
    return unit


def frame_type(module: Module, number: int) -> HeapType:
    """Return the layout of a type of a module."""
    return HeapType(module.types[number].size, module.types[number].pointers)


def code_of(module: Module) -> Code:
    """Return a module as regions see it."""
    data = frame_type(module, 0) if module.types else HeapType(module.data_size, ())
    return Code(module, data)


def compile_unit(unit: Unit, stats: CompileStats) -> Any:
    """Return the library with a unit's functions, by the names f<pc> and o<pc>."""
    from llmbol_core.native.image import load_object

    began = time.perf_counter()
    data = _object(unit, stats)
    library = load_object(data, [f"{letter}{pc}" for pc in unit for letter in "fo"])
    stats.functions += len(unit)
    stats.instructions += sum(len(region.pcs) for region in unit.values())
    stats.units += 1
    stats.seconds += time.perf_counter() - began
    return library


def _object(unit: Unit, stats: CompileStats) -> bytes:
    """Return a unit's machine code, made now or kept from before."""
    from llmbol_core.native.cache import ObjectCache, key_of
    from llmbol_core.vm.jit.lowering import unit_text, with_helpers

    text = unit_text(unit)
    key, cache = key_of(str(_LEVEL), digest(), text), ObjectCache()
    data = cache.get(key)
    if data is not None:
        stats.cached += 1
        return data
    from llmbol_core.native import llvm

    data = llvm.compile_text(with_helpers(text), _LEVEL)
    cache.put(key, data)
    return data


def _nothing(done: int, total: int, note: str) -> None:
    """Show no progress."""


def compile_module(
    module: Module, progress: Callable[[int, int, str], None] = _nothing
) -> CompileStats:
    """Verify a module and put the machine code for all of its functions into the cache."""
    from llmbol_core.vm.verifier import verify_module

    verify_module(module)
    code, stats = code_of(module), CompileStats()
    frames = {e.pc: e.type for e in module.exports if e.pc >= 0 and e.type >= 0}
    if module.has_entry:
        frames.setdefault(module.entry_pc, module.entry_type)
    work, done = list(frames), 0
    while done < len(work):
        start = work[done]
        first = Region(code, start, frame_type(module, frames[start]))
        unit = unit_of(code, first)
        if unit is not None:
            compile_unit(unit, stats)
        for target, number in first.callees():
            if target not in frames:
                frames[target] = number
                work.append(target)
        done += 1
        progress(done, len(work), f"function at pc {start}")
    return stats
