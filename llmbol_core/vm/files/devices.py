"""The few device files that every program with a tree finds in /dev, whatever its tree holds.

    cons     standard input and output        null     reads as empty, swallows what is written
    time     microseconds since 1970          random   random bytes
    user     the owner of all files           sysname  a name that tells nothing

They are made of what a program has anyway, streams and the clock: they grant nothing more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from llmbol_core.vm.files.openfile import OREAD, OWNER, OpenFile, PlainFile, name_of

_MOST_RANDOM = 1 << 16


class Device(OpenFile):
    """A file whose content a function makes, given the number of bytes and the offset."""

    device = "c"

    def __init__(self, path: str, mode: int, source: Callable[[int, int], bytes]) -> None:
        super().__init__(path, mode)
        self._source = source
        self.permission = permission(name_of(path))

    def _read(self, count: int, offset: int) -> bytes:
        return self._source(count, offset)

    def _write(self, data: bytes, offset: int) -> int:
        return len(data)


class Null(PlainFile):
    """A file that is empty and swallows what is written."""

    permission, device = 0o666, "c"

    def _read(self, count: int, offset: int) -> bytes:
        return b""

    def _write(self, data: bytes, offset: int) -> int:
        return len(data)


class Console(OpenFile):
    """Standard input and output as one file."""

    is_stream = True
    device = "c"

    def __init__(self, path: str, mode: int, streams: tuple[OpenFile, OpenFile]) -> None:
        super().__init__(path, mode)
        self._input, self._output = streams

    def is_ready(self) -> bool:
        """Say whether standard input has something."""
        return self._input.is_ready()

    def _read(self, count: int, offset: int) -> bytes:
        return self._input.read(count)

    def _write(self, data: bytes, offset: int) -> int:
        return self._output.write(data)


def _text(make: Callable[[], str]) -> Callable[[int, int], bytes]:
    return lambda count, offset: make().encode()[offset : offset + count]


# fmt: off
SOURCES: dict[str, Callable[[int, int], bytes]] = {
    "random":  lambda count, offset: os.urandom(min(count, _MOST_RANDOM)),
    "sysname": _text(lambda: "dis"),
    "time":    _text(lambda: str(time.time_ns() // 1000)),
    "user":    _text(lambda: OWNER),
}
# fmt: on
DEVICES = ("null", *SOURCES)
"""The names of those that need no streams."""


def permission(name: str) -> int:
    """Return who may do what with a device."""
    if name in ("cons", "null"):
        return 0o666
    return 0o444 if name == "random" else 0o644


def open_device(path: str, mode: int = OREAD) -> OpenFile:
    """Open a device by its path."""
    if name_of(path) == "null":
        return Null(path, mode)
    return Device(path, mode, SOURCES[name_of(path)])
