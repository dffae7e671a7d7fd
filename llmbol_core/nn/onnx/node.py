"""A node of an ONNX graph as importers see it: operands and attributes, checked when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbol_core.nn.onnx.operands import Array, Constant, Operand, Traced, Unavailable, Unsupported


@dataclass(frozen=True)
class Node:
    """One node: its operator, its operands (None where left out) and its attributes."""

    operator: str
    opset: int
    operands: tuple[Operand | Unavailable | None, ...]
    attributes: dict[str, Any]
    outputs: tuple[str, ...]

    def has(self, index: int) -> bool:
        """Tell whether an operand is given."""
        return index < len(self.operands) and self.operands[index] is not None

    def __getitem__(self, index: int) -> Operand:
        """Return an operand that must be given."""
        operand = self.operands[index] if index < len(self.operands) else None
        if operand is None:
            raise Unsupported(f"its input {index} is missing")
        if isinstance(operand, Unavailable):
            raise Unsupported(operand.why)
        return operand

    def given(self) -> list[Operand]:
        """Return all operands."""
        return [self[index] for index in range(len(self.operands))]

    def traced(self, index: int) -> Traced:
        """Return an operand that must depend on the input."""
        operand = self[index]
        if isinstance(operand, Constant):
            raise Unsupported(f"its input {index} is a constant, which no step can start from")
        return operand

    def constant(self, index: int, what: str) -> Array:
        """Return the values of an operand that must be constant."""
        operand = self[index]
        if isinstance(operand, Traced):
            raise Unsupported(f"{what} depends on the input: it must be a constant")
        return operand.array

    def ints(self, index: int, what: str) -> list[int]:
        """Return a constant operand as a list of integers."""
        return [int(n) for n in np.asarray(self.constant(index, what)).reshape(-1)]

    def scalar(self, index: int, default: float, what: str) -> float:
        """Return a constant operand of one value."""
        if not self.has(index):
            return default
        values = np.asarray(self.constant(index, what)).reshape(-1)
        if values.size != 1:
            raise Unsupported(f"{what} has {values.size} values, not one")
        return float(values[0])

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or its default."""
        return self.attributes.get(name, default)

    def needs(self, name: str, *values: Any) -> None:
        """Refuse the node unless an attribute, if it is there, has one of some values."""
        value = self.attributes.get(name, values[0])
        if value not in values:
            known = " or ".join(repr(v) for v in values)
            raise Unsupported(f"{name} is {value!r}: expected {known}")

    def axes(self, rank: int, index: int = 1) -> list[int]:
        """Return the axes that an attribute or, in later opsets, an operand names; none: all."""
        axes = self.attr("axes")
        if axes is None and self.has(index):
            axes = self.ints(index, "axes")
        if axes is None or not len(axes):
            return list(range(rank))
        if any(not -rank <= axis < rank for axis in axes):
            raise Unsupported(f"axes {list(axes)} do not lie in {rank} axes")
        return sorted({axis % rank for axis in axes})
