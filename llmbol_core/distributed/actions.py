"""What the dispatcher keeps of a node, and what it wants done: launches, replacements, records."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmbol_core.distributed.task import Change, TaskRecord


@dataclass(frozen=True, slots=True)
class Launch:
    """Run these tasks on that node, one after the other."""

    key: str
    node: str
    records: tuple[TaskRecord, ...]
    started: float

    @property
    def deadline(self) -> float | None:
        """When the launch has taken too long; only tasks that travel alone have a time-out."""
        timeout = self.records[0].task.timeout
        return None if timeout is None else self.started + timeout


@dataclass(frozen=True, slots=True)
class Replace:
    """End a node's process at once and start a new one."""

    node: str
    why: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write down how a task stands."""

    change: Change


Action = Launch | Replace | Save


@dataclass(slots=True)
class NodeRecord:
    """A node that is up: what it offers and what it works on."""

    name: str
    capabilities: frozenset[str]
    slots: int = 1
    launches: dict[str, Launch] = field(default_factory=dict)
    usable: bool = True
    """Whether it answers; one that does not gets no more tasks."""
    leaving: bool = False
    """Whether its process is being ended."""
    cordoned: bool = False
    """Whether it gets no more tasks because somebody said so."""
    since: float = 0.0
    """When it was given something to do after it had nothing."""
    occupied: float = 0.0
    """Seconds, up to then, that it had something to do."""
    worked: float = 0.0
    """Seconds that its tasks took by themselves."""
    done: int = 0
    failed: int = 0
    cpu: float = 0.0
    cached: frozenset[str] = frozenset()

    @property
    def running(self) -> int:
        """How many tasks the node has, running or waiting there."""
        return sum(len(launch.records) for launch in self.launches.values())
