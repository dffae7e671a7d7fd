"""Data made from files, kept on disk where every process of this user maps the same pages.

    $LLMBOL_CACHE/shared/<key>    the bytes, nothing else

What is kept can be made again at any time. It is trusted only until the machine restarts, because
nothing waits until it is on disk; the directories and their files must be this user's
own, so that nobody else can replace a file by another one.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import mmap
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from llmbol_core.native.cache import default_directory, is_private, open_private
from llmbol_core.native.files import MappedFile

_LIMIT = 16 << 30
"""The most bytes that all files are to take; as much of the disk as they take is to stay free."""

Write = Callable[[int, memoryview], None]
"""Puts bytes at an offset."""


def kept(parts: tuple[object, ...], size: int, make: Callable[[Write], None]) -> memoryview | None:
    """Return bytes that depend on these parts alone, mapped; made now unless they are there.

    None if they cannot be kept here: no room, no right to write, no way to tell when the machine
    started.
    """
    boot = _boot()
    if boot is None:
        return None
    cache = default_directory()
    folder = os.path.join(cache, "shared")
    key = hashlib.sha256(repr((boot, *parts, size)).encode()).hexdigest()
    path = os.path.join(folder, key)
    with suppress(OSError):
        return _mapped(folder, path, size)
    try:
        for directory in (cache, folder):
            os.makedirs(directory, 0o700, exist_ok=True)
        if not _is_own(folder) or not _has_room(folder, size):
            return None
        _make(path, size, make)
        return _mapped(folder, path, size)
    except OSError:
        return None


def _is_own(folder: str) -> bool:
    """Return whether only this user can change a directory and the one that it is in."""
    return is_private(folder) and is_private(os.path.dirname(folder))


def _mapped(folder: str, path: str, size: int) -> memoryview:
    """Map a file, or raise OSError if it is not there or not to be trusted."""
    with open_private(path) as file:
        whole = os.fstat(file.fileno()).st_size == size
        if not (whole and _is_own(folder)):
            raise OSError
        with suppress(OSError):  # it may be there to be read only
            os.utime(path)
        mapped = _mappings.get(path)
        if mapped is None:
            mapped = MappedFile(file.fileno(), size, access=mmap.ACCESS_READ)
            mapped.identity = (os.path.basename(path),)
            _mappings[path] = mapped
        return memoryview(mapped)


_mappings: WeakValueDictionary[str, MappedFile] = WeakValueDictionary()
"""What is mapped already, for all users in this process."""


def _make(path: str, size: int, make: Callable[[Write], None]) -> None:
    """Write a file, unless another process is the first to have done so."""
    temporary = f"{path}.{os.urandom(4).hex()}.tmp"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(descriptor, size)

        def write(offset: int, data: memoryview) -> None:
            while data:
                done = os.pwrite(descriptor, data, offset)
                data, offset = data[done:], offset + done

        make(write)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.close(descriptor)
        with suppress(OSError):
            os.unlink(temporary)


def _has_room(folder: str, size: int) -> bool:
    """Return whether there is room for so many bytes, which then count as written.

    The files unused for longest make room for them: when this process ends, as that takes some
    time, or now if they take far too much.
    """
    held = _held.get(folder)
    if held is None:
        held = sum(entry[1] for entry in _entries(folder))
    limit = _limit(folder, held)
    if size > limit:
        return False
    if held + size > limit + limit // 2:
        held = drop_oldest(folder, limit - size)
    if held + size > limit and folder not in _crowded:
        _crowded.add(folder)
        atexit.register(drop_oldest, folder)
    _held[folder] = held + size
    return True


_held: dict[str, int] = {}
"""Bytes that files in folders take, as far as this process knows."""
_crowded: set[str] = set()
"""Folders that are to be tidied when this process ends."""


def drop_oldest(folder: str, most: int | None = None) -> int:
    """Drop files until they take so many bytes at most, or what is allowed; return what is left."""
    entries = _entries(folder)
    held = sum(entry[1] for entry in entries)
    most = _limit(folder, held) if most is None else most
    for _, freed, path in sorted(entries):
        if held <= most:
            break
        with suppress(OSError):
            os.unlink(path)
            held -= freed
    return held


def _limit(folder: str, held: int) -> int:
    return min(_LIMIT, (shutil.disk_usage(folder).free + held) // 2)


def _entries(folder: str) -> list[tuple[float, int, str]]:
    """Return when files were last used, their sizes and paths."""
    entries = []
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            with suppress(OSError):
                status = file.stat()
                entries.append((status.st_mtime, status.st_size, file.path))
    return entries


@functools.cache
def _boot() -> str | None:
    """Return what identifies this run of the machine, from its start on; None if nothing does."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()
    return None
