"""Convolutions without copies of windows: rows of a product begin where tables say.

Channels lie together at each position, so that a window is a few runs of neighbours, its pieces.
A tile's rows are the windows of some outputs; of ``group`` windows in a row only the
greatest sums stay: that is max pooling, done before anything is written.

    rows     where the windows of a sample begin, ``group`` of them for each output
    places   where the outputs of a sample go
    offsets  where the pieces of a window begin
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.tiles import (
    accumulate,
    greater,
    greater_number,
    lesser_number,
    limited,
    most_rows,
    rows_in_turn,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("convolution")

_PARAMETERS = (
    "x:f32* w:f32* bias:f32* out:f32* x_sample:i64 out_sample:i64 columns:i64 length:i64"
    " pieces:i64 offsets:i64* rows:i64* places:i64* outputs:i64 low:f32 high:f32"
)


class _Convolution:
    """The code of one convolution, for the outputs of one sample at a time."""

    def __init__(
        self, k: Builder, pooled: int, x: Pointer, w: Pointer, bias: Pointer, out: Pointer,
        x_sample: Value, out_sample: Value, columns: Value, length: Value, pieces: Value,
        offsets: Pointer, rows: Pointer, places: Pointer, outputs: Value, low: Value, high: Value,
    ) -> None:  # fmt: skip
        self.k, self.pooled = k, pooled
        self.x, self.w, self.bias, self.out = x, w, bias, out
        self.x_sample, self.out_sample, self.columns = x_sample, out_sample, columns
        self.length, self.pieces, self.offsets = length, pieces, offsets
        self.rows, self.places, self.outputs = rows, places, outputs
        self.low, self.high = low, high

    def write(self) -> None:
        """Write the code for all items: outputs, counted on from sample to sample."""
        k = self.k
        first = k.begin // self.outputs
        last = (k.end + (self.outputs - 1)) // self.outputs
        for sample in k.range(first, last):
            start = sample * self.outputs
            zero = k.value(0, i64)
            begin = greater_number(k, k.begin - start, zero)
            end = lesser_number(k, k.end - start, self.outputs)
            self._sample(self.x.at(sample * self.x_sample), self.out.at(sample * self.out_sample),
                         begin, end)  # fmt: skip

    def _sample(self, x: Pointer, out: Pointer, begin: Value, end: Value) -> None:
        k = self.k
        width = 2 * k.lanes
        depth = self.length * self.pieces
        wide = self.columns // width
        # Rows that begin anywhere take an address register each: fewer of them fit.
        most = max(1, (most_rows(k) * 2 // 3) // self.pooled)
        narrow = max(1, most_rows(k) // self.pooled)
        for panel in k.range(wide):
            column = panel * width
            weights = self.w.at(column * depth)
            rows_in_turn(
                k, begin, end, most,
                lambda p, n: self._tile(x, out.at(column), weights, column, p, n, 2),
            )  # fmt: skip
        for column in k.range(wide * width, self.columns, k.lanes):
            weights = self.w.at(column * depth)
            rows_in_turn(
                k, begin, end, narrow,
                lambda p, n: self._tile(x, out.at(column), weights, column, p, n, 1),
            )  # fmt: skip

    def _tile(
        self, x: Pointer, out: Pointer, weights: Pointer, column: Value, place: Value, count: int,
        vectors: int,
    ) -> None:  # fmt: skip
        """Write the code for some outputs and one panel."""
        k, lanes, pooled = self.k, self.k.lanes, self.pooled
        table = self.rows.at(place * pooled)
        rows = [x.at(table.load(i)) for i in range(count * pooled)]
        bias = [self.bias.load(column + lanes * j, lanes) for j in range(vectors)]

        def pieces() -> Iterator[Value]:
            for i in k.range(self.pieces):
                yield self.offsets.load(i)

        sums = accumulate(
            k, rows, [weights], vectors, [bias] * len(rows), self.length, pieces, ahead=False
        )
        for i in range(count):
            to = out.at(self.places.load(place + i))
            for j in range(vectors):
                value = sums[i * pooled][j]
                for other in sums[i * pooled + 1 : (i + 1) * pooled]:
                    value = greater(k, value, other[j])
                value = limited(k, value, self.low, self.high)
                if vectors > 1:
                    to.store(value, lanes * j)
                else:
                    rest = lesser_number(k, self.columns - column, k.value(lanes, i64))
                    to.store_some(value, rest)


def _kernel(pooled: int) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        _Convolution(k, pooled, *given).write()

    return group.kernel(_PARAMETERS, f"convolve{pooled}")(author)


CONVOLVE = {pooled: _kernel(pooled) for pooled in (1, 2, 3, 4)}
"""By how many windows there are to an output."""


@group.kernel(
    "x:f32* out:f32* x_sample:i64 out_sample:i64 channels:i64 firsts:i64* sources:i64*"
    " places:i64* outputs:i64 divisors:f32* mean:i64"
)
def pool(
    k: Builder, x: Pointer, out: Pointer, x_sample: Value, out_sample: Value, channels: Value,
    firsts: Pointer, sources: Pointer, places: Pointer, outputs: Value, divisors: Pointer,
    mean: Value,
) -> None:  # fmt: skip
    """Reduce windows to their greatest value or their sum divided; items are outputs.

    The window of output i has the positions ``sources[firsts[i] : firsts[i + 1]]``.
    """
    for item in k.items():
        sample, i = item // outputs, item % outputs
        given, made = x.at(sample * x_sample), out.at(sample * out_sample)
        to = made.at(places.load(i))
        begin, end = firsts.load(i), firsts.load(i + 1)
        divisor = divisors.load(i)
        for c in k.range(0, channels, k.lanes):
            left = lesser_number(k, channels - c, k.value(k.lanes, i64))
            first = given.at(sources.load(begin) + c).load_some(left, k.lanes)
            total = k.variable(first)
            for j in k.range(begin + 1, end):
                value = given.at(sources.load(j) + c).load_some(left, k.lanes)
                added, best = total.value + value, greater(k, total.value, value)
                total.value = k.select(mean.differs(0), added, best)
            result = k.select(mean.differs(0), total.value / divisor.splat(k.lanes), total.value)
            to.store_some(result, left, c)


@group.kernel(
    "x:f32* w:f32* bias:f32* out:f32* x_sample:i64 out_sample:i64 channels:i64 pieces:i64"
    " offsets:i64* rows:i64* places:i64* outputs:i64 low:f32 high:f32"
)
def depthwise(
    k: Builder, x: Pointer, w: Pointer, bias: Pointer, out: Pointer, x_sample: Value,
    out_sample: Value, channels: Value, pieces: Value, offsets: Pointer, rows: Pointer,
    places: Pointer, outputs: Value, low: Value, high: Value,
) -> None:  # fmt: skip
    """Convolve each channel with a kernel of its own, w being [pieces, channels]."""
    for item in k.items():
        sample, i = item // outputs, item % outputs
        given = x.at(sample * x_sample + rows.load(i))
        to = out.at(sample * out_sample + places.load(i))
        for c in k.range(0, channels, k.lanes):
            left = lesser_number(k, channels - c, k.value(k.lanes, i64))
            total = k.variable(bias.at(c).load_some(left, k.lanes))
            for piece in k.range(pieces):
                value = given.at(offsets.load(piece) + c).load_some(left, k.lanes)
                weight = w.at(piece * channels + c).load_some(left, k.lanes)
                total.value = k.fma(value, weight, total.value)
            to.store_some(limited(k, total.value, low, high), left, c)


class _Wide:
    """The code of a convolution of few channels: a vector holds neighbouring positions of a row.

    x        samples in rows: planes of rows, ``stride`` numbers between the rows of two outputs
    offsets  where each number of a window lies from its beginning
    w        [numbers of a window, columns]
    """

    def __init__(
        self, k: Builder, tall: int, broad: int, x: Pointer, w: Pointer, bias: Pointer,
        out: Pointer, x_sample: Value, out_sample: Value, columns: Value, depth: Value,
        offsets: Pointer, stride: Value, lines: Value, width: Value, start: Value, pitch: Value,
        low: Value, high: Value,
    ) -> None:  # fmt: skip
        self.k, self.tall, self.broad = k, tall, broad
        self.x, self.w, self.bias, self.out = x, w, bias, out
        self.x_sample, self.out_sample, self.columns = x_sample, out_sample, columns
        self.depth, self.offsets, self.stride = depth, offsets, stride
        self.lines, self.width, self.start, self.pitch = lines, width, start, pitch
        self.low, self.high = low, high
        self.room = k.room(f32, 4 * k.lanes)

    def write(self) -> None:
        """Write the code for all items: lines of outputs, counted on from sample to sample."""
        k = self.k
        span = 2 * k.lanes // self.broad
        for item in k.items():
            sample, line = item // self.lines, item % self.lines
            x = self.x.at(sample * self.x_sample + line * (self.stride * self.tall))
            out = self.out.at(sample * self.out_sample + self.start + line * self.pitch)
            for place in k.range(0, self.width, span):
                rows_in_turn(
                    k, k.value(0, i64), self.columns, 4,
                    lambda column, n: self._tile(x.at(place * self.broad), out, place, column, n),
                )  # fmt: skip

    def _tile(self, x: Pointer, out: Pointer, place: Value, column: Value, count: int) -> None:
        """Write the code for two vectors of positions of a line and some columns."""
        k, lanes = self.k, self.k.lanes
        left = (self.width - place) * self.broad
        counts = [lesser_number(k, left - lanes * j, k.value(lanes, i64)) for j in range(2)]
        start = [self.bias.load(column + g).splat(lanes) for g in range(count)]
        sums = [
            [[k.variable(start[g]) for _ in range(2)] for g in range(count)]
            for _ in range(self.tall)
        ]
        for i in k.range(self.depth):
            given = x.at(self.offsets.load(i))
            weights = [self.w.splat(i * self.columns + column + g, lanes) for g in range(count)]
            for row, lines in enumerate(sums):
                for j in range(2):
                    value = given.at(self.stride * row).load_some(counts[j], lanes, lanes * j)
                    for total, weight in zip(lines, weights, strict=True):
                        total[j].value = k.fma(value, weight, total[j].value)
        best = [[total[j].value for j in range(2)] for total in sums[0]]
        for lines in sums[1:]:
            best = [
                [greater(k, a, b.value) for a, b in zip(pair, line, strict=True)]
                for pair, line in zip(best, lines, strict=True)
            ]
        if self.broad == 2:
            even, odd = range(0, 2 * lanes, 2), range(1, 2 * lanes, 2)
            best = [[greater(k, a.shuffle(even, b), a.shuffle(odd, b))] for a, b in best]
        span = len(best[0])
        for j in range(span):
            values = [limited(k, pair[j], self.low, self.high) for pair in best]
            rest = self.width - place - lanes * j
            self._store(values, lesser_number(k, rest, k.value(lanes, i64)),
                        out.at((place + lanes * j) * self.columns + column))  # fmt: skip

    def _store(self, values: list[Value], positions: Value, out: Pointer) -> None:
        """Write the code that puts the columns of each position next to each other."""
        k, lanes, count = self.k, self.k.lanes, len(values)
        full = values + [values[0]] * (4 - count)
        half = lanes // 2
        for part in range(2):
            pairs = [
                lane for i in range(half) for lane in (part * half + i, lanes + part * half + i)
            ]
            first, second = full[0].shuffle(pairs, full[1]), full[2].shuffle(pairs, full[3])
            for quarter in range(2):
                at = [quarter * half + i for i in range(half)]
                order = [
                    lane
                    for i in range(0, half, 2)
                    for lane in (at[i], at[i + 1], lanes + at[i], lanes + at[i + 1])
                ]
                block = first.shuffle(order, second)
                self.room.store(block, (part * 2 + quarter) * lanes)
        for i in k.range(positions):
            value = self.room.load(i * 4, 4)
            if count == 4:
                out.store(value, i * self.columns)
            else:
                out.store_some(value, k.value(count, i64), i * self.columns)


def _wide(tall: int, broad: int) -> Kernel:
    def author(k: Builder, *given: Any) -> None:
        _Wide(k, tall, broad, *given).write()

    parameters = (
        "x:f32* w:f32* bias:f32* out:f32* x_sample:i64 out_sample:i64 columns:i64 depth:i64"
        " offsets:i64* stride:i64 lines:i64 width:i64 start:i64 pitch:i64 low:f32 high:f32"
    )
    return group.kernel(parameters, f"convolve_wide{tall}{broad}")(author)


CONVOLVE_WIDE = {pooled: _wide(*pooled) for pooled in ((1, 1), (2, 2), (1, 2))}
"""By the height and width of the pooling windows."""
