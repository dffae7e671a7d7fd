"""What is kept on disk of compiled units: their parts and objects, found without the program.

The content of a unit depends on the module alone, so that code made for one run, or ahead of time,
serves all others.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from llmbol_core.vm.heaptypes import HeapType
from llmbol_core.vm.jit.identity import digest


class Tier(IntEnum):
    """How well a unit is compiled; LLVM's level for it."""

    QUICK = 0
    BEST = 2


_MOST_AT_BEST = 1500
_COSTS = (0.0003, 0.0007, 0.0011)
"""Seconds that an instruction takes at LLVM's levels, writing its text included."""
_LEAST = (0.02, 0.06, 0.1)
"""Seconds that a unit takes besides, mostly for what it calls of the runtime."""


def level_of(instructions: int, tier: Tier) -> int:
    """Return LLVM's level for a unit; long ones are never worth the highest."""
    return tier if instructions <= _MOST_AT_BEST else min(tier, 1)


def cost_of(instructions: int, tier: Tier) -> float:
    """Return about how many seconds it takes to compile a unit."""
    level = level_of(instructions, tier)
    return _LEAST[level] + _COSTS[level] * instructions


@dataclass
class CompileStats:
    """What was compiled: functions and instructions, how many units, and of those from the cache.

    ``seconds`` is the time that all of it took.
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


class Made(NamedTuple):
    """A compiled unit, its object, how well that was compiled, and whether it is from the cache."""

    compiled: Compiled
    data: bytes
    tier: Tier
    is_kept: bool


def unit_key(key: tuple[str, ...], tier: Tier) -> str:
    """Return the key of a unit in the cache."""
    from llmbol_core.native.cache import key_of

    return key_of("unit", str(int(tier)), digest(), *key)


def key_of_unit(identity: str, pc: int, frame: HeapType) -> tuple[str, ...]:
    """Return a key that distinguishes the unit at a pc of a module from all others."""
    return identity, str(pc), str(frame)


def seconds_kept(key: tuple[str, ...]) -> float:
    """Return how long code of a unit has run that was compiled quickly, in programs before."""
    from llmbol_core.native.cache import ObjectCache, key_of

    known = ObjectCache().get(key_of("seconds", digest(), *key))
    return float(known) if known is not None else 0.0


def keep_seconds(key: tuple[str, ...], seconds: float) -> None:
    """Keep how long it has run in all."""
    from llmbol_core.native.cache import ObjectCache, key_of

    ObjectCache().put(key_of("seconds", digest(), *key), f"{seconds:.4f}".encode())


class Sketch(NamedTuple):
    """What is known of a unit that was not compiled: where it begins, how many instructions."""

    start: int
    instructions: int


def sketch_kept(key: tuple[str, ...]) -> Sketch | None:
    """Return what is known of the unit that an instruction belongs to."""
    from llmbol_core.native.cache import ObjectCache, key_of

    known = ObjectCache().get(key_of("sketch", digest(), *key))
    return None if known is None else Sketch(*map(int, known.split()))


def keep_sketch(key: tuple[str, ...], sketch: Sketch) -> None:
    """Keep what is known of a unit, so that it need not be looked at again to be left alone."""
    from llmbol_core.native.cache import ObjectCache, key_of

    content = f"{sketch.start} {sketch.instructions}".encode()
    ObjectCache().put(key_of("sketch", digest(), *key), content)


def kept_unit(key: tuple[str, ...], tier: Tier) -> Made | None:
    """Return the unit that an instruction belongs to, if it is in the cache.

    What the unit consists of is kept beside its code, so that both are found again without looking
    at the program.
    """
    from llmbol_core.native.cache import ObjectCache

    cache = ObjectCache()
    known = cache.get(unit_key(key, tier))
    if known is None:
        return None
    compiled = Compiled.from_bytes(known)
    data = cache.get(compiled.object_key)
    return None if data is None else Made(compiled, data, tier, True)
