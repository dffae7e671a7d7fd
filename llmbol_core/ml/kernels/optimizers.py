"""One pass over parameters, gradients and an optimizer's state.

Each number goes through the same roundings as in NumPy's arithmetic of ``nn.optim``: the bits are
the same. Items are numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import read, spread, write

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("optimizers")

CHUNK = 1 << 15
"""Numbers that a thread takes at a time."""


@group.kernel("w:f32* g:f32* rate:f32")
def descend(k: Builder, w: Pointer, g: Pointer, rate: Value) -> None:
    """W -= rate g."""
    w, g = w.at(k.begin), g.at(k.begin)

    def step(i: Value, left: Value | None) -> None:
        write(k, w, read(k, w, i, left) - read(k, g, i, left) * rate, i, left)

    spread(k, k.end - k.begin, step)


@group.kernel(
    "w:f32* g:f32* b:f32* rate:f32 decay:f32 momentum:f32 rest:f32 first:i64 nesterov:i64"
)
def momentum(
    k: Builder, w: Pointer, g: Pointer, b: Pointer, rate: Value, decay: Value, momentum: Value,
    rest: Value, first: Value, nesterov: Value,
) -> None:  # fmt: skip
    """B = momentum b + rest (g + decay w), at first without rest;  w -= rate b, or Nesterov's."""
    w, g, b = w.at(k.begin), g.at(k.begin), b.at(k.begin)

    def step(i: Value, left: Value | None) -> None:
        weight, plain = read(k, w, i, left), read(k, g, i, left)
        gradient = k.select(decay.equals(0.0), plain, plain + weight * decay)
        old = read(k, b, i, left) * momentum + gradient * rest
        now = k.select(first.differs(0), gradient, old)
        write(k, b, now, i, left)
        along = k.select(nesterov.differs(0), gradient + now * momentum, now)
        write(k, w, weight - along * rate, i, left)

    spread(k, k.end - k.begin, step)


@group.kernel(
    "w:f32* g:f32* m:f32* v:f32* rate:f32 beta1:f32 rest1:f32 beta2:f32 rest2:f32 correction:f32"
    " eps:f32 decay:f32 shrink:f32"
)
def adam(
    k: Builder, w: Pointer, g: Pointer, m: Pointer, v: Pointer, rate: Value, beta1: Value,
    rest1: Value, beta2: Value, rest2: Value, correction: Value, eps: Value, decay: Value,
    shrink: Value,
) -> None:  # fmt: skip
    """Take a step of Adam; ``shrink`` is what weights are multiplied by before, 1 for none."""
    w, g, m, v = (p.at(k.begin) for p in (w, g, m, v))

    def step(i: Value, left: Value | None) -> None:
        weight, plain = read(k, w, i, left) * shrink, read(k, g, i, left)
        gradient = k.select(decay.equals(0.0), plain, plain + weight * decay)
        mean = read(k, m, i, left) * beta1 + gradient * rest1
        square = read(k, v, i, left) * beta2 + gradient * rest2 * gradient
        write(k, m, mean, i, left)
        write(k, v, square, i, left)
        divisor = k.sqrt(square) * correction + eps
        write(k, w, weight - mean / divisor * rate, i, left)

    spread(k, k.end - k.begin, step)
