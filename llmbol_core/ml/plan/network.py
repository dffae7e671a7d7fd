"""A lowered part of a graph, bound to buffers for batches of a size, and run in one native call.

A batch goes through the operations in chunks whose values fit into the processor's cache; threads
take chunks in turn, each with buffers of its own. A batch that is too small for that is worked on
by all threads together, operation after operation.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import network as driver
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.plan.emitter import Call, Emitter
from llmbol_core.ml.plan.rooms import At, Room, Samples

Array = NDArray[Any]

_CACHE = 384 << 10
"""Bytes that the values of a chunk may take."""
_HEAVY = 3 << 20
"""Weights of so many bytes are read once for as many samples as possible."""
_FEW = 1 << 17
"""Multiply-adds for which waking another thread does not pay."""
_PAD = 64
"""Numbers after each buffer that may be read, but are not used."""


class Lowered:
    """The operations of a part of a graph, and which rooms share memory."""

    def __init__(self, emitter: Emitter, outputs: Sequence[tuple[Room, tuple[int, ...]]]) -> None:
        self.calls = [call for call in emitter.calls if not _is_empty(call)]
        self.inputs = emitter.inputs
        self.kept_bytes, self.read_bytes = emitter.kept_bytes, emitter.read_bytes
        self.least, self.heavy = emitter.least, emitter.heavy
        self.externals = len(self.inputs) + len(outputs)
        for number, (room, _) in enumerate(outputs):
            room.external = len(self.inputs) + number
        self._place()
        self.flops = sum(call.flops for call in self.calls)

    def _place(self) -> None:
        """Give each room an offset, in numbers for each sample; rooms in use at a time differ."""
        rooms: dict[Room, None] = {}
        for number, call in enumerate(self.calls):
            for room in call.rooms():
                room.first = number if room.first < 0 else room.first
                room.last = number
                rooms[room] = None
        self.scratch = [room for room in rooms if room.is_scratch]
        self.own = [room for room in rooms if room.external is None and not room.is_scratch]
        self.offsets: dict[Room, int] = {}
        placed: list[Room] = []
        for room in sorted(self.own, key=lambda room: -room.size):
            busy = sorted(
                (self.offsets[other], _rounded(other.size))
                for other in placed
                if room.is_kept
                or other.is_kept
                or (room.first <= other.last and other.first <= room.last)
            )
            offset, wanted = 0, _rounded(room.size)
            for start, size in busy:
                if offset + wanted <= start:
                    break
                offset = max(offset, start + size)
            self.offsets[room] = offset
            placed.append(room)
        self.size = max((self.offsets[r] + _rounded(r.size) for r in self.own), default=0)

    def chunk(self, batch: int, threads: int) -> int:
        """Return how many samples go through the operations together."""
        whole = max(1, 4 * (self.size + sum(math.prod(v.shape[1:]) for v in self.inputs)))
        fits = max(1, _CACHE // whole)
        fits = max(fits, self.least)
        if self.read_bytes > _HEAVY:
            fits = max(fits, self.heavy)
        share = -(-batch // threads)
        count = max(1, -(-share // fits))
        return -(-share // count)

    def workspace_bytes(self, batch: int, threads: int) -> int:
        """Return how many bytes the buffers for batches of this size take."""
        together = self.together(batch, threads)
        chunk = batch if together else self.chunk(batch, threads)
        arenas = 1 if together else max(1, min(threads, -(-batch // max(chunk, 1))))
        scratch = sum(room.size for room in self.scratch) * threads
        return 4 * (arenas * self.size * max(chunk, 1) + scratch)

    def together(self, batch: int, threads: int) -> bool:
        """Return whether the threads share each operation instead of the batch."""
        if threads == 1 or batch * self.flops < _FEW:
            return False
        return batch < 4 * threads or (self.read_bytes > _HEAVY and 3 * batch <= 4 * self.heavy)


def _rounded(size: int) -> int:
    """Return a size as whole cache lines."""
    return -(-size // 16) * 16


def _is_empty(call: Call) -> bool:
    return call.items + call.fixed == 0


class Bound:
    """A lowered part with buffers for batches of one size; one call at a time may use it."""

    def __init__(self, lowered: Lowered, batch: int, threads: int) -> None:
        self.lowered, self.batch, self._threads = lowered, batch, threads
        self._kept: list[Any] = []
        self._patched: list[tuple[int, int, int, int]] = []
        self._bases = (ctypes.c_int64 * max(1, lowered.externals))()
        self._scratch = {room: self._numbers(room.size * threads) for room in lowered.scratch}
        self.together = lowered.together(batch, threads)
        self.chunk = max(1, batch if self.together else lowered.chunk(batch, threads))
        self.words = self._shared() if self.together else self._chunked()
        self._go = partial(ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(self.words[0]),
                           *self.words[1:])  # fmt: skip

    @property
    def bases(self) -> int:
        """Where the addresses of inputs and outputs go before the words are run."""
        return ctypes.addressof(self._bases)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute outputs from inputs: contiguous float32 arrays of this batch."""
        for number, array in enumerate((*inputs, *outputs)):
            self._bases[number] = array.ctypes.data
        self._go()

    # ---- binding ----

    def _memory(self) -> dict[Room, int]:
        """Return the addresses of all own rooms in new memory for a chunk."""
        lowered = self.lowered
        start = self._numbers(lowered.size * self.chunk)
        own = {room: start + 4 * lowered.offsets[room] * self.chunk for room in lowered.own}
        return own | self._scratch

    def _numbers(self, count: int) -> int:
        """Return the address of so many zeros, which begin with a cache line."""
        memory = np.zeros(count + _PAD + 16, np.float32)
        self._kept.append(memory)
        return int(memory.ctypes.data) + -int(memory.ctypes.data) % 64

    def _words(self, numbers: Sequence[int]) -> int:
        """Return the address of so many words."""
        made = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        self._kept.append(made)
        return ctypes.addressof(made)

    def _arguments(self, given: Sequence[Any], memory: dict[Room, int]) -> int:
        """Return where a call's arguments lie; note what must be patched for each chunk."""
        packed = (ctypes.c_int64 * max(1, len(given)))()
        self._kept.append(packed)
        place = ctypes.addressof(packed)
        for i, argument in enumerate(given):
            if isinstance(argument, At):
                room = argument.room
                if room.external is None:
                    packed[i] = memory[room] + 4 * argument.offset
                else:
                    stride = 0 if self.together else 4 * room.size
                    self._patched.append(
                        (place + 8 * i, room.external, stride, 4 * argument.offset)
                    )
            elif isinstance(argument, Samples):
                packed[i] = argument.times * self.batch
                if not self.together:
                    self._patched.append((place + 8 * i, -1, argument.times, 0))
            else:
                packed[i] = _word(argument)
                self._kept.append(argument)
        return place

    def _chunked(self) -> tuple[int, int, int, int, int]:
        """Return what to run for a batch in chunks: a function and four words."""
        count = -(-self.batch // self.chunk)
        threads = self._threads if count > 1 else 1
        records = [self._record() for _ in range(threads)]
        numbers = (self._words(records), self.bases, self.batch, self.chunk)
        operation = (driver.address("network"), self._words(numbers), count, 1)
        if threads == 1:
            return (*operation[:2], 0, count, 0)
        return self._by_team(operation)

    def _record(self) -> int:
        """Return the address of a thread's list of operations, with buffers of its own."""
        memory, words = self._memory(), list[int]()
        self._patched = []
        for call in self.lowered.calls:
            place = self._arguments(call.arguments, memory)
            words += [address_of(call.kernel), place, call.items, call.fixed]
        patches = [number for patch in self._patched for number in patch]
        return self._words([len(self._patched), len(self.lowered.calls), *patches, *words])

    def _shared(self) -> tuple[int, int, int, int, int]:
        """Return what to run for a batch whose operations are shared by the threads."""
        memory, words = self._memory(), list[int]()
        self._patched = []
        for call in self.lowered.calls:
            items = call.items * self.batch + call.fixed
            several = [(call.kernel, call.arguments, items)]
            for kernel, given, items in call.inside(self.batch) if call.inside else several:
                place = self._arguments(given, memory)
                share = -(-items // (self._threads * call.grain)) * call.grain
                words += [address_of(kernel), place, items, max(1, share)]
        patches = [n for place, base, _, offset in self._patched for n in (place, base, offset)]
        arguments = self._words([self.bases, len(self._patched), *patches])
        return self._by_team((driver.address("patch"), arguments, 1, 1, *words))

    def _by_team(self, operations: Sequence[int]) -> tuple[int, int, int, int, int]:
        from llmbol_core.native.team import team

        workers = team()
        self._kept.append(workers)
        return workers.entry, workers.address, self._words(operations), len(operations) // 4, 0


def _word(argument: Any) -> int:
    """Return an argument as a word: an address, a whole number, or a float32's bits."""
    if isinstance(argument, np.ndarray):
        return int(argument.ctypes.data)
    if argument is None:
        return 0
    if isinstance(argument, float):
        # What is too great becomes infinite.
        return ctypes.c_int32.from_buffer(ctypes.c_float(argument)).value
    return int(argument)
