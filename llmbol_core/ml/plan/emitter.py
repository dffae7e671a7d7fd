"""Collects the operations that a part of a graph is lowered to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.constants import Constants
from llmbol_core.ml.derived import is_large, is_shared
from llmbol_core.ml.dtypes import BF16, F16
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.kernels import layouts
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.plan.rooms import Argument, At, Held, Room
from llmbol_core.ml.tensor import Tensor

Array = NDArray[Any]

_MOST_PLACES = 1 << 21
"""Numbers of a sample above which a table of where each of them is does not pay."""
_ROWS = 96
"""Rows for which large weights are read once, where there are as many."""


class Unsupported(Exception):
    """There is no rule that lowers this step."""


class Budget:
    """How many bytes planning may still take for what it makes."""

    def __init__(self, left: float = math.inf) -> None:
        self._left = left

    def spend(self, size: int) -> None:
        """Take so many of them. Raises MemoryError if fewer are left."""
        self._left -= size
        if self._left < 0:
            raise MemoryError("planning takes too much")


@dataclass
class Call:
    """One operation in machine code: so many items for each sample."""

    kernel: Kernel
    arguments: tuple[Argument, ...]
    items: int
    inside: Callable[[int], list[tuple[Kernel, tuple[Argument, ...], int]]] | None = None
    """For a batch that several threads share: from samples to kernels, arguments and all items."""
    grain: int = 1
    """The items that a thread takes together are a multiple of this."""
    flops: int = 0
    """For each sample."""
    fixed: int = 0
    """Items whatever the batch, besides those for each sample."""

    def rooms(self) -> list[Room]:
        """Return the rooms that it reads or writes."""
        return [a.room for a in self.arguments if isinstance(a, At)]


@dataclass
class Emitter:
    """A part of a graph on its way to operations."""

    graph: Graph
    constants: Constants
    budget: Budget
    lanes: int
    calls: list[Call] = field(default_factory=list)
    held: dict[int, Held] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    """The outputs of the steps that are lowered."""
    kept_bytes: int = 0
    """Bytes of packed weights."""
    read_bytes: int = 0
    """Bytes of the weights of products that are read for every chunk."""
    heavy: int = 1
    """How many samples a chunk should have at least if that is much."""
    least: int = 1
    """How many samples a chunk should have at least."""

    def __post_init__(self) -> None:
        self._users: dict[int, list[Step]] = {}
        for step in self.graph.steps:
            for value in step.inputs:
                self._users.setdefault(value.index, []).append(step)
        self._returned = {value.index for value in self.graph.outputs}
        self._in_rows: dict[int, Held] = {}

    # ---- values ----

    def is_constant(self, value: Value) -> bool:
        """Return whether no input changes a value."""
        return value.index in self.constants

    def constant(self, value: Value) -> Array | Tensor | None:
        """Return what a value holds if no input changes it: as blocks or as float32."""
        return self.constants.value(value.index, packed=True) if self.is_constant(value) else None

    def halves(self, value: Value) -> Tensor | None:
        """Return a large weight that is stored in 16 bits a number."""
        tensor = self.constants.stored(value.index)
        if tensor is None or tensor.dtype not in (F16, BF16) or not is_large(tensor.nbytes):
            return None
        return tensor

    def value(self, value: Value) -> Held:
        """Return a value that this part made, or take it in from outside."""
        if value.index not in self.held:
            if self.is_constant(value):
                raise Unsupported
            room = Room(math.prod(value.shape[1:]), external=len(self.inputs))
            self.inputs.append(value)
            self.held[value.index] = Held(room, value.shape[1:])
        return self.held[value.index]

    def rows(self, value: Value) -> Held:
        """Return a value whose samples lie in rows, rearranged if they did not."""
        held = self.value(value)
        if held.in_rows:
            return held
        if value.index not in self._in_rows:
            self._in_rows[value.index] = in_rows(self, held)
        return self._in_rows[value.index]

    def dense(self, value: Value) -> Held:
        """Return a value that fills its room, in any order."""
        held = self.value(value)
        return held if held.is_dense else self.rows(value)

    def put(self, step: Step, held: Held) -> None:
        """Make a held value the result of a step."""
        self.held[step.output.index] = held
        self.done.add(step.output.index)

    def room(self, size: int) -> Room:
        """Return a new buffer."""
        return Room(size)

    def fresh(self, step: Step) -> Held:
        """Return a new place in rows for the result of a step, and make it that."""
        shape = step.output.shape[1:]
        held = Held(self.room(math.prod(shape)), shape)
        self.put(step, held)
        return held

    def users(self, value: Value) -> list[Step]:
        """Return the steps that need a value."""
        return self._users.get(value.index, [])

    def sole_user(self, value: Value) -> Step | None:
        """Return the only step that needs a value, None if there are others or none."""
        users = self._users.get(value.index, [])
        if value.index in self._returned or len(users) != 1:
            return None
        return users[0] if len(users[0].inputs) == 1 else None

    def weights(self, step: Step, start: int = 1) -> list[Array | None]:
        """Return the inputs of a step from one on, all of which must be known beforehand."""
        found: list[Array | None] = []
        for value in step.inputs[start:]:
            constant = self.constant(value)
            if not isinstance(constant, np.ndarray):
                raise Unsupported
            found.append(constant)
        return found

    # ---- operations ----

    def call(self, kernel: Kernel, *arguments: Argument, items: int = 1, **more: Any) -> None:
        """Append an operation."""
        self.calls.append(Call(kernel, arguments, items, **more))

    def keep(self, array: Array) -> Array:
        """Return an array that operations refer to, its bytes counted unless others share them."""
        if not is_shared(array):
            self.kept_bytes += array.nbytes
            self.budget.spend(array.nbytes)
        return array

    def table(self, count: int, most: int = _MOST_PLACES) -> None:
        """Announce a table of so many entries. Raises Unsupported for very many."""
        if count > most:
            raise Unsupported
        self.budget.spend(8 * count)

    def reads(self, size: int, rows: int) -> None:
        """Note weights of so many bytes for so many rows of each sample."""
        self.read_bytes += size
        self.heavy = max(self.heavy, -(-_ROWS // max(rows, 1)))

    def lasting(self, samples: int) -> None:
        """Ask for chunks of at least so many samples, where batches are as large."""
        self.least = max(self.least, samples)


def in_rows(emitter: Emitter, held: Held) -> Held:
    """Emit the copy of a value into rows."""
    if held.last is not None and held.last.channels == 1 and held.last.is_plain:
        return Held(held.room, held.shape)
    room = emitter.room(held.size)
    rearrange(emitter, held.room, room, held.places(), np.arange(held.size))
    return Held(room, held.shape)


def rearrange(emitter: Emitter, source: Room, target: Room, starts: Array, places: Array) -> None:
    """Emit copies of all numbers of a sample from starts to places; long runs go together."""
    emitter.budget.spend(32 * starts.size)
    starts, places = starts.reshape(-1), places.reshape(-1)
    order = np.argsort(places, kind="stable")
    starts, places = starts[order], places[order]
    length = _run_length(starts, places)
    tables = [emitter.keep(np.ascontiguousarray(a[::length])) for a in (starts, places)]
    count = len(tables[0])
    given = (At(source), At(target), source.size, target.size, count)
    if length > 1:
        emitter.call(layouts.move, *given, length, *tables)
    else:
        emitter.call(layouts.scatter, *given, *tables)


def _run_length(starts: Array, places: Array) -> int:
    """Return how many neighbours always move together."""
    if len(starts) < 2:
        return 1
    breaks = (np.diff(starts) != 1) | (np.diff(places) != 1)
    ends = np.flatnonzero(breaks) + 1
    return int(np.gcd.reduce(np.append(ends, len(starts))))
