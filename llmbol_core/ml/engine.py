"""The inference engine: a graph with its weights, planned once, run on batches of any size.

Planning computes what depends on weights alone. For each size of batch that comes it infers the
shapes and lays out a workspace: one buffer serves all results of which no two are needed at the
same time. From then on a run allocates what it returns, and what an operation needs inside.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import DtypeError, ModelError, ShapeError, nearest
from llmbol_core.ml.constants import Constants, Held
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.folding import FACTORS
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.threads import single_threaded_blas

if TYPE_CHECKING:
    from llmbol_core.ml.plan.parts import Native

Array = NDArray[Any]

_BATCH_SIZES = 2
"""The number of batch sizes for which workspaces are kept: full batches, and a last one."""


@dataclass(frozen=True)
class _Planned:
    """A step ready to run."""

    run: Callable[..., Array]
    """The operation with its attributes."""
    inputs: tuple[tuple[int, Held], ...]
    """The value that each input is, and what it holds if no input of the graph changes it."""
    output: int
    finished: tuple[int, ...]
    """The values that nobody needs after this step."""


Workspace = list[Array | None]
"""For each planned step the array for its result, None where the operation makes a new one."""


class Engine:
    """Runs a graph. The same weights and inputs give the same bits, in batches of any size."""

    def __init__(
        self, graph: Graph, weights: Mapping[str, Any], most_bytes: float = math.inf
    ) -> None:
        """Plan a graph with its weights: tensors or arrays by name.

        Quantized weights stay in blocks where an operation takes blocks and are expanded
        elsewhere. A missing weight is a ModelError, one of another shape a ShapeError. Raises
        MemoryError if lowering takes more than so many bytes.
        """
        self.graph = graph
        self._held = Constants(
            {
                value.index: _conforming(name, value, weights)
                for name, value in graph.weights.items()
            }
        )
        constant = graph.constant_steps()
        # Finding BLAS takes longer than most factors do.
        is_plain = all(step.op in FACTORS for step in constant)
        with nullcontext() if is_plain else single_threaded_blas():
            for step in constant:
                self._held.compute(step)
        done = {step.output.index for step in constant}
        self._steps = [step for step in graph.steps if step.output.index not in done]
        self._held.pack(self._steps)
        self._native = self._lowered(most_bytes)
        for step in self.defined_steps:
            self._held.inputs(step)
        self._layout = _Layout(graph, self._steps, self._held)
        self._workspaces: dict[int, list[Workspace]] = {}
        self._lock = threading.Lock()

    def _lowered(self, most_bytes: float) -> Native | None:
        """Return the graph as kernels as far as there are any, None if there are none."""
        chosen = target()
        if chosen is None:
            return None
        from llmbol_core.ml.plan.parts import Native

        native = Native(self.graph, self._steps, self._held, chosen.lanes, most_bytes)
        return native if native.parts else None

    def run(self, *inputs: ArrayLike) -> Array:
        """Return the graph's output for a batch, one input array for each graph input."""
        outputs = self.run_all(*inputs)
        if len(outputs) != 1:
            raise TypeError(f"the graph has {len(outputs)} outputs, not one")
        return outputs[0]

    def function(self, other: Callable[[Any], Array]) -> Callable[[Any], Array]:
        """Return a function of one array that is as fast as it can be.

        Anything but a contiguous float32 array of a frequent batch size goes to ``other``, which
        does the same with ``run``; so does everything if part of the graph is not in machine code.
        """
        from llmbol_core.native.entry import is_possible

        part = None if self._native is None else self._native.whole
        if part is None or len(self.graph.inputs) != 1 or not is_possible():
            return other
        from llmbol_core.ml.plan.function import Function

        return Function(part, other).call

    def run_all(self, *inputs: ArrayLike) -> tuple[Array, ...]:
        """Return all outputs of the graph for a batch."""
        values = self._inputs(inputs)
        batch = len(values[self.graph.inputs[0].index]) if self.graph.inputs else 1
        if self._native is not None and batch:
            self._native.run(values, batch, self._take_step)
            return tuple(self._result(values, value) for value in self.graph.outputs)
        workspaces = self._of_batch(batch)
        try:
            # Several threads may run at a time: each takes a workspace and puts it back.
            workspace = workspaces.pop()
        except IndexError:
            workspace = self._layout.workspace(batch)
        with single_threaded_blas(), np.errstate(all="ignore"):
            for planned, out in zip(self._planned, workspace, strict=True):
                _take(planned, values, out)
        workspaces.append(workspace)
        return tuple(self._result(values, value) for value in self.graph.outputs)

    def workspace_bytes(self, batch: int) -> int:
        """Return how many bytes the buffers for batches of this size take."""
        if self._native is not None:
            return self._native.bytes(batch)
        return self._layout.bytes(batch)

    @property
    def held_bytes(self) -> int:
        """How many bytes planning has made beyond the weights: packed and folded ones."""
        return self._held.bytes + (self._native.kept_bytes if self._native is not None else 0)

    @property
    def defined_steps(self) -> list[Step]:
        """The steps that run as the table defines them, not as kernels."""
        if self._native is None:
            return self._steps
        return [part for part in self._native.order if isinstance(part, Step)]

    @functools.cached_property
    def _planned(self) -> list[_Planned]:
        """All steps as the table defines them; kernels leave it batches without samples."""
        return self._layout.planned()

    def _take_step(self, step: Step, values: dict[int, Array]) -> None:
        """Run a step that no kernel runs."""
        given = [
            values[value.index] if held is None else held
            for value, held in zip(step.inputs, self._held.inputs(step), strict=True)
        ]
        with single_threaded_blas(), np.errstate(all="ignore"):
            result = OPS[step.op].definition(*given, **step.attributes)
        values[step.output.index] = np.asarray(result, order="C")

    def _result(self, values: dict[int, Array], value: Value) -> Array:
        if value.index in values:
            return values[value.index]
        return np.array(dequantize(Tensor.of(self._held.value(value.index, packed=False))))

    def _of_batch(self, batch: int) -> list[Workspace]:
        """Return the free workspaces for a size of batch; forget those of an older size."""
        with self._lock:
            if batch not in self._workspaces:
                self.graph.shapes(batch)
                while len(self._workspaces) >= _BATCH_SIZES:
                    del self._workspaces[next(iter(self._workspaces))]
            return self._workspaces.setdefault(batch, [])

    def _inputs(self, arrays: tuple[ArrayLike, ...]) -> dict[int, Array]:
        """Check the inputs and return them as float32 by value."""
        wanted = self.graph.inputs
        if len(arrays) != len(wanted):
            raise TypeError(f"the graph has {len(wanted)} inputs, {len(arrays)} were given")
        ready = {}
        batch = None
        for value, array in zip(wanted, arrays, strict=True):
            x = _numbers(value, array)
            batch = len(x) if batch is None and x.ndim else batch
            if x.ndim != len(value.shape) or x.shape[1:] != value.shape[1:] or len(x) != batch:
                raise ShapeError(
                    value.name, f"expected {_batch_of(value.shape, batch)}, given {_plain(x.shape)}"
                )
            ready[value.index] = np.asarray(x, order="C")
        return ready


def _take(planned: _Planned, values: dict[int, Array], out: Array | None) -> None:
    """Take one step: put its result among the values, drop what is no longer needed."""
    given = [values[index] if held is None else held for index, held in planned.inputs]
    if out is not None:
        values[planned.output] = planned.run(*given, out=out)
    else:
        # Element-wise NumPy code rounds alike only for data that lie alike.
        values[planned.output] = np.asarray(planned.run(*given), order="C")
    for index in planned.finished:
        del values[index]


class _Layout:
    """Which results share a buffer, given when each is made and when it is last needed.

    The result of a view lives in the buffer of its input; results that are returned have none.
    """

    def __init__(self, graph: Graph, steps: list[Step], held: Constants) -> None:
        self._graph, self._steps, self._held = graph, steps, held
        self._owner: dict[int, int] = {}
        for step in steps:
            source = step.inputs[0].index if OPS[step.op].is_view else step.output.index
            self._owner[step.output.index] = self._owner.get(source, source)
        self._returned = {self._owner.get(v.index, v.index) for v in graph.outputs}
        self._last: dict[int, int] = {}
        for number, step in enumerate(steps):
            for value in (*step.inputs, step.output):
                self._last[self._owner.get(value.index, value.index)] = number

    def planned(self) -> list[_Planned]:
        """Return the steps with the weights they take and the values they are the last to need."""
        kept = {value.index for value in self._graph.outputs}
        last = {value.index: -1 for value in self._graph.inputs}
        for number, step in enumerate(self._steps):
            last.update({value.index: number for value in (*step.inputs, step.output)})
        return [
            _Planned(
                partial(OPS[step.op].definition, **step.attributes),
                tuple(zip((v.index for v in step.inputs), self._held.inputs(step), strict=True)),
                step.output.index,
                tuple(
                    index
                    for index, at in last.items()
                    if at == number and index not in kept and index not in self._held
                ),
            )
            for number, step in enumerate(self._steps)
        ]

    def workspace(self, batch: int) -> Workspace:
        """Return arrays for the results that have buffers, for batches of this size."""
        slots, sizes = self._assigned(batch)
        buffers = [np.empty(size, np.uint8) for size in sizes]
        shapes = self._graph.shapes(batch)
        workspace: Workspace = []
        for step, slot in zip(self._steps, slots, strict=True):
            if slot is None:
                workspace.append(None)
                continue
            shape, layout = shapes[step.output.index], step.output.dtype.layout
            room = buffers[slot][: math.prod(shape) * layout.itemsize]
            workspace.append(room.view(layout).reshape(shape))
        return workspace

    def bytes(self, batch: int) -> int:
        """Return how many bytes the buffers for batches of this size take."""
        return sum(self._assigned(batch)[1])

    def _assigned(self, batch: int) -> tuple[list[int | None], list[int]]:
        """Return the buffer of each step and the sizes of the buffers.

        A result goes into the free buffer that fits it best: the least one that is large enough,
        or else the largest one, made larger.
        """
        shapes = self._graph.shapes(batch)
        slots: list[int | None] = []
        sizes: list[int] = []
        free: list[int] = []
        held: dict[int, int] = {}
        for number, step in enumerate(self._steps):
            index, slot = step.output.index, None
            if OPS[step.op].takes_out and index not in self._returned:
                size = math.prod(shapes[index]) * step.output.dtype.layout.itemsize
                slot = _best(free, sizes, size)
                held[index] = slot
            slots.append(slot)
            ended = [i for i in held if self._last[i] <= number]
            free += [held.pop(i) for i in ended]
        return slots, sizes


def _best(free: list[int], sizes: list[int], size: int) -> int:
    """Take the free buffer that fits a size best, or a new one."""
    if not free:
        sizes.append(size)
        return len(sizes) - 1
    slot = min(free, key=lambda i: (sizes[i] < size, abs(sizes[i] - size)))
    free.remove(slot)
    sizes[slot] = max(sizes[slot], size)
    return slot


def _conforming(name: str, value: Value, weights: Mapping[str, Any]) -> Tensor:
    """Return a weight of the shape that the graph expects."""
    if name not in weights:
        raise ModelError(name, f"the weight is missing{nearest(name, weights)}")
    tensor = Tensor.of(weights[name])
    if tensor.shape != value.shape:
        raise ShapeError(name, f"expected {_plain(value.shape)}, given {_plain(tensor.shape)}")
    return tensor


def _numbers(value: Value, array: ArrayLike) -> Array:
    """Return an input's numbers as the graph wants them: float32, or int32 for indices."""
    tensor = Tensor.of(array)
    if value.dtype is F32:
        return dequantize(tensor)
    if tensor.dtype.layout.kind not in "iu":
        raise DtypeError(value.name, f"expected whole numbers, given {tensor.dtype}")
    return tensor.data.astype(np.int32)


def _plain(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _batch_of(shape: Shape, batch: int | None) -> str:
    """Write the shape of a batch; N stands for any size."""
    return "x".join(["N" if batch is None else str(batch), *map(str, shape[1:])])
