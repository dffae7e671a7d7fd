"""Pipes, whose ends are open files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llmbol_core.errors import Trap
from llmbol_core.vm.openfile import ORDWR, OpenFile
from llmbol_core.vm.traps import PIPE_CLOSED

_ENOUGH = 32 * 1024
"""Bytes in a pipe from which on writers wait."""


class _Channel:
    """One direction of a pipe: blocks of bytes, as they were written.

    ``charge`` is told how many bytes more there are, or fewer.
    """

    def __init__(self, charge: Callable[[int], None]) -> None:
        self.blocks: deque[bytes] = deque()
        self.size = 0
        self.is_open = True
        self._charge = charge

    def grow(self, size: int) -> None:
        """Take note of so many bytes more; traps if they are too many."""
        self._charge(size)
        self.size += size

    def close(self) -> None:
        """Drop what nobody will read."""
        self.grow(-self.size)
        self.blocks.clear()


class PipeEnd(OpenFile):
    """One end of a pipe: what is written to it is read at the other end.

    A read returns bytes of one write only, perhaps none. When an end closes, the other reads what
    is left and then nothing; its writes trap. Whoever reads or writes sees that the end is ready.
    """

    is_stream = True
    permission, device = 0o660, "|"
    waits_for_processes = True

    def __init__(self, path: str, incoming: _Channel, outgoing: _Channel) -> None:
        super().__init__(path, ORDWR)
        self._in, self._out = incoming, outgoing

    @classmethod
    def pair(cls, charge: Callable[[int], None] = lambda size: None) -> tuple[PipeEnd, PipeEnd]:
        """Make both ends of a new pipe, which says how many bytes are in it."""
        one, other = _Channel(charge), _Channel(charge)
        return cls("#|/data", one, other), cls("#|/data1", other, one)

    def is_ready(self) -> bool:
        """Say whether bytes wait here, or none will come any more."""
        return bool(self._in.blocks) or not self._in.is_open

    def can_write(self) -> bool:
        """Say whether a write would come back at once."""
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
