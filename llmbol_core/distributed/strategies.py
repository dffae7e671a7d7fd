"""Placement: which of the nodes that could run a task now should get it.

Every strategy is a pure function of what is known about the eligible nodes. A node is eligible
while it is healthy, offers what the task needs and has room, so that every strategy keeps all nodes
at work as long as there is work for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmbol_core.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Candidate:
    """What placement knows of an eligible node."""

    name: str
    slots: int = 1
    running: int = 0
    """Tasks that the node has, running or waiting there."""
    capabilities: frozenset[str] = frozenset()
    cached: frozenset[str] = frozenset()
    """Content hashes of the files that the node has loaded."""
    cpu: float = 0.0
    """Percent of one core that the node's process used lately."""
    done: int = 0

    @property
    def load(self) -> float:
        """Tasks per slot."""
        return self.running / self.slots


@dataclass(frozen=True, slots=True)
class Need:
    """What placement knows of a task, with the previous choice and a random number."""

    capability: str | None = None
    files: frozenset[str] = frozenset()
    """Content hashes of the files that the task uses."""
    last: str = ""
    """The node that the previous task went to."""
    draw: float = 0.0
    """A random number, 0 <= draw < 1."""


Strategy = Callable[[Sequence[Candidate], Need], Candidate]


def round_robin(candidates: Sequence[Candidate], need: Need) -> Candidate:
    """Choose the node whose name follows that of the node chosen last."""
    ring = sorted(candidates, key=lambda node: node.name)
    return next((node for node in ring if node.name > need.last), ring[0])


def least_loaded(candidates: Sequence[Candidate], need: Need) -> Candidate:
    """Choose the node with the fewest tasks per slot, preferring one that has the task's files."""
    return min(candidates, key=lambda node: _burden(node, need))


def at_random(candidates: Sequence[Candidate], need: Need) -> Candidate:
    """Choose any node, all with the same probability."""
    return candidates[int(need.draw * len(candidates))]


def capability_based(candidates: Sequence[Candidate], need: Need) -> Candidate:
    """Choose the node with the fewest capabilities that the task does not need, then by load."""
    return min(candidates, key=lambda node: (len(node.capabilities), *_burden(node, need)))


def _burden(node: Candidate, need: Need) -> tuple[float, int, int, int, str]:
    """Order nodes by load; CPU use counts in steps of a quarter core, as it is noisy."""
    missing = len(need.files - node.cached)
    return node.load, missing, int(node.cpu // 25), node.done, node.name


# fmt: off
# name               rule
STRATEGIES: dict[str, Strategy] = {
    "round-robin":      round_robin,
    "least-loaded":     least_loaded,
    "random":           at_random,
    "capability-based": capability_based,
}
# fmt: on

DEFAULT = "least-loaded"


def check_strategy(name: object) -> str:
    """Return the name of a strategy, or raise UsageError saying which there are."""
    if not isinstance(name, str) or name not in STRATEGIES:
        hint = nearest(str(name), STRATEGIES) or f": expected one of {', '.join(STRATEGIES)}"
        raise UsageError(f"unknown strategy {name!r}{hint}")
    return name


def choose(strategy: str, candidates: Sequence[Candidate], need: Need) -> Candidate:
    """Return the node that the strategy picks from a non-empty sequence of eligible ones."""
    return STRATEGIES[strategy](candidates, need)
