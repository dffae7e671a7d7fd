"""The summary of a model: one row per layer with its shapes and costs, and totals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmbol_core.nn.module import Form, Module, Shape, is_table

DEPTH = 3
"""How deep into containers a summary goes if nobody says."""


@dataclass(frozen=True)
class LayerRow:
    """One layer: path and type, the shapes of one sample, and what it costs per sample.

    Memory is that of the output, as float32. The layers in a container follow it, and are part of
    its numbers.
    """

    layer: str
    input: str
    output: str
    parameters: int
    macs: int
    memory: int


@dataclass(frozen=True)
class Summary:
    """A model's layers in order and the totals; bytes are those of float32 parameters."""

    name: str
    input: Shape
    layers: list[LayerRow]
    parameters: int
    macs: int
    memory: int
    """Bytes of all layers' outputs for one sample."""
    bytes: int

    def table(self) -> list[LayerRow]:
        """Return the layers and a row for the totals."""
        total = LayerRow("total", "", "", self.parameters, self.macs, self.memory)
        return [*self.layers, total]

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("layer", "input", "output", "parameters", "MACs", "memory")]
        rows += [
            (r.layer, r.input, r.output, f"{r.parameters:,}", f"{r.macs:,}", f"{r.memory:,}")
            for r in self.table()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                word.ljust(width) if i < 3 else word.rjust(width)
                for i, (word, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        ]
        return "\n".join([self.name, *lines])


@dataclass(frozen=True)
class Passage:
    """A module inside of another: where, and the forms that go in and come out."""

    index: int
    module: Module
    source: Form
    result: Form


def passages(container: Module, form: Form) -> list[Passage]:
    """Return the modules directly inside with what goes through them, in the order of the data.

    A module that several members go through is there once.
    """
    seen: dict[int, Passage] = {}
    inner: Any = getattr(container, "shape_inside", None)
    if inner is None:
        return []

    def watched(index: int, source: Form) -> Form:
        result: Form = inner(index, source)
        seen.setdefault(index, Passage(index, container.children()[index], source, result))
        return result

    vars(container)["shape_inside"] = watched
    try:
        container.output_shape(form)
    finally:
        del vars(container)["shape_inside"]
    return list(seen.values())


def summarize(network: Module, name: str, shape: Shape, depth: int = DEPTH) -> Summary:
    """Return the summary of layers in a row for inputs of a shape; no parameter is made for it."""
    rows = list(_rows(network, shape, depth, ""))
    top = passages(network, shape)
    parameters = sum(p.module.parameter_count() for p in top)
    macs = sum(p.module.macs(p.source) for p in top)
    memory = sum(_bytes(p.result) for p in top)
    return Summary(name, shape, rows, parameters, macs, memory, 4 * parameters)


def _rows(container: Module, form: Form, depth: int, path: str) -> Iterator[LayerRow]:
    """Yield the rows of the layers inside, each followed by those inside of it."""
    for passage in passages(container, form):
        module, place = passage.module, f"{path}{passage.index}"
        label = f"{place} {type(module).__name__}" + (f" {module.name}" if module.name else "")
        forms = (shown(passage.source), shown(passage.result))
        costs = (module.parameter_count(), module.macs(passage.source), _bytes(passage.result))
        yield LayerRow(label, *forms, *costs)
        if depth > 1:
            yield from _rows(module, passage.source, depth - 1, f"{place}.")


def _bytes(form: Form) -> int:
    """Return how many bytes a sample of this form takes as float32."""
    return sum(map(_bytes, form)) if is_table(form) else 4 * math.prod(form)


def shown(shape: Form) -> str:
    """Return a shape as ``16x28``, that of a table as ``16x28 + 4``; a single number has none.

    >>> shown((16, 28)), shown(((16, 28), (4,))), shown(())
    ('16x28', '16x28 + 4', '1')
    """
    if is_table(shape):
        return " + ".join(map(shown, shape))
    return "x".join(map(str, shape)) or "1"
