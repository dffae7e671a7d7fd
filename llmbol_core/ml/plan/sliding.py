"""Rules for convolutions: channels together, windows by tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.graph import Step, Value
from llmbol_core.ml.kernels import convolution
from llmbol_core.ml.kernels.tiles import AHEAD
from llmbol_core.ml.plan.dense import limits_of
from llmbol_core.ml.plan.emitter import Emitter, rearrange
from llmbol_core.ml.plan.layouts import to_last
from llmbol_core.ml.plan.packing import aligned, packed, padded
from llmbol_core.ml.plan.rooms import At, Held, Last
from llmbol_core.ml.plan.rules import rule

Array = NDArray[Any]
Shape = tuple[int, ...]


def several(value: int | Shape, rank: int) -> Shape:
    """Return a number for each axis."""
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _two(window: Shape) -> tuple[int, int]:
    """Return the height and width of a window."""
    return (1, *window)[-2], window[-1]


@dataclass(frozen=True)
class _Ending:
    """What is fused into a convolution: limits, and a pooling whose windows do not overlap."""

    step: Step
    limits: tuple[float, float]
    window: Shape


def _ending(emitter: Emitter, step: Step, rank: int) -> _Ending:
    """Return what follows a convolution, as far as it can be fused."""
    end, limits, window = step, (-math.inf, math.inf), (1,) * rank
    limited = pooled = False
    while (user := emitter.sole_user(end.output)) is not None:
        found = limits_of(user)
        if found is not None and not limited:
            end, limits, limited = user, found, True
        elif not pooled and _disjoint(user, rank) is not None:
            end, window, pooled = user, _disjoint(user, rank) or window, True
        else:
            break
    return _Ending(end, limits, window)


def _disjoint(step: Step, rank: int) -> Shape | None:
    """Return the windows of a max pooling that can be done with a convolution."""
    if step.op != f"max_pool{rank}d":
        return None
    a = step.attributes
    kernel = several(a["kernel"], rank)
    stride = tuple(s or n for s, n in zip(several(a["stride"], rank), kernel, strict=True))
    sides = step.inputs[0].shape[2:]
    exact = not a["ceil"] or all(n % w == 0 for n, w in zip(sides, kernel, strict=True))
    if stride != kernel or any(several(a["padding"], rank)) or not exact:
        return None
    return kernel if math.prod(kernel) in convolution.CONVOLVE else None


def border_for(emitter: Emitter, value: Value, rank: int) -> tuple[tuple[int, int], ...]:
    """Return the border that convolutions of a value want around it."""
    borders = [(0, 0)] * rank
    for user in emitter.users(value):
        if user.op in ("conv1d", "conv2d") and user.inputs[0].index == value.index:
            padding = several(user.attributes["padding"], rank)
            borders = [(max(a, p), max(b, p)) for (a, b), p in zip(borders, padding, strict=True)]
    return tuple(borders)


@rule("conv1d", "conv2d")
def convolve(emitter: Emitter, step: Step) -> None:
    """Convolve, limit and pool at once."""
    weight, bias = (*emitter.weights(step), None)[:2]
    assert weight is not None
    rank = weight.ndim - 2
    a = step.attributes
    stride, padding, dilation = (
        several(a[name], rank) for name in ("stride", "padding", "dilation")
    )
    end = _ending(emitter, step, rank)
    if _is_wide(emitter, step, weight, end):
        _convolve_wide(emitter, step, weight, bias, end)
        return
    sides = end.step.output.shape[2:]
    emitter.table(math.prod(sides) * (1 + math.prod(end.window)))
    held = channels_last(emitter, step.inputs[0], padding)
    assert held.last is not None
    border = border_for(emitter, end.step.output, rank)
    last = Last(len(weight), sides, border)
    rows = _starts(held.last, sides, end.window, stride, padding)
    places = output_places(last)
    out = emitter.room(last.size)
    out.is_kept = not last.is_plain
    _finish(emitter, step, end, Held(out, end.step.output.shape[1:], last))
    work = _Work(emitter, held, last, At(out), rows, places, end.limits, math.prod(end.window))
    kernel_sides, groups = weight.shape[2:], a["groups"]
    if groups == held.last.channels == len(weight) and math.prod(end.window) == 1 and groups > 1:
        work.depthwise(weight, bias, dilation)
        return
    size = len(weight) // groups
    for group in range(groups):
        part = slice(group * size, (group + 1) * size)
        own = None if bias is None else bias[part]
        work.group(group, weight[part], own, dilation, kernel_sides)


def _finish(emitter: Emitter, step: Step, end: _Ending, held: Held) -> None:
    """Note the result of a convolution and of what is fused into it."""
    emitter.done.add(step.output.index)
    for taken in _between(emitter, step, end.step):
        emitter.done.add(taken.output.index)
    emitter.put(end.step, held)


def _is_wide(emitter: Emitter, step: Step, weight: Array, end: _Ending) -> bool:
    """Return whether positions go into vectors rather than channels: there are few of these."""
    held, rank = emitter.value(step.inputs[0]), weight.ndim - 2
    a = step.attributes
    window = _two(end.window)
    if a["groups"] > 1 or several(a["stride"], rank)[-1] != 1 or len(held.shape) != rank + 1:
        return False
    if held.shape[0] > 4 or window not in convolution.CONVOLVE_WIDE:
        return False
    width, lanes = end.step.output.shape[-1] * window[1], emitter.lanes
    vectors = -(-width // (2 * lanes)) * 2
    return 4 * vectors * len(weight) <= 3 * width * -(-len(weight) // lanes)


def _convolve_wide(
    emitter: Emitter, step: Step, weight: Array, bias: Array | None, end: _Ending
) -> None:
    """Emit a convolution of few channels, its input in rows."""
    rank, a = weight.ndim - 2, step.attributes
    stride, padding, dilation = (
        several(a[name], rank) for name in ("stride", "padding", "dilation")
    )
    held = _planes(emitter, step.inputs[0], padding)
    channels, *sides = held.shape
    # A plane is a value of one channel whose positions lie in rows.
    plane = Last(1, tuple(sides), ((0, 0),) * rank)
    kernel = _all_offsets(plane, weight.shape[2:], dilation)
    offsets = (np.arange(channels)[:, None] * plane.size + kernel).reshape(-1)
    out_sides = end.step.output.shape[2:]
    last = Last(len(weight), out_sides, border_for(emitter, end.step.output, rank))
    out = emitter.room(last.size)
    out.is_kept = not last.is_plain
    _finish(emitter, step, end, Held(out, end.step.output.shape[1:], last))
    matrix = np.ascontiguousarray(weight.reshape(len(weight), -1).T)
    zeros = np.zeros(len(weight), np.float32)
    window = _two(end.window)
    lines = out_sides[0] if rank == 2 else 1
    step_down = sides[1] * stride[0] if rank == 2 else 0
    emitter.call(
        convolution.CONVOLVE_WIDE[window],
        *(At(held.room), emitter.keep(matrix), emitter.keep(zeros if bias is None else bias)),
        *(At(out), held.size, last.size, len(weight), len(matrix), emitter.keep(offsets)),
        *(step_down, lines, out_sides[-1], last.start, last.strides()[0] if rank == 2 else 0),
        *map(float, end.limits),
        items=lines,
        flops=math.prod(out_sides) * math.prod(end.window) * matrix.size,
    )


def _planes(emitter: Emitter, value: Value, padding: Shape) -> Held:
    """Return a value in rows with a border of zeros of its own."""
    held = emitter.value(value)
    if held.last is not None and held.last.channels > 1:
        held = emitter.rows(value)
    if not any(padding):
        return held if held.in_rows else emitter.rows(value)
    channels, *sides = held.shape
    room_sides = tuple(n + 2 * p for n, p in zip(sides, padding, strict=True))
    room = emitter.room(channels * math.prod(room_sides))
    room.is_kept = True
    inside = np.arange(room.size).reshape(channels, *room_sides)
    for axis, (n, p) in enumerate(zip(sides, padding, strict=True)):
        inside = inside.take(range(p, p + n), axis + 1)
    rearrange(emitter, held.room, room, held.places(), inside)
    return Held(room, (channels, *room_sides))


def _between(emitter: Emitter, first: Step, last: Step) -> list[Step]:
    """Return the steps from behind the first to the last."""
    found = []
    while first is not last:
        user = emitter.sole_user(first.output)
        assert user is not None
        found.append(user)
        first = user
    return found


def channels_last(emitter: Emitter, value: Value, padding: Shape) -> Held:
    """Return a value with its channels together and at least this border."""
    held = emitter.value(value)
    last = held.last
    if last is not None and all(
        min(have) >= p for have, p in zip(last.border, padding, strict=True)
    ):
        return held
    channels, *sides = held.shape
    wanted = Last(channels, tuple(sides), tuple((p, p) for p in padding))
    return to_last(emitter, held, wanted)


def _starts(given: Last, sides: Shape, window: Shape, stride: Shape, padding: Shape) -> Array:
    """Return where the windows of a sample begin: outputs in order, those of a pool together."""
    start = np.array([given.start], np.int64)
    axes = []
    numbers = zip(sides, window, stride, padding, given.strides(), strict=True)
    for count, size, step, pad, pitch in numbers:
        place = (np.arange(count)[:, None] * size + np.arange(size)) * step - pad
        axes.append(place * pitch)
    rank = len(sides)
    total = start.reshape((1,) * (2 * rank))
    for axis, places in enumerate(axes):
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = places.shape
        total = total + places.reshape(shape)
    return np.ascontiguousarray(total.reshape(-1))


def output_places(last: Last) -> Array:
    """Return where the outputs of a sample go."""
    grids = np.meshgrid(*(np.arange(n) for n in last.sides), indexing="ij")
    total = np.full(last.sides, last.start, np.int64)
    for grid, pitch in zip(grids, last.strides(), strict=True):
        total = total + grid * pitch
    return np.ascontiguousarray(total.reshape(-1))


@dataclass
class _Work:
    """What all groups of a convolution have in common."""

    emitter: Emitter
    given: Held
    made: Last
    out: At
    rows: Array
    places: Array
    limits: tuple[float, float]
    pooled: int

    def __post_init__(self) -> None:
        self.emitter.keep(self.rows)
        self.emitter.keep(self.places)

    def group(
        self, number: int, weight: Array, bias: Array | None, dilation: Shape, kernel: Shape
    ) -> None:
        """Emit the convolution of one group of channels."""
        last = self.given.last
        assert last is not None
        emitter, channels = self.emitter, weight.shape[1]
        length, offsets = _pieces(last, channels, kernel, dilation)
        w = emitter.keep(packed(weight, emitter.lanes, ("channels last",), _channels_last_rows))
        b = emitter.keep(padded(bias, len(weight), emitter.lanes))
        outputs = len(self.places)
        emitter.call(
            convolution.CONVOLVE[self.pooled],
            *(At(self.given.room), w, b, self.out, last.size, self.made.size, len(weight), length),
            *(len(offsets), offsets, self.rows + number * channels),
            *(self.places + number * len(weight), outputs, *map(float, self.limits)),
            items=outputs,
            grain=max(1, 12 // self.pooled),
            flops=outputs * self.pooled * weight.size,
        )

    def depthwise(self, weight: Array, bias: Array | None, dilation: Shape) -> None:
        """Emit the convolution of each channel by itself."""
        last = self.given.last
        assert last is not None
        _, offsets = _pieces(last, 1, weight.shape[2:], dilation)
        count = len(weight)
        w = aligned(weight.size + AHEAD)
        w[: weight.size] = weight.reshape(count, -1).T.reshape(-1)
        offsets = _all_offsets(last, weight.shape[2:], dilation)
        self.emitter.keep(w)
        self.emitter.call(
            convolution.depthwise,
            *(At(self.given.room), w, padded(bias, count, self.emitter.lanes), self.out),
            *(last.size, self.made.size, count, len(offsets), offsets, self.rows, self.places),
            *(len(self.places), *map(float, self.limits)),
            items=len(self.places),
            flops=len(self.places) * weight.size,
        )


def _channels_last_rows(weight: Array) -> Array:
    """Return [outputs, channels, sides] as rows in which the channels of a position follow it."""
    order = (0, *range(2, weight.ndim), 1)
    return weight.transpose(order).reshape(len(weight), -1)


def _all_offsets(last: Last, kernel: Shape, dilation: Shape) -> Array:
    """Return where the positions of a window lie from its beginning."""
    total = np.zeros((1,) * len(kernel), np.int64)
    for axis, (count, step, pitch) in enumerate(zip(kernel, dilation, last.strides(), strict=True)):
        shape = [1] * len(kernel)
        shape[axis] = count
        total = total + (np.arange(count) * step * pitch).reshape(shape)
    return np.ascontiguousarray(total.reshape(-1))


def _pieces(last: Last, channels: int, kernel: Shape, dilation: Shape) -> tuple[int, Array]:
    """Return how long the pieces of a window are and where they begin."""
    offsets = _all_offsets(last, kernel, dilation)
    length = channels
    if channels == last.channels and dilation[-1] == 1:
        length *= kernel[-1]
        offsets = np.ascontiguousarray(offsets[:: kernel[-1]])
    return length, offsets
