"""Rules for recurrent layers and attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.derived import derived_numbers
from llmbol_core.ml.graph import Step
from llmbol_core.ml.kernels import attention, recurrent
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.tiles import AHEAD
from llmbol_core.ml.plan.dense import product
from llmbol_core.ml.plan.emitter import Emitter, Unsupported
from llmbol_core.ml.plan.packing import aligned
from llmbol_core.ml.plan.rooms import Argument, At, Held, Room
from llmbol_core.ml.plan.rules import rule

Array = NDArray[Any]


# ---- recurrent layers ----


@rule(*recurrent.GATES)
def recur(emitter: Emitter, step: Step) -> None:
    """Project all inputs at once, then go through the steps."""
    weight_ih, weight_hh, bias_ih, bias_hh = (*emitter.weights(step), None, None)[:4]
    assert weight_ih is not None
    assert weight_hh is not None
    gates, lanes = recurrent.GATES[step.op], emitter.lanes
    size = weight_hh.shape[1]
    steps = step.inputs[0].shape[1]
    zeros = np.zeros(gates * size, np.float32)
    first = zeros if bias_ih is None else bias_ih
    second = (zeros if bias_hh is None else bias_hh).copy()
    extra = np.zeros(size, np.float32)
    if step.op == "gru":  # the reset gate acts on this bias as well
        extra, second[2 * size :] = second[2 * size :].copy(), 0
    held = emitter.rows(step.inputs[0])
    groups = -(-size // lanes)
    width = groups * gates * lanes
    px = emitter.room(steps * width)
    matrix = derived_numbers(
        ("gates", gates, lanes),
        [weight_ih],
        (width, weight_ih.shape[1]),
        lambda: _grouped(weight_ih, gates, lanes),
    )
    bias = _grouped((first + second)[:, None], gates, lanes)[:, 0]
    product(emitter, held.room, px, steps, matrix, bias)
    out = emitter.fresh(step)
    states = emitter.room(2 * groups * lanes)
    carry = emitter.room(groups * lanes)
    emitter.lasting(48)
    emitter.reads(weight_hh.nbytes, 1)
    arguments = (
        *(At(px), emitter.keep(_panels(weight_hh, gates, lanes))),
        *(emitter.keep(_grouped(extra[:, None], 1, lanes)[:, 0]), At(out.room), At(states)),
        *(At(carry), steps, size, int(step.attributes["reverse"])),
    )

    def inside(batch: int) -> list[tuple[Kernel, tuple[Argument, ...], int]]:
        """Return the steps one by one, whose units the threads share."""
        kernel = recurrent.STEPS[step.op]
        clear = (recurrent.CLEARS[step.op], arguments, batch)
        return [clear, *((kernel, (*arguments, t, batch), groups) for t in range(steps))]

    layer = recurrent.LAYERS[step.op]
    emitter.call(layer, *arguments, inside=inside, flops=steps * weight_hh.size)


def _grouped(weight: Array, gates: int, lanes: int) -> Array:
    """Return the rows of gates [gates * H, K] as [groups, gates, lanes, K], flat; zeros fill up."""
    size, depth = len(weight) // gates, weight.shape[1]
    groups = -(-size // lanes)
    full = np.zeros((gates, groups * lanes, depth), np.float32)
    full[:, :size] = weight.reshape(gates, size, depth)
    ordered = full.reshape(gates, groups, lanes, depth).transpose(1, 0, 2, 3)
    return np.ascontiguousarray(ordered).reshape(groups * gates * lanes, depth)


def _panels(weight: Array, gates: int, lanes: int) -> Array:
    """Return the weights of the states as [groups, depth, gates, lanes]."""
    depth = weight.shape[1]
    size = -(-depth // lanes) * gates * lanes * depth

    def make() -> Array:
        grouped = _grouped(weight, gates, lanes)
        result = aligned(size + AHEAD)
        panels = grouped.reshape(-1, gates * lanes, depth).transpose(0, 2, 1)
        result[:size].reshape(panels.shape)[...] = panels
        return result

    return derived_numbers(("states", gates, lanes), [weight], (size + AHEAD,), make)


# ---- attention ----


@rule("attention")
def attend(emitter: Emitter, step: Step) -> None:
    """Attend where queries, keys and values lie, if their numbers are neighbours."""
    if len(step.inputs) > 3:
        raise Unsupported
    shape = step.output.shape[1:]
    if len(shape) not in (2, 3):
        raise Unsupported
    for value in step.inputs:
        emitter.table(math.prod(value.shape[1:]))
    parts = [_strided(emitter, step, i) for i in range(3)]
    (query, *q), (key, *k), (value, *v) = parts
    heads = shape[0] if len(shape) == 3 else 1
    shared = heads // (key.shape[0] if len(shape) == 3 else 1)
    queries, keys = query.shape[-2], key.shape[-2]
    width, values = query.shape[-1], value.shape[-1]
    size = attention.scratch_size(emitter.lanes, queries, keys, width, values)
    scratch = Room(size, is_scratch=True)
    scale = step.attributes["scale"] or 1 / math.sqrt(max(width, 1))
    out = emitter.room(math.prod(shape))
    rooms = [At(part.room, numbers[0]) for part, *numbers in parts]
    extent = emitter.keep(np.array([keys, k[1], v[1]], np.int64))
    emitter.call(
        attention.attend,
        *(*rooms, None, At(out), At(scratch), size, heads, shared, queries, extent, width, values),
        *(query.room.size, *q[1:], key.room.size, k[2], value.room.size, v[2], None, 0, 0),
        *(out.size, values, heads * values, int(step.attributes["causal"]), float(scale)),
        items=heads,
        flops=heads * queries * keys * (width + values),
    )
    if len(shape) == 2:
        emitter.put(step, Held(out, shape))
        return
    natural = np.arange(math.prod(shape), dtype=np.int64).reshape(queries, heads, values)
    order = np.ascontiguousarray(natural.swapaxes(0, 1))
    emitter.put(step, Held(out, shape, order=order))


def _strided(emitter: Emitter, step: Step, number: int) -> tuple[Any, ...]:
    """Return an input with where it begins and the strides of its heads and positions."""
    value = step.inputs[number]
    held = emitter.value(value)
    found = _strides(held.places())
    if found is None:
        held = emitter.rows(value)
        found = _strides(held.places())
    assert found is not None
    return held, *found


def _strides(places: Array) -> tuple[int, int, int] | None:
    """Return start, stride of heads and stride of positions, None if there are none."""
    full = places[None] if places.ndim == 2 else places
    start = int(full[0, 0, 0])
    head = int(full[1, 0, 0]) - start if full.shape[0] > 1 else 0
    row = int(full[0, 1, 0]) - start if full.shape[1] > 1 else 0
    numbers = [np.arange(n) for n in full.shape]
    wanted = start + (numbers[0] * head)[:, None, None] + (numbers[1] * row)[:, None] + numbers[2]
    return (start, head, row) if (wanted == full).all() else None
