"""Units of compilation: a function with those it calls, as one object."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.jit.calls import Results
from llmbol_core.vm.jit.excerpts import Excerpts
from llmbol_core.vm.jit.identity import digest
from llmbol_core.vm.jit.kept import (
    Compiled,
    CompileStats,
    Made,
    Part,
    Tier,
    cost_of,
    key_of_unit,
    level_of,
    unit_key,
)
from llmbol_core.vm.jit.modulecode import Code, code_of, heap_type
from llmbol_core.vm.jit.region import Region
from llmbol_core.vm.jit.unit import Unit

if TYPE_CHECKING:
    from llmbol_core.vm.module import Module

_MOST_IN_UNIT = 800
_MOST_IN_REGION = 6000
"""Instructions of a function that is compiled, and pointers of whole frames in its code."""
_LONGEST, _LONGEST_LINES = 0.04, (0.000013, 0.000115, 0.00014)
"""Seconds that hardly any unit exceeds: those of the shortest ones, and of each line of text."""


class Regions:
    """The regions of one module, each made when it is first wanted."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self._results = Results(code)
        self._known: dict[int, Region] = {}
        self._excerpts: dict[int, Excerpts] = {}
        self._loops: dict[int, Region] = {}

    def at(self, start: int, frame: HeapType) -> Region:
        """Return the region that begins at a pc with a frame of a type."""
        region = self._known.get(start)
        if region is None or region.frame != frame:
            region = self._known[start] = Region(self.code, start, frame, self._results)
        return region

    def around(self, pc: int, frame: HeapType) -> Region:
        """Return the function that an instruction is part of, or what it leads to.

        Of a long function it is the loop that the instruction is in, if there is one.
        """
        start = self.code.function(pc)
        for region in self._loops_around(pc, start, frame):
            if pc in region.entries:
                return region
        region = self.at(start, frame)
        return region if pc in region.entries else self.at(pc, frame)

    def _loops_around(self, pc: int, start: int, frame: HeapType) -> Iterator[Region]:
        excerpts = self._excerpts.get(start)
        if excerpts is None:
            excerpts = self._excerpts[start] = Excerpts(self.code, start)
        for head, code in excerpts.around(pc):
            region = self._loops.get(head)
            if region is None or region.frame != frame:
                region = self._loops[head] = Region(code, head, frame, self._results)
            yield region

    def unit(self, first: Region) -> Unit | None:
        """Return a function and those it calls, nearest first; None if it is too long."""
        if not _is_short(first):
            return None
        found = {first.start: first}
        work, size = [first], len(first.pcs)
        while work:
            for target, number in work.pop(0).callees():
                if target in found:
                    continue
                region = self.at(target, heap_type(self.code.module.types[number]))
                size += len(region.pcs)
                if size > _MOST_IN_UNIT or not _is_short(region):
                    return Unit(found)
                found[target] = region
                work.append(region)
        return Unit(found)


def _is_short(region: Region) -> bool:
    return max(len(region.pcs), region.pointers_handled) <= _MOST_IN_REGION


@dataclass(eq=False)
class Source:
    """A unit that can be compiled; it is kept under ``keys`` and its tier."""

    keys: tuple[tuple[str, ...], ...]
    unit: Unit

    @cached_property
    def text(self) -> str:
        """The unit in LLVM's language, without what it calls of the runtime."""
        return self.unit.text()

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """A description of the unit's functions."""
        unit = self.unit
        return tuple(
            Part(start, region.size, tuple(region.entries), unit.has_entries(start))
            for start, region in unit.regions.items()
        )

    @cached_property
    def instructions(self) -> int:
        """How many instructions are compiled."""
        return sum(len(region.pcs) for region in self.unit.regions.values())

    def level(self, tier: Tier) -> int:
        """Return LLVM's level."""
        return level_of(self.instructions, tier)

    def cost(self, tier: Tier) -> float:
        """Return about how many seconds it takes to compile."""
        return cost_of(self.instructions, tier)

    def longest(self, tier: Tier) -> float:
        """Return about how many seconds it takes to compile at most, given its ``text``."""
        return _LONGEST + _LONGEST_LINES[self.level(tier)] * self.text.count("\n")

    def compile(self, tier: Tier) -> Made:
        """Return the unit's parts and its object, made now or kept from before; keep them.

        Any thread can do this, once ``text`` and ``parts`` were asked for.
        """
        from llmbol_core.native.cache import ObjectCache, key_of
        from llmbol_core.vm.jit.lowering.lowerer import with_helpers

        level, cache = self.level(tier), ObjectCache()
        key = key_of(str(level), digest(), self.text)
        compiled = Compiled(self.parts, self.instructions, key)
        data = cache.get(key)
        is_kept = data is not None
        if data is None:
            from llmbol_core.native import llvm
            from llmbol_core.vm.jit.library import SHARED_NAMES
            from llmbol_core.vm.jit.recurrences import shorten_recurrences

            text = with_helpers(self.text, elsewhere=SHARED_NAMES)
            data = llvm.compile_text(text, level, unrolls=False, after=shorten_recurrences)
            cache.put(key, data)
        for kept in self.keys:
            cache.put(unit_key(kept, tier), compiled.to_bytes())
        return Made(compiled, data, tier, is_kept)


def source_of(regions: Regions, pc: int, frame: HeapType) -> Source | None:
    """Return the unit that an instruction is part of; None if it is too long to compile."""
    first = regions.around(pc, frame)
    unit = regions.unit(first)
    keys = (
        key_of_unit(regions.code.identity, at, frame) for at in dict.fromkeys((first.start, pc))
    )
    return None if unit is None else Source(tuple(keys), unit)


def _nothing(done: int, total: int, note: str) -> None:
    """Show no progress."""


def compile_module(
    module: Module,
    progress: Callable[[int, int, str], None] = _nothing,
    content: bytes | memoryview = b"",
) -> CompileStats:
    """Verify a module and put the machine code for all of its functions into the cache.

    ``content`` is the object that it is from, by which the code is found again. LLVM works in a
    thread, so that the process can be stopped meanwhile.
    """
    from llmbol_core.native.jobs import Job
    from llmbol_core.vm.verifier import prove_module

    guards = prove_module(module).guards
    regions, stats = Regions(code_of(module, content, guards)), CompileStats()
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
            assert source.text
            job = Job(functools.partial(source.compile, Tier.BEST))
            job.wait()
            stats.add(job.result(), time.perf_counter() - began)
        for target, number in first.callees():
            if target not in frames:
                frames[target] = number
                work.append(target)
        done += 1
        progress(done, len(work), f"function at pc {start}")
    return stats
