"""Where a layer's lowering writes to: a graph, under the layer's own path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbol_core.ml.graph import Graph, Value


@dataclass(frozen=True)
class Scope:
    """A graph as one layer sees it: its weights by their short names, operations as they are."""

    graph: Graph
    shapes: Mapping[str, tuple[int, ...]]
    path: str = ""

    def weight(self, name: str) -> Value:
        """Return the weight or buffer of this layer with that name."""
        full = f"{self.path}.{name}" if self.path else name
        return self.graph.weight(full, self.shapes[full])

    def op(self, name: str, *values: Value, **attributes: Any) -> Value:
        """Append an operation of the table and return its result."""
        return self.graph.op(name, *values, **attributes)

    @property
    def drops(self) -> bool:
        """Whether ``dropout`` drops anything; evaluation does not."""
        return False

    def dropout(self, x: Value, p: float) -> Value:
        """Return a value as dropout leaves it."""
        return x

    def child(self, index: int) -> Scope:
        """Return the scope of the layer at an index inside this one."""
        return Scope(self.graph, self.shapes, f"{self.path}.{index}" if self.path else str(index))
