"""Kernels of training: pooling, batch norm, masks, other orders, and the loss.

Positions of a batch are samples, lines and rows of channels, as in ``gradients``.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.functions import exp, log
from llmbol_core.ml.kernels.gradients import transposed
from llmbol_core.ml.kernels.kinds import f32, i64
from llmbol_core.ml.kernels.rows import plus, reduced
from llmbol_core.ml.kernels.tiles import greater, lesser_number

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("training")

_USUAL = ((2, 2), (1, 2))
"""Lines and rows of windows that have code of their own."""

# ---- windows that lie side by side ----

_POOL = (
    "x:f32* x_sample:i64 x_line:i64 x_row:i64 y:f32* y_sample:i64 y_line:i64 y_row:i64 lines:i64"
    " rows:i64 high:i64 wide:i64 channels:i64"
)


class _Windows:
    """The code that goes over windows: vectors of channels, and the places of each window.

    It is written several times: for sizes of windows that are usual their places stand one after
    another, and channels that fill all vectors are moved without masks.
    """

    def __init__(self, k: Builder, high: Value, wide: Value, channels: Value) -> None:
        self.k, self.high, self.wide, self.channels = k, high, wide, channels
        self._size: tuple[int, int] | None = None
        self._whole = False
        self._left = k.value(k.lanes, i64)

    def write(self, code: Callable[[], None]) -> None:
        """Write code for all cases."""
        with self.k.either((self.channels % self.k.lanes).equals(0)) as (whole, rest):
            with whole:
                self._whole = True
                self._choose(_USUAL, code)
            with rest:
                self._whole = False
                self._choose((), code)

    def _choose(self, sizes: Sequence[tuple[int, int]], code: Callable[[], None]) -> None:
        if not sizes:
            self._size = None
            code()
            return
        lines, rows = sizes[0]
        with self.k.either(self.high.equals(lines) & self.wide.equals(rows)) as (yes, no):
            with yes:
                self._size = sizes[0]
                code()
            with no:
                self._choose(sizes[1:], code)

    def vectors(self) -> Iterator[Value]:
        """Yield where each vector of channels begins."""
        k = self.k
        for c in k.range(0, self.channels, k.lanes):
            self._left = lesser_number(k, self.channels - c, k.value(k.lanes, i64))
            yield c

    def places(self) -> Iterator[tuple[Any, Any]]:
        """Yield line and row of each place within a window."""
        if self._size is not None:
            yield from itertools.product(range(self._size[0]), range(self._size[1]))
            return
        for i in self.k.range(self.high):
            for j in self.k.range(self.wide):
                yield i, j

    def read(self, x: Pointer, index: Value) -> Value:
        """Read the channels that the vector has."""
        if self._whole:
            return x.load(index, self.k.lanes)
        return x.load_some(self._left, self.k.lanes, index)

    def store(self, x: Pointer, value: Value, index: Value) -> None:
        """Write the channels that the vector has."""
        if self._whole:
            x.store(value, index)
        else:
            x.store_some(value, self._left, index)


@group.kernel(_POOL)
def pool(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, y: Pointer,
    y_sample: Value, y_line: Value, y_row: Value, lines: Value, rows: Value, high: Value,
    wide: Value, channels: Value,
) -> None:  # fmt: skip
    """Write the greatest value of each window; items are lines of windows."""
    windows = _Windows(k, high, wide, channels)

    def write() -> None:
        for item in k.items():
            sample, line = item // lines, item % lines
            source = x.at(sample * x_sample + line * high * x_line)
            to = y.at(sample * y_sample + line * y_line)
            for row in k.range(rows):
                for c in windows.vectors():
                    start = row * wide * x_row + c
                    best = k.variable(windows.read(source, start))
                    for i, j in windows.places():
                        value = windows.read(source, start + x_line * i + x_row * j)
                        best.value = greater(k, best.value, value)
                    windows.store(to, best.value, row * y_row + c)

    windows.write(write)


@group.kernel(_POOL + " d:f32* d_sample:i64 d_line:i64 d_row:i64 g:f32* g_sample:i64 g_line:i64"
              " g_row:i64 above:f32")  # fmt: skip
def pool_gradient(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, y: Pointer,
    y_sample: Value, y_line: Value, y_row: Value, lines: Value, rows: Value, high: Value,
    wide: Value, channels: Value, d: Pointer, d_sample: Value, d_line: Value, d_row: Value,
    g: Pointer, g_sample: Value, g_line: Value, g_row: Value, above: Value,
) -> None:  # fmt: skip
    """Give d to the first place of each window with the greatest value, if that is above a limit.

    The places go to g, which has zeros elsewhere; items are lines of windows.
    """
    lanes, zero = k.lanes, k.zeros(f32, k.lanes)
    windows = _Windows(k, high, wide, channels)

    def write() -> None:
        for item in k.items():
            sample, line = item // lines, item % lines
            source = x.at(sample * x_sample + line * high * x_line)
            to = g.at(sample * g_sample + line * high * g_line)
            reached = y.at(sample * y_sample + line * y_line)
            given = d.at(sample * d_sample + line * d_line)
            for row in k.range(rows):
                for c in windows.vectors():
                    best = windows.read(reached, row * y_row + c)
                    gradient = windows.read(given, row * d_row + c)
                    free = k.variable(k.select(best > above.splat(lanes), gradient, zero))
                    for i, j in windows.places():
                        start = row * wide + j
                        value = windows.read(source, x_line * i + start * x_row + c)
                        hit = value.equals(best)
                        share = k.select(hit, free.value, zero)
                        free.value = k.select(hit, zero, free.value)
                        windows.store(to, share, g_line * i + start * g_row + c)

    windows.write(write)


# ---- moving ----


@group.kernel("x:f32* out:f32* table:i64*")
def gather(k: Builder, x: Pointer, out: Pointer, table: Pointer) -> None:
    """Write the numbers that a table names; they are the items."""
    for item in k.items():
        out.store(x.load(table.load(item)), item)


@group.kernel(
    "x:f32* x_sample:i64 x_row:i64 out:f32* out_sample:i64 out_row:i64 rows:i64 columns:i64"
)
def transpose(
    k: Builder, x: Pointer, x_sample: Value, x_row: Value, out: Pointer, out_sample: Value,
    out_row: Value, rows: Value, columns: Value,
) -> None:  # fmt: skip
    """Exchange rows and columns of each sample; items are samples."""
    for sample in k.items():
        source, to = x.at(sample * x_sample), out.at(sample * out_sample)
        transpose_rows(k, source, x_row, to, out_row, rows, columns)


def transpose_rows(
    k: Builder, x: Pointer, x_row: Value, out: Pointer, out_row: Value, rows: Value, columns: Value
) -> None:
    """Write the code that exchanges rows and columns of a matrix."""
    lanes = k.lanes
    for i in k.range(0, rows, lanes):
        down = lesser_number(k, rows - i, k.value(lanes, i64))
        for j in k.range(0, columns, lanes):
            across = lesser_number(k, columns - j, k.value(lanes, i64))
            last = rows - 1
            square = [
                x.at(lesser_number(k, i + r, last) * x_row + j).load_some(across, lanes)
                for r in range(lanes)
            ]
            for c, vector in enumerate(transposed(k, square)):
                with k.when(across > c):
                    out.store_some(vector, down, (j + c) * out_row + i)


@group.kernel("x:f32* mask:f32* out:f32* x_line:i64 mask_line:i64 out_line:i64 size:i64 sign:i64")
def masked(
    k: Builder, x: Pointer, mask: Pointer, out: Pointer, x_line: Value, mask_line: Value,
    out_line: Value, size: Value, sign: Value,
) -> None:  # fmt: skip
    """Multiply by a mask, or with ``sign`` keep what stands where the mask is above 0."""
    for item in k.items():
        given, shown, made = x.at(item * x_line), mask.at(item * mask_line), out.at(item * out_line)

        def step(i: Value, left: Value | None) -> None:
            value, share = read(k, given, i, left), read(k, shown, i, left)
            kept = k.select(share > 0.0, value, k.zeros(f32, k.lanes))
            write(k, made, k.select(sign.differs(0), kept, value * share), i, left)

        spread(k, size, step)


# ---- batch norm ----


class _Positions:
    """The positions of a batch, one line after another, for a vector of their channels."""

    def __init__(
        self, k: Builder, samples: Value, lines: Value, rows: Value, columns: Value, column: Value
    ) -> None:
        self.k, self.samples, self.lines, self.rows = k, samples, lines, rows
        self.columns, self.column = columns, column
        self.left = lesser_number(k, columns - column, k.value(k.lanes, i64))
        self.count = (samples * lines * rows).to(f32).splat(k.lanes)

    def each(self) -> Iterator[tuple[Value, Value, Value]]:
        """Yield sample, line and row of each position."""
        for sample in self.k.range(self.samples):
            for line in self.k.range(self.lines):
                for row in self.k.range(self.rows):
                    yield sample, line, row

    def total(self, terms: Callable[[Any], list[Value]], count: int) -> list[Value]:
        """Return the sums of some terms of each position: of lines, and of those over all."""
        k = self.k
        sums = [k.variable(k.zeros(f32, k.lanes)) for _ in range(count)]
        for sample in k.range(self.samples):
            for line in k.range(self.lines):
                parts = [k.variable(k.zeros(f32, k.lanes)) for _ in sums]
                for row in k.range(self.rows):
                    for part, term in zip(parts, terms((sample, line, row)), strict=True):
                        part.value = part.value + term
                for whole, part in zip(sums, parts, strict=True):
                    whole.value = whole.value + part.value
        return [whole.value for whole in sums]

    def place(self, at: Any, steps: Sequence[Value]) -> Value:
        """Return where a position lies, by the numbers to the next sample, line and row."""
        sample, line, row = at
        sample_step, line_step, row_step = steps
        place: Value = sample * sample_step + line * line_step + row * row_step + self.column
        return place

    def dense(self, at: Any) -> Value:
        """Return where a position lies if there is nothing between them."""
        sample, line, row = at
        number: Value = (sample * self.lines + line) * self.rows + row
        return number * self.columns + self.column

    def read(self, x: Pointer, index: Value) -> Value:
        """Read the channels that there are."""
        return x.load_some(self.left, self.k.lanes, index)

    def store(self, x: Pointer, value: Value, index: Value) -> None:
        """Write the channels that there are."""
        x.store_some(value, self.left, index)


@group.kernel(
    "x:f32* x_sample:i64 x_line:i64 x_row:i64 y:f32* y_sample:i64 y_line:i64 y_row:i64 normal:f32*"
    " rate:f32* weight:f32* bias:f32* mean:f32* variance:f32* samples:i64 lines:i64 rows:i64"
    " columns:i64 eps:f32 momentum:f32 rest:f32 unbiased:f32 low:f32"
)
def batch_norm(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, y: Pointer,
    y_sample: Value, y_line: Value, y_row: Value, normal: Pointer, rate: Pointer, weight: Pointer,
    bias: Pointer, mean: Pointer, variance: Pointer, samples: Value, lines: Value, rows: Value,
    columns: Value, eps: Value, momentum: Value, rest: Value, unbiased: Value, low: Value,
) -> None:  # fmt: skip
    """Normalize columns, move the running values; items are vectors of columns."""
    given, made = (x_sample, x_line, x_row), (y_sample, y_line, y_row)
    for item in k.items():
        column = item * k.lanes
        all_ = _Positions(k, samples, lines, rows, columns, column)

        def value(at: Any) -> Value:
            return all_.read(x, all_.place(at, given))

        middle = all_.total(lambda at: [value(at)], 1)[0] / all_.count

        def square(at: Any) -> list[Value]:
            distance = value(at) - middle
            return [distance * distance]

        spread_of = all_.total(square, 1)[0] / all_.count
        root = 1.0 / k.sqrt(spread_of + eps)
        all_.store(rate, root, column)
        for running, now in ((mean, middle), (variance, spread_of * unbiased)):
            old = all_.read(running, column)
            all_.store(running, old * rest + now * momentum, column)
        gain, shift, least = all_.read(weight, column), all_.read(bias, column), low.splat(k.lanes)
        for at in all_.each():
            unit = (value(at) - middle) * root
            all_.store(normal, unit, all_.dense(at))
            result = unit * gain + shift
            all_.store(y, k.select(result < least, least, result), all_.place(at, made))


@group.kernel(
    "d:f32* d_sample:i64 d_line:i64 d_row:i64 normal:f32* rate:f32* weight:f32* mask:f32*"
    " mask_sample:i64 mask_line:i64 mask_row:i64 g:f32* g_sample:i64 g_line:i64 g_row:i64"
    " along_weight:f32* along_bias:f32* samples:i64 lines:i64 rows:i64 columns:i64 above:f32"
)
def batch_norm_gradient(
    k: Builder, d: Pointer, d_sample: Value, d_line: Value, d_row: Value, normal: Pointer,
    rate: Pointer, weight: Pointer, mask: Pointer, mask_sample: Value, mask_line: Value,
    mask_row: Value, g: Pointer, g_sample: Value, g_line: Value, g_row: Value,
    along_weight: Pointer, along_bias: Pointer, samples: Value, lines: Value, rows: Value,
    columns: Value, above: Value,
) -> None:  # fmt: skip
    """Write the gradients of input, weight and bias; d counts where the mask is above a limit."""
    given, shown = (d_sample, d_line, d_row), (mask_sample, mask_line, mask_row)
    to, limit = (g_sample, g_line, g_row), above.splat(k.lanes)
    for item in k.items():
        column = item * k.lanes
        all_ = _Positions(k, samples, lines, rows, columns, column)

        def gradient(at: Any) -> Value:
            counts = all_.read(mask, all_.place(at, shown)) > limit
            value = all_.read(d, all_.place(at, given))
            return k.select(counts, value, k.zeros(f32, k.lanes))

        def terms(at: Any) -> list[Value]:
            value = gradient(at)
            return [value, value * all_.read(normal, all_.dense(at))]

        sums, products = all_.total(terms, 2)
        all_.store(along_bias, sums, column)
        all_.store(along_weight, products, column)
        factor = all_.read(weight, column) * all_.read(rate, column)
        middle, slope = sums / all_.count, products / all_.count
        for at in all_.each():
            unit = all_.read(normal, all_.dense(at))
            rest = (gradient(at) - middle) - unit * slope
            all_.store(g, rest * factor, all_.place(at, to))


# ---- loss ----


@group.kernel("x:f32* classes:i64* g:f32* losses:f32* size:i64 share:f32")
def cross_entropy(
    k: Builder, x: Pointer, classes: Pointer, g: Pointer, losses: Pointer, size: Value,
    share: Value,
) -> None:  # fmt: skip
    """Write each row's loss against its class, and the gradient times ``share``; items are rows."""
    for row in k.items():
        given, made = x.at(row * size), g.at(row * size)
        top = reduced(k, given, size, float("-inf"), lambda a, b: greater(k, a, b))
        total = reduced(k, given, size, 0.0, plus, lambda v, i, n: exp(k, v - top))
        own = classes.load(row)
        logarithm = log(k, total.splat(k.lanes)).lane(0)
        losses.store(logarithm - (given.load(own) - top), row)
        factor = share / total

        def step(i: Value, left: Value | None) -> None:
            write(k, made, exp(k, read(k, given, i, left) - top) * factor, i, left)

        spread(k, size, step)
        made.store(made.load(own) - share, own)
