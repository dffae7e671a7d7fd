"""What one machine has of a module in native form, as far as it has been made."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmbol_core.vm.jit.kept import Part, Sketch, Tier
from llmbol_core.vm.jit.modulecode import code_of

if TYPE_CHECKING:
    from llmbol_core.vm.heaptypes import HeapType
    from llmbol_core.vm.jit.decoded import DecodedCode
    from llmbol_core.vm.jit.units import Regions, Source
    from llmbol_core.vm.loader import LoadedModule


class Native:
    """What one machine has of a module in native form: decoded instructions, compiled regions."""

    def __init__(
        self,
        loaded: LoadedModule,
        decoded: DecodedCode,
        plain_type: Callable[[int], int],
        is_careful: bool = False,
    ) -> None:
        self.decoded = decoded
        self.code = code_of(loaded.module, loaded.content, loaded.proof.guards, is_careful)
        self.libraries: list[Any] = []
        self.quick: dict[int, Quick] = {}
        """The quickly compiled units that functions belong to, by the functions' starts."""
        self.sketches: dict[int, Sketch] = {}
        """Units that were not compiled, by instructions in them that were to be."""
        self._tiers: dict[int, Tier] = {}
        self._entered: dict[int, Tier] = {}
        plain = [plain_type(size) for size in self.code.plain_sizes]
        self._types = array("I", [*loaded.types, *plain] or [0])
        self._functions = array("Q", bytes(8 * max(1, len(self.code.instructions))))

    @cached_property
    def regions(self) -> Regions:
        """What can be compiled of the module."""
        from llmbol_core.vm.jit.units import Regions

        return Regions(self.code)

    @property
    def tiers(self) -> set[Tier]:
        """The tiers of the code that there is."""
        return set(self._tiers.values())

    @property
    def tables(self) -> tuple[int, int, int]:
        """Addresses of the tables of types, machine code, and instructions for native code."""
        types, functions = self._types.buffer_info()[0], self._functions.buffer_info()[0]
        return types, functions, self.decoded.address

    def install(self, part: Part, addresses: Mapping[str, int], tier: Tier) -> bool:
        """Install machine code of a function, given its addresses, unless there is better code.

        At entries that better code does not have, it is used all the same.
        """
        known = self._tiers.get(part.start, tier)
        function = addresses[f"f{part.start}"]
        is_entered = known <= tier
        if is_entered:
            self._tiers[part.start] = tier
            self._functions[part.start] = function
        entry = addresses[f"o{part.start}"] if part.has_entries else function
        entries = part.entries if part.has_entries else part.entries[:1]
        for number, pc in enumerate(entries):
            there = self._entered.get(pc)
            if there is None or there < tier or (there == tier and len(entries) > 1):
                self._entered[pc] = tier
                self.decoded.enter(pc, entry, number, 0 if number else part.frame)
                is_entered = True
        return is_entered

    def quick_at(self, pc: int) -> Quick | None:
        """Return what was compiled quickly that an instruction is part of: a function or a loop."""
        start = self.code.function(pc)
        found = max((at for at in self.quick if start <= at <= pc), default=None)
        return None if found is None else self.quick[found]


@dataclass(eq=False)
class Quick:
    """A unit that was compiled quickly, and how long its code has run."""

    native: Native
    pc: int
    frame: HeapType
    source: Source | None
    seconds: float = 0.0
    instructions: int = 0
    """How many it has."""
    is_ordered: bool = False
    key: tuple[str, ...] = ()
    kept: float = 0.0
    """The seconds of which the cache knows."""
