"""One step of recurrent cells for a batch, and its gradient; items are samples.

    i, f, o = sigmoid(...)   g = tanh(...)   c' = f c + i g   h = o tanh(c')

The gates of a step lie in a row, [i, f, g, o], and are replaced: by their values on the way
forward, by the gradients of what went into them on the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.functions import sigmoid, tanh
from llmbol_core.ml.kernels.kinds import f32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("recurrence")


@group.kernel("gates:f32* before:f32* cell:f32* bent:f32* hidden:f32* hidden_row:i64 size:i64")
def lstm(
    k: Builder, gates: Pointer, before: Pointer, cell: Pointer, bent: Pointer, hidden: Pointer,
    hidden_row: Value, size: Value,
) -> None:  # fmt: skip
    """Take a step: from gates and the cell before to the cell, its tanh and the hidden state."""
    for n in k.items():
        row, at = gates.at(n * size * 4), n * size

        def step(j: Value, left: Value | None) -> None:
            lines = [row.at(size * number) for number in range(4)]
            i, f, g, o = (read(k, line, j, left) for line in lines)
            i, f, g, o = sigmoid(k, i), sigmoid(k, f), tanh(k, g), sigmoid(k, o)
            for line, value in zip(lines, (i, f, g, o), strict=True):
                write(k, line, value, j, left)
            now = k.fma(f, read(k, before.at(at), j, left), i * g)
            write(k, cell.at(at), now, j, left)
            curved = tanh(k, now)
            write(k, bent.at(at), curved, j, left)
            write(k, hidden.at(n * hidden_row), o * curved, j, left)

        spread(k, size, step)


@group.kernel("gates:f32* before:f32* bent:f32* d:f32* d_row:i64 carried:f32* size:i64 fresh:i64")
def lstm_gradient(
    k: Builder, gates: Pointer, before: Pointer, bent: Pointer, d: Pointer, d_row: Value,
    carried: Pointer, size: Value, fresh: Value,
) -> None:  # fmt: skip
    """Go a step back: from the gradient d of the hidden state and that of the cell, ``carried``.

    ``carried`` becomes that of the cell before; the first time it is taken for 0.
    """
    for n in k.items():
        row, at = gates.at(n * size * 4), n * size

        def step(j: Value, left: Value | None) -> None:
            lines = [row.at(size * number) for number in range(4)]
            i, f, g, o = (read(k, line, j, left) for line in lines)
            curved, along = read(k, bent.at(at), j, left), read(k, d.at(n * d_row), j, left)
            later = read(k, carried.at(at), j, left)
            zero = k.zeros(f32, later.lanes)
            later = k.select(fresh.differs(0), zero, later)
            down = k.fma(along * o, 1.0 - curved * curved, later)
            write(k, carried.at(at), down * f, j, left)
            old = read(k, before.at(at), j, left)
            slopes = (
                down * g * (i * (1.0 - i)), down * old * (f * (1.0 - f)),
                down * i * (1.0 - g * g), along * curved * (o * (1.0 - o)),
            )  # fmt: skip
            for line, value in zip(lines, slopes, strict=True):
                write(k, line, value, j, left)

        spread(k, size, step)


@group.kernel(
    "x:f32* x_sample:i64 x_row:i64 out:f32* out_sample:i64 out_row:i64 rows:i64 columns:i64"
)
def copy_rows(
    k: Builder, x: Pointer, x_sample: Value, x_row: Value, out: Pointer, out_sample: Value,
    out_row: Value, rows: Value, columns: Value,
) -> None:  # fmt: skip
    """Copy rows that lie apart; items are samples."""
    for sample in k.items():
        for row in k.range(rows):
            source = x.at(sample * x_sample + row * x_row)
            to = out.at(sample * out_sample + row * out_row)

            def step(j: Value, left: Value | None) -> None:
                write(k, to, read(k, source, j, left), j, left)

            spread(k, columns, step)
