"""A graph cut into parts: those that kernels run, and steps of NumPy code between them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import LlmbolError
from llmbol_core.ml.constants import Constants
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.kernels import layouts as moves
from llmbol_core.ml.plan import dense, layouts, pooling, rows, sequences, sliding  # noqa: F401 -- they fill the table
from llmbol_core.ml.plan.emitter import Budget, Emitter, Unsupported
from llmbol_core.ml.plan.network import Bound, Lowered
from llmbol_core.ml.plan.rooms import At, Room
from llmbol_core.ml.plan.rules import RULES
from llmbol_core.native.threads import thread_count

Array = NDArray[Any]

_BATCH_SIZES = 2
"""The number of batch sizes for which buffers are kept: full batches, and a last one."""


class Part:
    """A lowered part: which values it takes and makes, and its buffers."""

    def __init__(self, lowered: Lowered, outputs: list[Value], threads: int) -> None:
        self.lowered, self.threads = lowered, threads
        self.inputs = [value.index for value in lowered.inputs]
        self.outputs = [value.index for value in outputs]
        self.shapes = [value.shape[1:] for value in outputs]
        self._free: dict[int, list[Bound]] = {}
        self._lock = threading.Lock()

    def run(self, inputs: Sequence[Array], batch: int) -> list[Array]:
        """Return the outputs for contiguous float32 inputs of a batch."""
        outputs = [np.empty((batch, *shape), np.float32) for shape in self.shapes]
        free = self._free.get(batch)
        if free is None:
            free = self._of_batch(batch)
        try:
            # Several threads may run at a time: each takes buffers and puts them back.
            bound = free.pop()
        except IndexError:
            bound = Bound(self.lowered, batch, self.threads)
        bound.run(inputs, outputs)
        free.append(bound)
        return outputs

    def _of_batch(self, batch: int) -> list[Bound]:
        """Return the free buffers for a size of batch; forget those of an older size."""
        with self._lock:
            if batch not in self._free:
                while len(self._free) >= _BATCH_SIZES:
                    del self._free[next(iter(self._free))]
            return self._free.setdefault(batch, [])

    def bytes(self, batch: int) -> int:
        """Return how many bytes the buffers for batches of this size take."""
        return self.lowered.workspace_bytes(batch, self.threads)


class Native:
    """A graph as parts, with the steps between them."""

    def __init__(
        self,
        graph: Graph,
        steps: Sequence[Step],
        constants: Constants,
        lanes: int,
        most_bytes: float = math.inf,
    ) -> None:
        """Lower what can be lowered; ``parts`` is empty if that is nothing.

        Raises MemoryError if that takes more than so many bytes.
        """
        emitter = partial(Emitter, graph, constants, Budget(most_bytes), lanes)
        found = cut(graph, steps, emitter, thread_count())
        self.parts = [part for part in found if isinstance(part, Part)]
        self.order, self._graph = found, graph
        self.kept_bytes = sum(part.lowered.kept_bytes for part in self.parts)

    @property
    def whole(self) -> Part | None:
        """The part that is all of a graph with one output, if there is one."""
        only = self.order[0] if len(self.order) == 1 else None
        return only if isinstance(only, Part) and self._is_all(only) else None

    def _is_all(self, part: Part) -> bool:
        graph = self._graph
        return part.inputs == [v.index for v in graph.inputs] and part.outputs == [
            v.index for v in graph.outputs
        ]

    def run(
        self,
        values: dict[int, Array],
        batch: int,
        otherwise: Callable[[Step, dict[int, Array]], None],
    ) -> None:
        """Add all values that are needed to those given."""
        for part in self.order:
            if isinstance(part, Part):
                results = part.run([values[i] for i in part.inputs], batch)
                values.update(zip(part.outputs, results, strict=True))
            else:
                otherwise(part, values)

    def bytes(self, batch: int) -> int:
        """Return how many bytes the buffers for batches of this size take."""
        return sum(part.bytes(batch) for part in self.parts)


def cut(
    graph: Graph, steps: Sequence[Step], begin: Callable[[], Emitter], threads: int
) -> list[Part | Step]:
    """Return the parts of a graph in the order they run; each begins with an emitter."""
    samplewise = _samplewise(graph)
    result: list[Part | Step] = []
    emitter = begin()

    def close() -> None:
        nonlocal emitter
        if emitter.done:
            result.append(_part(graph, steps, emitter, threads))
        emitter = begin()

    for step in steps:
        if step.output.index in emitter.done:
            continue
        if _lowered(emitter, step, samplewise):
            continue
        close()
        result.append(step)
    close()
    return result


def _lowered(emitter: Emitter, step: Step, samplewise: set[int]) -> bool:
    """Lower a step if there is a rule for it; return whether there is."""
    values = [value for value in step.inputs if not emitter.is_constant(value)]
    fits = all(v.index in samplewise and v.dtype is F32 for v in (*values, step.output))
    if step.op not in RULES or not fits or not values:
        return False
    try:
        RULES[step.op](emitter, step)
    except Unsupported:
        return False
    return True


def _samplewise(graph: Graph) -> set[int]:
    """Return the values whose first axis is the batch, and nothing else depends on its size."""
    try:
        several = [(batch, graph.shapes(batch)) for batch in (1, 2, 3)]
    except LlmbolError:
        return set()
    first = several[0][1]
    return {
        index
        for index, shape in enumerate(first)
        if all(s[index][:1] == (n,) and s[index][1:] == shape[1:] for n, s in several)
    }


def _part(graph: Graph, steps: Sequence[Step], emitter: Emitter, threads: int) -> Part:
    """Finish a part: its results that are needed elsewhere go to places outside of it."""
    needed = {value.index for value in graph.outputs}
    for step in steps:
        if step.output.index not in emitter.done:
            needed |= {value.index for value in step.inputs}
    outputs = [
        step.output
        for step in steps
        if step.output.index in needed
        and step.output.index in emitter.held
        and step.output.index in emitter.done
    ]
    taken: set[Room] = set()
    rooms = []
    for value in outputs:
        held = emitter.rows(value)
        room = held.room
        if room.external is not None or room in taken or room.is_kept:
            room = emitter.room(held.size)
            emitter.call(moves.copy, At(held.room), At(room), held.size)
        taken.add(room)
        rooms.append((room, held.shape))
    return Part(Lowered(emitter, rooms), outputs, threads)
