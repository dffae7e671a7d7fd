"""Guards kept on disk, each made when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmbol_core.vm.verification.guards import Guard


class KeptGuards(Mapping[int, Sequence[Guard]]):
    """Guards from a file, by instruction; ``content`` is what ``guards_to_bytes`` made of them.

    Each is made when it is asked for: programs run only a part of their instructions.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._rows: dict[int, list[list[Any]]] = dict(json.loads(content.decode()))
        self._made: dict[int, Sequence[Guard]] = {}

    def __getitem__(self, pc: int) -> Sequence[Guard]:
        if pc not in self._made:
            self._made[pc] = [Guard.from_row(row) for row in self._rows[pc]]
        return self._made[pc]

    def __contains__(self, pc: object) -> bool:
        return pc in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def guards_to_bytes(guards: Mapping[int, Sequence[Guard]]) -> bytes:
    """Return guards for a file; the same ones give the same bytes."""
    if isinstance(guards, KeptGuards):
        return guards.content
    rows = [[pc, [guard.to_row() for guard in found]] for pc, found in sorted(guards.items())]
    return json.dumps(rows, separators=(",", ":")).encode()
