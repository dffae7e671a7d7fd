"""Samples from files and standard input, some at a time."""

from __future__ import annotations

import math
from typing import Any

from llmbol_core.builtins.binding import Pending
from llmbol_core.builtins.ml.plans import Plan, fitting
from llmbol_core.builtins.ml.tensors import FAILURES, admit, binding, fault, keep
from llmbol_core.builtins.served import ServedFile
from llmbol_core.errors import Trap
from llmbol_core.ml.tensor import Tensor
from llmbol_core.nn.data import samples_at_a_time
from llmbol_core.nn.streams import SampleStream
from llmbol_core.vm import given, traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.files.openfile import FileFault, OpenFile
from llmbol_core.vm.handles import new_handle
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.objects import Heap

_COUNT_UNKNOWN = -1
_MOST_WORD = 0x7FFFFFFF


class Samples:
    """What the host keeps for a ``ref Samples``."""

    def __init__(self, heap: Heap, fd: int, file: OpenFile, stream: SampleStream) -> None:
        self._heap, self._fd = heap, heap.retain(fd)
        self.file, self.stream = file, stream

    @property
    def size(self) -> int:
        """How many numbers a sample has."""
        return math.prod(self.stream.shape)

    def close(self) -> None:
        """Let go of the file; the last reference is gone."""
        self._heap.release(self._fd)


def file_of(call: HostCall, fd: int) -> OpenFile:
    """Return the open file of a ``ref FD`` of $Sys."""
    if fd == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    try:
        return call.process.environment.descriptors[given.number(call.heap, fd)]
    except FileFault as error:
        raise fault(error) from error


def _samples(heap: Heap, ref: int) -> tuple[int, Samples]:
    if ref == NIL:
        raise Trap(traps.NIL_DEREFERENCE)
    found = heap.handle(ref)
    if not isinstance(found, Samples):
        raise Trap("ml: no samples: a ref Samples comes from ml->samples")
    return ref, found


binding.reference("Samples", _samples, lambda heap, made: made)


def _waiting(file: OpenFile, work: Any, then: Any) -> Any:
    """Do what reads a file, in another thread if that may have to wait for the file."""
    return then(work()) if file.is_ready() else Pending(work, then)


@binding.function(
    "samples: fn(fd: ref FD, inputs: string, targets: string, shape: list of int): ref Samples"
)
def samples(call: HostCall, fd: int, inputs: str, targets: str, shape: list[int]) -> Any:
    """Begin to read samples of a shape from a .npy, .npz, .csv or JSON file.

    Of several arrays the one called ``inputs`` is taken; a table's column of targets is not. The
    record tells how many samples there are, -1 if only the end will tell.
    """
    heap, file, wanted = call.heap, file_of(call, fd), tuple(shape)
    if file.waits_for_processes or isinstance(file, ServedFile):
        raise Trap("ml: samples: expected a file or standard input, not what a process serves")
    room = max(0, (heap.limit - heap.used) // 2)

    def work() -> SampleStream:
        try:
            return SampleStream(file.read, file.path, inputs, targets, wanted, room)
        except (*FAILURES, FileFault, MemoryError) as error:
            raise fault(error) from error

    def then(stream: SampleStream) -> int:
        admit(heap, stream.held_bytes)
        held = Samples(heap, fd, file, stream)
        count = _COUNT_UNKNOWN if stream.count is None else min(stream.count, _MOST_WORD)
        return new_handle(heap, held, stream.held_bytes, count, 0)

    return _waiting(file, work, then)


@binding.function("take: fn(s: ref Samples, n: int): ref Tensor")
def take(call: HostCall, s: tuple[int, Samples], n: int) -> Any:
    """Return the next samples as a batch, at most so many; nil when all have been taken."""
    heap, (ref, held) = call.heap, s
    most = max(n, 1)
    if held.stream.count is not None:
        most = min(most, held.stream.count - held.stream.taken)
    admit(heap, most * held.size * (4 + held.stream.item_bytes))

    def work() -> Any:
        try:
            return held.stream.take(most)
        except (*FAILURES, FileFault, MemoryError) as error:
            raise fault(error) from error

    def then(found: Any) -> int:
        heap.set_word(ref + 4, min(held.stream.taken, _MOST_WORD))
        return NIL if found is None else keep(heap, Tensor(found))

    return _waiting(held.file, work, then)


@binding.function("fit: fn(p: ref Plan, s: ref Samples): int")
def fit(call: HostCall, p: Plan, s: tuple[int, Samples]) -> int:
    """Return how many samples to take at a time, so that memory suffices to run them."""
    held = s[1]
    most = samples_at_a_time(held.size * held.stream.item_bytes)
    if held.stream.count is not None:
        most = max(1, min(most, held.stream.count))
    return fitting(call.heap, p, most, 4 * held.size)
