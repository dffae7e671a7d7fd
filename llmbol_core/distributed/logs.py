"""The logs of a cluster's processes: their last lines, and those that are still to come."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmbol_core.distributed.state import StateDirectory
from llmbol_core.errors import FileError, NoCluster, UsageError, nearest

LOOK_SECONDS = 0.2
TAIL_BYTES = 1 << 20
"""How much of a log is looked at for its last lines, at most."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a process wrote: guardian, broker, or a node by its name."""

    process: str
    text: str


def read_logs(
    state: StateDirectory, processes: list[str], last: int, *, follow: bool = False
) -> Iterator[LogLine]:
    """Yield the last lines of some processes' logs, or of all; then, for ever, what is added.

    Raises UsageError for a process that has no log, NoCluster if there is none at all.
    """
    known = sorted(path.stem for path in state.log("").parent.glob("*.log") if path.stem)
    if not known:
        raise NoCluster(f"no cluster has run in {state.root}; start one with: cluster start")
    for name in processes:
        if name not in known:
            hint = nearest(name, known) or f": expected one of {', '.join(known)}"
            raise UsageError(f"no process {name!r} has a log in {state.root}{hint}")
    tails = [_Tail(name, state.log(name)) for name in processes or known]
    for tail in tails:
        lines = list(tail.lines())
        yield from lines[max(0, len(lines) - last) :]
    while follow:
        time.sleep(LOOK_SECONDS)
        for tail in tails:
            yield from tail.lines()


class _Tail:
    """Reads what is new in a log."""

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._offset = max(0, self._size() - TAIL_BYTES)

    def lines(self) -> Iterator[LogLine]:
        """Yield the complete lines since the last time; a log that became shorter starts anew."""
        if self._size() < self._offset:
            self._offset = 0
        try:
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError as error:
            raise FileError.of(error, self._path) from error
        end = data.rfind(b"\n") + 1
        self._offset += end
        for line in data[:end].decode(errors="replace").splitlines():
            yield LogLine(self._name, line)

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0
