"""Teams: nodes that train one model together, and what the broker does for them.

Members bring arrays and get the sum of everybody's, step by step. When one is lost, the others are
told and begin their step again among themselves; sums that were known before stay as they were,
so that all continue alike. Between two epochs others may join: a member hands in the state of the
training, and they continue from there. So does a member that begins when no other is left.

A team knows nothing of networks or clocks: a method returns what is known, or None for "not yet".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from llmbol_core.errors import ClusterError

GATHER_SECONDS = 2.0
"""How long the first member waits for the others."""
SAVE_SECONDS = 5.0
"""Least time between two records of the state of the training."""

Key = tuple[int, str]
"""A step and a part of it."""


@dataclass(slots=True)
class Team:
    """One training run: who takes part and how far they are."""

    size: int
    """How many members there are to be."""
    snapshot: str | None = None
    """The last recorded state of the training: the hash of a file."""
    finished: dict[str, Any] | None = None
    """The result once training is over: the hash of the checkpoint, and how the run went."""
    members: list[str] = field(default_factory=list)
    nodes: dict[str, str] = field(default_factory=dict)
    """The node of each member and of those who wait to be one."""
    joiners: list[str] = field(default_factory=list)
    generation: int = 0
    """Which set of members this is."""
    _opened: float = 0.0
    _saved: float = 0.0
    _epoch: int = 0
    """The epoch that may be begun."""
    _arrived: dict[str, int] = field(default_factory=dict)
    _brought: dict[Key, dict[str, Any]] = field(default_factory=dict)
    _sums: dict[Key, bytes] = field(default_factory=dict)

    def join(self, member: str, node: str, now: float) -> dict[str, Any] | None:
        """Return a member's place and the state to begin from, or the result after the end."""
        if self.finished is not None:
            return {"finished": self.finished}
        if member not in self.nodes:
            if not self.members and not self.joiners:
                self._opened = self._saved = now
            self.nodes[member] = node
            self.joiners.append(member)
        if not self.members and (
            len(self.joiners) >= self.size or now - self._opened >= GATHER_SECONDS
        ):
            self._admit()
        return self.seat(member) | {"snapshot": self.snapshot} if member in self.members else None

    def gather(self, member: str, epoch: int, now: float) -> dict[str, Any] | None:
        """Return a member's place once all have reached an epoch; one may have to save first."""
        self._check(member)
        self._arrived[member] = epoch
        if self._epoch >= epoch:
            return self.seat(member)
        if any(self._arrived.get(other) != epoch for other in self.members):
            return None
        if not self.joiners and now - self._saved < SAVE_SECONDS:
            self._epoch = epoch
            return self.seat(member)
        return {"save": True} if member == self.members[0] else None

    def saved(self, member: str, epoch: int, snapshot: str, now: float) -> None:
        """Take the state of the training before an epoch; nodes that wait to join do so now."""
        self._check(member)
        self.snapshot, self._saved, self._epoch = snapshot, now, epoch
        if self.joiners:
            self._admit()

    def sum(
        self,
        member: str,
        generation: int,
        key: Key,
        own: Any,
        add: Callable[[list[Any]], bytes],
    ) -> bytes | dict[str, Any] | None:
        """Return what all members bring for a key, put together; a place if they are others."""
        self._check(member)
        if generation != self.generation:
            return self.seat(member)
        if key not in self._sums:
            brought = self._brought.setdefault(key, {})
            brought[member] = own
            if len(brought) < len(self.members):
                return None
            self._sums[key] = add([brought[other] for other in self.members])
            del self._brought[key]
            # No member is more than one sum behind.
            for old in [old for old in self._sums if old[0] < key[0] - 1]:
                del self._sums[old]
        return self._sums[key]

    def finish(self, result: dict[str, Any]) -> None:
        """Take the result, which is the same for all members."""
        self.finished, self.snapshot = self.finished or result, None
        self._sums.clear()

    def lost(self, gone: Callable[[str, str], bool]) -> bool:
        """Go on without the members for whom this holds, given with their nodes."""
        out = [member for member, node in self.nodes.items() if gone(member, node)]
        for member in out:
            del self.nodes[member]
            self._arrived.pop(member, None)
        self.joiners = [member for member in self.joiners if member in self.nodes]
        left = [member for member in self.members if member in self.nodes]
        if left != self.members:
            self.members = left
            self.generation += 1
            self._brought.clear()
        if not self.members:
            self._sums.clear()
            self._arrived.clear()
            self._epoch = 0
        return bool(out)

    def seat(self, member: str) -> dict[str, Any]:
        """Return a member's place among the others."""
        rank, world = self.members.index(member), len(self.members)
        return {"rank": rank, "world": world, "generation": self.generation}

    def _admit(self) -> None:
        self.members += self.joiners
        self.joiners = []
        self.generation += 1
        self._brought.clear()

    def _check(self, member: str) -> None:
        if member not in self.members:
            raise ClusterError(f"{member} is no member of its team any more")
