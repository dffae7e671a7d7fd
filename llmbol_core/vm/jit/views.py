"""Other views of the values of a loop: shifted to the left, or right in some low bits only.

Numbers are taken modulo 2**w, where w is their width. Then with (x << s) = x * 2**s

    (x + y) << s = (x << s) + (y << s)      the same holds for -, and bit by bit for & | ^
    (x * y) << s = (x << s) * y
    (x << c) << s = x << (c + s)            which is 0 if c + s >= w

and the low n bits of x + y, x - y, x * y, x & y, x | y, x ^ y depend on the low n bits of x and y
alone; those of x << c on the low n - c bits of x, and on nothing if c >= n. A choice between two
values, by ``select`` or by a phi, has as its view the choice between their views. So a view of what
a loop carries from one iteration to the next can be carried itself, beside it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from llmbol_core.vm.jit.looptext import Loop, Node

_BITWISE = frozenset({"and", "or", "xor"})
_LINEAR = frozenset({"add", "sub"}) | _BITWISE
_MOST_MADE = 40


class TooLong(Exception):
    """More would have to be computed than can pay."""


def number(operand: str) -> int | None:
    """Return the value of an operand that is an integer."""
    return int(operand) if operand.lstrip("-").isdigit() else None


def mask_bits(node: Node) -> int:
    """Return how many low bits of its first operand an ``and`` looks at; 0 if that is all."""
    mask = number(node.args[1]) if node.op == "and" and node.kind else None
    return 0 if mask is None or mask < 0 else mask.bit_length()


def cycles_through(loop: Loop) -> dict[str, set[str]]:
    """Return for each value the others that depend on it, and it on them, over iterations."""
    made_of = {node.name: set(node.uses) for node in loop.nodes if node.name}
    made_of |= {phi.name: {phi.came(loop.latch)} for phi in loop.phis}
    own = {name: used & made_of.keys() for name, used in made_of.items()}
    everything = {name: _reached(own, name) for name in own}
    return {
        name: {other for other in found if name in everything[other]}
        for name, found in everything.items()
    }


def _reached(edges: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    work = [start]
    while work:
        new = edges[work.pop()] - found
        found |= new
        work += new
    return found


@dataclass
class Views:
    """Makes views of values of one loop; ``together`` are those that depend on each other."""

    loop: Loop
    prefix: str
    together: set[str] = field(default_factory=set)
    behind: dict[str, list[Node]] = field(default_factory=lambda: defaultdict(list))
    """New instructions by the name of the one that they follow; "" if they follow the phis."""
    entering: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    scale: dict[str, tuple[int, str]] = field(default_factory=dict)
    """For phis, how far to the left they are also carried shifted, and under which name."""

    def __post_init__(self) -> None:
        self._made_by = {node.name: node for node in self.loop.nodes if node.name}
        self._known: dict[tuple[str, int, str], str] = {}
        self._count = 0

    # Shifted to the left

    def shifted(self, value: str, by: int, kind: str) -> str:
        """Return a value times a power of two."""
        bits = int(kind[1:])
        known = number(value)
        if by >= bits:
            return "0"
        if known is not None:
            return _wrapped(known << by, bits)
        if not by:
            return value
        key = (value, by, "shifted")
        if key not in self._known:
            self._known[key] = self._shifted(value, by, kind)
        return self._known[key]

    def _shifted(self, value: str, by: int, kind: str) -> str:
        node = self._made_by.get(value)
        if node is None or value not in self.together or not node.kind:
            return self._new(value, "shl", kind, value, str(by))
        second = number(node.args[1])
        if node.op == "phi" and self.scale.get(value, (by,))[0] == by:
            return self._carried(node, by, lambda at: self.shifted(at, by, kind), True)
        if node.op in _LINEAR:
            return self._new(value, node.op, kind, *(self.shifted(a, by, kind) for a in node.args))
        if node.op == "mul":
            return self._new(value, "mul", kind, self.shifted(node.args[0], by, kind), node.args[1])
        if node.op == "select":
            views = (self.shifted(a, by, kind) for a in node.args[1:])
            return self._new(value, "select", kind, node.args[0], *views)
        if node.op == "shl" and second is not None:
            return self.shifted(node.args[0], by + second, kind)
        return self._new(value, "shl", kind, value, str(by))

    # Right in the low bits

    def low(self, value: str, bits: int) -> str:
        """Return what has the low bits of a value; the others may differ."""
        if not self._is_shorter(value, bits, set()):
            return value
        key = (value, bits, "low")
        if key not in self._known:
            self._known[key] = self._low(self._made_by[value], bits)
        return self._known[key]

    def _low(self, node: Node, bits: int) -> str:
        if node.op == "phi":
            return self._carried(node, bits, lambda at: self.low(at, bits), False)
        if node.op == "shl":
            by = int(node.args[1])
            if by >= bits:
                return "0"
            return self._new(
                node.name, "shl", node.kind, self.low(node.args[0], bits - by), node.args[1]
            )
        mask = _mask(node, bits)
        if mask == 0:
            return "0"
        if mask == _ones(bits):
            return self.low(node.args[0], bits)
        kept = node.args[: len(node.args) - 2]
        views = (self.low(arg, bits) for arg in node.args[-2:])
        return self._new(node.name, node.op, node.kind, *kept, *views)

    def _is_shorter(self, value: str, bits: int, seen: set[tuple[str, int]]) -> bool:
        """Whether there is less to compute for the low bits of a value than for all."""
        node = self._made_by.get(value)
        if node is None or value not in self.together or not node.kind or (value, bits) in seen:
            return False
        seen.add((value, bits))
        if node.op == "shl":
            by = number(node.args[1])
            if by is None:
                return False
            return by >= bits or self._is_shorter(node.args[0], bits - by, seen)
        if node.op == "phi":
            return self._is_shorter(node.came(self.loop.latch), bits, seen)
        if node.op not in _LINEAR and node.op not in ("mul", "select"):
            return False
        return _mask(node, bits) in (0, _ones(bits)) or any(
            self._is_shorter(arg, bits, seen) for arg in node.args[-2:]
        )

    # New instructions

    def _carried(self, phi: Node, by: int, view: Callable[[str], str], is_scale: bool) -> str:
        """Return a view of a phi, which is a phi of views."""
        name = self._name()
        self._known[phi.name, by, "shifted" if is_scale else "low"] = name
        if is_scale:
            self.scale[phi.name] = by, name
        views = []
        for block, value in zip(phi.sources, phi.args, strict=True):
            if block == self.loop.latch:
                views.append(view(value))
            elif is_scale:
                views.append(self._entering(block, value, by, phi))
            else:
                views.append(value)
        self.behind[""].insert(0, Node.phi(name, phi.kind, views, phi.sources))
        return name

    def _entering(self, block: str, value: str, by: int, phi: Node) -> str:
        """Return a value from outside of the loop, shifted."""
        known = number(value)
        if known is not None:
            return _wrapped(known << by, phi.bits)
        key = (value, by, block)
        if key not in self._known:
            self._known[key] = name = self._name()
            self.entering[block].append(f"  {name} = shl {phi.kind} {value}, {by}")
        return self._known[key]

    def _new(self, behind: str, op: str, kind: str, *args: str) -> str:
        """Add an instruction after the one whose value it is a view of, if one is needed."""
        known = _simple(op, args)
        if known is not None:
            return known
        at = behind if behind in self._made_by and self._made_by[behind].op != "phi" else ""
        for node in self.behind[at]:
            if (node.op, node.args) == (op, args):
                return node.name
        name = self._name()
        self.behind[at].append(Node.made(name, op, kind, *args))
        return name

    def _name(self) -> str:
        self._count += 1
        if self._count > _MOST_MADE:
            raise TooLong
        return f"{self.prefix}v{self._count}"

    def narrowed(self, scaled: Node, by: int) -> str:
        """Return all but the highest bits of a phi that is carried shifted."""
        return self._new(scaled.name, "lshr", scaled.kind, self.scale[scaled.name][1], str(by))


def _ones(bits: int) -> int:
    return (1 << bits) - 1


def _mask(node: Node, bits: int) -> int | None:
    """Return the low bits of the constant that an ``and`` is with."""
    mask = number(node.args[1]) if node.op == "and" else None
    return None if mask is None else mask & _ones(bits)


def _wrapped(value: int, bits: int) -> str:
    value &= _ones(bits)
    return str(value - (1 << bits) if value >> (bits - 1) else value)


def _simple(op: str, args: tuple[str, ...]) -> str | None:
    """Return the result of an instruction that need not be run."""
    first, second = args[-2:]
    if op == "select":
        return first if first == second else None
    if "0" in (first, second) and op in ("and", "mul"):
        return "0"
    if second == "0" or (first == "0" and op == "shl"):
        return first
    return second if first == "0" and op in ("add", "or", "xor") else None
