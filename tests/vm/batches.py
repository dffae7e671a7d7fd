"""Trying many seeds on several processors: what the programs that do so share."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

_T = TypeVar("_T")

UNSURE = ("LimitError", "Deadlock")
"""Ends in which engines may differ: where a limit strikes, and who waits then, is their affair."""


def command_line(description: str, count: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all share; so many seeds are tried unless given."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    return parser


_interrupted = False
"""Whether Ctrl-C has ended a batch in this worker, which then begins no other one."""


def attempted(attempt: Callable[..., _T], *given: Any) -> _T:
    """Try a batch in a worker, unless that is interrupted."""
    global _interrupted
    if _interrupted:
        raise KeyboardInterrupt
    try:
        return attempt(*given)
    except KeyboardInterrupt:
        _interrupted = True
        raise


@contextmanager
def until_interrupted(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Let Ctrl-C end a block, and nothing else: what has been counted is still told."""
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        print("interrupted: so far there were", file=sys.stderr)


def try_all(
    attempt: Callable[[Sequence[int]], tuple[Counter[str], list[str]]],
    seeds: Sequence[int],
    batch: int,
    workers: int,
) -> tuple[Counter[str], int]:
    """Try all seeds in batches; return how often what was found, and how many faults there are.

    Prints each fault as it is found, and the counts at the end or when it is interrupted.
    """
    batches = [seeds[at : at + batch] for at in range(0, len(seeds), batch)]
    found, wrong = Counter[str](), 0
    with ProcessPoolExecutor(workers) as pool, until_interrupted(pool):
        for counts, bad in pool.map(partial(attempted, attempt), batches):
            found += counts
            wrong += len(bad)
            for what in bad:
                print(what, flush=True)
    for what, number in found.most_common():
        print(f"{number:9} {what}")
    return found, wrong
