"""What a cluster did lately: how many tasks ended, how long they took, what happened to nodes.

Nothing here looks at a clock: whoever tells something says when it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

WINDOW = 60
"""Seconds that throughput is kept for."""
RATE_SECONDS = 10
"""Seconds that the current rate is a mean of."""
SAMPLES = 2000
"""How many of the latest latencies the percentiles are of."""
EVENTS = 200
"""How many of the latest events are kept."""


@dataclass(frozen=True, slots=True)
class Happening:
    """Something worth knowing; the time is in seconds since 1970."""

    time: float
    subject: str
    """A node's name, or broker."""
    what: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a cluster did lately."""

    rate: float
    """Tasks per second that ended, over the last ten seconds."""
    throughput: tuple[int, ...]
    """Tasks that ended in each of the last sixty seconds, the latest last."""
    p50_ms: float | None
    """How long tasks took from submission to their end, of the latest: the median ..."""
    p90_ms: float | None
    p99_ms: float | None
    ended: int
    """Tasks that ended since the broker started ..."""
    latency_s: float
    """... and how long they took in all, in seconds."""
    events: tuple[Happening, ...]
    """The latest last."""

    def to_json(self) -> dict[str, Any]:
        """Return it in a form for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Metrics:
        """Return the metrics that ``to_json`` described."""
        events = tuple(Happening(**event) for event in fields["events"])
        return cls(**{**fields, "throughput": tuple(fields["throughput"]), "events": events})


class Telemetry:
    """Gathers what ``Metrics`` tells, in a fixed amount of memory."""

    def __init__(self) -> None:
        self._ended, self._latency = 0, 0.0
        self._latencies: deque[float] = deque(maxlen=SAMPLES)
        self._ends: dict[int, int] = {}
        self._events: deque[Happening] = deque(maxlen=EVENTS)

    def ended(self, now: float, latency: float) -> None:
        """Count a task that ended, so many seconds after it was submitted."""
        self._ended, self._latency = self._ended + 1, self._latency + latency
        self._latencies.append(latency)
        second = int(now)
        self._ends[second] = self._ends.get(second, 0) + 1
        if len(self._ends) > WINDOW + 1:
            del self._ends[next(iter(self._ends))]

    def happened(self, now: float, subject: str, what: str) -> None:
        """Note an event."""
        self._events.append(Happening(now, subject, what))

    def metrics(self, now: float) -> Metrics:
        """Return what is known now; the second that has just begun does not count yet."""
        last = int(now)
        throughput = tuple(self._ends.get(last - ago, 0) for ago in range(WINDOW, 0, -1))
        rate = sum(throughput[-RATE_SECONDS:]) / RATE_SECONDS
        ordered = sorted(self._latencies)
        p50, p90, p99 = (quantile(ordered, q) for q in (0.5, 0.9, 0.99))
        totals = self._ended, self._latency
        return Metrics(rate, throughput, p50, p90, p99, *totals, tuple(self._events))


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """Return the value below which a share q of some seconds lies, in milliseconds.

    >>> quantile([0.001, 0.002, 0.009], 0.5)
    2.0
    """
    if not ordered:
        return None
    return round(1000 * ordered[min(len(ordered) - 1, int(q * len(ordered)))], 3)
