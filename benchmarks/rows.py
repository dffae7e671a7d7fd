"""One comparison of a benchmark: measured in turns, printed with its goal."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Work = Callable[[], Any]
SECONDS = 0.4
TURN = 0.03
RUNS = 2
"""How often a side runs in its turn at least, however long that takes."""

TITLE = f"{'':28} {'ours':>10} {'peer':>10} {'unit':6} {'ratio':>6}  peer"


@dataclass(frozen=True)
class Row:
    """How much work a run is, in which unit, by whom; and the goal."""

    name: str
    amount: float
    unit: str
    ours: Work | None
    peer: Work | None = None
    peer_name: str = ""
    goal: float | None = None
    """The least ratio of both rates."""
    least: float | None = None
    """The least rate of ours."""
    most: float | None = None
    """The most that a cost (such as seconds, without work) may be."""
    limit: Work | None = None
    """The rate of the machine alone for the same work: nobody is faster."""

    @classmethod
    def of(
        cls,
        name: str,
        amount: float,
        unit: str,
        most: float | None = None,
        least: float | None = None,
    ) -> Row:
        """Return a row for a value that was measured already."""
        return cls(name, amount, unit, None, most=most, least=least)

    def line(self) -> str:
        """Measure, and return both rates, their ratio and the goal."""
        if self.ours is None:
            wanted = _verdict(self.amount, self.least, self.most)
            return f"{self.name:28} {self.amount:10.4g} {'-':>10} {self.unit:6} {'-':>6}  {wanted}"
        ours, peer, limit = best(self.ours, self.peer, self.limit)
        assert ours is not None
        rate = f"{self.name:28} {self.amount / ours:10.4g}"
        wanted = _verdict(self.amount / ours, self.least)
        if peer is None:
            return f"{rate} {'-':>10} {self.unit:6} {'-':>6}  {wanted}".rstrip()
        ratio, wanted = peer / ours, wanted or _verdict(peer / ours, self.goal)
        if limit is not None:
            wanted += f"; the machine allows {peer / limit:.2f}"
        theirs = f"{self.amount / peer:10.4g} {self.unit:6} {ratio:6.2f}"
        return f"{rate} {theirs}  {self.peer_name:10} {wanted}".rstrip()


def _verdict(found: float, least: float | None = None, most: float | None = None) -> str:
    """Return whether a number reaches its goal, in words."""
    if least is not None:
        return f"at least {least:g}: {'yes' if found >= least else 'NO'}"
    if most is not None:
        return f"at most {most:g}: {'yes' if found <= most else 'NO'}"
    return ""


def best(*sides: Work | None) -> list[float | None]:
    """Return the shortest time of each side; they take turns, for some milliseconds each.

    For that long, threads that wait for work may still be spinning, beside the next side's first
    run.
    """
    times: list[list[float]] = [[] for _ in sides]
    taking = [(side, taken) for side, taken in zip(sides, times, strict=True) if side is not None]
    for side, _ in taking:
        side()
    end = time.perf_counter() + SECONDS * len(taking)
    while len(taking[0][1]) < 3 or time.perf_counter() < end:
        for side, taken in taking:
            start, stop = time.perf_counter(), 0.0
            until, before = start + TURN, len(taken)
            while stop < until or len(taken) < before + RUNS:
                side()
                stop = time.perf_counter()
                taken.append(stop - start)
                start = stop
    return [min(taken) if taken else None for taken in times]
