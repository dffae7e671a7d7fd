"""One step of recurrent cells for a batch, and its gradient; items are samples.

    lstm   i, f, o = sigmoid(...)   g = tanh(...)         c' = f c + i g   h = o tanh(c')
    gru    r, z = sigmoid(...)      n = tanh(x + r y)     h' = (1 - z) n + z h
    plain  h' = tanh(...) or relu(...)

The gates of a step lie in a row, [i, f, g, o] or [x, r, z, y], and are replaced: by their values on
the way forward, y staying, by the gradients of what went into them on the way back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group, Kernel
from llmbol_core.ml.kernels.elementwise import copy_all, read, spread, write
from llmbol_core.ml.kernels.functions import sigmoid, tanh
from llmbol_core.ml.kernels.kinds import f32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("recurrence")

_Bend = Callable[[Any, Any], Any]


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


@group.kernel("gates:f32* before:f32* hidden:f32* hidden_row:i64 size:i64")
def gru(
    k: Builder, gates: Pointer, before: Pointer, hidden: Pointer, hidden_row: Value, size: Value
) -> None:
    """Take a step: from gates and the state before to the state."""
    for n in k.items():
        row, at = gates.at(n * size * 4), n * hidden_row

        def step(j: Value, left: Value | None) -> None:
            lines = [row.at(size * number) for number in range(4)]
            x, r, z, y = (read(k, line, j, left) for line in lines)
            r, z = sigmoid(k, r), sigmoid(k, z)
            x = tanh(k, k.fma(r, y, x))
            for line, value in zip(lines, (x, r, z), strict=False):
                write(k, line, value, j, left)
            old = read(k, before.at(at), j, left)
            write(k, hidden.at(at), k.fma(z, old - x, x), j, left)

        spread(k, size, step)


@group.kernel("gates:f32* before:f32* d:f32* carried:f32* d_row:i64 size:i64 fresh:i64")
def gru_gradient(
    k: Builder, gates: Pointer, before: Pointer, d: Pointer, carried: Pointer, d_row: Value,
    size: Value, fresh: Value,
) -> None:  # fmt: skip
    """Go a step back: from the gradient d of the state and what is ``carried`` of it.

    ``carried`` becomes what goes past the gates; the first time it is taken for 0.
    """
    for n in k.items():
        row, at = gates.at(n * size * 4), n * size

        def step(j: Value, left: Value | None) -> None:
            lines = [row.at(size * number) for number in range(4)]
            x, r, z, y = (read(k, line, j, left) for line in lines)
            later = read(k, carried.at(at), j, left)
            later = k.select(fresh.differs(0), k.zeros(f32, later.lanes), later)
            down = read(k, d.at(n * d_row), j, left) + later
            old = read(k, before.at(n * d_row), j, left)
            write(k, carried.at(at), down * z, j, left)
            slope = down * (1.0 - z) * (1.0 - x * x)
            slopes = (slope, slope * y * (r * (1.0 - r)), down * (old - x) * (z * (1.0 - z)),
                      slope * r)  # fmt: skip
            for line, value in zip(lines, slopes, strict=True):
                write(k, line, value, j, left)

        spread(k, size, step)


_BENDS: dict[str, tuple[_Bend, _Bend]] = {
    # what becomes of a sum, and the derivative from that
    "rnn_tanh": (tanh, lambda k, y: 1.0 - y * y),
    "rnn_relu": (
        lambda k, x: k.select(x < 0.0, k.zeros(f32, x.lanes), x),
        lambda k, y: k.select(y > 0.0, k.value(1.0, f32, y.lanes), 0.0),
    ),
}


def _plain(name: str) -> tuple[Kernel, Kernel]:
    """Return the step of a plain cell and its gradient."""
    bend, slope = _BENDS[name]

    def forward(
        k: Builder, gates: Pointer, hidden: Pointer, hidden_row: Value, size: Value
    ) -> None:
        for n in k.items():
            row, to = gates.at(n * size), hidden.at(n * hidden_row)

            def step(j: Value, left: Value | None) -> None:
                value = bend(k, read(k, row, j, left))
                write(k, row, value, j, left)
                write(k, to, value, j, left)

            spread(k, size, step)

    def backward(k: Builder, gates: Pointer, d: Pointer, d_row: Value, size: Value) -> None:
        for n in k.items():
            row, given = gates.at(n * size), d.at(n * d_row)

            def step(j: Value, left: Value | None) -> None:
                value = read(k, given, j, left) * slope(k, read(k, row, j, left))
                write(k, row, value, j, left)

            spread(k, size, step)

    return (
        group.kernel("gates:f32* hidden:f32* hidden_row:i64 size:i64", name)(forward),
        group.kernel("gates:f32* d:f32* d_row:i64 size:i64", f"{name}_gradient")(backward),
    )


PLAIN, PLAIN_GRADIENTS = {}, {}
for _name in _BENDS:
    PLAIN[_name], PLAIN_GRADIENTS[_name] = _plain(_name)


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
            copy_all(k, source, to, columns)
