"""The inference engine: a graph with its weights, planned once, run on batches of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmbol_core.errors import DtypeError, ModelError, ShapeError, nearest
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Shape, Tensor
from llmbol_core.native.threads import single_threaded_blas

Array = NDArray[Any]


@dataclass(frozen=True)
class _Planned:
    """A step ready to run."""

    step: Step
    weights: tuple[Array | Tensor | None, ...]
    """For each input that is a weight, the weight as the operation takes it."""
    finished: tuple[int, ...]
    """The values that nobody needs after this step."""


class Engine:
    """Runs a graph. The same weights and inputs give the same bits, in batches of any size."""

    def __init__(self, graph: Graph, weights: Mapping[str, Any]) -> None:
        """Plan a graph with its weights: tensors or arrays by name.

        Quantized weights stay in blocks where an operation takes blocks and are expanded
        elsewhere. A missing weight is a ModelError, one of another shape a ShapeError.
        """
        self.graph = graph
        tensors = {
            value.index: _conforming(name, value, weights) for name, value in graph.weights.items()
        }
        self._plan = self._planned(tensors)
        self._checked: set[int] = set()

    def run(self, *inputs: ArrayLike) -> Array:
        """Return the graph's output for a batch, one input array for each graph input."""
        outputs = self.run_all(*inputs)
        if len(outputs) != 1:
            raise TypeError(f"the graph has {len(outputs)} outputs, not one")
        return outputs[0]

    def run_all(self, *inputs: ArrayLike) -> tuple[Array, ...]:
        """Return all outputs of the graph for a batch."""
        values = self._inputs(inputs)
        with single_threaded_blas():
            for planned in self._plan:
                step = planned.step
                given = [
                    values[value.index] if weight is None else weight
                    for value, weight in zip(step.inputs, planned.weights, strict=True)
                ]
                result = OPS[step.op].run(*given, **step.attributes)
                # Element-wise NumPy code rounds alike only for data that lie alike.
                values[step.output.index] = np.asarray(result, order="C")
                for index in planned.finished:
                    del values[index]
        return tuple(values[value.index] for value in self.graph.outputs)

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
        if batch is not None and batch not in self._checked:
            self.graph.shapes(batch)
            self._checked.add(batch)
        return ready

    def _planned(self, tensors: dict[int, Tensor]) -> list[_Planned]:
        """Give each step its weights, and find after which step a value is no longer needed."""
        kept = {value.index for value in self.graph.outputs}
        last = {value.index: -1 for value in self.graph.inputs}
        for number, step in enumerate(self.graph.steps):
            last.update({value.index: number for value in (*step.inputs, step.output)})
        expanded: dict[tuple[int, bool], Array | Tensor | None] = {}
        plan = []
        for number, step in enumerate(self.graph.steps):
            weights: list[Array | Tensor | None] = []
            for name, value in zip(OPS[step.op].inputs, step.inputs, strict=False):
                form = (value.index, name in OPS[step.op].packed)
                if value.index in tensors and form not in expanded:
                    expanded[form] = OPS[step.op].value(name, tensors[value.index])
                weights.append(expanded.get(form))
            finished = tuple(
                index
                for index, at in last.items()
                if at == number and index not in kept and index not in tensors
            )
            plan.append(_Planned(step, tuple(weights), finished))
        return plan


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
