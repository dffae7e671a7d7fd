"""Loops in the text of LLVM's language: blocks that follow each other from a head back to it.

Only loops whose iterations all take one way are considered: each block but the head is reached from
the one before it alone, and all else that the blocks branch to lies outside. LLVM has made such
blocks of choices where it could, with ``select``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

_NAME = r'%(?:"[^"]*"|[-\w$.]+)'
_NAMES = re.compile(_NAME)
_DEFINED = re.compile(rf"  ({_NAME}) = (\w+)(.*)")
_PAIR = re.compile(r"(?: (?:nuw|nsw|exact|disjoint))* (i\d+) ([^\s,]+), ([^\s,]+)")
_CHOICE = re.compile(r" i1 ([^\s,]+), (i\d+) ([^\s,]+), i\d+ ([^\s,]+)")
_PHI = re.compile(r" (.+?) (\[ .*\])")
_CAME = re.compile(rf"\[ (.+?), ({_NAME}) \]")
_INTEGER = re.compile(r"i\d+")
_TARGET = re.compile(rf"label ({_NAME})")
_WORTH_A_LOOK = re.compile(r" = (?:shl|and) i\d+ [^,\n]+, -?\d")
"""A loop without any is left alone: only shifts and masks by constants have other views."""
_BLOCK = re.compile(r'\n(?=(?:"[^"]*"|[-\w$.]+):)')
_LONGEST = 8
"""The most blocks of a loop that is considered."""
PAIRED = frozenset({"add", "sub", "mul", "shl", "ashr", "lshr", "and", "or", "xor"})


@dataclass(frozen=True)
class Node:
    """An instruction; of integers ``kind`` is the type and ``args`` are the operands."""

    name: str
    op: str
    text: str
    kind: str = ""
    args: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """The blocks that the operands of a phi come from."""

    @classmethod
    def read(cls, line: str) -> Node:
        """Return the instruction of a line."""
        defined = _DEFINED.fullmatch(line)
        if defined is None:
            return cls("", line.split(None, 1)[0] if line.strip() else "", line)
        name, op, rest = defined.groups()
        if op in PAIRED and (pair := _PAIR.fullmatch(rest)):
            return cls(name, op, line, pair[1], (pair[2], pair[3]))
        if op == "select" and (choice := _CHOICE.fullmatch(rest)):
            return cls(name, op, line, choice[2], (choice[1], choice[3], choice[4]))
        if op == "phi" and (phi := _PHI.fullmatch(rest)):
            came = _CAME.findall(phi[2])
            kind = phi[1] if _INTEGER.fullmatch(phi[1]) else ""
            return cls(name, op, line, kind, tuple(v for v, _ in came), tuple(b for _, b in came))
        return cls(name, op, line)

    @classmethod
    def made(cls, name: str, op: str, kind: str, *args: str) -> Node:
        """Return a new instruction of integers."""
        if op == "select":
            text = f"  {name} = select i1 {args[0]}, {kind} {args[1]}, {kind} {args[2]}"
        else:
            text = f"  {name} = {op} {kind} {args[0]}, {args[1]}"
        return cls(name, op, text, kind, args)

    @classmethod
    def phi(cls, name: str, kind: str, args: Sequence[str], sources: Sequence[str]) -> Node:
        """Return a new phi, given its values and the blocks that they come from."""
        pairs = ", ".join(
            f"[ {value}, {block} ]" for value, block in zip(args, sources, strict=True)
        )
        return cls(name, "phi", f"  {name} = phi {kind} {pairs}", kind, tuple(args), tuple(sources))

    @property
    def bits(self) -> int:
        """The width of its type."""
        return int(self.kind[1:])

    @cached_property
    def uses(self) -> list[str]:
        """The names that it mentions besides its own."""
        return _NAMES.findall(self.text)[1 if self.name else 0 :]

    def came(self, block: str) -> str:
        """Return the value of a phi from a block."""
        return self.args[self.sources.index(block)]

    def renamed(self, names: dict[str, str]) -> Node:
        """Return the instruction with other operands in the place of some."""
        if not any(name in names for name in self.uses):
            return self
        start = len(self.name) + 2 if self.name else 0
        rest = _NAMES.sub(lambda found: names.get(found[0], found[0]), self.text[start:])
        args = tuple(names.get(arg, arg) for arg in self.args)
        return replace(self, text=self.text[:start] + rest, args=args)


@dataclass
class Loop:
    """The blocks of a loop, its head first; names of blocks begin with ``%`` as operands do."""

    labels: list[str]
    blocks: list[list[Node]]
    entries: list[str]
    """The blocks from which control comes to it."""
    exits: list[tuple[str, str]]
    """From where to where control leaves."""
    outside: frozenset[str]
    """The names that are used elsewhere in the function."""
    entering: dict[str, list[str]] = field(default_factory=dict)
    """Lines to add to the ends of blocks from which control comes."""
    leaving: list[str] = field(default_factory=list)
    """Lines to run when control leaves, which it then does from one place only."""

    @property
    def nodes(self) -> Iterator[Node]:
        """All instructions, in the order in which they run."""
        for block in self.blocks:
            yield from block

    @property
    def phis(self) -> list[Node]:
        """What changes from iteration to iteration."""
        return [node for node in self.blocks[0] if node.op == "phi"]

    @property
    def latch(self) -> str:
        """The block that leads back to the head."""
        return self.labels[-1]


class Function:
    """The text of one function before its last brace, cut into blocks."""

    def __init__(self, text: str) -> None:
        first, *others = _BLOCK.split(text)
        self._head: str
        self._head, _, start = first.partition("\n")
        self._blocks: dict[str, list[str]] = {"": start.split("\n")} if start else {}
        for block in others:
            self._blocks[f"%{block[: block.index(':')]}"] = block.split("\n")
        self._targets = {
            label: _TARGET.findall("\n".join(lines)) for label, lines in self._blocks.items()
        }
        self._origins: dict[str, list[str]] = {label: [] for label in self._blocks}
        for label, targets in self._targets.items():
            for target in dict.fromkeys(targets):
                self._origins[target].append(label)

    @property
    def text(self) -> str:
        """The whole function."""
        return "\n".join([self._head, *("\n".join(lines) for lines in self._blocks.values())])

    def loops(self) -> Iterator[Loop]:
        """Yield the loops of one way in which something is shifted or masked by constants."""
        for head, origins in self._origins.items():
            if self._has_phi(head):
                for latch in origins:
                    way = self._way(head, latch)
                    if any(map(self._is_worth_a_look, way)):
                        yield self._loop(way)

    def _way(self, head: str, latch: str) -> list[str]:
        """Return the blocks from a head to one that leads back to it, if that is the only way."""
        way = [latch]
        while way[-1] != head:
            origins = self._origins[way[-1]]
            if len(origins) != 1 or len(way) == _LONGEST or self._has_phi(way[-1]):
                return []
            way.append(origins[0])
        others = set(self._origins[head]) - {latch}
        is_only = others and not others & set(way) and "" not in others
        return way[::-1] if is_only else []

    def _is_worth_a_look(self, label: str) -> bool:
        return any(map(_WORTH_A_LOOK.search, self._blocks[label]))

    def _has_phi(self, label: str) -> bool:
        lines = self._blocks[label]
        return len(lines) > 1 and " = phi " in lines[1]

    def _loop(self, labels: list[str]) -> Loop:
        own = set(labels)
        others = (lines for label, lines in self._blocks.items() if label not in own)
        used = frozenset(name for lines in others for name in _NAMES.findall("\n".join(lines)))
        exits = [(a, b) for a in labels for b in self._targets[a] if b not in own]
        blocks = [[Node.read(line) for line in self._blocks[label][1:]] for label in labels]
        entries = [origin for origin in self._origins[labels[0]] if origin not in own]
        return Loop(labels, blocks, entries, exits, used)

    def put(self, loop: Loop, new_label: str) -> None:
        """Write a loop back; what runs when control leaves becomes a block of its own."""
        for label, nodes in zip(loop.labels, loop.blocks, strict=True):
            self._blocks[label][1:] = [node.text for node in nodes]
        for label, lines in loop.entering.items():
            own = self._blocks[label]
            own[_end(own) : _end(own)] = lines
        if loop.leaving:
            ((origin, target),) = loop.exits
            between = f"%{new_label}"
            self._blocks[origin] = [
                _replaced(line, f"label {target}", f"label {between}")
                for line in self._blocks[origin]
            ]
            self._blocks[target] = [
                _replaced(line, f", {origin}", f", {between}") if " = phi " in line else line
                for line in self._blocks[target]
            ]
            self._blocks[between] = [f"{new_label}:", *loop.leaving, f"  br label {target}", ""]


def _replaced(line: str, old: str, new: str) -> str:
    return re.sub(re.escape(old) + r"(?![-\w$.])", lambda _: new, line)


def _end(lines: list[str]) -> int:
    """Return where the last instruction of a block begins."""
    return max(n for n, line in enumerate(lines) if line.startswith("  ") and line[2] not in " ]")
