"""Trying many seeds on several processors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor


def try_all(
    attempt: Callable[[Sequence[int]], tuple[Counter[str], list[str]]],
    seeds: Sequence[int],
    batch: int,
    workers: int,
) -> tuple[Counter[str], int]:
    """Print what is wrong as it is found, then how often what was; return that and the faults."""
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
