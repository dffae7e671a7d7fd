"""Work that mostly waits for disks or for answers: several pieces at a time, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_A_TIME = 8


def some_ahead(function: Callable[[T], R], things: Iterable[T]) -> Iterator[R]:
    """Yield a function's results for some items, in order, while it already works on the next ones.

    >>> list(some_ahead(abs, range(-9, 0)))
    [9, 8, 7, 6, 5, 4, 3, 2, 1]
    """
    threads = ThreadPoolExecutor(AT_A_TIME, "llmbol-ahead")
    ahead: deque[Future[R]] = deque()
    try:
        for thing in things:
            ahead.append(threads.submit(function, thing))
            if len(ahead) == AT_A_TIME:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
