"""A network as a straight line of operations of the table, with shapes known before it runs.

A graph holds no numbers: weights are named, and given to whatever runs the graph. The first axis of
each input is the batch, of any size; shapes are inferred with a batch of 1 while building and
again for the batch that comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from llmbol_core.errors import LlmbolError, ShapeError
from llmbol_core.ml.dtypes import F32, StorageType
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.tensor import Shape


@dataclass(frozen=True)
class Value:
    """Something that a step makes or that the graph is given: an array of a known shape."""

    index: int
    """Its place among all values of the graph."""
    shape: Shape
    """With a batch of 1."""
    dtype: StorageType = F32
    name: str = ""
    """Of an input or a weight."""


@dataclass(frozen=True)
class Step:
    """One operation applied to values: all attributes present, inputs in the table's order."""

    op: str
    inputs: tuple[Value, ...]
    attributes: dict[str, Any]
    output: Value


@dataclass
class Graph:
    """Inputs, weights, steps in the order they run, outputs."""

    inputs: list[Value] = field(default_factory=list)
    weights: dict[str, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many values there are."""
        return len(self.inputs) + len(self.weights) + len(self.steps)

    def input(self, name: str, shape: Shape, dtype: StorageType = F32) -> Value:
        """Add an input whose samples have this shape; batches of them come when it runs."""
        value = Value(self.size, (1, *shape), dtype, name)
        self.inputs.append(value)
        return value

    def weight(self, name: str, shape: Shape) -> Value:
        """Return the weight of this name, which every use shares."""
        value = self.weights.setdefault(name, Value(self.size, tuple(shape), F32, name))
        if value.shape != tuple(shape):
            raise ShapeError(name, f"used as {tuple(shape)} and as {value.shape}")
        return value

    def op(self, name: str, *values: Value, **attributes: Any) -> Value:
        """Append an operation of the table and return its result."""
        row = OPS[name]
        row.check_count(len(values))
        row.check_dtypes(*(value.dtype for value in values))
        full = row.conform(attributes)
        shape = row.shape(*(value.shape for value in values), **full)
        output = Value(self.size, shape, row.dtype)
        self.steps.append(Step(name, values, full, output))
        return output

    def output(self, value: Value) -> None:
        """Make a value one of the graph's results."""
        self.outputs.append(value)

    def constant_steps(self) -> list[Step]:
        """Return the steps that depend on weights alone: one computation serves all runs."""
        known = {value.index for value in self.weights.values()}
        steps = []
        for step in self.steps:
            if step.inputs and all(value.index in known for value in step.inputs):
                known.add(step.output.index)
                steps.append(step)
        return steps

    def shapes(self, batch: int) -> list[Shape]:
        """Return the shape of each value for a batch of this size, or raise ShapeError."""
        shapes: list[Shape] = [()] * self.size
        for value in self.weights.values():
            shapes[value.index] = value.shape
        for value in self.inputs:
            shapes[value.index] = (batch, *value.shape[1:])
        for number, step in enumerate(self.steps):
            given = [shapes[value.index] for value in step.inputs]
            try:
                shapes[step.output.index] = OPS[step.op].shape(*given, **step.attributes)
            except LlmbolError as error:
                raise ShapeError(f"step {number}, {step.op}", str(error)) from error
        return shapes

    def costs(self, batch: int = 1) -> Iterator[tuple[Step, int, int]]:
        """Yield each step with its flops and the bytes it moves, weights counted as float32.

        Steps that depend on weights alone cost a run nothing.
        """
        shapes = self.shapes(batch)
        constant = {step.output.index for step in self.constant_steps()}
        for step in self.steps:
            if step.output.index in constant:
                continue
            given = [shapes[value.index] for value in step.inputs]
            yield (step, *OPS[step.op].cost(given, **step.attributes))
