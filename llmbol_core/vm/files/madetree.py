"""Synthetic files: single ones that a server opens, and trees of them.

Nothing on the host stands for these. Paths are relative to where the tree is shown, so that the
empty path is the tree itself; ``text`` is the name as the program knows it. What is missing raises
the host's OSError, as in ``hosttree``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace

from llmbol_core.vm.files.hosttree import Path
from llmbol_core.vm.files.openfile import (
    DMDIR,
    EISDIR,
    EPERM,
    OREAD,
    QTDIR,
    Dir,
    Directory,
    FileFault,
    OpenFile,
    name_of,
)

Server = Callable[[str, int], OpenFile]
"""Opens a file that a program answers for; takes its path and the mode."""


def missing() -> FileNotFoundError:
    """Return the error for a file that does not exist."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def no_directory() -> NotADirectoryError:
    """Return the error for a path that goes on after a file."""
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


class MadeTree:
    """A directory of synthetic files; subclasses say what is in it and who may do what."""

    device = "s"
    """The letter of Inferno's device for such files."""

    def names(self, path: Path) -> list[str]:
        """List a directory. Raises NotADirectoryError for a file, FileNotFoundError for nothing."""
        raise no_directory()

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Open a file that is no directory."""
        raise FileFault(EPERM)

    def permission(self, path: Path) -> int:
        """Return who may do what with a file."""
        return 0o666

    def length(self, path: Path) -> int:
        """Return how many bytes are in a file, 0 if that is not known."""
        return 0

    def create(self, text: str, path: Path, access: int, permission: int) -> OpenFile:
        """Create a file, or open one that is there."""
        if path and path[-1] not in self.names(path[:-1]):
            raise FileFault("mounted directory forbids creation")
        if self.is_directory(path):
            raise FileFault(EPERM)
        return self.open_file(text, path, access)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        raise FileFault(EPERM)

    def is_directory(self, path: Path) -> bool:
        """Say whether this is a directory; raises FileNotFoundError for nothing."""
        try:
            self.names(path)
        except NotADirectoryError:
            return False
        return True

    def check_directory(self, path: Path) -> None:
        """Raise NotADirectoryError or FileNotFoundError unless a path within is a directory."""
        if path and not self.is_directory(path):
            raise no_directory()

    def stat(self, text: str, path: Path) -> Dir:
        """Describe a file."""
        name = name_of(text)
        if self.is_directory(path):
            name = name if path else f"#{self.device}"
            return Dir(name, qid_type=QTDIR, mode=DMDIR | 0o555, device_type=ord(self.device))
        mode, length = self.permission(path), self.length(path)
        return Dir(name, mode=mode, length=length, device_type=ord(self.device))

    def entry(self, name: str) -> Dir:
        """Describe the tree where it is listed, under the name by which it is shown there."""
        return replace(self.stat(name, ()), name=name)

    def open(self, text: str, path: Path, access: int) -> OpenFile:
        """Open a file, or a directory for reading."""
        if not self.is_directory(path):
            return self.open_file(text, path, access)
        if access != OREAD:
            raise FileFault(EISDIR)
        return Directory(text, self.stat(text, path), lambda: self._entries(text, path))

    def _entries(self, text: str, path: Path) -> list[Dir]:
        return [self.stat(f"{text}/{name}", (*path, name)) for name in self.names(path)]


class MadeFile(MadeTree):
    """A tree that is one file only; ``withdraw`` takes it away, if that may be."""

    def __init__(
        self,
        server: Server,
        withdraw: Callable[[], object] | None = None,
        device: str = "s",
        permission: int = 0o660,
    ) -> None:
        self._server, self._withdraw = server, withdraw
        self.device, self._permission = device, permission

    def names(self, path: Path) -> list[str]:
        """Raise the error for a list of what is no directory."""
        raise missing() if path else no_directory()

    def permission(self, path: Path) -> int:
        """Return who may do what with the file."""
        return self._permission

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Open the file."""
        return self._server(text, access)

    def remove(self, path: Path) -> None:
        """Remove the file, if it may be removed."""
        if self._withdraw is None:
            raise FileFault(EPERM)
        self._withdraw()


class ShownFiles(MadeTree):
    """A directory that contains only the files shown in it."""

    def __init__(self, device: str, shown: Callable[[], dict[str, MadeTree]]) -> None:
        self.device, self._shown = device, shown

    def names(self, path: Path) -> list[str]:
        """List the files."""
        if not path:
            return sorted(self._shown())
        return self._file(path).names(path[1:])

    def permission(self, path: Path) -> int:
        """Return who may do what with a file."""
        return self._file(path).permission(path[1:])

    def open_file(self, text: str, path: Path, access: int) -> OpenFile:
        """Open a file."""
        return self._file(path).open_file(text, path[1:], access)

    def _file(self, path: Path) -> MadeTree:
        shown = self._shown()
        if path[0] not in shown:
            raise missing()
        return shown[path[0]]
