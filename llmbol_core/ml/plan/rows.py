"""Rules for operations along an axis: softmax, normalizations, reductions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step
from llmbol_core.ml.kernels import rows
from llmbol_core.ml.plan.emitter import Emitter, Unsupported, rearrange
from llmbol_core.ml.plan.rooms import At, Held
from llmbol_core.ml.plan.rules import rule

Array = NDArray[Any]


def _axis(step: Step) -> int:
    """Return the axis of a sample along which a step works."""
    axis: int = step.attributes["axis"] % len(step.inputs[0].shape)
    if axis == 0:
        raise Unsupported
    return axis - 1


def _axis_last(emitter: Emitter, step: Step, axis: int) -> Held:
    """Return the input of a step in rows along an axis, which comes last."""
    held = emitter.value(step.inputs[0])
    if axis == len(held.shape) - 1:
        return emitter.rows(step.inputs[0])
    emitter.table(held.size)
    places = np.ascontiguousarray(np.moveaxis(held.places(), axis, -1))
    room = emitter.room(held.size)
    rearrange(emitter, held.room, room, places, np.arange(held.size))
    return Held(room, places.shape)


@rule("softmax", "log_softmax")
def softmax(emitter: Emitter, step: Step) -> None:
    """Work along any axis; the result lies as the axis was put."""
    axis = _axis(step)
    held = _axis_last(emitter, step, axis)
    size = held.shape[-1]
    out = emitter.room(held.size)
    kernel = getattr(rows, step.op)
    emitter.call(kernel, At(held.room), At(out), held.size // size, size)
    made = Held(out, held.shape)
    if axis != len(held.shape) - 1:
        order = np.ascontiguousarray(np.moveaxis(made.places(), -1, axis))
        made = Held(out, order.shape, order=order)
    emitter.put(step, made)


@rule("layer_norm", "rms_norm", "l2_norm")
def normalize(emitter: Emitter, step: Step) -> None:
    """Normalize rows."""
    weight, bias = (*emitter.weights(step), None, None)[:2]
    held = emitter.rows(step.inputs[0])
    size = held.shape[-1]
    out = emitter.fresh(step)
    emitter.call(
        rows.normalize,
        *(At(held.room), At(out.room), _filled(emitter, weight, size, 1.0)),
        *(_filled(emitter, bias, size, 0.0), held.size // size, size),
        *(step.attributes["eps"], int(step.op == "layer_norm"), int(step.op != "l2_norm")),
    )


def _filled(emitter: Emitter, given: Array | None, size: int, value: float) -> Array:
    """Return weights, or as many of one value."""
    array = np.full(size, value, np.float32) if given is None else given
    return emitter.keep(np.ascontiguousarray(array, np.float32))


@rule("group_norm")
def group_norm(emitter: Emitter, step: Step) -> None:
    """Normalize groups of channels."""
    weight, bias = (*emitter.weights(step), None, None)[:2]
    held = emitter.rows(step.inputs[0])
    channels, groups = held.shape[0], step.attributes["groups"]
    out = emitter.fresh(step)
    emitter.call(
        rows.normalize_groups,
        *(At(held.room), At(out.room), _filled(emitter, weight, channels, 1.0)),
        *(_filled(emitter, bias, channels, 0.0), groups, channels // groups),
        *(held.size // channels, step.attributes["eps"]),
    )


@rule("batch_norm")
def batch_norm(emitter: Emitter, step: Step) -> None:
    """Scale and shift channels."""
    weight, bias, mean, variance = emitter.weights(step)
    assert weight is not None
    assert bias is not None
    assert mean is not None
    assert variance is not None
    factor = weight / np.sqrt(variance + np.float32(step.attributes["eps"]))
    shift = bias - mean * factor
    held = emitter.rows(step.inputs[0])
    channels = held.shape[0]
    out = emitter.fresh(step)
    emitter.call(
        rows.scale_channels,
        *(At(held.room), At(out.room), emitter.keep(factor), emitter.keep(shift)),
        *(channels, held.size // channels),
    )


@rule(*rows.REDUCTIONS)
def reduce(emitter: Emitter, step: Step) -> None:
    """Reduce along an axis."""
    held = _axis_last(emitter, step, _axis(step))
    size = held.shape[-1]
    out = emitter.fresh(step)
    kernel = rows.REDUCTIONS[step.op]
    emitter.call(kernel, At(held.room), At(out.room), math.prod(held.shape[:-1]), size)
