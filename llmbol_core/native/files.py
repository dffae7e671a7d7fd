"""Files: written so that a crash or a full disk leaves the old one; read or mapped; clear errors.

Every file that llmbol writes goes through ``atomic_write``, every one it reads through
``read_bytes`` or ``map_file``, for which ``-`` is standard input; an error of the operating system
becomes a ``FileError`` that names the path.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO
from weakref import WeakKeyDictionary

from llmbol_core.errors import FileError

Path = str | os.PathLike[str]
STANDARD_INPUT = "-"
_TEMPORARY = ".llmbol-%s.tmp"
_LONGEST = 60
"""Characters of a target's name in a temporary one: systems bound the bytes, some by 255."""
_ABANDONED = 60.0
"""Seconds after which a temporary file will surely not be renamed any more."""


def user_folder(variable: str, below_home: str) -> str | None:
    """Return where this user keeps files of a kind: what an XDG variable says, or below the home.

    Relative paths in the variable do not count, as its specification wants; None if there is no
    home either. https://specifications.freedesktop.org/basedir-spec
    """
    home = os.path.expanduser("~") if os.environ.get("HOME") != "" else ""
    for folder in (os.environ.get(variable, ""), os.path.join(home, below_home)):
        if os.path.isabs(folder):
            return os.path.join(folder, "llmbol")
    return None


class MappedFile(mmap.mmap):
    """A file's bytes in memory, and the file's identity: a changed file is another one."""

    identity: tuple[object, ...] = ()


@contextmanager
def atomic_write(path: Path, is_durable: bool = True) -> Iterator[BinaryIO]:
    """Yield a binary file that takes the place of ``path``, on disk, when the block ends well.

    Until then, and for good if the block raises, the old file stays as it was. A new file gets the
    mode that the umask allows, a replaced one keeps its mode, a symbolic link stays a link.
    Anything but a regular file (a terminal, a pipe, ``/dev/null``) is written to directly. A
    process that is killed leaves nothing behind if the system has files without names, except in
    the last moment: then what is left goes when the file is written again. Without ``is_durable``
    nobody waits for the disk: that is for files that are checked when they are read, and can be
    made again.
    """
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), _TEMPORARY % os.urandom(8).hex())
    is_left = True
    try:
        mode = _mode_of_target(path)
        if mode is not None and not stat.S_ISREG(mode):
            with open(target, "wb") as file:
                yield file
            return
        with _create(temporary, mode) as file:
            yield file
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
            temporary = _named(file.fileno(), temporary, target)
        os.replace(temporary, target)
        is_left = False
        if is_durable:
            _sync_directory(os.path.dirname(target))
    except OSError as error:
        # The block may stumble over other files too; those errors name theirs.
        ours = error.filename in (None, target, temporary) or error.filename2 is not None
        raise FileError.of(error, path if ours else error.filename) from error
    finally:
        if is_left:
            with suppress(OSError):
                os.unlink(temporary)


def is_temporary(name: str) -> bool:
    """Return whether a file's name is one that ``atomic_write`` gives to unfinished files."""
    start, _, end = _TEMPORARY.partition("%s")
    return name.startswith(start) and name.endswith(end)


def move_into_place(source: Path, target: Path) -> None:
    """Have a finished file of the same directory take the place of ``target``, on disk."""
    try:
        with open(source, "rb") as file:
            os.fsync(file.fileno())
        os.replace(source, target)
        _sync_directory(os.path.dirname(target))
    except OSError as error:
        raise FileError.of(error, target) from error


def check_target(path: Path, *sources: Path) -> None:
    """Refuse, before long work, a path that cannot be written or that is a file being read.

    Sources that do not exist, such as ``-`` for standard input, do not count.
    """
    try:
        mode = _mode_of_target(path)
        if mode is None or stat.S_ISREG(mode):
            folder = os.path.dirname(os.path.realpath(path))
            os.stat(folder)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        known = [] if mode is None else filter(os.path.exists, sources)
        same = any(os.path.samefile(source, path) for source in known)
    except OSError as error:
        raise FileError.of(error, path) from error
    if same:
        raise FileError(str(path), "this file is read, so it cannot be written: name another one")


def read_bytes(path: Path) -> bytes:
    """Return all bytes of a file."""
    if os.fspath(path) == STANDARD_INPUT:
        return _standard_input()
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return _read_stream(file, str(path))
            if status.st_size > 2 * half_of_memory():
                raise FileError(str(path), f"{status.st_size} bytes do not fit into memory")
            return file.read()
    except OSError as error:
        raise FileError.of(error, path) from error


def map_file(path: Path) -> memoryview:
    """Return a file's bytes, read-only and mapped: nothing is read before it is touched.

    The mapping lives as long as the view or any array made from it. What cannot be mapped, such as
    a pipe, is read instead. The file must not be shortened meanwhile; ``atomic_write`` never does.
    """
    if os.fspath(path) == STANDARD_INPUT:
        return memoryview(_standard_input())
    try:
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return memoryview(_read_stream(file, str(path)))
            return map_descriptor(file.fileno())
    except OSError as error:
        raise FileError.of(error, path) from error


_inputs: WeakKeyDictionary[TextIO, bytes] = WeakKeyDictionary()
"""The contents of standard inputs: reading one again gives the same."""


def _standard_input() -> bytes:
    """Return all that standard input holds; if it is closed, that is nothing."""
    stream = sys.stdin
    if stream is None:
        return b""
    if stream not in _inputs:
        _inputs[stream] = _read_stream(stream.buffer, "standard input")
    return _inputs[stream]


_PIECE = 1 << 20


def _read_stream(file: BinaryIO, name: str) -> bytes:
    """Return all that a pipe or a device gives. Raises FileError for one that does not end."""
    most = _most_of(file)
    data = io.BytesIO()
    while piece := file.read(_PIECE):
        if data.tell() + len(piece) > most:
            raise FileError(name, f"more than {most >> 20} MiB and no end: expected a file")
        data.write(piece)
    return data.getvalue()


def _most_of(file: BinaryIO) -> int:
    """Return how many bytes a stream may give: half of the memory, but few if it is a device."""
    try:
        is_device = stat.S_ISCHR(os.fstat(file.fileno()).st_mode)
    except OSError:  # a stream in memory
        is_device = False
    return _PIECE if is_device else half_of_memory()


def half_of_memory() -> int:
    """Return how many bytes half of this machine's memory has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def map_descriptor(number: int) -> memoryview:
    """Return the bytes of an open regular file, as ``map_file`` does. Raises OSError."""
    status = os.fstat(number)
    if status.st_size == 0:
        return memoryview(b"")
    mapped = MappedFile(number, 0, access=mmap.ACCESS_READ)
    mapped.identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return memoryview(mapped)


def _mode_of_target(path: Path) -> int | None:
    """Return the kind and permissions of a file to be replaced, or None if there is none yet."""
    try:
        mode = os.stat(os.path.realpath(path)).st_mode
    except FileNotFoundError:
        mode = None
    if not os.path.basename(path) or (mode is not None and stat.S_ISDIR(mode)):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return mode


def _create(path: str, mode: int | None) -> BinaryIO:
    """Open a new file for writing with the permissions of the one that it will replace.

    It has no name yet if that is possible.
    """
    descriptor = _open_nameless(os.path.dirname(path))
    if descriptor is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if mode is not None:
            os.fchmod(descriptor, stat.S_IMODE(mode))
        return os.fdopen(descriptor, "w+b")
    except BaseException:
        os.close(descriptor)
        raise


def _open_nameless(folder: str) -> int | None:
    """Open a new file of a folder that has no name, None where there is no such thing."""
    flags = getattr(os, "O_TMPFILE", 0)
    if flags:
        with suppress(OSError):
            descriptor = os.open(folder, flags | os.O_RDWR | os.O_CLOEXEC, 0o666)
            if os.path.exists(f"/proc/self/fd/{descriptor}"):
                return descriptor
            os.close(descriptor)
    return None


def _named(descriptor: int, temporary: str, target: str) -> str:
    """Return the name of a file that is to replace another one; without one it gets it now.

    It depends on the target alone if nothing has that name, so that what a killed process has left
    is found by the next one. Otherwise it is the temporary name.
    """
    if os.fstat(descriptor).st_nlink:
        return temporary
    folder, name = os.path.split(target)
    passing = os.path.join(folder, _TEMPORARY % name[:_LONGEST])
    with suppress(OSError):
        if time.time() - os.stat(passing).st_ctime > _ABANDONED:
            os.unlink(passing)
    with suppress(FileExistsError):
        _link(descriptor, passing)
        return passing
    _link(descriptor, temporary)
    return temporary


def _link(descriptor: int, name: str) -> None:
    """Give an open file a name."""
    # With a folder's descriptor the call follows links; it does not look at that.
    os.link(f"/proc/self/fd/{descriptor}", name, src_dir_fd=descriptor)


def _sync_directory(path: str) -> None:
    """Make a rename in a directory survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
