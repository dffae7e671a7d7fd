"""The host's side of a granted file tree: no path given here can lead out of it.

``HostTree`` walks a path one element at a time from the root's descriptor, and the host follows no
link on the way: a symbolic link is read and walked here, with ``/`` in it meaning the tree's root.
So neither ``..`` nor a link leads out, even one that somebody puts there meanwhile.
``GrantedFiles`` is the tree of a program that got no root: the files named to it, for reading.

Paths are tuples of names, cleaned of ``.`` and ``..``; the empty tuple is the root. Failures are
the host's OSError.
"""

from __future__ import annotations

import errno
import io
import os
import select
import stat as modes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol, cast

from llmbol_core.errors import FileError
from llmbol_core.vm.files.openfile import (
    EBADCHAR,
    EPERM,
    OEXEC,
    ORDWR,
    OREAD,
    OTRUNC,
    OWRITE,
    WORD,
    Dir,
    FileFault,
    OpenFile,
    Stream,
)

Path = tuple[str, ...]

_READ, _WRITE, _EXECUTE = 4, 2, 1
_NEEDED = {OREAD: _READ, OWRITE: _WRITE, ORDWR: _READ | _WRITE, OEXEC: _EXECUTE}
"""What of a file's mode is needed to open it."""
_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 32


class Tree(Protocol):
    """What a namespace needs of the tree under it."""

    def status(self, path: Path) -> os.stat_result:
        """Describe a file, following links inside the tree."""

    def open(self, path: Path, flags: int, permission: int = 0) -> int:
        """Open a file as ``os.open`` does and return the descriptor."""

    def special(self, host: int, text: str) -> OpenFile:
        """Return the open file for a descriptor of a pipe or device, or close and refuse it."""

    def names(self, path: Path) -> list[str]:
        """List a directory, in order of name."""

    def make_directory(self, path: Path, permission: int) -> None:
        """Create a directory."""

    def remove(self, path: Path) -> None:
        """Remove a file, a link, or an empty directory."""

    def rename(self, path: Path, name: str) -> None:
        """Give a file another name in its directory."""


class HostTree:
    """The part of the host's files that lies under one directory."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        """Open the root. Raises FileError if it is no directory that can be read."""
        try:
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise FileError.of(error, root) from error

    def __del__(self) -> None:
        if hasattr(self, "_root"):
            os.close(self._root)

    def status(self, path: Path) -> os.stat_result:
        """Describe a file, following links inside the tree."""
        with self._parent(path) as (parent, name):
            return os.stat(name, dir_fd=parent, follow_symlinks=False)

    def open(self, path: Path, flags: int, permission: int = 0) -> int:
        """Open a file as ``os.open`` does and return the descriptor."""
        # Not to wait for the other end of a named pipe; files and directories do not care.
        flags |= _FLAGS | os.O_NONBLOCK
        with self._parent(path) as (parent, name):
            return os.open(name, flags, permission, dir_fd=parent)

    def special(self, host: int, text: str) -> OpenFile:
        """Refuse what is no file of the tree's own."""
        os.close(host)
        raise FileFault(EPERM)

    def names(self, path: Path) -> list[str]:
        """List a directory, in order of name."""
        host = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return sorted(os.listdir(host))
        finally:
            os.close(host)

    def make_directory(self, path: Path, permission: int) -> None:
        """Create a directory."""
        with self._parent(path, follow=False) as (parent, name):
            os.mkdir(name, permission, dir_fd=parent)

    def remove(self, path: Path) -> None:
        """Remove a file, a link, or an empty directory."""
        with self._parent(path, follow=False) as (parent, name):
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if modes.S_ISDIR(found.st_mode):
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def rename(self, path: Path, name: str) -> None:
        """Give a file another name in its directory."""
        with self._parent(path, follow=False) as (parent, old):
            os.rename(old, name, src_dir_fd=parent, dst_dir_fd=parent)

    @contextmanager
    def _parent(self, path: Path, follow: bool = True) -> Iterator[tuple[int, str]]:
        """Give the descriptor of the directory that holds a file, and the file's name there."""
        parent = os.dup(self._root)
        try:
            at, links = 0, 0
            while at < len(path):
                name, is_last = path[at], at == len(path) - 1
                target = _read_link(name, parent) if follow or not is_last else None
                if target is not None:
                    links += 1
                    if links > _MOST_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                    path, at = clean(target, path[:at]) + path[at + 1 :], 0
                    parent = _replace(parent, os.dup(self._root))
                    continue
                if is_last:
                    break
                flags = os.O_RDONLY | os.O_DIRECTORY | _FLAGS
                parent = _replace(parent, os.open(name, flags, dir_fd=parent))
                at += 1
            yield parent, path[-1] if path else "."
        finally:
            os.close(parent)


class GrantedFiles:
    """Exactly the files named to a program, for reading, under the names given."""

    def __init__(self, names: Iterable[str]) -> None:
        self._files = {clean(name): os.path.abspath(name) for name in names}

    def status(self, path: Path) -> os.stat_result:
        """Describe one of the files."""
        return os.stat(self._host(path))

    def open(self, path: Path, flags: int, permission: int = 0) -> int:
        """Open one of the files for reading."""
        host = self._host(path)
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            raise _denied()
        return os.open(host, flags | os.O_CLOEXEC | os.O_NONBLOCK)

    def special(self, host: int, text: str) -> OpenFile:
        """Let a pipe or device be read as it comes."""
        return _Special(text, OREAD, cast("BinaryIO", _PatientFile(host)))

    def names(self, path: Path) -> list[str]:
        """Refuse: only files are granted, and what else lies beside them is not told."""
        if path in self._files:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        raise _denied()

    def make_directory(self, path: Path, permission: int) -> None:
        """Refuse."""
        raise _denied()

    def remove(self, path: Path) -> None:
        """Refuse."""
        raise _denied()

    def rename(self, path: Path, name: str) -> None:
        """Refuse."""
        raise _denied()

    def _host(self, path: Path) -> str:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self._files[path]


def _denied() -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES))


class _Special(Stream):
    """A pipe or device of the host, open."""

    def close(self) -> None:
        """Close it."""
        self._host.close()


class _PatientFile(io.FileIO):
    """A pipe or device of the host; reads wait until there is something, or never will be."""

    def read1(self, count: int) -> bytes:
        """Return some bytes, none at the end."""
        while True:
            waiting = select.poll()
            waiting.register(self, select.POLLIN)
            waiting.poll()
            data = self.read(count)
            if data is not None:
                return data


def check_permission(found: os.stat_result, mode: int) -> None:
    """Refuse to open a file as its mode does not let its owner, who may be the superuser."""
    needed = _NEEDED[mode & 3] | (_WRITE if mode & OTRUNC else 0)
    if found.st_uid == os.geteuid() and needed & ~(found.st_mode >> 6):
        raise FileFault(EPERM)


def change(tree: Tree, path: Path, entry: Dir) -> None:
    """Change a file's mode, times and length where an entry says so."""
    found = tree.status(path)
    is_plain = modes.S_ISREG(found.st_mode)
    is_cut = entry.length not in (-1, found.st_size) and is_plain
    try:
        with _opened(tree, path, os.O_WRONLY if is_cut else os.O_RDONLY) as host:
            change_open(host, entry)
    except PermissionError:
        # Its owner may change even what nobody may read, but has to name it then.
        if not hasattr(os, "O_PATH"):
            raise
        with _opened(tree, path, os.O_PATH) as host:
            change_open(f"/proc/self/fd/{host}", entry)


def change_open(host: int | str, entry: Dir) -> None:
    """Change length, mode and times of a file by its descriptor, or by a name of that."""
    found = os.stat(host)
    if entry.length not in (-1, found.st_size) and modes.S_ISREG(found.st_mode):
        check_permission(found, OWRITE)
        os.truncate(host, entry.length)
    if entry.mode != WORD and (entry.mode ^ found.st_mode) & 0o777:
        os.chmod(host, entry.mode & 0o777)
    if (entry.atime, entry.mtime) != (WORD, WORD):
        atime = found.st_atime if entry.atime == WORD else entry.atime
        mtime = found.st_mtime if entry.mtime == WORD else entry.mtime
        os.utime(host, (atime, mtime))


@contextmanager
def _opened(tree: Tree, path: Path, flags: int) -> Iterator[int]:
    host = tree.open(path, flags)
    try:
        yield host
    finally:
        os.close(host)


def clean(text: str, start: Path = ()) -> Path:
    """Return the path that a text names, seen from a directory; ``..`` stops at the root.

    >>> clean("../b/./c", ("x", "a")), clean("/../d", ("x",))
    (('x', 'b', 'c'), ('d',))
    """
    path = [] if text.startswith("/") else list(start)
    for name in text.split("/"):
        if name == "..":
            del path[-1:]
        elif name not in ("", "."):
            path.append(name)
    return tuple(path)


def check_characters(name: str, forbidden: str = "") -> None:
    """Refuse a name with control characters in it, or with others that are forbidden."""
    if not any(c < " " or c == "\x7f" or c in forbidden for c in name):
        return
    quoted = (
        "'" + name.replace("'", "''") + "'" if any(c <= " " or c == "'" for c in name) else name
    )
    raise FileFault(f"{EBADCHAR}: {quoted}")


def _read_link(name: str, parent: int) -> str | None:
    """Return where a symbolic link points, or None if it is something else or nothing."""
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def describe(place: Path, found: os.stat_result) -> Dir:
    """Return the entry of what a path of a program's tree leads to."""
    return Dir.of(place[-1] if place else "/", found)


def text_of(place: Path) -> str:
    """Return a path as a name, which for a device's begins with #."""
    text = "/".join(place)
    return text if text.startswith("#") else "/" + text
