"""A lowered part of a graph, bound to buffers for batches of a size, and run in one native call.

A batch goes through the operations in chunks whose values fit into the processor's cache; threads
take chunks in turn, each with buffers of its own. A batch that is too small for that is worked on
by all threads together, operation after operation.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import network as driver
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.plan.emitter import Call, Emitter
from llmbol_core.ml.plan.rooms import At, Room

Array = NDArray[Any]

_CACHE = 384 << 10
"""Bytes that the values of a chunk may take."""
_HEAVY = 4 << 20
"""Weights of so many bytes are read once for as many samples as they can be."""
_FEW = 1 << 17
"""Multiply-adds for which it is not worth it to wake another thread."""
_PAD = 64
"""Numbers behind each buffer that may be read, not used."""
_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


class Lowered:
    """The operations of a part of a graph, and which rooms share memory."""

    def __init__(self, emitter: Emitter, outputs: Sequence[tuple[Room, tuple[int, ...]]]) -> None:
        self.calls = [call for call in emitter.calls if not _is_empty(call)]
        self.inputs = emitter.inputs
        self.kept_bytes, self.least = emitter.kept_bytes, emitter.least
        self.output_shapes = [shape for _, shape in outputs]
        self._externals = len(self.inputs) + len(outputs)
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
        weights = self.kept_bytes
        whole = max(1, 4 * (self.size + sum(math.prod(v.shape[1:]) for v in self.inputs)))
        fits = max(1, _CACHE // whole)
        fits = max(fits, self.least)
        if weights > _HEAVY:
            fits = max(fits, 96)
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
        return batch < 4 * threads or (self.kept_bytes > _HEAVY and batch <= 128)


def _rounded(size: int) -> int:
    """Return a size as whole cache lines."""
    return -(-size // 16) * 16


def _is_empty(call: Call) -> bool:
    return call.items == 0


class Bound:
    """A lowered part with buffers for batches of one size."""

    def __init__(self, lowered: Lowered, batch: int, threads: int) -> None:
        self.lowered, self.batch = lowered, batch
        self._kept: list[Any] = []
        self._bases = (ctypes.c_int64 * max(1, lowered._externals))()
        self.together = lowered.together(batch, threads)
        chunk = batch if self.together else lowered.chunk(batch, threads)
        self.chunk = max(chunk, 1)
        self.bytes = 0
        self._patches: list[tuple[int, int, int]] = []
        self._scratch = {room: self._numbers(room.size * threads) for room in lowered.scratch}
        if self.together:
            self._words = self._bind_together(threads)
            self._length = len(lowered.calls)
        else:
            count = -(-batch // self.chunk)
            self._words = self._bind_chunks(min(threads, max(count, 1)), threads, count)
            self._length = 1
        self._start(threads)

    def _start(self, threads: int) -> None:
        if self._length == 1 and self._words[2] <= self._words[3]:
            self._go: Callable[[], Any] = partial(
                _ENTRY(self._words[0]), self._words[1], 0, self._words[2], 0
            )
            return
        from llmbol_core.native.team import team

        self._go = partial(team().run, ctypes.addressof(self._words), self._length)

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute outputs from inputs: contiguous float32 arrays of this batch."""
        bases = self._bases
        for number, array in enumerate((*inputs, *outputs)):
            bases[number] = array.ctypes.data
        if self.together:
            for place, base, offset in self._patches:
                ctypes.c_int64.from_address(place).value = bases[base] + offset
        self._go()

    # ---- binding ----

    def _memory(self) -> dict[Room, int]:
        """Return the addresses of all own rooms in new memory for a chunk."""
        lowered = self.lowered
        start = self._numbers(lowered.size * self.chunk)
        own = {room: start + 4 * lowered.offsets[room] * self.chunk for room in lowered.own}
        return own | self._scratch

    def _numbers(self, count: int) -> int:
        """Return the address of so many zeros."""
        memory = np.zeros(count + _PAD + 16, np.float32)
        self._kept.append(memory)
        self.bytes += memory.nbytes
        return memory.ctypes.data + -memory.ctypes.data % 64

    def _arguments(self, call: Call, given: Sequence[Any], memory: dict[Room, int]) -> int:
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
            else:
                packed[i] = _word(argument)
                self._kept.append(argument)
        return place

    def _bind_chunks(self, arenas: int, threads: int, count: int) -> Any:
        records = (ctypes.c_int64 * threads)()
        self._kept.append(records)
        for thread in range(threads):
            memory, words = self._memory(), []
            self._patched: list[tuple[int, int, int, int]] = []
            for call in self.lowered.calls:
                place = self._arguments(call, call.arguments, memory)
                words += [address_of(call.kernel), place, call.items]
            patches: list[int] = []
            for patch in self._patched:
                patches += patch
            flat = [len(self._patched), len(self.lowered.calls), *patches, *words]
            record = (ctypes.c_int64 * len(flat))(*flat)
            self._kept.append(record)
            records[thread] = ctypes.addressof(record)
        numbers = (ctypes.addressof(records), ctypes.addressof(self._bases), self.batch, self.chunk)
        arguments = (ctypes.c_int64 * 4)(*numbers)
        self._kept.append(arguments)
        return (ctypes.c_int64 * 4)(driver.address(), ctypes.addressof(arguments), count, 1)

    def _bind_together(self, threads: int) -> Any:
        memory, words = self._memory(), []
        self._patched = []
        for call in self.lowered.calls:
            kernel, given, items = call.kernel, call.arguments, call.items * self.batch
            if call.inside is not None:
                kernel, given, items = call.inside(self.batch)
            place = self._arguments(call, given, memory)
            share = -(-items // (threads * call.grain)) * call.grain
            words += [address_of(kernel), place, items, max(1, share)]
        self._patches = [(place, base, offset) for place, base, _, offset in self._patched]
        return (ctypes.c_int64 * max(1, len(words)))(*words)


def _word(argument: Any) -> int:
    """Return an argument as a word: an address, a whole number, or a float32's bits."""
    if isinstance(argument, np.ndarray):
        return int(argument.ctypes.data)
    if isinstance(argument, float):
        bits: int = struct.unpack("<i", struct.pack("<f", argument))[0]
        return bits
    return int(argument)
