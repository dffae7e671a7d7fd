"""Results too large for the ledger: files beside it, each under the id of its task.

A node on the same machine writes one there under a name of its own, which it reports; the file gets
its final name, on disk, together with the record of the task's end. So a result is there once or
not at all.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

from llmbol_core.distributed.task import Content, Kept
from llmbol_core.errors import ClusterError, FileError
from llmbol_core.native.files import atomic_write, move_into_place

INLINE = 1 << 16
"""Results up to this many bytes stand in the ledger."""
_LEFT = re.compile(r"\.[A-Za-z0-9_.-]{1,100}\.part")


class Results:
    """The directory of large results."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, id: str) -> Path:
        """Return where the result of a task is."""
        return self._directory / id

    def leave(self, node: str, data: bytes) -> Kept:
        """Write the result of a task on its node; it need not be on disk yet."""
        name = f".{node}-{secrets.token_hex(8)}.part"
        path = self._directory / name
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", 0) as file:
                file.write(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise FileError.of(error, path) from error
        return Kept(name)

    def put(self, id: str, data: Content) -> None:
        """Put the result of a task in its place, on disk; raises FileError if that fails."""
        if isinstance(data, bytes):
            with atomic_write(self.path(id)) as file:
                file.write(data)
            return
        if not _LEFT.fullmatch(data.name):
            raise ClusterError(f"{data.name!r} is no name of a result")
        left = self._directory / data.name
        # If the ledger cannot be written after this, all of it is tried again.
        if left.exists() or not self.path(id).exists():
            move_into_place(left, self.path(id))

    def remove(self, id: str) -> None:
        """Remove the result of a task, if there is one."""
        self.path(id).unlink(missing_ok=True)

    def sweep(self, seconds: float = 0.0) -> None:
        """Remove results that nodes left long ago and nobody took, as for a cancelled task."""
        before = time.time() - seconds
        for path in self._directory.glob(".*.part"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= before:
                    path.unlink()
