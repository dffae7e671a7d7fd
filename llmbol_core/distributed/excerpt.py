"""Excerpts: content that lies in a file on the cluster's own machine and need not be sent.

A large input is cut into pieces; each is a head of its own (the header of an array, the names of a
table's columns) and a part of the file behind it. Whoever reads one gets the bytes that would have
been sent otherwise, and their hash tells whether the file is unchanged. They are read, not
mapped: a user's file may be cut short at any time.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from llmbol_core.distributed.store import CHUNK, open_regular
from llmbol_core.errors import ClusterError, FileError

MOST_HEAD = 1 << 24


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Some bytes, then those of a file from ``start`` up to ``stop``."""

    path: str
    start: int
    stop: int
    head: bytes = b""

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.head) + self.stop - self.start

    def sha256(self) -> str:
        """Return the hash of its bytes, in hexadecimal."""
        digest = hashlib.sha256(self.head)
        buffer = memoryview(bytearray(min(CHUNK, self.stop - self.start)))
        with open_regular(Path(self.path)) as file:
            for offset in range(self.start, self.stop, CHUNK):
                part = buffer[: min(CHUNK, self.stop - offset)]
                self._fill(part, file, offset)
                digest.update(part)
        return digest.hexdigest()

    def body(self, sha256: str) -> memoryview:
        """Return the part of the file; raises FileError unless the whole has this hash."""
        body = memoryview(bytearray(self.stop - self.start))
        with open_regular(Path(self.path)) as file:
            self._fill(body, file, self.start)
        digest = hashlib.sha256(self.head)
        digest.update(body)
        if digest.hexdigest() != sha256:
            raise self._changed()
        return body

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes in pieces that may travel."""
        offset = 0
        while piece := self.read(offset):
            yield piece
            offset += len(piece)

    def read(self, offset: int) -> bytes:
        """Return up to CHUNK bytes from an offset on; nothing at the end."""
        head = self.head[offset : offset + CHUNK]
        start = self.start + max(0, offset - len(self.head))
        part = memoryview(bytearray(max(0, min(self.stop - start, CHUNK - len(head)))))
        with open_regular(Path(self.path)) as file:
            self._fill(part, file, start)
        return head + part

    def is_within_reach(self) -> bool:
        """Return whether other processes find the file by its name: not so ``/dev/stdin``."""
        return os.path.realpath(self.path) == self.path and os.path.isfile(self.path)

    def to_json(self) -> list[Any]:
        """Return it in a form for JSON."""
        return [self.path, self.start, self.stop, base64.b64encode(self.head).decode()]

    @classmethod
    def from_json(cls, fields: list[Any]) -> Excerpt:
        """Return the excerpt that ``to_json`` described; raises ClusterError if it is none."""
        path, start, stop, head = fields
        if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
            raise ClusterError(f"{path!r} is no absolute path of a file")
        if not 0 <= start <= stop or len(head) > MOST_HEAD:
            raise ClusterError(f"{path}: no part of a file is from {start} to {stop}")
        return cls(path, int(start), int(stop), base64.b64decode(head))

    def _fill(self, buffer: memoryview, file: BufferedReader, offset: int) -> None:
        """Fill a buffer from an offset of the file on; raises FileError at its end."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(file.fileno(), [buffer[done:]], offset + done)
            except OSError as error:
                raise FileError.of(error, self.path) from error
            if not count:
                raise self._changed()
            done += count

    def _changed(self) -> FileError:
        return FileError(self.path, "the file was changed since it was submitted")
