"""Digests of this package's own text: what is kept on disk is valid for these versions only."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterable


@functools.cache
def text_of(folder: str, others: tuple[str, ...] = ()) -> str:
    """Return the digest of all modules of a package, and of other files, by paths from there."""
    own = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    found = sorted(path for path in own if path.endswith(".py"))
    return _digest((*found, *(os.path.join(folder, name) for name in others)))


@functools.cache
def state_of(folder: str) -> str:
    """Return a value that changes with any module in a folder: sizes and times, quickly read."""
    with os.scandir(folder) as entries:
        states = [(e.name, e.stat()) for e in entries if e.name.endswith(".py")]
    found = sorted((name, state.st_size, state.st_mtime_ns) for name, state in states)
    return hashlib.sha256(repr((folder, found)).encode()).hexdigest()


def _digest(paths: Iterable[str]) -> str:
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            found.update(file.read())
    return found.hexdigest()
