"""Files by content: what tasks use is stored under the SHA-256 of its bytes, once per machine.

A name in the store is a promise about the content, so a file appears in it only when it is complete
and its hash was checked.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from llmbol_core.errors import ClusterError, FileError
from llmbol_core.native.files import atomic_write

CHUNK = 1 << 20
"""Bytes that travel at a time."""


def hash_file(path: Path) -> tuple[str, int]:
    """Return the SHA-256 of a file, in hexadecimal, and its size in bytes."""
    with open_regular(path) as file:
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise FileError.of(error, path) from error
        return digest, file.tell()


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading: no device and no pipe, which might never end.

    Raises FileError that says what it is or why it cannot be read.
    """
    try:
        # Opening a pipe that nobody writes to would block.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise FileError.of(error, path) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise FileError(str(path), "is a directory" if stat.S_ISDIR(mode) else "not a regular file")


class FileStore:
    """A directory of files named by the hash of their content."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, sha256: str) -> Path:
        """Return where a file of this content is or would be."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise ClusterError(f"{sha256!r} is no SHA-256 in hexadecimal")
        return self.directory / sha256

    def has(self, sha256: str) -> bool:
        """Return whether the store has the content."""
        return self.path(sha256).is_file()

    def read(self, sha256: str, offset: int) -> bytes:
        """Return up to CHUNK bytes of a file from an offset on; nothing at its end."""
        path = self.path(sha256)
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(CHUNK)
        except OSError as error:
            raise ClusterError(f"no file with the hash {sha256[:12]}... is known here") from error

    def add(self, sha256: str, chunks: Iterator[bytes]) -> Path:
        """Store content that arrives in pieces; raises ClusterError if it is not what it claims."""
        path = self.path(sha256)
        digest = hashlib.sha256()
        with atomic_write(path) as file:
            for chunk in chunks:
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != sha256:
                raise ClusterError(f"file {sha256[:12]}... arrived damaged")
        return path

    def keep(self, sha256: str, content: bytes) -> bool:
        """Store content whose hash was just computed; return whether it was new."""
        path = self.path(sha256)
        if path.is_file():
            return False
        with atomic_write(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(content)
        return True

    def append(self, sha256: str, owner: str, offset: int, chunk: bytes, *, last: bool) -> None:
        """Take the next piece of a file that its owner is sending; the last one completes it."""
        path = self.path(sha256)
        partial = path.with_name(f".{sha256}.{hashlib.sha256(owner.encode()).hexdigest()[:8]}.part")
        try:
            with open(partial, "r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(chunk)
            if last:
                self._complete(partial, path)
        except OSError as error:
            # An incomplete file would only take room on a full disk.
            partial.unlink(missing_ok=True)
            raise FileError.of(error, path) from error

    def fetch(self, sha256: str, read: Callable[[int], bytes]) -> Path:
        """Return the path of a file, got first in pieces if no process on this machine has yet."""
        path = self.path(sha256)
        if path.is_file():
            return path
        with self._lock(sha256):
            if path.is_file():
                return path
            return self.add(sha256, _pieces(read))

    def remove(self, sha256: str) -> None:
        """Remove a file, if it is there."""
        self.path(sha256).unlink(missing_ok=True)

    @contextmanager
    def _lock(self, sha256: str) -> Iterator[None]:
        """Hold the right to write one file against the other processes of this machine."""
        lock = self.directory / f".{sha256}.lock"
        with open(lock, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)

    def prune(self, needed: Set[str], before: float) -> tuple[int, int]:
        """Remove what nobody needs and was written before a time, in seconds since 1970.

        Returns how many files that were and how many bytes they had.
        """
        count = size = 0
        for path in self.directory.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                if path.name not in needed and status.st_mtime < before:
                    path.unlink()
                    count, size = count + 1, size + status.st_size
        return count, size

    def _complete(self, partial: Path, path: Path) -> None:
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != path.name:
            partial.unlink()
            raise ClusterError(f"file {path.name[:12]}... arrived damaged")
        os.replace(partial, path)


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield what ``read`` returns from offset 0 on until it returns nothing."""
    offset = 0
    while piece := read(offset):
        offset += len(piece)
        yield piece
