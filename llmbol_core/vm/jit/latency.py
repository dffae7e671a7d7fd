"""How long an iteration of a loop takes, and the order of sums that makes it short.

Values that an iteration takes from the one before form chains: however many instructions a
processor runs at once, iterations follow each other no faster than the longest chain allows. The
pace is found by simulating some iterations on a processor with as many units as can be used.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from llmbol_core.vm.jit.looptext import Loop, Node

_CYCLES = {
    "mul": 3, "load": 4, "fadd": 3, "fsub": 3, "fmul": 3, "fdiv": 11, "sdiv": 10, "udiv": 10,
    "srem": 10, "urem": 10, "trunc": 0, "bitcast": 0, "freeze": 0, "zext": 0, "phi": 0,
}  # fmt: skip
"""Cycles after which others can use an instruction's result; 1 for all that are not listed."""
_AT_ONCE = 5
"""Instructions that a processor runs in a cycle; most run a few more."""
_LONG = {"sdiv": 8, "udiv": 6, "srem": 9, "urem": 7, "fdiv": 4}
"""Instructions that are worth several, even if what they divide by is known."""
_ROUNDS = 8
_SCALES = frozenset({"1", "2", "3"})
"""Shifts that an address can contain."""
_SHORT_FACTORS = frozenset({"3", "5", "9"})
_SUMS = {"add": "sum", "sub": "sum", "xor": "xor", "and": "and", "or": "or"}


@dataclass(frozen=True)
class Pace:
    """Cycles of an iteration, and when its values are available."""

    cycles: float
    ready: Mapping[str, int]


def pace(loop: Loop) -> Pace:
    """Return how fast iterations of a loop follow each other."""
    nodes = [node for node in loop.nodes if node.name and node.op != "phi"]
    folded = _folded(loop)
    places = {node.name: place for place, node in enumerate([*loop.phis, *nodes])}
    came = [places.get(phi.came(loop.latch), -1) for phi in loop.phis]
    steps = [
        (
            places[node.name],
            [places[name] for name in node.uses if name in places],
            0 if node.name in folded else _latency(node),
        )
        for node in nodes
    ]
    ready, before = [0] * (len(places) + 1), [0]
    for count in range(2 * _ROUNDS):
        ready[: len(came)] = [ready[place] if count else 0 for place in came]
        if count == _ROUNDS:
            before = ready[:]
        for place, used, cycles in steps:
            starts = 0
            for other in used:
                starts = max(starts, ready[other])
            ready[place] = starts + cycles
    ends = [ready[place] for place in came]
    steady = max((end - before[place] for place, end in enumerate(ends)), default=0) / _ROUNDS
    at_once = sum(_LONG.get(node.op, node.name not in folded) for node in nodes) / _AT_ONCE
    return Pace(max(steady, at_once), {name: ready[place] for name, place in places.items()})


def _latency(node: Node) -> int:
    if (
        node.op == "icmp"
        and node.text.endswith(", 0")
        and (" eq " in node.text or " ne " in node.text)
    ):
        # What computes a number tells whether it is 0, too.
        return 0
    if node.op == "mul" and node.args[-1] in _SHORT_FACTORS:
        return 1
    return _CYCLES.get(node.op, 1)


def _folded(loop: Loop) -> set[str]:
    """Return the shifts that become part of the address or sum that uses them."""
    uses, sums = Counter[str](), set[str]()
    for node in loop.nodes:
        uses.update(node.uses)
        sums.update(node.args if node.op == "add" else ())
    return {
        node.name
        for node in loop.nodes
        if node.op == "shl" and node.args[1] in _SCALES and uses[node.name] == 1
        and node.name in sums and node.name not in loop.outside
    }  # fmt: skip


class Sums:
    """The sums of a loop and its other chains of one operation whose order makes no difference.

    Addition modulo a power of two is commutative and associative, as are ``and``, ``or`` and
    ``xor``. So the members of a chain can be joined in the order in which they become available.
    """

    def __init__(self, loop: Loop, prefix: str) -> None:
        self._loop, self._prefix, self._count = loop, prefix, 0
        self._made = {node.name: node for node in loop.nodes if node.op in _SUMS and node.kind}
        uses = Counter(name for node in loop.nodes for name in node.uses)
        self._inner = {
            arg
            for node in self._made.values()
            for arg in node.args
            if arg in self._made and uses[arg] == 1 and arg not in loop.outside
            and _SUMS[self._made[arg].op] == _SUMS[node.op]
        }  # fmt: skip

    def ordered(self, ready: Mapping[str, int]) -> Loop:
        """Return the loop with what is available last being joined last, where that helps."""
        others: dict[str, list[Node]] = {}
        useless: set[str] = set()
        for node in self._made.values():
            if node.name not in self._inner:
                parts, inner = self._parts(node, True)
                made = self._joined(node, parts, ready) if inner else []
                if made:
                    others[node.name] = made
                    useless |= inner
        blocks = [
            [
                new
                for node in block
                if node.name not in useless
                for new in others.get(node.name, [node])
            ]
            for block in self._loop.blocks
        ]
        return replace(self._loop, blocks=blocks)

    def _parts(self, node: Node, plus: bool) -> tuple[list[tuple[str, bool]], set[str]]:
        """Return what a chain joins, whether each is added, and what is inside of the chain."""
        parts, inner = [], set[str]()
        for place, arg in enumerate(node.args):
            sign = plus if node.op != "sub" or not place else not plus
            if arg in self._inner:
                more, deeper = self._parts(self._made[arg], sign)
                parts += more
                inner |= {arg, *deeper}
            else:
                parts.append((arg, sign))
        return parts, inner

    def _joined(
        self, node: Node, parts: list[tuple[str, bool]], ready: Mapping[str, int]
    ) -> list[Node]:
        """Return a chain in a better order, if there is one; its last instruction has its name."""
        heap = [(ready.get(arg, 0), place, arg, plus) for place, (arg, plus) in enumerate(parts)]
        heapq.heapify(heap)
        made = []
        while len(heap) > 1:
            (one, _, x, plus), (other, place, y, adds) = heapq.heappop(heap), heapq.heappop(heap)
            op = node.op if _SUMS[node.op] != "sum" else "add" if plus == adds else "sub"
            if adds and not plus:
                x, y = y, x
            name = self._name() if heap else node.name
            made.append(Node.made(name, op, node.kind, x, y))
            heapq.heappush(heap, (max(one, other) + 1, place, name, plus or adds))
        is_better = heap[0][0] < ready[node.name] and heap[0][3]
        return made if is_better else []

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}s{self._count}"
