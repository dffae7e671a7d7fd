"""An operation of known shapes on its way to calls of kernels, and the result that runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.constants import Constants
from llmbol_core.ml.graph import Graph, Value
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.library import Program, operation
from llmbol_core.ml.plan.emitter import Budget, Emitter
from llmbol_core.ml.plan.network import Bound, Lowered
from llmbol_core.ml.plan.rooms import At, Room
from llmbol_core.native.filled import on_filled
from llmbol_core.native.threads import thread_count

Array = NDArray[Any]
Shape = tuple[int, ...]
Shapes = Sequence[Shape | None]
Pack = tuple[Kernel, int, tuple[Any, ...]]
"""A kernel, how many items it has, and its arguments."""


class Draft:
    """Collects what is to be called: inputs are places, the first axis of samples is the batch."""

    def __init__(self, shapes: Shapes, batch: int, sampled: int, lanes: int) -> None:
        """Begin with inputs of these shapes; the first ``sampled`` of them have samples."""
        self.batch, self.lanes = batch, lanes
        self.emitter = Emitter(Graph(), Constants({}), Budget(), lanes)
        self.packs: list[Pack] = []
        self.inputs: list[At | None] = []
        for number, shape in enumerate(shapes):
            size = math.prod(shape or ()) // max(batch, 1) if number < sampled else 0
            self.emitter.inputs.append(Value(number, (1, size)))
            place = At(Room(size, external=number))
            self.inputs.append(None if shape is None else place)

    def room(self, size: int, is_kept: bool = False) -> At:
        """Return a new buffer of so many numbers for each sample; a kept one starts with zeros."""
        room = self.emitter.room(size)
        room.is_kept = is_kept
        return At(room)

    def scratch(self, size: int) -> At:
        """Return room of so many numbers for each thread."""
        return At(Room(size, is_scratch=True))

    def call(self, kernel: Kernel, *arguments: Any, **more: Any) -> None:
        """Append an operation on samples."""
        self.emitter.call(kernel, *arguments, **more)

    def pack(self, kernel: Kernel, items: int, *arguments: Any) -> None:
        """Append an operation that is done once, before the others: on inputs by their number."""
        self.packs.append((kernel, items, arguments))

    def kept(self, *arrays: Array) -> None:
        """Count the bytes of packed inputs."""
        for array in arrays:
            self.emitter.keep(array)

    def finish(self, out: At, result: Shape, kind: Any = np.float32) -> Single:
        """Return the operation ready to run, whose results have this type."""
        return Single(self, out.room, result, kind)


_LONG = 2_000_000
"""Multiply-adds from which on other Python threads may run meanwhile."""


class Input(int):
    """The number of an input, where its address is to be put."""


class Single:
    """An operation ready to run, which one thread may do at a time."""

    def __init__(self, draft: Draft, out: Room, result: Shape, kind: Any) -> None:
        size = math.prod(result) // draft.batch
        lowered = Lowered(draft.emitter, [(out, (size,))])
        threads = thread_count()
        self._new = partial(np.empty, result, np.dtype(kind))
        bound = Bound(lowered, draft.batch, threads)
        is_long = draft.batch * lowered.flops >= _LONG
        self._run = on_filled(bound.bases, len(draft.inputs), bound.words, is_long, bound)
        self._packing = _Packing(draft.packs, threads) if draft.packs else None
        self.bytes = lowered.workspace_bytes(draft.batch, threads) + lowered.kept_bytes
        """What buffers and tables take."""

    def run(self, inputs: Sequence[Array | None], out: Array | None = None) -> Array:
        """Return the result for arrays of float32 in rows, with None for those left out."""
        y: Array = self._new() if out is None else out
        if self._packing is not None:
            self._packing.run(inputs)
        return self._run(*inputs, y)


class _Packing:
    """Operations on inputs that are done once, before those on samples."""

    def __init__(self, packs: Sequence[Pack], threads: int) -> None:
        self._patches = []
        operations = []
        for kernel, items, given in packs:
            numbers = [0 if isinstance(argument, Input) else argument for argument in given]
            made = operation(kernel, items, numbers, -(-items // threads))
            operations.append(made)
            self._patches += [
                (made.arguments, place, argument)
                for place, argument in enumerate(given)
                if isinstance(argument, Input)
            ]
        self._program = Program(operations)

    def run(self, inputs: Sequence[Array | None]) -> None:
        """Run them on inputs."""
        for arguments, place, number in self._patches:
            x = inputs[number]
            assert x is not None
            arguments[place] = x.ctypes.data
        self._program.run()
