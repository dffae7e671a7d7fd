"""Layers that make one value of those along an axis; axes count from 1, the batch is axis 0."""

from __future__ import annotations

from typing import Any

from llmbol_core.nn.declared import Axis
from llmbol_core.nn.layers.operation import Operation
from llmbol_core.nn.module import Module, Shape


class Reduction(Operation, abstract=True):
    """Base: the axis goes."""

    axis: Axis

    @classmethod
    def example(cls) -> tuple[Module, Shape]:
        """Reduce 3 rows of 2 numbers to one."""
        return cls(1), (3, 2)

    def attributes(self) -> dict[str, Any]:
        """Return the axis."""
        return {"axis": self.axis}

    def details(self) -> str:
        """Return the axis."""
        return f"({self.axis})"


class Mean(Reduction):
    """Mean along an axis."""

    operation = "mean"


class Sum(Reduction):
    """Sum along an axis."""

    operation = "sum"


class Max(Reduction):
    """Greatest value along an axis; its gradient goes to the first of equal ones."""

    operation = "max"


class Min(Reduction):
    """Least value along an axis; its gradient goes to the first of equal ones."""

    operation = "min"
