"""Compiling while programs run: one thread, which takes the most urgent unit first.

LLVM works without Python's lock, so that the thread needs little besides a processor of its own.
But LLVM does one thing at a time: code that a program waits for would have to wait for the thread.
So the thread begins only if no program has waited for code for a while. What is still waiting when
the process ends is dropped.
"""

from __future__ import annotations

import functools
import itertools
import os
import queue
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field

from llmbol_core.native.jobs import wait_at_end
from llmbol_core.vm.jit.kept import Made, Tier
from llmbol_core.vm.jit.units import Source

_PAUSE = 0.015
"""Seconds without a program waiting for code, after which the thread continues."""


class Order:
    """What one compiler has ordered, and the results so far: units, or why one failed."""

    def __init__(self) -> None:
        self.done: deque[tuple[int, Made | BaseException, float]] = deque()
        self.waiting = 0


@dataclass(order=True)
class _Job:
    urgency: float
    number: int
    source: Source | None = field(compare=False)
    tier: Tier = field(compare=False)
    order: weakref.ref[Order] = field(compare=False)


class Background:
    """The thread and its work."""

    def __init__(self) -> None:
        self._jobs: queue.PriorityQueue[_Job] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._ends, self._ending = False, threading.Event()
        self._quiet = 0.0
        self._thread = threading.Thread(target=self._work, name="compiler", daemon=True)
        self._thread.start()
        wait_at_end(self, self._stop)

    def submit(self, order: Order, source: Source, gain: float) -> int:
        """Have a unit compiled well, the greater the gain the sooner; return the order's number."""
        number = next(self._numbers)
        assert source.text
        assert source.parts
        order.waiting += 1
        self._jobs.put(_Job(-gain, number, source, Tier.BEST, weakref.ref(order)))
        return number

    def wait(self, seconds: float = _PAUSE) -> None:
        """Let the thread begin nothing new for a moment, as a program waits for code, or did."""
        self._quiet = time.monotonic() + seconds

    def _next(self) -> _Job:
        """Wait for the most urgent unit, and for quiet."""
        job = self._jobs.get()
        while not self._ends and (left := self._quiet - time.monotonic()) > 0:
            self._ending.wait(left)
            self._jobs.put(job)
            job = self._jobs.get()
        return job

    def _work(self) -> None:
        while True:
            job = self._next()
            if self._ends or job.source is None:
                return
            if job.order() is None:
                continue
            began = time.perf_counter()
            made: Made | BaseException
            try:
                made = job.source.compile(job.tier)
            except BaseException as error:  # noqa: BLE001 -- raised where it was ordered
                made = error
            order = job.order()
            if order is not None:
                order.done.append((job.number, made, time.perf_counter() - began))

    def _stop(self, seconds: float | None) -> None:
        """Wait for the unit in progress: LLVM must not run while the process ends."""
        self._ends = True
        self._ending.set()
        if not self._thread.is_alive():
            return
        gone = weakref.ref(Order())
        self._jobs.put(_Job(float("-inf"), next(self._numbers), None, Tier.BEST, gone))
        self._thread.join(seconds)


@functools.cache
def background() -> Background | None:
    """Return the thread, or None if there is no processor to spare for it."""
    if hasattr(os, "sched_getaffinity"):
        return Background() if len(os.sched_getaffinity(0)) > 1 else None
    return Background() if (os.cpu_count() or 1) > 1 else None


if hasattr(os, "register_at_fork"):
    # A forked process does not have the thread, but may start its own.
    os.register_at_fork(after_in_child=background.cache_clear)
