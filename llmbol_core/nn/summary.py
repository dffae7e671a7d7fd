"""The summary of a model: one row per layer, and totals."""

from __future__ import annotations

from dataclasses import dataclass

from llmbol_core.nn.module import Form, Module, Shape, is_table


@dataclass(frozen=True)
class LayerRow:
    """One layer: its path and type, the shape of one output sample, and its cost per sample."""

    layer: str
    output: str
    parameters: int
    macs: int


@dataclass(frozen=True)
class Summary:
    """A model's layers in order and the totals; bytes are those of float32 parameters."""

    name: str
    input: Shape
    layers: list[LayerRow]
    parameters: int
    macs: int
    bytes: int

    def table(self) -> list[LayerRow]:
        """Return the layers between a row for the input and one for the totals."""
        first = LayerRow("input", shown(self.input), 0, 0)
        last = LayerRow("total", "", self.parameters, self.macs)
        return [first, *self.layers, last]

    def __str__(self) -> str:
        rows = [(r.layer, r.output, f"{r.parameters:,}", f"{r.macs:,}") for r in self.table()]
        rows.insert(0, ("layer", "output", "parameters", "MACs"))
        a, b, c, d = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [f"{w:{a}}  {x:{b}}  {y:>{c}}  {z:>{d}}" for w, x, y, z in rows]
        return "\n".join([self.name, *lines])


def summarize(network: Module, name: str, shape: Shape) -> Summary:
    """Return the summary of layers in a row for inputs of a shape; no parameter is made for it."""
    rows = _rows(network, shape)
    parameters = sum(row.parameters for row in rows)
    macs = sum(row.macs for row in rows)
    return Summary(name, shape, rows, parameters, macs, 4 * parameters)


def _rows(network: Module, shape: Form) -> list[LayerRow]:
    """Return the rows of the layers in a row; a container is one row."""
    rows = []
    for index, layer in enumerate(network.children()):
        macs, shape = layer.macs(shape), layer.output_shape(shape)
        kind = type(layer).__name__
        label = f"{index} {kind}" + (f" {layer.name}" if layer.name else "")
        rows.append(LayerRow(label, shown(shape), layer.parameter_count(), macs))
    return rows


def shown(shape: Form) -> str:
    """Return a shape as ``16x28``, that of a table as ``16x28 + 4``; a single number has none.

    >>> shown((16, 28)), shown(((16, 28), (4,))), shown(())
    ('16x28', '16x28 + 4', '1')
    """
    if is_table(shape):
        return " + ".join(map(shown, shape))
    return "x".join(map(str, shape)) or "1"
