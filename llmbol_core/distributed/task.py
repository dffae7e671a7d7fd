"""Tasks: requests to a cluster, and the life of a request as a table of transitions.

Nothing here does I/O or looks at a clock: whoever drives a task says what happened and when.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.node import NAME
from llmbol_core.distributed.strategies import check_strategy
from llmbol_core.errors import UsageError


class State(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What can happen to a task."""

    LAUNCH = "launch"
    """It was sent to a node."""
    FINISH = "finish"
    """The node returned its result."""
    FAIL = "fail"
    """It failed for good."""
    RETRY = "retry"
    """An attempt failed and another one is due."""
    INTERRUPT = "interrupt"
    """Its node or the broker went away, through no fault of its own."""
    CANCEL = "cancel"
    """Somebody no longer wants it."""


LARGEST = 2**31 - 1
"""The largest priority and number of retries: larger ones could not be sent."""

TERMINAL = frozenset({State.DONE, State.FAILED, State.CANCELLED})

# fmt: off
# (state, event)                    next state
TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.QUEUED,  Event.LAUNCH):    State.RUNNING,
    (State.QUEUED,  Event.CANCEL):    State.CANCELLED,
    (State.RUNNING, Event.FINISH):    State.DONE,
    (State.RUNNING, Event.FAIL):      State.FAILED,
    (State.RUNNING, Event.RETRY):     State.QUEUED,
    (State.RUNNING, Event.INTERRUPT): State.QUEUED,
    (State.RUNNING, Event.CANCEL):    State.CANCELLED,
}
# fmt: on


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that travels with a task: its part in the task, its name and what is in it."""

    role: str
    name: str
    sha256: str
    size: int
    excerpt: Excerpt | None = field(default=None, compare=False)
    """Where it lies on the cluster's own machine, if it was not sent."""

    def to_json(self) -> list[Any]:
        """Return it in a form for JSON."""
        fields = [self.role, self.name, self.sha256, self.size]
        return fields if self.excerpt is None else [*fields, self.excerpt.to_json()]

    @classmethod
    def from_json(cls, fields: list[Any]) -> FileRef:
        """Return the file that ``to_json`` described."""
        role, name, sha256, size, *excerpt = fields
        return cls(role, name, sha256, size, *map(Excerpt.from_json, excerpt))


@dataclass(frozen=True, slots=True)
class Kept:
    """A result that a node on the cluster's own machine left in a file beside the ledger."""

    name: str


Content = bytes | Kept


@dataclass(frozen=True, slots=True)
class Task:
    """A request: one row of the table of jobs with its arguments.

    The payload is what the user gave; packing it for a cluster moves files out of it into
    ``files`` and leaves a form for JSON.
    """

    id: str
    type: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    """Higher ones first."""
    capability: str | None = None
    """What a node must offer."""
    strategy: str | None = None
    """How a node is chosen; None is the cluster's own way."""
    max_retries: int | None = None
    """Attempts after the first one; None is the cluster's own number."""
    timeout: float | None = None
    """Seconds that an attempt may take."""
    files: tuple[FileRef, ...] = ()
    group: str | None = None
    """What it is a part of: a name under which all its parts can be asked for."""

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.group is not None:
            check_id(self.group)
        self._require(isinstance(self.type, str), "type", "a word, such as 'run'")
        self._require(isinstance(self.payload, Mapping), "payload", "a dictionary of its fields")
        self._require(
            _is_whole(self.priority, -LARGEST), "priority",
            f"a whole number between -{LARGEST} and {LARGEST}",
        )  # fmt: skip
        self._require(
            self.max_retries is None or _is_whole(self.max_retries, 0), "number of retries",
            f"a whole number between 0 and {LARGEST}",
        )  # fmt: skip
        self._require(
            self.timeout is None or _is_duration(self.timeout), "time-out",
            "a number of seconds, more than 0 and finite",
        )  # fmt: skip
        named = isinstance(self.capability, str | None)
        self._require(named, "capability", "a word, such as 'inference'")
        if self.strategy is not None:
            check_strategy(self.strategy)

    def _require(self, good: bool, part: str, expected: str) -> None:
        if not good:
            raise UsageError(f"task {self.id}: its {part}: expected {expected}")

    def to_json(self) -> dict[str, Any]:
        """Return a packed task in a form for JSON."""
        return {
            "id": self.id,
            "type": self.type,
            "payload": dict(self.payload),
            "priority": self.priority,
            "capability": self.capability,
            "strategy": self.strategy,
            "max_retries": self.max_retries,
            "timeout": self.timeout,
            "files": [file.to_json() for file in self.files],
            "group": self.group,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Task:
        """Return the task that ``to_json`` described."""
        return cls(**{**fields, "files": tuple(map(FileRef.from_json, fields["files"]))})


def check_id(id: object) -> str:
    """Return a task's id, or raise UsageError saying what it may consist of."""
    if isinstance(id, str) and NAME.fullmatch(id):
        return id
    shown = repr(id[:40] + "..." if isinstance(id, str) and len(id) > 40 else id)
    raise UsageError(
        f"task id {shown}: expected letters, digits, '.', '_' and '-', "
        "a letter or digit first, 1 to 63 of them"
    )


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= LARGEST


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def create_task(
    id: str, type: str, payload: Mapping[str, Any], priority: int = 0, **options: Any
) -> Task:
    """Describe a task; options are the other fields of ``Task``, such as ``timeout``.

    The type is a row of the table of jobs (``jobs.py``), which says what the payload holds. Raises
    UsageError for fields that are no such things.

    >>> create_task("task1", "inference", {"model": "m.gguf", "input": [[0.0]]}, 1).priority
    1
    """
    return replace(Task(id, type, payload, priority), **options)


class Verdict(StrEnum):
    """The result of an attempt, in a word."""

    DONE = "done"
    FAILED = "failed"
    """It would fail again in the same way: the program or its input is wrong."""
    ERROR = "error"
    """Something went wrong on the node; another attempt may do better."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a node reports of an attempt."""

    id: str
    verdict: Verdict
    data: Content = b""
    """The result; a program that failed may have printed something too."""
    error: str | None = None
    seconds: float = 0.0


def new_id(type: str) -> str:
    """Return an id that no task has."""
    return f"{type}-{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True)
class Change:
    """The state of a task after an event, as the ledger records it."""

    id: str
    state: State
    attempts: int
    interruptions: int
    node: str | None
    started: float | None
    finished: float | None
    not_before: float | None
    error: str | None
    data: Content | None = None
    """The result, with the change that ends the task."""
    submitted: float = 0.0

    def lost(self, why: str) -> Change:
        """Return the change to record if there is no room for the result."""
        if self.state is not State.DONE:
            return replace(self, data=b"")
        error = f"its result could not be written: {why}"
        return replace(self, state=State.FAILED, error=error, data=b"")


@dataclass(slots=True)
class TaskRecord:
    """A task with its history so far; ``seq`` orders those of equal priority."""

    task: Task
    seq: int
    submitted: float
    state: State = State.QUEUED
    attempts: int = 0
    """Attempts that failed."""
    interruptions: int = 0
    """Attempts that went away with their node or broker."""
    node: str | None = None
    started: float | None = None
    finished: float | None = None
    not_before: float | None = None
    error: str | None = None
    alone: bool = False
    """Whether it may not share a batch, because a batch with it was lost."""

    def apply(self, event: Event, now: float, error: str | None = None) -> None:
        """Move to the state that the event leads to; KeyError if it cannot happen here."""
        self.state = TRANSITIONS[self.state, event]
        if error is not None:
            self.error = error
        if event is Event.LAUNCH:
            self.started, self.not_before = now, None
        elif event in (Event.RETRY, Event.FAIL):
            self.attempts += 1
        elif event is Event.INTERRUPT:
            self.interruptions += 1
        elif event is Event.FINISH:
            self.error = None
        if self.state in TERMINAL:
            self.finished = now
        elif self.state is State.QUEUED:
            self.node = None

    def change(self, data: Content | None = None) -> Change:
        """Return the state of the task now."""
        return Change(
            self.task.id, self.state, self.attempts, self.interruptions, self.node,
            self.started, self.finished, self.not_before, self.error, data, self.submitted,
        )  # fmt: skip


def backoff(attempts: int, draw: float) -> float:
    """Return the seconds to wait after so many failed attempts; ``draw`` in 0..1 spreads them.

    >>> backoff(1, 1.0), backoff(20, 1.0)
    (0.2, 30.0)
    """
    return min(30.0, 0.1 * 2.0 ** min(attempts, 20)) * (0.5 + 0.5 * draw)
