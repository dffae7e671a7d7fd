"""Rules for what only moves numbers, and values from one way of lying to another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step
from llmbol_core.ml.kernels import layouts
from llmbol_core.ml.plan.emitter import Emitter, Unsupported
from llmbol_core.ml.plan.rooms import At, Held, Last, Room
from llmbol_core.ml.plan.rules import rule

Array = NDArray[Any]


def indices(shape: tuple[int, ...]) -> Array:
    """Return where each number of a sample in rows lies."""
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64).reshape(shape)


def places_last(last: Last) -> Array:
    """Return where each number lies if channels lie together: [channels, sides]."""
    place = np.full((1,) * (len(last.sides) + 1), last.start, np.int64)
    for axis, (count, stride) in enumerate(zip(last.sides, last.strides(), strict=True)):
        shape = [1] * (len(last.sides) + 1)
        shape[axis + 1] = count
        place = place + (np.arange(count) * stride).reshape(shape)
    channels = np.arange(last.channels).reshape(-1, *(1,) * len(last.sides))
    return place + channels


def rearrange(
    emitter: Emitter, source: Room, target: Room, starts: Array, places: Array
) -> None:
    """Emit copies of all numbers of a sample from starts to places; long runs go together."""
    starts, places = starts.reshape(-1), places.reshape(-1)
    order = np.argsort(places, kind="stable")
    starts, places = starts[order], places[order]
    length = _run_length(starts, places)
    if length > 1:
        starts, places = (np.ascontiguousarray(a[::length]) for a in (starts, places))
        kernel, numbers = layouts.move, (len(starts), length)
    else:
        kernel, numbers = layouts.scatter, (len(starts),)
    tables = (emitter.keep(starts), emitter.keep(places))
    emitter.call(kernel, At(source), At(target), source.size, target.size, *numbers, *tables)


def _run_length(starts: Array, places: Array) -> int:
    """Return how many neighbours always move together."""
    if len(starts) < 2:
        return 1
    breaks = (np.diff(starts) != 1) | (np.diff(places) != 1)
    ends = np.flatnonzero(breaks) + 1
    if not len(ends):
        return len(starts)
    return int(np.gcd.reduce(np.append(ends, len(starts))))


def to_rows(emitter: Emitter, held: Held) -> Held:
    """Return a value in rows whose channels lay together."""
    assert held.last is not None
    shape = (held.last.channels, *held.last.sides)
    room = emitter.room(held.size)
    rearrange(emitter, held.room, room, places_last(held.last), indices(shape))
    return Held(room, shape)


def to_last(emitter: Emitter, held: Held, last: Last) -> Held:
    """Return a value [channels, sides] with its channels together and a border of zeros."""
    if last.channels == 1 and last.is_plain and held.last is None:
        return Held(held.room, held.shape, last)
    given = indices(held.shape) if held.last is None else places_last(held.last)
    room = emitter.room(last.size)
    room.is_kept = not last.is_plain
    rearrange(emitter, held.room, room, given, places_last(last))
    return Held(room, held.shape, last)


# ---- operations ----


def _moved(emitter: Emitter, step: Step, order: Any) -> None:
    """Emit an operation that takes each number from somewhere: ``order`` does it to an array."""
    held = emitter.value(step.inputs[0])
    if held.last is not None and held.shape != (held.last.channels, *held.last.sides):
        held = emitter.rows(step.inputs[0])
    places = indices(held.shape) if held.last is None else places_last(held.last)
    starts = np.ascontiguousarray(order(places[None])[0])
    if starts.shape != step.output.shape[1:]:
        raise Unsupported
    out = emitter.fresh(step)
    rearrange(emitter, held.room, out.room, starts, indices(out.shape))


@rule("permute")
def permute(emitter: Emitter, step: Step) -> None:
    """Put the axes of a sample into another order."""
    axes = step.attributes["axes"]
    if axes[0] != 0:
        raise Unsupported
    _moved(emitter, step, lambda x: x.transpose(axes))


@rule("transpose")
def transpose(emitter: Emitter, step: Step) -> None:
    """Exchange two axes of a sample."""
    rank = len(step.output.shape)
    first, second = (step.attributes[name] % rank for name in ("first", "second"))
    if 0 in (first, second):
        raise Unsupported
    _moved(emitter, step, lambda x: x.swapaxes(first, second))


@rule("slice")
def section(emitter: Emitter, step: Step) -> None:
    """Take a part of a sample."""
    a = step.attributes
    axis = a["axis"] % len(step.output.shape)
    if axis == 0:
        raise Unsupported
    part = (*(slice(None),) * axis, slice(a["start"], a["stop"], a["step"]))
    _moved(emitter, step, lambda x: x[part])


@rule("repeat")
def repeat(emitter: Emitter, step: Step) -> None:
    """Put copies of a sample behind each other."""
    axis = step.attributes["axis"] % len(step.output.shape)
    if axis == 0:
        raise Unsupported
    times = step.attributes["times"]
    _moved(emitter, step, lambda x: np.concatenate([x] * times, axis))


@rule("concat")
def concat(emitter: Emitter, step: Step) -> None:
    """Put one sample behind the other."""
    axis = step.attributes["axis"] % len(step.output.shape)
    if axis == 0 or any(emitter.constant(value) is not None for value in step.inputs):
        raise Unsupported
    helds = [emitter.rows(value) for value in step.inputs]
    out = emitter.fresh(step)
    places = indices(out.shape)
    cut = helds[0].shape[axis - 1]
    for held, part in zip(helds, np.split(places, [cut], axis - 1), strict=True):
        rearrange(emitter, held.room, out.room, indices(held.shape), part)
