"""Operations on rows of float32: softmax, normalizations, reductions.

Items are samples of ``count`` rows with ``size`` numbers each. Sums are made in as many parts as a
vector has lanes, then halves upon halves: the same for a row wherever it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.functions import exp, log
from llmbol_core.ml.kernels.kinds import f32, i32
from llmbol_core.ml.kernels.tiles import greater

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("rows")

LONGEST = 1 << 16
"""Rows up to this length are best summed in as many parts as a vector has lanes."""

_AT_ONCE = 4

Combine = Callable[["Value", "Value"], "Value"]


def reduced(
    k: Builder, x: Pointer, size: Value, neutral: float, combine: Combine,
    change: Callable[[Value, Value, Value | None], Value] | None = None,
) -> Value:  # fmt: skip
    """Return all numbers of a row combined; ``change(value, index, left)`` is what counts."""
    total = k.variable(k.value(neutral, f32, k.lanes))

    def step(i: Value, left: Value | None) -> None:
        value = read(k, x, i, left)
        if change is not None:
            value = change(value, i, left)
        if left is not None:
            there = k.ramp(k.lanes, i32) < left.to(i32).splat(k.lanes)
            value = k.select(there, value, k.value(neutral, f32, k.lanes))
        total.value = combine(total.value, value)

    spread(k, size, step)
    value = total.value
    while value.lanes > 1:
        value = combine(*value.halves())
    return value


def plus(a: Value, b: Value) -> Value:
    """Add."""
    return a + b


def softmax_row(k: Builder, x: Pointer, out: Pointer, size: Value, scale: Value | None) -> None:
    """Write exp(scale x) divided by its sum for one row."""

    def scaled(value: Value) -> Value:
        return value if scale is None else value * scale

    # NaN makes all of a row NaN by the sum.
    greatest = reduced(k, x, size, float("-inf"), k.max, lambda v, i, n: scaled(v))
    top = greatest.splat(k.lanes)

    def power(value: Value, i: Value, left: Value | None) -> Value:
        made = exp(k, scaled(value) - top)
        write(k, out, made, i, left)
        return made

    total = reduced(k, x, size, 0.0, plus, power)
    factor = (1.0 / total).splat(k.lanes)

    def divide(i: Value, left: Value | None) -> None:
        write(k, out, read(k, out, i, left) * factor, i, left)

    spread(k, size, divide)


@group.kernel("x:f32* out:f32* count:i64 size:i64")
def softmax(k: Builder, x: Pointer, out: Pointer, count: Value, size: Value) -> None:
    """Divide exp(x) by its sum."""
    for row in k.range(k.begin * count, k.end * count):
        softmax_row(k, x.at(row * size), out.at(row * size), size, None)


@group.kernel("x:f32* out:f32* count:i64 size:i64")
def log_softmax(k: Builder, x: Pointer, out: Pointer, count: Value, size: Value) -> None:
    """Subtract the logarithm of the sum of exp(x)."""
    for row in k.range(k.begin * count, k.end * count):
        given, made = x.at(row * size), out.at(row * size)
        top = reduced(k, given, size, float("-inf"), k.max)
        total = reduced(k, given, size, 0.0, plus, lambda v, i, n: exp(k, v - top))
        rest = k.select(total.equals(total), log(k, total.splat(k.lanes)), total)

        def subtract(i: Value, left: Value | None) -> None:
            write(k, made, read(k, given, i, left) - top - rest, i, left)

        spread(k, size, subtract)


@group.kernel(
    "x:f32* out:f32* weight:f32* bias:f32* count:i64 size:i64 eps:f32 centred:i64 rooted:i64"
)
def normalize(
    k: Builder, x: Pointer, out: Pointer, weight: Pointer, bias: Pointer, count: Value,
    size: Value, eps: Value, centred: Value, rooted: Value,
) -> None:  # fmt: skip
    """Divide by the root of the mean square plus eps, less the mean if ``centred``.

    Not ``rooted``, a row is divided by its length, or by eps if that is greater. Weights and
    biases may be at address 0, which is none.
    """
    length = size.to(f32)
    for row in k.range(k.begin * count, k.end * count):
        given, made = x.at(row * size), out.at(row * size)
        total = reduced(k, given, size, 0.0, plus) / length
        mean = k.select(centred.differs(0), total, k.value(0.0, f32)).splat(k.lanes)

        def distance(v: Value, i: Value, n: Value | None) -> Value:
            return (v - mean) * (v - mean)

        squares = reduced(k, given, size, 0.0, plus, distance)
        root = k.sqrt(squares / length + eps)
        span = k.sqrt(squares)
        longest = k.select(span < eps, eps, span)  # NaN stays
        rate = (1.0 / k.select(rooted.differs(0), root, longest)).splat(k.lanes)

        _scale(k, given, made, (weight, bias), size, (mean, rate))


def _scale(
    k: Builder, x: Pointer, out: Pointer, factors: tuple[Pointer, Pointer], size: Value,
    moments: tuple[Value, Value],
) -> None:  # fmt: skip
    """Write a row less a mean, times a rate, and times weights plus biases if there are any."""
    mean, rate = moments
    weight, bias = factors

    def scale(i: Value, left: Value | None, count: int) -> None:
        value = (read(k, x, i, left) - mean) * rate
        value = value * read(k, weight, i, left) if count > 0 else value
        write(k, out, value + read(k, bias, i, left) if count > 1 else value, i, left)

    with k.either(bias.address().differs(0)) as (both, less):
        with both:
            spread(k, size, partial(scale, count=2))
        with less, k.either(weight.address().differs(0)) as (one, none):
            with one:
                spread(k, size, partial(scale, count=1))
            with none:
                spread(k, size, partial(scale, count=0))


@group.kernel(
    "x:f32* weight:f32* bias:f32* mean:f32* variance:f32* out:f32* scratch:f32* channels:i64"
    " size:i64 eps:f32"
)
def normalize_channels(
    k: Builder, x: Pointer, weight: Pointer, bias: Pointer, mean: Pointer, variance: Pointer,
    out: Pointer, scratch: Pointer, channels: Value, size: Value, eps: Value,
) -> None:  # fmt: skip
    """Write (x - mean) weight / sqrt(variance + eps) + bias; channels are rows of ``size`` numbers.

    A thread has room for as many numbers as there are channels.
    """
    factor = scratch.at(k.thread * channels)

    def prepare(i: Value, left: Value | None) -> None:
        root = k.sqrt(read(k, variance, i, left) + eps.splat(k.lanes))
        write(k, factor, read(k, weight, i, left) / root, i, left)

    spread(k, channels, prepare)

    def step(i: Value, left: Value | None, starts: Sequence[Value]) -> None:
        center, by, more = (read(k, array, i, left) for array in (mean, factor, bias))
        for start in starts:
            value = (read(k, x.at(start), i, left) - center) * by + more
            write(k, out.at(start), value, i, left)

    def channel(
        i: Value, left: Value | None, given: Pointer, made: Pointer, values: Sequence[Value]
    ) -> None:
        center, by, more = values
        write(k, made, (read(k, given, i, left) - center) * by + more, i, left)

    with k.either(size.equals(1)) as (single, many):
        with single:
            # Several rows at once, for which the others' numbers are read once.
            most = k.end - (k.end - k.begin) % _AT_ONCE
            for first, last, count in ((k.begin, most, _AT_ONCE), (most, k.end, 1)):
                for sample in k.range(first, last, count):
                    starts = [(sample + i) * channels for i in range(count)]
                    spread(k, channels, partial(step, starts=starts))
        with many:
            for row in k.range(k.begin * channels, k.end * channels):
                number, start = row % channels, row * size
                values = [array.splat(number, k.lanes) for array in (mean, factor, bias)]
                work = partial(channel, given=x.at(start), made=out.at(start), values=values)
                spread(k, size, work)


@group.kernel("x:f32* out:f32* weight:f32* bias:f32* groups:i64 channels:i64 size:i64 eps:f32")
def normalize_groups(
    k: Builder, x: Pointer, out: Pointer, weight: Pointer, bias: Pointer, groups: Value,
    channels: Value, size: Value, eps: Value,
) -> None:  # fmt: skip
    """Bring groups of ``channels`` rows of ``size`` numbers to mean 0 and variance 1."""
    whole = channels * size
    length = whole.to(f32)
    for part in k.range(k.begin * groups, k.end * groups):
        given, made = x.at(part * whole), out.at(part * whole)
        mean = (reduced(k, given, whole, 0.0, plus) / length).splat(k.lanes)

        def distance(v: Value, i: Value, n: Value | None) -> Value:
            return (v - mean) * (v - mean)

        squares = reduced(k, given, whole, 0.0, plus, distance)
        rate = 1.0 / k.sqrt(squares / length + eps)
        first = (part % groups) * channels
        for channel in k.range(channels):
            factor = (rate * weight.load(first + channel)).splat(k.lanes)
            shift = bias.load(first + channel).splat(k.lanes)
            start = channel * size

            def scale(i: Value, left: Value | None) -> None:
                write(
                    k,
                    made,
                    (read(k, given, start + i, left) - mean) * factor + shift,
                    start + i,
                    left,
                )

            spread(k, size, scale)


@group.kernel("x:f32* out:f32* factor:f32* shift:f32* channels:i64 size:i64")
def scale_channels(
    k: Builder, x: Pointer, out: Pointer, factor: Pointer, shift: Pointer, channels: Value,
    size: Value,
) -> None:  # fmt: skip
    """Multiply each channel, a row of ``size`` numbers, by its factor and shift it."""
    for row in k.range(k.begin * channels, k.end * channels):
        given, made = x.at(row * size), out.at(row * size)
        by = factor.load(row % channels).splat(k.lanes)
        more = shift.load(row % channels).splat(k.lanes)

        def step(i: Value, left: Value | None) -> None:
            write(k, made, read(k, given, i, left) * by + more, i, left)

        spread(k, size, step)


def _reduction(
    name: str, neutral: float, combine: Callable[[Builder, Value, Value], Value],
    square: bool = False, mean: bool = False,
) -> Kernel:  # fmt: skip
    def author(k: Builder, x: Pointer, out: Pointer, count: Value, size: Value) -> None:
        for row in k.range(k.begin * count, k.end * count):
            total = reduced(
                k, x.at(row * size), size, neutral, lambda a, b: combine(k, a, b),
                (lambda v, i, n: v * v) if square else None,
            )  # fmt: skip
            out.store(total / size.to(f32) if mean else total, row)

    return group.kernel("x:f32* out:f32* count:i64 size:i64", f"reduce_{name}")(author)


def _lesser(k: Builder, a: Value, b: Value) -> Value:
    return -greater(k, -a, -b)


REDUCTIONS = {
    "sum": _reduction("sum", 0.0, lambda k, a, b: a + b),
    "mean": _reduction("mean", 0.0, lambda k, a, b: a + b, mean=True),
    "sum_squares": _reduction("sum_squares", 0.0, lambda k, a, b: a + b, square=True),
    "max": _reduction("max", float("-inf"), greater),
    "min": _reduction("min", float("inf"), _lesser),
}
