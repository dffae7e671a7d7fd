"""Files served by a program itself: what file2chan makes.

A reader of such a file sends ``(offset, count, fid, reply)`` over the server's read channel and
waits for ``(data, error)`` on the reply channel; a writer sends ``(offset, data, fid, reply)`` over
the write channel and waits for ``(count, error)``. Each open of the file has its own fid. When it
is closed, the server receives a request with that fid and no reply channel, over both channels. The
file goes away with the server's FileIO.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count

from llmbol_core.errors import Trap
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.channels import Channels
from llmbol_core.vm.files.openfile import EHUNGUP, OREAD, OWRITE, FileFault, OpenFile
from llmbol_core.vm.given import numbers, text
from llmbol_core.vm.host import Exchange
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap

# fmt: off
#                               size  pointers
_FILE_IO      = TypeDescriptor(-1, 8,  b"\xc0")   # read, write: channels
_READ         = TypeDescriptor(-1, 16, b"\x10")   # offset, count, fid, reply
_WRITE        = TypeDescriptor(-1, 16, b"\x50")   # offset, data, fid, reply
_READ_REPLY   = TypeDescriptor(-1, 8,  b"\xc0")   # data, error
_WRITE_REPLY  = TypeDescriptor(-1, 8,  b"\x40")   # count, error
_READING      = TypeDescriptor(-1, 24, b"\x1c")   # a request to read, and room for its reply
_WRITING      = TypeDescriptor(-1, 24, b"\x54")
# fmt: on
_COST = 1 << 10
"""Bytes that the host needs for a file and its place in the name space."""


class Server:
    """The channels of one served file, as long as the program keeps its FileIO.

    It holds both: the program may put others into the FileIO, or nothing.
    ``named`` is how many characters its name has, directories included.
    """

    def __init__(self, heap: Heap, channels: Channels, named: int) -> None:
        self._heap, self._channels, self._named = heap, channels, 4 * named
        self.reads = self.writes = NIL
        self.withdraw: Callable[[], None] = lambda: None
        self._fids = count(1)

    def offer(self) -> int:
        """Return a new FileIO with the channels."""
        heap = self._heap
        ref = heap.new_handle(self, _COST + self._named, _FILE_IO)
        try:
            self.reads = heap.new_channel(heap.type_number(_READ), 0)
            heap.assign(ref, self.reads)
            self.writes = heap.new_channel(heap.type_number(_WRITE), 0)
            heap.assign(ref + 4, self.writes)
        except BaseException:
            heap.release(ref)
            raise
        return ref

    def open(self, path: str, mode: int) -> ServedFile:
        """Open the file once more."""
        return ServedFile(path, mode, self, next(self._fids))

    def tell_closed(self, fid: int) -> None:
        """Tell the program that one open of the file has ended, unless memory is short."""
        with suppress(Trap):
            for channel, kind in ((self.reads, _READ), (self.writes, _WRITE)):
                if channel != NIL:
                    request = self._heap.new_record(kind)
                    self._heap.set_word(request + 8, fid)
                    release = partial(self._heap.release, request)
                    self._channels.post(channel, request, release)

    def close(self) -> None:
        """Remove the file: the program has dropped its FileIO."""
        channels = self.reads, self.writes
        self.reads = self.writes = NIL
        self.withdraw()
        for channel in channels:
            self._heap.release(channel)


class ServedFile(OpenFile):
    """One open of a served file."""

    permission, device = 0o660, "s"

    def __init__(self, path: str, mode: int, server: Server, fid: int) -> None:
        super().__init__(path, mode)
        self._server, self._fid = server, fid

    def close(self) -> None:
        """Tell the server."""
        self._server.tell_closed(self._fid)

    def ask_to_read(self, heap: Heap, window: memoryview, offset: int | None) -> Exchange:
        """Ask the server for bytes; the eventual result is their number."""
        self._check(OREAD)

        def answered(answer: int) -> int:
            ref = heap.pointer(answer)
            data = numbers(heap, ref, 1)[: len(window)] if ref != NIL else b""
            window[: len(data)] = data
            self.offset += len(data)
            return len(data)

        return self._ask(heap, offset, len(window), answered)

    def ask_to_write(self, heap: Heap, data: bytes, offset: int | None) -> Exchange:
        """Hand bytes to the server; the eventual result is the number that it took."""
        self._check(OWRITE)

        def answered(answer: int) -> int:
            taken = max(0, min(heap.word(answer), len(data)))
            if offset is None:
                self.offset += taken
            return taken

        return self._ask(heap, offset, data, answered)

    def _ask(
        self, heap: Heap, offset: int | None, what: int | bytes, answered: Callable[[int], int]
    ) -> Exchange:
        """Send a request with a reply channel of its own, then receive from that channel.

        One record holds all of that as long as the caller waits.
        """
        is_read = isinstance(what, int)
        channel = self._server.reads if is_read else self._server.writes
        if channel == NIL:
            raise FileFault(EHUNGUP)
        asked = heap.new_record(_READING if is_read else _WRITING)
        let_go = partial(heap.release, asked)
        try:
            heap.set_word(asked, (self.offset if offset is None else offset) & 0x7FFFFFFF)
            if isinstance(what, int):
                heap.set_word(asked + 4, what)
            else:
                heap.give(asked + 4, heap.new_bytes(what))
            heap.set_word(asked + 8, self._fid)
            kind = heap.type_number(_READ_REPLY if is_read else _WRITE_REPLY)
            heap.give(asked + 12, heap.new_channel(kind, 0))
        except BaseException:
            let_go()
            raise

        def sent() -> Exchange:
            if not is_read:
                heap.give(asked + 4, NIL)
            return Exchange(heap.pointer(asked + 12), False, asked + 16, received, let_go)

        def received() -> int:
            try:
                error = text(heap, heap.pointer(asked + 20))
                if error:
                    raise FileFault(error)
                return answered(asked + 16)
            finally:
                let_go()

        return Exchange(channel, True, asked, sent, let_go)
