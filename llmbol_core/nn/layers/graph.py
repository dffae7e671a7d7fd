"""A layer that is a graph of operations: what no row of layers can say.

    Graph:
      weights:
        - Parameter: {name: gain, shape: [4]}
      steps:
        - tanh: {inputs: [x], output: bent}
        - mul: {inputs: [bent, gain], output: y}

Each step is an operation of the table, with the names of its inputs, a name for its output and the
operation's own attributes. The steps stand in the order in which they run; the last one's output is
the layer's. Several inputs are the members of a table.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import DtypeError, ShapeError, UsageError, nearest
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.ops.table import Attribute
from llmbol_core.nn.declared import Declared, Name, Size
from llmbol_core.nn.layers.composite import Composite
from llmbol_core.nn.lowering import Scope
from llmbol_core.nn.module import Array, Module, Shape
from llmbol_core.nn.randomness import Stream

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Value


class Held(Declared, family="weight"):
    """A tensor that a graph owns."""

    name: Name
    shape: tuple[Size, ...]


class Parameter(Held):
    """A tensor that is trained; it starts with one value, or uniform within 1 / sqrt(fan in)."""

    start: float | None = None

    def first_values(self, stream: Stream) -> Array:
        """Return its initial values; those of a vector without ``start`` are 0."""
        if self.start is not None or len(self.shape) < 2:
            return np.full(self.shape, self.start or 0.0, np.float32)
        bound = 1 / math.sqrt(math.prod(self.shape[1:]))
        return stream.uniform(self.shape, -bound, bound)


class Buffer(Held):
    """A tensor that is not trained."""


class Step(Declared, family="operation"):
    """One operation of the table, applied to values by their names."""

    inputs: tuple[Name, ...]
    output: Name

    @property
    def operation(self) -> str:
        """The name of the operation."""
        return type(self).__name__

    def attributes(self) -> dict[str, Any]:
        """Return the operation's attributes."""
        return {a.name: getattr(self, a.name) for a in OPS[self.operation].attributes}


class _Operations(Mapping[str, type[Step]]):
    """A class of steps for each row of the operation table, made when it is first asked for."""

    def __init__(self) -> None:
        self._made: dict[str, type[Step]] = {}

    def __getitem__(self, name: str) -> type[Step]:
        if name not in self._made:
            self._made[name] = _step_class(name)
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(OPS)

    def __len__(self) -> int:
        return len(OPS)


def _step_class(name: str) -> type[Step]:
    """Return the class of the steps that are one operation, with its attributes as fields."""
    row = OPS[name]
    body: dict[str, Any] = {"__doc__": row.summary, "__module__": __name__}
    body["__annotations__"] = {a.name: _hint(a) for a in row.attributes}
    for attribute in row.attributes:
        required = attribute.default is None
        given = {} if required else {"default": attribute.default}
        body[attribute.name] = dataclasses.field(kw_only=True, **given)
    return types.new_class(name, (Step,), {"abstract": True}, lambda space: space.update(body))


def _hint(attribute: Attribute) -> Any:
    """Return the type of a field that holds an attribute."""
    return tuple[int, ...] if attribute.kind is tuple else attribute.kind


Step.table = _Operations()  # type: ignore[assignment]  # read as the dictionaries of others are


class Graph(Composite):
    """A graph of operations: steps by name, with the tensors that they share."""

    takes = "anything"
    steps: list[Step]
    weights: list[Held] = dataclasses.field(default_factory=list)
    inputs: tuple[Name, ...] = ("x",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps:
            raise UsageError("Graph.steps: no step")
        known: set[str] = set()
        for name in (*self.inputs, *(weight.name for weight in self.weights)):
            self._define(name, known, "Graph")
        for number, step in enumerate(self.steps):
            where = f"Graph.steps.{number}.{step.operation}"
            for name in step.inputs:
                if name not in known:
                    raise UsageError(f"{where}: unknown value {name!r}{nearest(name, known)}")
            self._define(step.output, known, where)

    @staticmethod
    def _define(name: str, known: set[str], where: str) -> None:
        if not name or name in known:
            raise UsageError(f"{where}: there are two values called {name!r}")
        known.add(name)

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Scale what a hyperbolic tangent leaves of 4 numbers, and add the numbers."""
        table = Step.table
        steps = [
            table["tanh"](("x",), "bent"),
            table["mul"](("bent", "gain"), "scaled"),
            table["add"](("scaled", "x"), "y"),
        ]
        return cls(steps=steps, weights=[Parameter("gain", (4,), 1.0)]), (4,)

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shapes of the trained tensors."""
        return {w.name: w.shape for w in self.weights if isinstance(w, Parameter)}

    def initial_parameters(self, stream: Stream) -> dict[str, Array]:
        """Return each parameter's initial values."""
        trained = [weight for weight in self.weights if isinstance(weight, Parameter)]
        return {weight.name: weight.first_values(stream) for weight in trained}

    def initial_buffers(self) -> dict[str, Array]:
        """Return zeros for the tensors that are not trained."""
        kept = [weight for weight in self.weights if isinstance(weight, Buffer)]
        return {weight.name: np.zeros(weight.shape, np.float32) for weight in kept}

    def details(self) -> str:
        """Return how many steps there are, or the operation if it is one."""
        count = len(self.steps)
        return f"({count} steps)" if count > 1 else f"({self.steps[0].operation})"

    def lower(self, graph: Scope, x: Any) -> Value:
        """Emit the steps."""
        given = x if isinstance(x, tuple) else (x,)
        if len(given) != len(self.inputs) or any(isinstance(part, tuple) for part in given):
            raise ShapeError(self.label, f"expected {len(self.inputs)} arrays, got {len(given)}")
        values: dict[str, Value] = dict(zip(self.inputs, given, strict=True))
        values |= {weight.name: graph.weight(weight.name) for weight in self.weights}
        for number, step in enumerate(self.steps):
            inputs = [values[name] for name in step.inputs]
            try:
                value = graph.op(step.operation, *inputs, **step.attributes())
            except (ShapeError, DtypeError, TypeError) as error:
                why = f"step {number}, {step.operation}: {error}"
                raise ShapeError(self.label, why) from error
            values[step.output] = value
        return values[self.steps[-1].output]
