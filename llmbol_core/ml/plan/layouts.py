"""Rules for operations that only move numbers, and changes of a value's layout."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step
from llmbol_core.ml.ops import OPS
from llmbol_core.ml.plan.emitter import Emitter, Unsupported, rearrange
from llmbol_core.ml.plan.rooms import Held, Last
from llmbol_core.ml.plan.rules import rule

Array = NDArray[Any]


def to_last(emitter: Emitter, held: Held, last: Last) -> Held:
    """Return a value [channels, sides] with its channels together and a border of zeros."""
    if last.channels == 1 and last.is_plain and held.in_rows:
        return Held(held.room, held.shape, last)
    room = emitter.room(last.size)
    room.is_kept = not last.is_plain
    rearrange(emitter, held.room, room, held.places(), last.places())
    return Held(room, held.shape, last)


def _moved(emitter: Emitter, step: Step, order: Callable[[Array], Array]) -> None:
    """Note where an operation finds its numbers: ``order`` does it to an array of a batch.

    Nothing is moved before somebody needs the result in rows.
    """
    held = emitter.value(step.inputs[0])
    emitter.table(max(held.size, math.prod(step.output.shape[1:])))
    places = np.ascontiguousarray(order(held.places()[None])[0])
    if places.shape != step.output.shape[1:]:
        raise Unsupported
    emitter.put(step, Held(held.room, places.shape, order=places))


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
    """Put copies of a sample after each other."""
    axis = step.attributes["axis"] % len(step.output.shape)
    if axis == 0:
        raise Unsupported
    times = step.attributes["times"]
    _moved(emitter, step, lambda x: np.concatenate([x] * times, axis))


@rule("pad_reflect", "pad_replicate", "pad_circular", "upsample_nearest")
def spread(emitter: Emitter, step: Step) -> None:
    """Take numbers from where the definition would take them."""
    definition = OPS[step.op].definition
    _moved(emitter, step, lambda x: definition(x, **step.attributes))


@rule("pad")
def pad(emitter: Emitter, step: Step) -> None:
    """Put a sample into a room of zeros."""
    a, shape = step.attributes, step.output.shape[1:]
    axis = a["axis"] % (len(shape) + 1) - 1
    if axis < 0 or a["value"]:
        raise Unsupported
    held = emitter.value(step.inputs[0])
    room = emitter.room(math.prod(shape))
    emitter.table(room.size)
    room.is_kept = True
    inside = np.arange(room.size).reshape(shape)
    inside = inside.take(range(a["before"], a["before"] + held.shape[axis]), axis)
    rearrange(emitter, held.room, room, held.places(), inside)
    emitter.put(step, Held(room, shape))


@rule("concat")
def concat(emitter: Emitter, step: Step) -> None:
    """Put one sample after the other."""
    axis = step.attributes["axis"] % len(step.output.shape)
    if axis == 0 or any(map(emitter.is_constant, step.inputs)):
        raise Unsupported
    emitter.table(math.prod(step.output.shape[1:]))
    helds = [emitter.value(value) for value in step.inputs]
    out = emitter.fresh(step)
    cut = helds[0].shape[axis - 1]
    for held, part in zip(helds, np.split(out.places(), [cut], axis - 1), strict=True):
        rearrange(emitter, held.room, out.room, held.places(), part)
