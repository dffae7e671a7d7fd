"""Pipes between processes of a program, each end an open file."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llmbol_core.errors import Trap
from llmbol_core.vm.files.openfile import ORDWR, OpenFile
from llmbol_core.vm.traps import PIPE_CLOSED

_ENOUGH = 32 * 1024
"""Bytes in a pipe at which writers begin to wait."""


class _Channel:
    """One direction of a pipe: blocks of bytes, as they were written.

    ``charge`` is told by how many bytes it grows or shrinks.
    """

    def __init__(self, charge: Callable[[int], None]) -> None:
        self.blocks: deque[bytes] = deque()
        self.size = 0
        self.is_open = True
        self._charge = charge

    def grow(self, size: int) -> None:
        """Charge for more bytes, or for fewer if negative; traps if there is no memory for them."""
        self._charge(size)
        self.size += size

    def close(self) -> None:
        """Drop what is left: nobody will read it."""
        self.grow(-self.size)
        self.blocks.clear()


class PipeEnd(OpenFile):
    """One end of a pipe: what is written to it is read at the other end.

    A read returns bytes of a single write, perhaps none. When one end closes, the other can still
    read what is left, then end of file; its writes trap. Callers see to it that the end is ready
    before they read or write.
    """

    is_stream = True
    permission, device = 0o660, "|"
    waits_for_processes = True

    def __init__(self, path: str, incoming: _Channel, outgoing: _Channel) -> None:
        super().__init__(path, ORDWR)
        self._in, self._out = incoming, outgoing

    @classmethod
    def pair(cls, charge: Callable[[int], None] = lambda size: None) -> tuple[PipeEnd, PipeEnd]:
        """Make both ends of a new pipe; ``charge`` is told by how many bytes they grow."""
        one, other = _Channel(charge), _Channel(charge)
        return cls("#|/data", one, other), cls("#|/data1", other, one)

    def is_ready(self) -> bool:
        """Whether a read would return at once: there are bytes, or there will be no more."""
        return bool(self._in.blocks) or not self._in.is_open

    def can_write(self) -> bool:
        """Whether a write would return at once."""
        return self._out.size < _ENOUGH or not self._out.is_open

    def close(self) -> None:
        """Hang up: both directions end."""
        self._in.is_open = self._out.is_open = False
        self._in.close()

    def _read(self, count: int, offset: int) -> bytes:
        if not self._in.blocks:
            return b""
        block = self._in.blocks.popleft()
        data, rest = block[:count], block[count:]
        if rest:
            self._in.blocks.appendleft(rest)
        self._in.grow(-(len(data) if rest else max(len(data), 1)))
        return data

    def _write(self, data: bytes, offset: int) -> int:
        if not self._out.is_open:
            raise Trap(PIPE_CLOSED)
        self._out.grow(max(len(data), 1))
        self._out.blocks.append(bytes(data))
        return len(data)
