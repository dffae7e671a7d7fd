"""Units of compilation: a function with those it calls, as one object, from the cache if it can be.

What a unit holds depends on the module alone, so that code made for one run, or ahead of time,
serves all others.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.jit.calls import Results
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.modulecode import Code
from llmbol_core.vm.jit.region import Region, heap_type
from llmbol_core.vm.jit.unit import Unit

if TYPE_CHECKING:
    from llmbol_core.vm.module import Module

_MOST_IN_UNIT = 800
_MOST_IN_REGION = 6000
_MOST_AT_BEST = 1500
_COSTS = (0.00015, 0.0006, 0.0011)
"""Seconds that an instruction takes at LLVM's levels."""


class Tier(IntEnum):
    """How well a unit is compiled; LLVM's level for it."""

    QUICK = 0
    BEST = 2


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

    def add(self, made: Made, seconds: float) -> None:
        """Count a unit."""
        self.functions += len(made.compiled.parts)
        self.instructions += made.compiled.instructions
        self.units += 1
        self.cached += made.is_kept
        self.seconds += seconds

    def __str__(self) -> str:
        return (
            f"{self.functions} functions, {self.instructions} instructions in {self.units} units, "
            f"{self.cached} of them from the cache, in {self.seconds:.3f} s"
        )


class Regions:
    """The regions of one module, each made when it is first wanted."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self._results = Results(code)
        self._known: dict[int, Region] = {}

    def at(self, start: int, frame: HeapType) -> Region:
        """Return the region that begins at a pc with a frame of a type."""
        region = self._known.get(start)
        if region is None or region.frame != frame:
            region = self._known[start] = Region(self.code, start, frame, self._results)
        return region

    def around(self, pc: int, frame: HeapType) -> Region:
        """Return the function that an instruction is part of, or what it leads to."""
        region = self.at(self.code.function(pc), frame)
        return region if pc in region.entries else self.at(pc, frame)

    def key(self, pc: int, frame: HeapType) -> tuple[str, ...]:
        """Return what tells the unit at a pc from all others."""
        return self.code.identity, str(pc), str(frame)

    def unit(self, first: Region) -> Unit | None:
        """Return a function and those it calls, nearest first; None if it is too long."""
        if len(first.pcs) > _MOST_IN_REGION:
            return None
        found = {first.start: first}
        work, size = [first], len(first.pcs)
        while work:
            for target, number in work.pop(0).callees():
                if target in found:
                    continue
                region = self.at(target, heap_type(self.code.module.types[number]))
                size += len(region.pcs)
                if size > _MOST_IN_UNIT:
                    return Unit(found)
                found[target] = region
                work.append(region)
        return Unit(found)


def code_of(module: Module) -> Code:
    """Return a module as regions see it."""
    data = heap_type(module.types[0]) if module.types else HeapType(module.data_size, ())
    return Code(module, data)


class Part(NamedTuple):
    """One function of a compiled unit."""

    start: int
    frame: int
    """Bytes of its frame on the stack."""
    entries: tuple[int, ...]
    """Where it can be entered, in the order of the entries' numbers; the first is its start."""
    has_entries: bool
    """Whether it has a function o<pc> besides f<pc>."""


class Compiled(NamedTuple):
    """A compiled unit: its parts and the object file that holds them."""

    parts: tuple[Part, ...]
    instructions: int
    object_key: str

    @property
    def symbols(self) -> list[str]:
        """The names of the functions that are called from outside."""
        entered = [f"o{part.start}" for part in self.parts if part.has_entries]
        return [*entered, *(f"f{part.start}" for part in self.parts)]

    def to_bytes(self) -> bytes:
        """Return this as it is kept on disk."""
        return json.dumps(self).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Compiled:
        """Return what ``to_bytes`` made."""
        parts, instructions, key = json.loads(content)
        made = (Part(start, size, tuple(pcs), has) for start, size, pcs, has in parts)
        return cls(tuple(made), instructions, key)


@dataclass(frozen=True)
class Source:
    """A unit that can be compiled: its text, and what is known of its functions.

    ``key`` is what it is kept by besides its tier.
    """

    key: tuple[str, ...]
    text: str
    parts: tuple[Part, ...]
    instructions: int

    def level(self, tier: Tier) -> int:
        """Return LLVM's level; long units are never worth the highest."""
        return tier if self.instructions <= _MOST_AT_BEST else min(tier, 1)

    def cost(self, tier: Tier) -> float:
        """Return about how many seconds it takes to compile."""
        return 0.01 + _COSTS[self.level(tier)] * self.instructions

    def compile(self, tier: Tier) -> Made:
        """Return the unit's parts and its object, made now or kept from before; keep them.

        Any thread can do this.
        """
        from llmbol_core.native.cache import ObjectCache, key_of
        from llmbol_core.vm.jit.lowering import with_helpers

        level, cache = self.level(tier), ObjectCache()
        key = key_of(str(level), digest(), self.text)
        compiled = Compiled(self.parts, self.instructions, key)
        data = cache.get(key)
        is_kept = data is not None
        if data is None:
            from llmbol_core.native import llvm

            data = llvm.compile_text(with_helpers(self.text, is_region=True), level)
            cache.put(key, data)
        cache.put(_unit_key(self.key, tier), compiled.to_bytes())
        return Made(compiled, data, tier, is_kept)


class Made(NamedTuple):
    """A compiled unit, its object, how well that was compiled, and whether it is from the cache."""

    compiled: Compiled
    data: bytes
    tier: Tier
    is_kept: bool


def _unit_key(key: tuple[str, ...], tier: Tier) -> str:
    from llmbol_core.native.cache import key_of

    return key_of("unit", str(int(tier)), digest(), *key)


def kept_unit(regions: Regions, pc: int, frame: HeapType, tier: Tier) -> Made | None:
    """Return the unit that an instruction is part of if it is in the cache.

    What the unit consists of is kept beside its code, so that both are found again without looking
    at the program.
    """
    from llmbol_core.native.cache import ObjectCache

    cache = ObjectCache()
    known = cache.get(_unit_key(regions.key(pc, frame), tier))
    if known is None:
        return None
    compiled = Compiled.from_bytes(known)
    data = cache.get(compiled.object_key)
    return None if data is None else Made(compiled, data, tier, True)


def source_of(regions: Regions, pc: int, frame: HeapType) -> Source | None:
    """Return the unit that an instruction is part of; None if it is too long to compile."""
    unit = regions.unit(regions.around(pc, frame))
    if unit is None:
        return None
    parts = tuple(
        Part(start, region.size, tuple(region.entries), unit.has_entries(start))
        for start, region in unit.regions.items()
    )
    size = sum(len(region.pcs) for region in unit.regions.values())
    return Source(regions.key(pc, frame), unit.text(), parts, size)


def _nothing(done: int, total: int, note: str) -> None:
    """Show no progress."""


def compile_module(
    module: Module, progress: Callable[[int, int, str], None] = _nothing
) -> CompileStats:
    """Verify a module and put the machine code for all of its functions into the cache."""
    from llmbol_core.vm.verifier import verify_module

    verify_module(module)
    regions, stats = Regions(code_of(module)), CompileStats()
    frames = {e.pc: e.type for e in module.exports if e.pc >= 0 and e.type >= 0}
    if module.has_entry:
        frames.setdefault(module.entry_pc, module.entry_type)
    work, done = list(frames), 0
    while done < len(work):
        start = work[done]
        first = regions.at(start, heap_type(module.types[frames[start]]))
        began = time.perf_counter()
        source = source_of(regions, start, first.frame)
        if source is not None:
            stats.add(source.compile(Tier.BEST), time.perf_counter() - began)
        for target, number in first.callees():
            if target not in frames:
                frames[target] = number
                work.append(target)
        done += 1
        progress(done, len(work), f"function at pc {start}")
    return stats
