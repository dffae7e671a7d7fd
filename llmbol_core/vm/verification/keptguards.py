"""Guards kept on disk, each made when it is first asked for.

A file holds the requirements of the guards, each of which many share, and for each instruction
where the pointers are: mode, value and base of an operand, and the number of the requirement.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmbol_core.vm.isa import Mode
from llmbol_core.vm.module import Operand
from llmbol_core.vm.verification.guards import Guard

_MODES = tuple(Mode)


class KeptGuards(Mapping[int, Sequence[Guard]]):
    """Guards from a file, by instruction; ``content`` is what ``guards_to_bytes`` made of them.

    Each is made when it is asked for: programs run only a part of their instructions.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._required, rows = json.loads(content.decode())
        self._rows: dict[int, list[list[int]]] = dict(rows)
        self._prototypes: dict[int, tuple[Any, ...]] = {}
        self._made: dict[int, Sequence[Guard]] = {}

    def __getitem__(self, pc: int) -> Sequence[Guard]:
        made = self._made.get(pc)
        if made is None:
            made = self._made[pc] = [self._guard(*row) for row in self._rows[pc]]
        return made

    def _guard(self, mode: int, value: int, base: int, required: int) -> Guard:
        rest = self._prototypes.get(required)
        if rest is None:
            _, *fields = Guard.from_row(self._required[required])
            rest = self._prototypes[required] = tuple(fields)
        return Guard(Operand(_MODES[mode], value, base), *rest)

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
    required: dict[str, int] = {}
    rows = []
    for pc, found in sorted(guards.items()):
        texts = [_text(guard.to_row()) for guard in found]
        numbers = [required.setdefault(text, len(required)) for text in texts]
        places = [list(map(int, guard.where)) for guard in found]
        rows.append([pc, [[*place, n] for place, n in zip(places, numbers, strict=True)]])
    return f"[[{','.join(required)}],{_text(rows)}]".encode()


def _text(value: list[Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
