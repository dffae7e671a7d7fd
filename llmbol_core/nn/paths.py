"""Containers with several paths, and modules that split and join, as stages in machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbol_core.nn.containers import Parallel
from llmbol_core.nn.flows import Flow
from llmbol_core.nn.joins import CAddTable, CMulTable, JoinTable, SelectTable, SplitTable
from llmbol_core.nn.module import Module
from llmbol_core.nn.planner import Behind, Flows, Path, Planner
from llmbol_core.nn.table_stages import (
    ForkStage,
    JoinedStage,
    ProductStage,
    SharedStage,
    SlicesStage,
    SumStage,
)
from llmbol_core.nn.tables import Concat, ConcatTable, MapTable, ParallelTable, Residual

Table = tuple[Flows, ...]


def _fork(planner: Planner, flows: Flows, count: int) -> Table:
    """Return what flows for so many ways."""
    if count == 1:
        return (flows,)
    if isinstance(flows, tuple):
        return tuple(zip(*(_fork(planner, part, count) for part in flows), strict=True))
    stage = ForkStage(flows, count)
    return tuple(planner.push(stage, stage.ways))


def _slices(planner: Planner, flow: Flow, axis: int) -> Table:
    """Return the slices along an axis, counted with the batch."""
    source, at = planner.vector(flow), axis - 1
    shape = source.shape[:at] + source.shape[at + 1 :]
    needs = source.gradient is not None
    parts = tuple(Flow.vector(planner.batch, shape, needs) for _ in range(source.shape[at]))
    return tuple(planner.push(SlicesStage(source, parts, at), parts))


def _joined(planner: Planner, parts: Table, axis: int, behind: Behind) -> Flow:
    """Return the parts as one value along an axis, counted with the batch."""
    at = axis - 1
    if at or any(part.is_vector for part in parts):
        parts = tuple(map(planner.vector, parts))
    planner.end_run()
    first = parts[0].shape
    shape = (*first[:at], sum(part.shape[at] for part in parts), *first[at + 1 :])
    if parts[0].is_vector:
        result = Flow.vector(planner.batch, shape, needs=True)
    else:
        result = Flow.channels(planner.batch, shape, True, behind.border, 0)
    result.limited = behind.limits
    return planner.push(JoinedStage(parts, result, at), result)


def _combined(planner: Planner, parts: Table, kind: Any, behind: Behind) -> Flow:
    """Return the sum or the product of the members of a table, one after the other."""
    if any(part.is_vector for part in parts):
        parts = tuple(map(planner.vector, parts))
    planner.end_run()
    pairs = len(parts) - 1
    result: Flow = parts[0]
    for number, part in enumerate(parts[1:], 1):
        pair, result = (result, part), planner.like(part, behind.border)
        result.limited = behind.limits and number == pairs
        if kind is SumStage:
            _take_gradient(result, pair)
        planner.push(kind(pair, result), result)
    return result


def _take_gradient(result: Flow, pair: tuple[Flow, Flow]) -> None:
    """Let a sum share the gradient of one of its terms, if possible: then no copy is needed."""
    for part in pair:
        if part.gradient is not None and not (part.limited or part.is_free):
            result.gradient, result.gradient_border = part.gradient, part.gradient_border
            return


def _concat_table(planner: Planner, layer: ConcatTable, flows: Flows, behind: Behind) -> Table:
    ways = _fork(planner, flows, len(layer.layers))
    return tuple(planner.row([inner], way) for inner, way in zip(layer.layers, ways, strict=True))


def _concat(planner: Planner, layer: Concat, flows: Flows, behind: Behind) -> Flow:
    return _joined(planner, _concat_table(planner, layer, flows, behind), layer.axis, behind)


def _parallel_table(planner: Planner, layer: Any, flows: Table, behind: Behind) -> Table:
    return tuple(
        planner.row([inner], part) for inner, part in zip(layer.layers, flows, strict=True)
    )


def _parallel(planner: Planner, layer: Parallel, flow: Flow, behind: Behind) -> Flow:
    parts = _parallel_table(planner, layer, _slices(planner, flow, layer.input_axis), behind)
    return _joined(planner, parts, layer.output_axis, behind)


def _map_table(planner: Planner, layer: MapTable, flows: Table, behind: Behind) -> Table:
    stage = SharedStage(layer.layers[0], len(flows))
    planner.push(stage, flows)
    return tuple(planner.row([one], part) for one, part in zip(stage.copies, flows, strict=True))


def _residual(planner: Planner, layer: Residual, flow: Flow, behind: Behind) -> Flow:
    past, through = _fork(planner, flow, 2)
    return _combined(planner, (past, planner.row(layer.layers, through)), SumStage, behind)


def _split(planner: Planner, layer: SplitTable, flow: Flow, behind: Behind) -> Table:
    return _slices(planner, flow, layer.axis)


def _join(planner: Planner, layer: JoinTable, flows: Table, behind: Behind) -> Flow:
    return _joined(planner, flows, layer.axis, behind)


def _select(planner: Planner, layer: SelectTable, flows: Table, behind: Behind) -> Flows:
    return flows[layer.index]


def _sum(planner: Planner, layer: CAddTable, flows: Table, behind: Behind) -> Flow:
    return _combined(planner, flows, SumStage, behind)


def _product(planner: Planner, layer: CMulTable, flows: Table, behind: Behind) -> Flow:
    return _combined(planner, flows, ProductStage, behind)


PATHS: Mapping[type[Module], Path] = {
    ConcatTable: _concat_table,
    Concat: _concat,
    ParallelTable: _parallel_table,
    Parallel: _parallel,
    MapTable: _map_table,
    Residual: _residual,
    SplitTable: _split,
    JoinTable: _join,
    SelectTable: _select,
    CAddTable: _sum,
    CMulTable: _product,
}
"""What plans each."""
