"""Layers that are several operations: what they lower to is also how they run and learn.

Such a layer only states ``lower``. For each shape of its input that becomes a graph; forward runs
the graph step by step, backward goes through it in reverse with the operations' own gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.graph import Graph, Value
from llmbol_core.ml.ops import OPS
from llmbol_core.nn.layers.dropout import draw_kept
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Data, Form, Module, Shape, is_table

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class _TrainingScope(Scope):
    """A scope whose dropout multiplies with masks, which become further inputs of the graph."""

    rates: list[float] = field(default_factory=list)

    @property
    def drops(self) -> bool:
        """Whether ``dropout`` drops anything: it does."""
        return True

    def dropout(self, x: Value, p: float) -> Value:
        """Return the value times a mask of its shape."""
        if not p:
            return x
        mask = self.graph.input(f"mask {len(self.rates)}", x.shape[1:])
        self.rates.append(p)
        return self.op("mul", x, mask)


@dataclass(frozen=True)
class _Trace:
    """The graph of a layer for one input shape; its last inputs are masks with these rates."""

    graph: Graph
    rates: list[float]


class Composite(Module, abstract=True):
    """Base: states ``lower`` and its parameters; shapes, output, gradients and cost follow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._traces: dict[tuple[Form, bool], _Trace] = {}
        self.forget()

    def forget(self) -> None:
        """Forget what the last calls left."""
        super().forget()
        self._trace: _Trace | None = None
        self._values: list[Array] = []
        self._kept: dict[int, Array] = {}

    def output_shape(self, shape: Form) -> Shape:
        """Return the shape that the operations give, their complaint in this layer's name."""
        return self._traced(shape, train=False).graph.outputs[0].shape[1:]

    def macs(self, shape: Form) -> int:
        """Return the multiply-accumulates of all products."""
        steps = self._traced(shape, train=False).graph.steps
        return sum(
            _MACS[step.op](step.output.shape, *(v.shape for v in step.inputs))
            for step in steps
            if step.op in _MACS
        )

    def update_output(self, x: Data) -> Array:
        """Run the operations one after another and keep what they give."""
        arrays = list(_leaves(x))
        shape = _shape_of(x)
        self._trace = trace = self._traced(shape, self.train)
        count, dtype = len(arrays[0]), arrays[0].dtype
        masks = [
            draw_kept(self._stream, (count, *value.shape[1:]), rate, dtype)
            for value, rate in zip(trace.graph.inputs[len(arrays) :], trace.rates, strict=True)
        ]
        values: list[Any] = [None] * trace.graph.size
        for value, array in zip(trace.graph.inputs, arrays + masks, strict=True):
            values[value.index] = array
        for name, value in trace.graph.weights.items():
            values[value.index] = self.params[name] if name in self.params else self.buffers[name]
        for step in trace.graph.steps:
            given = [values[value.index] for value in step.inputs]
            values[step.output.index] = OPS[step.op].run(*given, **step.attributes)
        self._values = values
        return np.asarray(values[trace.graph.outputs[0].index])

    def update_grad_input(self, x: Data, grad_output: Array) -> Data:
        """Go back through the operations; keep the gradients of the parameters."""
        assert self._trace is not None
        graph = self._trace.graph
        self._kept = along = {graph.outputs[0].index: grad_output}
        for step in reversed(graph.steps):
            row = OPS[step.op]
            if row.gradient is None or step.output.index not in along:
                continue
            g, y = along.pop(step.output.index), self._values[step.output.index]
            given = [self._values[value.index] for value in step.inputs]
            gradients = row.gradient(g, y, *given, **step.attributes)
            for value, gradient in zip(step.inputs, gradients, strict=False):
                if gradient is not None:
                    old = along.get(value.index)
                    along[value.index] = gradient if old is None else old + gradient
        inputs = (
            along.get(value.index, np.zeros_like(array))
            for value, array in zip(graph.inputs, _leaves(x), strict=False)
        )
        return _rebuilt(x, inputs)

    def acc_grad_parameters(self, x: Data, grad_output: Array, scale: float = 1.0) -> None:
        """Add the gradients that ``update_grad_input`` kept."""
        assert self._trace is not None
        for name, value in self._trace.graph.weights.items():
            if name in self.grads and value.index in self._kept:
                own, gradient = self.grads[name], self._kept[value.index]
                own += gradient if scale == 1.0 else gradient * own.dtype.type(scale)

    def _traced(self, shape: Form, train: bool) -> _Trace:
        """Return the graph for an input shape, made when it is first needed."""
        if (shape, train) not in self._traces:
            graph = Graph()
            buffers = {name: value.shape for name, value in self.initial_buffers().items()}
            shapes = self.parameter_shapes() | buffers
            scope = _TrainingScope(graph, shapes) if train else Scope(graph, shapes)
            try:
                graph.output(self.lower(scope, _inputs(graph, shape)))
            except ShapeError as error:
                raise ShapeError(self.label, error.why) from error
            rates = scope.rates if isinstance(scope, _TrainingScope) else []
            self._traces[shape, train] = _Trace(graph, rates)
        return self._traces[shape, train]


def _inputs(graph: Graph, shape: Form) -> Any:
    """Return an input of the graph, or for a table a tuple of them."""
    if is_table(shape):
        return tuple(_inputs(graph, part) for part in shape)
    return graph.input("x", shape)


def _leaves(x: Data) -> Iterator[Array]:
    """Yield the arrays of a table in order."""
    if isinstance(x, tuple):
        for part in x:
            yield from _leaves(part)
    else:
        yield x


def _shape_of(x: Data) -> Form:
    """Return the shape of one sample of data."""
    return tuple(map(_shape_of, x)) if isinstance(x, tuple) else x.shape[1:]


def _rebuilt(x: Data, arrays: Iterator[Array]) -> Data:
    """Return arrays in the structure of data."""
    return tuple(_rebuilt(part, arrays) for part in x) if isinstance(x, tuple) else next(arrays)


def _recurrent_macs(output: Shape, x: Shape, ih: Shape, hh: Shape, *biases: Shape) -> int:
    return math.prod(x[:2]) * (math.prod(ih) + math.prod(hh))


def _attention_macs(output: Shape, query: Shape, key: Shape, value: Shape, *mask: Shape) -> int:
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _convolution_macs(output: Shape, x: Shape, weight: Shape, *bias: Shape) -> int:
    return math.prod(output) * math.prod(weight[1:])


def _spreading_macs(output: Shape, x: Shape, weight: Shape, *bias: Shape) -> int:
    return math.prod(x) * math.prod(weight[1:])


_MACS: dict[str, Callable[..., int]] = {
    "linear": lambda output, x, weight, *bias: math.prod(output) * weight[1],
    "matmul": lambda output, x, y: math.prod(output) * x[-1],
    "attention": _attention_macs,
    **dict.fromkeys(("conv1d", "conv2d"), _convolution_macs),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d"), _spreading_macs),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent_macs),
}
"""Multiply-accumulates of the products, from the shapes of output and inputs."""
