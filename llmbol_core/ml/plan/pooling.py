"""Rules for pooling: channels together, windows by tables."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step
from llmbol_core.ml.kernels import convolution
from llmbol_core.ml.ops.sliding import Axis
from llmbol_core.ml.plan.emitter import Emitter, Unsupported
from llmbol_core.ml.plan.rooms import At, Held, Last
from llmbol_core.ml.plan.rules import rule
from llmbol_core.ml.plan.sliding import border_for, channels_last, output_places, several

Array = NDArray[Any]

_MOST_COVERED = 1 << 18
"""Positions in all windows of a sample from which on they are not worth a table."""


@rule("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d")
def pool(emitter: Emitter, step: Step) -> None:
    """Reduce windows, the channels at each position together."""
    a = step.attributes
    rank = len(step.output.shape) - 2
    kernel, stride, padding = (several(a[n], rank) for n in ("kernel", "stride", "padding"))
    axes = [
        Axis(n, size, by or size, pad, 1, a["ceil"])
        for n, size, by, pad in zip(step.inputs[0].shape[2:], kernel, stride, padding, strict=True)
    ]
    windows = [[_covered(axis, i) for i in range(axis.outputs)] for axis in axes]
    is_mean = step.op.startswith("avg")
    _reduce(emitter, step, windows, is_mean, is_mean and a["count_padding"])


@rule("adaptive_avg_pool", "adaptive_max_pool")
def adaptive(emitter: Emitter, step: Step) -> None:
    """Reduce windows that cover a sample, so many along each axis."""
    size = step.attributes["size"]
    windows = []
    for length, count in zip(step.inputs[0].shape[2:], size, strict=True):
        ends = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
        windows.append([(range(start, stop), stop - start) for start, stop in ends])
    _reduce(emitter, step, windows, step.op == "adaptive_avg_pool", False)


Windows = list[list[tuple[range, int]]]
"""Along each axis the positions of each window, and how many there are with borders."""


def _reduce(
    emitter: Emitter, step: Step, windows: Windows, is_mean: bool, with_border: bool
) -> None:
    """Emit the reduction of windows."""
    sides = tuple(map(len, windows))
    if sides != step.output.shape[2:]:
        raise Unsupported
    covered = math.prod(sum(len(places) for places, _ in axis) for axis in windows)
    emitter.table(covered, _MOST_COVERED)
    held = channels_last(emitter, step.inputs[0], (0,) * len(sides))
    last = held.last
    assert last is not None
    firsts, sources, divisors = _windows(windows, last, with_border)
    made = Last(last.channels, sides, border_for(emitter, step.output, len(sides)))
    out = emitter.room(made.size)
    out.is_kept = not made.is_plain
    places = output_places(made)
    for table in (firsts, sources, divisors, places):
        emitter.keep(table)
    emitter.call(
        convolution.pool,
        *(At(held.room), At(out), last.size, made.size, last.channels, firsts, sources, places),
        *(len(places), divisors, int(is_mean)),
        items=len(places),
        flops=len(sources) * last.channels,
    )
    emitter.put(step, Held(out, step.output.shape[1:], made))


def _windows(sides: Windows, last: Last, with_border: bool) -> tuple[Array, Array, Array]:
    """Return for each window the places it covers, one list behind the other, and divisors."""
    firsts, sources, divisors = [0], [], []
    for window in itertools.product(*sides):
        spots = itertools.product(*(places for places, _ in window))
        for spot in spots:
            moved = sum(at * pitch for at, pitch in zip(spot, last.strides(), strict=True))
            sources.append(last.start + moved)
        full = math.prod(count for _, count in window)
        divisors.append(full if with_border else len(sources) - firsts[-1])
        firsts.append(len(sources))
    return np.array(firsts, np.int64), np.array(sources, np.int64), np.array(divisors, np.float32)


def _covered(axis: Axis, number: int) -> tuple[range, int]:
    """Return the positions that a window covers, and how many of them borders included."""
    start = number * axis.stride - axis.padding
    stop = min(start + axis.kernel, axis.length + axis.padding)
    return range(max(start, 0), min(stop, axis.length)), stop - start
