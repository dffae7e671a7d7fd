"""Trying many seeds on several processors: what the programs that do so share."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

UNSURE = ("LimitError", "Deadlock")
"""Ends in which engines may differ: where a limit strikes, and who waits then, is their affair."""


def command_line(description: str, count: int) -> argparse.ArgumentParser:
    """Return a parser of the options that all share; so many seeds are tried unless given."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    return parser


def try_all(
    attempt: Callable[[Sequence[int]], tuple[Counter[str], list[str]]],
    seeds: Sequence[int],
    batch: int,
    workers: int,
) -> tuple[Counter[str], int]:
    """Try all seeds in batches; return how often what was found, and how many faults there are.

    Prints each fault as it is found, and the counts at the end.
    """
    batches = [seeds[at : at + batch] for at in range(0, len(seeds), batch)]
    found, wrong = Counter[str](), 0
    with ProcessPoolExecutor(workers) as pool:
        for counts, bad in pool.map(attempt, batches):
            found += counts
            wrong += len(bad)
            for what in bad:
                print(what, flush=True)
    for what, number in found.most_common():
        print(f"{number:9} {what}")
    return found, wrong
