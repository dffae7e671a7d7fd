"""Means of windows that lie side by side, of channels that lie together, and their gradients.

Each array has its own steps from sample to sample, line to line and row to row. Items are lines of
windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write
from llmbol_core.ml.kernels.kinds import f32

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("averages")
_PARAMETERS = (
    "x:f32* x_sample:i64 x_line:i64 x_row:i64 y:f32* y_sample:i64 y_line:i64 y_row:i64 lines:i64"
    " rows:i64 high:i64 wide:i64 channels:i64 share:f32"
)


@group.kernel(_PARAMETERS)
def average(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, y: Pointer,
    y_sample: Value, y_line: Value, y_row: Value, lines: Value, rows: Value, high: Value,
    wide: Value, channels: Value, share: Value,
) -> None:  # fmt: skip
    """Write the sum of each window times ``share``."""
    part = share.splat(k.lanes)
    for item in k.items():
        sample, line = item // lines, item % lines
        source = x.at(sample * x_sample + line * high * x_line)
        to = y.at(sample * y_sample + line * y_line)
        for row in k.range(rows):
            window, made = source.at(row * wide * x_row), to.at(row * y_row)

            def step(
                c: Value, left: Value | None, window: Pointer = window, made: Pointer = made
            ) -> None:
                total = k.variable(k.zeros(f32, k.lanes))
                for i in k.range(high):
                    for j in k.range(wide):
                        place = window.at(i * x_line + j * x_row)
                        total.value = total.value + read(k, place, c, left)
                write(k, made, total.value * part, c, left)

            spread(k, channels, step)


@group.kernel(_PARAMETERS)
def average_gradient(
    k: Builder, x: Pointer, x_sample: Value, x_line: Value, x_row: Value, y: Pointer,
    y_sample: Value, y_line: Value, y_row: Value, lines: Value, rows: Value, high: Value,
    wide: Value, channels: Value, share: Value,
) -> None:  # fmt: skip
    """Write each gradient in y times ``share`` to all places of its window in x."""
    part: Any = share.splat(k.lanes)
    for item in k.items():
        sample, line = item // lines, item % lines
        to = x.at(sample * x_sample + line * high * x_line)
        given = y.at(sample * y_sample + line * y_line)
        for row in k.range(rows):
            window, own = to.at(row * wide * x_row), given.at(row * y_row)

            def step(
                c: Value, left: Value | None, window: Pointer = window, own: Pointer = own
            ) -> None:
                value = read(k, own, c, left) * part
                for i in k.range(high):
                    for j in k.range(wide):
                        write(k, window.at(i * x_line + j * x_row), value, c, left)

            spread(k, channels, step)
