"""Open files as a Dis program sees them: host files, directories, standard streams.

What goes wrong is a ``FileFault`` whose text is Inferno's own; $Sys turns it into -1 and the
process's error string. A file is shared by all descriptors that were duplicated from one another,
together with its offset, and closes when the last of them goes.
"""

from __future__ import annotations

import os
import stat as modes
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO

from llmbol_core.native.files import map_descriptor

OREAD, OWRITE, ORDWR, OEXEC, OTRUNC, OCEXEC, ORCLOSE, OEXCL = 0, 1, 2, 3, 16, 32, 64, 0x1000
DMDIR, DMAPPEND = 1 << 31, 1 << 30
QTDIR = 0x80
WORD = 0xFFFFFFFF

EPERM = "permission denied"
ENOTEXIST = "file does not exist"
ENOTDIR = "not a directory"
EISDIR = "file is a directory"
EBADDIR = "bad directory format"
EBADCHAR = "bad character in file name"
ENOATTACH = "mount/attach disallowed"
EEXIST = "file already exists"
EBADARG = "bad arg in system call"
EBADFD = "fd out of range or not open"
EBADUSE = "inappropriate use of fd"
EHUNGUP = "i/o on hungup channel"
ENEGOFF = "negative i/o offset"
ESTREAM = "seek on a stream"

OWNER = "inferno"
_CONTENTS_PART = 1 << 16
_SHORT, _LONG = 0xFFFF, 0xFFFFFFFFFFFFFFFF
_DIR = struct.Struct("<HIBIQIIIQ")
"""Layout of an entry up to its names: type, device, qid, mode, times and length."""


class FileFault(Exception):
    """A file operation failed; the text is what the program finds in its error string."""

    @classmethod
    def of(cls, error: OSError) -> FileFault:
        """Return the fault for an error of the host."""
        known = {FileNotFoundError: ENOTEXIST, PermissionError: EPERM, FileExistsError: EEXIST}
        known |= {IsADirectoryError: EISDIR, NotADirectoryError: ENOTDIR}
        return cls(known.get(type(error)) or error.strerror or str(error))


@dataclass(frozen=True)
class Dir:
    """A file's entry in its directory; times in seconds since 1970, numbers unsigned."""

    name: str
    uid: str = OWNER
    gid: str = OWNER
    muid: str = ""
    qid_path: int = 0
    qid_version: int = 0
    qid_type: int = 0
    mode: int = 0
    atime: int = 0
    mtime: int = 0
    length: int = 0
    device_type: int = 0
    device: int = 0

    @classmethod
    def of(cls, name: str, found: os.stat_result) -> Dir:
        """Describe a host file under the name that the program knows."""
        is_dir = modes.S_ISDIR(found.st_mode)
        return cls(
            name=name,
            qid_path=found.st_ino,
            qid_version=int(found.st_mtime) & WORD,
            qid_type=QTDIR if is_dir else 0,
            mode=(found.st_mode & 0o777) | (DMDIR if is_dir else 0),
            atime=int(found.st_atime) & WORD,
            mtime=int(found.st_mtime) & WORD,
            length=0 if is_dir else found.st_size,
            device_type=ord("U"),
        )

    def pack(self) -> bytes:
        """Return the entry in the format of 9P2000's stat message, of which directories consist."""
        data = _DIR.pack(
            self.device_type & _SHORT,
            self.device & WORD,
            self.qid_type,
            self.qid_version & WORD,
            self.qid_path & _LONG,
            self.mode & WORD,
            self.atime & WORD,
            self.mtime & WORD,
            self.length & _LONG,
        )
        for name in (self.name, self.uid, self.gid, self.muid):
            text = name.encode(errors="replace")[:_SHORT]
            data += len(text).to_bytes(2, "little") + text
        return len(data).to_bytes(2, "little") + data


class OpenFile:
    """An open file: its path in the tree, its mode, its offset.

    Subclasses read and write the bytes and answer ``stat``, for which they have ``permission`` and
    ``device``; this class checks modes and keeps the offset and the number of descriptors.
    """

    is_stream = False
    permission, device = 0o666, "\0"
    waits_for_processes = False
    """Whether reads and writes that have to wait do so for other processes of the machine."""
    known = 0
    """What native code knows: the host's stream it writes to, 1 or 2, if the output may be
    collected; the address of ``Place`` if it may read and write the file itself; else 0."""

    def __init__(self, path: str, mode: int) -> None:
        self.path, self.mode = path, mode
        self.offset = 0
        self.users = 0

    def read(self, count: int, offset: int | None = None) -> bytes:
        """Read at an offset, by default the file's own, which advances in either case."""
        self._check(OREAD)
        at = self.offset if offset is None else offset
        if at < 0:
            raise FileFault(ENEGOFF)
        data = self._read(count, at)
        self.offset += len(data)
        return data

    def write(self, data: bytes, offset: int | None = None) -> int:
        """Write at an offset, by default the file's own, which then advances; return the count."""
        self._check(OWRITE)
        at = self.offset if offset is None else offset
        if at < 0:
            raise FileFault(ENEGOFF)
        done = self._write(data, at)
        if offset is None:
            self.offset += done
        return done

    def seek(self, offset: int, whence: int) -> int:
        """Move from the start (0), from here (1) or from the end (2); return the new offset."""
        if self.is_stream:
            raise FileFault(ESTREAM)
        if whence not in (0, 1, 2):
            raise FileFault(EBADARG)
        at = offset + (0, self.offset, self.stat().length)[whence]
        if at < 0:
            raise FileFault(ENEGOFF)
        self.offset = at
        return at

    def is_ready(self) -> bool:
        """Whether a read would return at once."""
        return True

    def can_write(self) -> bool:
        """Whether a write would return at once."""
        return True

    def stat(self) -> Dir:
        """Describe the file."""
        return Dir(name_of(self.path), mode=self.permission, device_type=ord(self.device))

    def entries(self) -> list[Dir]:
        """Return the next entries of a directory, none at its end."""
        self._check(OREAD)
        raise FileFault(EBADDIR)

    def contents(self) -> memoryview:
        """Return the whole content, mapped if the host can do that."""
        data = bytearray()
        while part := self.read(_CONTENTS_PART):
            data += part
        return memoryview(data).toreadonly()

    def close(self) -> None:
        """Release the host's resources."""

    def _check(self, access: int) -> None:
        if self.mode not in (ORDWR, access):
            raise FileFault(EBADUSE)

    def _read(self, count: int, offset: int) -> bytes:
        raise FileFault(EBADUSE)

    def _write(self, data: bytes, offset: int) -> int:
        raise FileFault(EBADUSE)


class Place(IntEnum):
    """Words of a file that native code may read and write."""

    HOST = 0
    """The host's descriptor, or ``NOWHERE`` for a file that is empty and swallows all."""
    OFFSET = 1
    MODE = 2


NOWHERE = -1
LAST = (1 << 63) - 1
"""The largest offset."""


class PlainFile(OpenFile):
    """A file that native code may read and write as this class does, by its ``Place``."""

    def __init__(self, path: str, mode: int, host: int = NOWHERE) -> None:
        self._host, self._place = host, array("q", [host, 0, mode])
        super().__init__(path, mode)
        self.known = self._place.buffer_info()[0]

    @property
    def offset(self) -> int:
        """Where the next byte is read or written."""
        return self._place[Place.OFFSET]

    @offset.setter
    def offset(self, offset: int) -> None:
        self._place[Place.OFFSET] = min(offset, LAST)


class HostFile(PlainFile):
    """A regular file of the host, by descriptor; ``removes`` is called after it is closed."""

    def __init__(
        self, path: str, mode: int, host: int, removes: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(path, mode, host)
        self._removes = removes

    def _read(self, count: int, offset: int) -> bytes:
        try:
            return os.pread(self._host, count, offset)
        except OSError as error:
            raise FileFault.of(error) from error

    def _write(self, data: bytes, offset: int) -> int:
        try:
            return os.pwrite(self._host, data, offset)
        except OSError as error:
            raise FileFault.of(error) from error

    def entries(self) -> list[Dir]:
        """Return no entries at the end of the file; elsewhere fail, as in Inferno."""
        return super().entries() if self.read(1, self.offset) else []

    def stat(self) -> Dir:
        """Describe the host's file under its name in the tree."""
        return Dir.of(name_of(self.path), os.fstat(self._host))

    def change(self, how: Callable[[int], None]) -> None:
        """Have something change the host's file, given its descriptor."""
        try:
            how(self._host)
        except OSError as error:
            raise FileFault.of(error) from error

    def contents(self) -> memoryview:
        """Map the whole file."""
        try:
            return map_descriptor(self._host)
        except OSError as error:
            raise FileFault.of(error) from error

    def close(self) -> None:
        """Close the host's descriptor; a file opened with ORCLOSE goes away."""
        os.close(self._host)
        self._removes()


class Directory(OpenFile):
    """A directory, as the list of entries it had when it was first read."""

    CHUNK = 16
    """Entries a read returns, about as many as Inferno's 2 KiB buffer holds."""

    def __init__(self, path: str, described: Dir, scan: Callable[[], list[Dir]]) -> None:
        super().__init__(path, OREAD)
        self._described, self._scan = described, scan
        self._entries: list[Dir] = []

    def entries(self) -> list[Dir]:
        """Return the next few entries."""
        if self.offset == 0:
            self._entries = self._scan()
        found = self._entries[self.offset : self.offset + self.CHUNK]
        self.offset += len(found)
        return found

    def read(self, count: int, offset: int | None = None) -> bytes:
        """Return as many of the next entries as fit, packed; offset 0 starts over."""
        if offset == 0:
            self.offset = 0
        if self.offset == 0:
            self._entries = self._scan()
        data = b""
        for entry in self._entries[self.offset :]:
            packed = entry.pack()
            if len(data) + len(packed) > count:
                break
            data += packed
            self.offset += 1
        return data

    def seek(self, offset: int, whence: int) -> int:
        """Go back to the start, the only place that one may seek to."""
        if whence or offset:
            raise FileFault(EISDIR)
        self.offset = 0
        return 0

    def stat(self) -> Dir:
        """Describe the directory."""
        return self._described


class Stream(OpenFile):
    """A standard stream of the host: bytes in order, nowhere to seek to.

    Output is flushed with each write, so that nothing is lost and standard output and standard
    error keep their order.
    """

    is_stream = True
    device = "c"

    def __init__(self, path: str, mode: int, host: BinaryIO) -> None:
        super().__init__(path, mode)
        self._host = host
        self.failure: OSError | None = None
        """The first error of the host that lost output, if there was any."""

    def is_ready(self) -> bool:
        """Never promise to return at once: somebody may be typing."""
        return False

    def seek(self, offset: int, whence: int) -> int:
        """Accept and do nothing, as Inferno's console does."""
        return self.offset

    def _read(self, count: int, offset: int) -> bytes:
        read = getattr(self._host, "read1", self._host.read)
        try:
            data: bytes = read(count) or b""
        except OSError as error:
            raise FileFault.of(error) from error
        return data

    def _write(self, data: bytes, offset: int) -> int:
        try:
            self._host.write(data)
            self._host.flush()
        except OSError as error:
            self.failure = self.failure or error
            raise FileFault.of(error) from error
        return len(data)


def name_of(path: str) -> str:
    """Return the last element of a path, ``/`` for the root."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def access_of(mode: int) -> int:
    """Return how a file is to be opened: OREAD, OWRITE or ORDWR."""
    access = mode & ~(OTRUNC | OCEXEC | ORCLOSE)
    if access not in (OREAD, OWRITE, ORDWR, OEXEC) or (access == OEXEC and mode & OTRUNC):
        raise FileFault(EBADARG)
    return OREAD if access == OEXEC else access
