"""The operation table for people: each operation with inputs, attributes, gradient and cost."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbol_core.errors import UsageError, nearest
from llmbol_core.ml.ops import OPS, Op


@dataclass(frozen=True)
class OperationLine:
    """One operation in the list of all."""

    operation: str
    inputs: str
    attributes: str
    gradient: bool
    purpose: str


@dataclass(frozen=True)
class AttributeEntry:
    """One attribute of an operation; one without a default is required."""

    attribute: str
    type: str
    default: Any
    required: bool


@dataclass(frozen=True)
class OperationEntry:
    """One operation, with the shapes and the cost of its example."""

    operation: str
    documentation: str
    inputs: list[str]
    quantized: list[str]
    """The inputs that may stay in quantized blocks."""
    attributes: list[AttributeEntry]
    result: str
    gradient: bool
    example_inputs: list[list[int]]
    example_attributes: dict[str, Any]
    example_output: list[int]
    flops: int
    bytes: int

    def __str__(self) -> str:
        lines = [f"{self.operation}({', '.join(self.inputs)})", "", self.documentation, ""]
        for entry in self.attributes:
            default = "required" if entry.required else f"default {entry.default}"
            lines.append(f"  {entry.attribute:14}  {entry.type}, {default}")
        for name in self.quantized:
            lines.append(f"  {name:14}  may be quantized")
        gradient = "has a gradient" if self.gradient else "has no gradient"
        shapes = ", ".join(map(str, self.example_inputs))
        numbers = ", ".join(f"{key}={value}" for key, value in self.example_attributes.items())
        shapes += f" with {numbers}" if numbers else ""
        return "\n".join(
            [
                *lines,
                f"  {'result':14}  {self.result}, {gradient}",
                f"  {'example':14}  {shapes} -> {self.example_output}",
                f"  {'cost of that':14}  {self.flops} operations, {self.bytes} bytes moved",
            ]
        )


def list_operations() -> list[OperationLine]:
    """Return all operations in the order of the table."""
    return [
        OperationLine(
            name,
            " ".join(row.inputs),
            " ".join(attribute.name for attribute in row.attributes),
            row.gradient is not None,
            row.summary,
        )
        for name, row in OPS.items()
    ]


def describe_operation(name: str) -> OperationEntry:
    """Return what there is to know about one operation."""
    if name not in OPS:
        hint = nearest(name, OPS) or ": 'nn ops' lists them all"
        raise UsageError(f"unknown operation {name!r}{hint}")
    row = OPS[name]
    inputs, given = row.example(np.random.default_rng(0))
    full = row.conform(given)
    shapes = [tuple(x.shape) for x in inputs]
    flops, moved = row.cost(shapes, **full)
    return OperationEntry(
        name,
        inspect.getdoc(row.run) or row.summary,
        list(row.inputs),
        sorted(row.packed),
        _attributes(row),
        row.dtype.name,
        row.gradient is not None,
        [list(shape) for shape in shapes],
        {key: list(v) if isinstance(v, tuple) else v for key, v in given.items()},
        list(row.shape(*shapes, **full)),
        flops,
        moved,
    )


def _attributes(row: Op) -> list[AttributeEntry]:
    names = {"tuple": "a list of int"}
    return [
        AttributeEntry(
            a.name,
            names.get(a.kind.__name__, a.kind.__name__),
            list(a.default) if isinstance(a.default, tuple) else a.default,
            a.default is None,
        )
        for a in row.attributes
    ]
