"""What is known of a verified module: what is compared when it is linked, and while it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from llmbol_core.vm.verification.guards import Guard
from llmbol_core.vm.verification.keptguards import KeptGuards, guards_to_bytes
from llmbol_core.vm.verification.needs import Need, Part, Shape, parts_of, shapes_of


class Proof(NamedTuple):
    """What is known of a verified module: ``needs`` by import list and index in it.

    ``results`` are what functions do where their results go, by entry; ``guards`` what is to be
    checked before instructions.
    """

    needs: dict[tuple[int, int], Need]
    results: dict[int, set[Part]]
    guards: Mapping[int, Sequence[Guard]] = {}
    tables: Sequence[tuple[int, int]] = ()
    """Start and end of the tables in the module data that instructions jump through."""
    wanted: Mapping[int, set[Shape]] = {}
    """Places for results that functions of other modules write, by entry."""

    def to_bytes(self) -> bytes:
        """Return the proof in the form of a file."""
        needs = [[*key, *need.to_row()] for key, need in sorted(self.needs.items())]
        results = [[pc, sorted(parts)] for pc, parts in sorted(self.results.items())]
        wanted = [[pc, sorted(places)] for pc, places in sorted(self.wanted.items())]
        rows = [needs, results, self.tables, wanted]
        whole = json.dumps(rows, separators=(",", ":"))
        return whole.encode() + b"\n" + guards_to_bytes(self.guards)

    @classmethod
    def from_bytes(cls, data: bytes) -> Proof:
        """Return the proof that ``to_bytes`` wrote; raises ValueError and TypeError."""
        whole, _, guards = data.partition(b"\n")
        needs, results, tables, wanted = json.loads(whole.decode())
        found = {(number, index): Need.from_row(row) for number, index, *row in needs}
        return cls(
            found,
            {pc: parts_of(parts) for pc, parts in results},
            KeptGuards(guards),
            [(start, end) for start, end in tables],
            {pc: shapes_of(places) for pc, places in wanted},
        )


NOTHING = Proof({}, {})
