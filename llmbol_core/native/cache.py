"""Machine code on disk: objects by key, private, checked before use, bounded in size.

The directory is ``$LLMBOL_CACHE``, else ``llmbol`` in the user's cache directory or, where there is
no home to write to, in the one for temporary files. An object counts as absent if anyone else could
have written it, or if its file does not carry the hash of its key and content.
A cache that cannot be read or written costs time and nothing else: no error leaves it.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
import time
from contextlib import suppress
from typing import BinaryIO

from llmbol_core import __version__
from llmbol_core.errors import FileError
from llmbol_core.native.cpu import compiler_version, processor_identity
from llmbol_core.native.files import atomic_write, is_temporary, user_folder

LIMIT = 256 << 20
"""Bytes that the objects of a cache take, give or take a sixteenth."""

_LOOKS = 16
"""How often all files are looked at, on average, while as much is written as the limit allows."""
_SUFFIX = ".object"
_MAGIC = b"llmbol2\n"


def default_directory() -> str:
    """Return the directory of this user's cache."""
    given = os.environ.get("LLMBOL_CACHE")
    if given:
        return given
    kept = user_folder("XDG_CACHE_HOME", ".cache")
    if kept is not None and _can_be(kept):
        return kept
    import tempfile

    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:  # there is none that can be written
        folder = os.sep
    return os.path.join(folder, f"llmbol-{os.getuid()}")


def _can_be(folder: str) -> bool:
    """Return whether a folder is there already, or can be made."""
    above = folder
    while not os.path.exists(above):
        above = os.path.dirname(above)
    return above == folder or os.access(above, os.W_OK | os.X_OK)


def key_of(*parts: str) -> str:
    """Return the key for something made from these parts, on this machine by these versions."""
    digest = hashlib.sha256()
    for part in (*_surroundings(), *parts):
        digest.update(f"{len(part)}:".encode())
        digest.update(part.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


@functools.cache
def _surroundings() -> tuple[str, ...]:
    return (compiler_version(), f"llmbol {__version__}", *processor_identity())


def is_private(file: str | int) -> bool:
    """Return whether only this user can change a file, given by its path or descriptor."""
    status = os.stat(file)
    is_mine = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return is_mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def open_private(path: str) -> BinaryIO:
    """Open a file for reading that only this user can change, not a link; raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    file = os.fdopen(os.open(path, flags), "rb")
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode) and is_private(file.fileno()):
        return file
    file.close()
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)


def _head(key: str, content: bytes) -> bytes:
    """Return the head of a file, which proves that it is complete and under its own key."""
    return _MAGIC + hashlib.sha256(key.encode() + b"\0" + content).digest()


_HEAD = len(_head("", b""))


def _drop_other(path: str) -> None:
    """Remove what is no plain file: links would be followed, pipes waited for; raises OSError."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            os.unlink(path)


class ObjectCache:
    """Objects in one directory; ``limit`` bounds what they take together."""

    def __init__(self, directory: str | None = None, limit: int = LIMIT) -> None:
        self.directory, self.limit = directory or default_directory(), limit

    def get(self, key: str) -> bytes | None:
        """Return what was put under a key, or None if it is absent, damaged or not trustworthy."""
        path = self._path(key)
        try:
            if not is_private(self.directory):
                return None
            with open_private(path) as file:
                data = file.read()
        except OSError:
            return None
        head, content = data[:_HEAD], data[_HEAD:]
        if head != _head(key, content):
            return None
        with suppress(OSError):  # it may be there to be read only
            os.utime(path, (time.time(), time.time()))
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep an object under a key; drop the least recently used ones if there are too many.

        Finding those takes a look at every file, so it is done only now and then, decided by the
        hash: the more likely, the larger the object is.
        """
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            if not is_private(self.directory):
                return
            _drop_other(path := self._path(key))
            head = _head(key, content)
            with atomic_write(path, is_durable=False) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(head + content)
            if self._is_time_to_look(head, len(head) + len(content)):
                self._evict()
        except (OSError, FileError):
            return

    def clear(self) -> None:
        """Drop all objects."""
        for _, _, path in self._entries():
            with suppress(OSError):
                os.unlink(path)

    def _path(self, key: str) -> str:
        return os.path.join(self.directory, key + _SUFFIX)

    def _is_time_to_look(self, head: bytes, size: int) -> bool:
        """Whether to look for excess now: by chance, in proportion to what has been written."""
        return int.from_bytes(head[-4:], "big") * self.limit < _LOOKS * size << 32

    def _entries(self) -> list[tuple[float, int, str]]:
        """Return time of last use, size and path of every file, the least recently used first.

        Files that a process could not finish writing are among them.
        """
        found = []
        with suppress(OSError), os.scandir(self.directory) as files:
            for file in files:
                if file.name.endswith(_SUFFIX) or is_temporary(file.name):
                    with suppress(OSError):
                        status = file.stat()
                        found.append((status.st_mtime, status.st_size, file.path))
        return sorted(found)

    def _evict(self) -> None:
        entries = self._entries()
        excess = sum(size for _, size, _ in entries) - self.limit
        for _, size, path in entries:
            if excess <= 0:
                return
            with suppress(OSError):
                os.unlink(path)
            excess -= size
