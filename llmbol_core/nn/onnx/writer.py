"""Models written as ONNX files: each step of their graph by its row in ``EXPORTERS``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from llmbol_core.errors import ModelError
from llmbol_core.ml.graph import Graph, Step, Value
from llmbol_core.ml.quantization import dequantize
from llmbol_core.nn.checkpoint import InferenceModel
from llmbol_core.nn.onnx.document import Document

Array = NDArray[Any]

OPSET, IR_VERSION = 17, 8
"""What every runtime of the last years reads."""
BATCH = "N"

Exporter = Callable[["Writer", Step], str]

EXPORTERS: dict[str, Exporter] = {}
"""What writes an operation as nodes and returns the name of the result, by operation."""


class Inexpressible(Exception):
    """Why a step cannot be said in ONNX."""


def exporter(*operations: str) -> Callable[[Exporter], Exporter]:
    """Make a function the exporter of some operations."""

    def register(function: Exporter) -> Exporter:
        for operation in operations:
            EXPORTERS[operation] = function
        return function

    return register


class Writer:
    """The nodes and constants so far, and the name of each value of a graph."""

    def __init__(self, graph: Graph, weights: Mapping[str, Any]) -> None:
        self.graph = graph
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}
        self._weights = weights
        self._names = {value.index: value.name for value in graph.inputs}
        self._named = {value.index: value.name for value in graph.weights.values()}
        self._count = 0

    # What exporters say.

    def name(self, value: Value) -> str:
        """Return the name of a value; that of a weight is written down with its numbers."""
        if value.index in self._named:
            name = self._named[value.index]
            if name not in self.constants:
                self.constants[name] = self.array(value)
            return name
        return self._names[value.index]

    def array(self, value: Value) -> Array:
        """Return the numbers of a weight."""
        if value.index not in self._named:
            raise Inexpressible("its weights are computed from the input")
        tensor = self._weights[self._named[value.index]]
        array = np.asarray(dequantize(tensor), np.float32)
        return array.reshape(value.shape)

    def is_weight(self, value: Value) -> bool:
        """Tell whether a value is a weight."""
        return value.index in self._named

    def constant(self, array: Any, name: str = "") -> str:
        """Return the name of a constant; equal ones without a name of their own share theirs."""
        array = np.asarray(array)
        for known, other in self.constants.items():
            if not name and known.startswith("constant_") and _are_equal(other, array):
                return known
        if not name:
            self._count += 1
            name = f"constant_{self._count}"
        self.constants[name] = array
        return name

    def number(self, value: float) -> str:
        """Return the name of a float32 scalar."""
        return self.constant(np.float32(value))

    def ints(self, values: Sequence[int]) -> str:
        """Return the name of a list of integers."""
        return self.constant(np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Append a node and return the name of its first output."""
        return self.nodes_of(operator, inputs, 1, **attributes)[0]

    def nodes_of(
        self, operator: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> list[str]:
        """Append a node and return the names of so many outputs."""
        self._count += 1
        label = f"{operator}_{self._count}"
        names = [label if i == 0 else f"{label}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=label, **attributes))
        return names

    # The whole.

    def write(self, model: InferenceModel) -> Document:
        """Return the document of a model; what ONNX cannot say is told at once."""
        refused: dict[str, None] = {}
        for number, step in enumerate(self.graph.steps):
            try:
                if step.op not in EXPORTERS:
                    raise Inexpressible("ONNX has no operator for it")
                self._names[step.output.index] = EXPORTERS[step.op](self, step)
            except Inexpressible as error:
                refused[f"step {number}, {step.op}: {error}"] = None
                self._names[step.output.index] = ""
        if refused:
            raise ModelError(model.name, "\n  ".join(["not expressible in ONNX", *refused]))
        return self._document(model)

    def _document(self, model: InferenceModel) -> Document:
        (output,) = self.graph.outputs
        result = self.node("Identity", self.name(output))
        self.nodes[-1].output[0] = "output"
        del result
        graph = helper.make_graph(
            self.nodes,
            model.name or "model",
            [_value(v.name, v.shape) for v in self.graph.inputs],
            [_value("output", output.shape)],
            [numpy_helper.from_array(np.ascontiguousarray(a), n) for n, a in self._used()],
        )
        document = helper.make_model(
            graph,
            producer_name="llmbol",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        if model.labels:
            helper.set_model_props(document, {"labels": "\n".join(model.labels)})
        onnx.checker.check_model(document)
        return document

    def _used(self) -> list[tuple[str, Array]]:
        needed = {name for node in self.nodes for name in node.input}
        return [(name, array) for name, array in self.constants.items() if name in needed]


def _are_equal(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and np.array_equal(one, other)


def _value(name: str, shape: Sequence[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, *shape[1:]])
