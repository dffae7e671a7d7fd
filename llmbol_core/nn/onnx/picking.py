"""Importers of operators that pick values by their places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llmbol_core.nn.onnx.importers import row
from llmbol_core.nn.onnx.node import Node
from llmbol_core.nn.onnx.operands import Array, Constant, Operand, Traced, Unsupported
from llmbol_core.nn.onnx.tracing import Tracer


@row("Gather")
def gather(tracer: Tracer, node: Node) -> Operand:
    """Emit an embedding for a constant table, else slices of the data."""
    data, places = node[0], node[1]
    axis = int(node.attr("axis", 0)) % len(data.shape)
    if isinstance(data, Constant):
        return embedding(tracer, data, places, axis)
    if isinstance(places, Traced):
        raise Unsupported("both the data and the places depend on the input")
    size = data.shape[axis]
    wanted = places.array.astype(np.int64)
    if tracer.is_batched(size):
        return _of_each(tracer, data, wanted, axis)
    wanted = np.where(wanted < 0, wanted + size, wanted)
    if wanted.size and (wanted.min() < 0 or wanted.max() >= size):
        raise Unsupported(f"it picks outside of {size} positions")
    flat = [int(n) for n in wanted.reshape(-1)]
    picked = tracer.take(data, axis, flat)
    if wanted.ndim == 0:
        return tracer.squeeze(picked, axis)
    shape = data.shape
    return tracer.reshape(picked, [*shape[:axis], *wanted.shape, *shape[axis + 1 :]])


def _of_each(tracer: Tracer, data: Traced, places: Array, axis: int) -> Operand:
    """Emit slices of samples that lie one behind the other on the first axis."""
    size = data.shape[axis] // tracer.prime
    if axis or data.outer != 1:
        raise Unsupported("it picks from the axis of the batch")
    first = tracer.of_one_sample(places, size)
    if first.size and not 0 <= first.min() <= first.max() < size:
        raise Unsupported("it picks from the axis of the batch")
    parts = tracer.reshape(data, [tracer.prime, size, *data.shape[1:]])
    picked = tracer.take(parts, 1, first.reshape(-1).tolist())
    return tracer.reshape(picked, [tracer.prime, *first.shape[1:], *data.shape[1:]])


@row("GatherElements")
def gather_elements(tracer: Tracer, node: Node) -> Operand:
    """Emit an embedding for constants that are alike along the other axes, else slices."""
    data, places = node[0], node[1]
    axis = int(node.attr("axis", 0)) % len(data.shape)
    others = [other for other in range(len(data.shape)) if other != axis]
    if isinstance(data, Constant):
        table = _first_of(data.array, others)
        if table is None:
            raise Unsupported("the data are not alike along the other axes")
        return embedding(tracer, data.with_array(table.reshape(-1)), places, 0)
    wanted = _first_of(node.constant(1, "where it picks"), others)
    if wanted is None or any(places.shape[i] not in (data.shape[i], tracer.static) for i in others):
        raise Unsupported("it picks other places along the other axes")
    return tracer.take(data, axis, (wanted.reshape(-1) % data.shape[axis]).tolist())


def _first_of(array: Array, axes: Sequence[int]) -> Array | None:
    """Return an array's first along some axes, or None if it is not the same along them."""
    first = array[tuple(slice(1) if axis in axes else slice(None) for axis in range(array.ndim))]
    return first if np.array_equal(array, np.broadcast_to(first, array.shape)) else None


@row("GatherND")
def gather_places(tracer: Tracer, node: Node) -> Operand:
    """Emit slices of the data at constant places: axis by axis, or of all their axes as one."""
    node.needs("batch_dims", 0, 1)
    data, places = node.traced(0), node.constant(1, "where it picks").astype(np.int64)
    first = node.attr("batch_dims", 0)
    if tracer.is_batched(data.shape[0]):
        if not first:
            if places.shape[-1] < 2 or tracer.of_one_sample(places[..., 0], 1).any():
                raise Unsupported("it picks from the axis of the batch")
            places, first = places[..., 1:], 1
        places = tracer.of_one_sample(places, 0)
    sizes = data.shape[first : first + places.shape[-1]]
    rest = data.shape[first + len(sizes) :]
    if any(tracer.is_batched(n) for n in sizes):
        raise Unsupported("it picks from the axis of the batch")
    wanted = np.moveaxis(places, -1, 0)
    limits = np.array(sizes, np.int64).reshape(-1, *[1] * (places.ndim - 1))
    wanted = np.where(wanted < 0, wanted + limits, wanted)
    if wanted.size and (wanted.min() < 0 or (wanted >= limits).any()):
        raise Unsupported(f"it picks outside of {list(sizes)} positions")
    parts = _separated(wanted)
    if parts is None:
        data = tracer.reshape(data, [*data.shape[:first], math.prod(sizes), *rest])
        parts = [np.ravel_multi_index(tuple(wanted), sizes).reshape(-1)]
    for axis, part in enumerate(parts, first):
        data = tracer.take(data, axis, part.tolist())
    return tracer.reshape(data, [*data.shape[:first], *places.shape[first:-1], *rest])


def _separated(wanted: Array) -> list[Array] | None:
    """Return places [count, ...] as positions along each axis, if they are their product.

    That is so if each number changes along axes of its own, in the order of the numbers.
    """
    found, start = [], 0
    for number, values in enumerate(wanted):
        stop = start
        for axis in range(start, values.ndim):
            if (values != values.take([0], axis)).any():
                stop = axis + 1
        if number == len(wanted) - 1:
            stop = values.ndim
        own = values[(0,) * start][(..., *(0,) * (values.ndim - stop))]
        spread = own.reshape(*(1,) * start, *own.shape, *(1,) * (values.ndim - stop))
        if (values != spread).any():
            return None
        found.append(own.reshape(-1))
        start = stop
    return found


def embedding(tracer: Tracer, table: Constant, places: Operand, axis: int) -> Operand:
    """Emit ``get_rows`` from a table whose axis lies first."""
    rows = np.moveaxis(table.array, axis, 0)
    matrix = table.with_array(rows.reshape(len(rows), -1))
    found: Traced = tracer.op("get_rows", matrix, places, whole=table.whole)
    rank = len(places.shape)
    if rows.ndim != 2:
        found = tracer.reshape(found, [*places.shape, *rows.shape[1:]])
    order = [*range(rank, rank + axis), *range(rank), *range(rank + axis, len(found.shape))]
    return tracer.permute(found, order)


@row("OneHot")
def one_hot(tracer: Tracer, node: Node) -> Operand:
    """Emit rows of a unit matrix."""
    depth = int(node.scalar(1, 0, "depth"))
    off, on = (float(n) for n in node.constant(2, "the values").reshape(-1))
    node.needs("axis", -1)
    table = np.full((depth, depth), off, np.float32)
    np.fill_diagonal(table, on)
    return tracer.op("get_rows", Constant(table), node[0])


@row("TopK")
def greatest(tracer: Tracer, node: Node) -> tuple[Operand, ...]:
    """Emit the greatest or least values along an axis, and where they are."""
    x = node.traced(0)
    axis = tracer.check_axis(x, node.attr("axis", -1), "it chooses from")
    count = int(node.scalar(1, 1, "how many it takes"))
    order = [i for i in range(len(x.shape)) if i != axis] + [axis]
    rows = tracer.permute(x, order)
    size = rows.shape[-1]
    keys = rows if node.attr("largest", 1) else tracer.op("neg", rows)
    places: Traced = tracer.op("top_k", keys, k=count, whole=True)
    # A value is the only one that stands at its place.
    front = list(rows.shape[:-1])
    chosen = tracer.op("unsqueeze", tracer.numbers(places), axis=len(front) + 1)
    beside = tracer.reshape(rows, [*front, 1, size])
    hits = tracer.op("equal", chosen, Constant(np.arange(size, dtype=np.float32)))
    nothing = Constant(np.zeros((), np.float32))
    picked = tracer.op("where", hits, beside, nothing, whole=x.whole)
    values = tracer.op("sum", picked, axis=len(front) + 1, keepdims=False, whole=x.whole)
    back = np.argsort(order).tolist()
    return tracer.permute(values, back), tracer.permute(places, back)
