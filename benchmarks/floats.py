"""Rows of ``benchmarks.ml``: float32 products beside NumPy's and the processor's peak."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from benchmarks.reading import reading
from benchmarks.rows import Row, Work
from llmbol_core.ml import ops
from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.kinds import f32
from llmbol_core.ml.kernels.target import Target, target
from llmbol_core.ml.matrices import multiply
from llmbol_core.native.threads import thread_count

GROUP = Group("peak", __file__)
SUMS = 12
BATCHES = (1, 2, 4, 8, 16, 32)
LAYERS = ((64, 64), (256, 256), (784, 128), (1024, 1024), (4096, 1024))
"""Inputs and outputs of layers: all but the last fit in the caches."""
MANY = 4 << 20
"""Products of numbers from which on the time that they take is more than that of a call."""
LARGE = 4 << 20
"""Bytes of weights from which on a single row takes as long as it takes to read them."""


@GROUP.kernel("x:f32* out:f32*")
def multiply_add(k: Any, x: Any, out: Any) -> None:
    """Do as many fused multiply-adds as the processor can: SUMS vectors an item."""
    factors = [x.load(k.lanes * i, k.lanes) for i in range(2)]
    sums = [k.variable(k.zeros(f32, k.lanes)) for _ in range(SUMS)]
    for _ in k.items():
        for total in sums:
            total.value = k.fma(factors[0], factors[1], total.value)
    whole = sums[0].value
    for total in sums[1:]:
        whole = whole + total.value
    out.store(whole, k.thread * k.lanes)


def floats() -> Iterator[Row]:
    """Products of float32 matrices, in billions of operations a second."""
    rng, chosen = np.random.default_rng(1), target()
    for depth, n in LAYERS:
        y = rng.normal(size=(depth, n)).astype(np.float32)
        w = np.ascontiguousarray(y.T)
        for batch in BATCHES:
            x = rng.normal(size=(batch, depth)).astype(np.float32)
            for name, ours, peer in (
                ("matmul", partial(ops.matmul, x, y), partial(np.matmul, x, y)),
                ("linear", partial(ops.linear, x, w), partial(np.matmul, x, w.T)),
            ):
                amount = 2 * batch * depth * n / 1e9
                what = f"{name} {batch}x{depth}x{n}"
                is_read = batch == 1 and w.nbytes >= LARGE and chosen is not None
                bound = reading(w) if is_read else at_peak(batch * w.size)
                yield Row(what, amount, "GOP/s", ours, peer, "NumPy", 1.5, limit=bound)
                if is_read:
                    yield Row(what, w.nbytes / 1e9, "GB/s", ours, bound, "reading", 0.85)
    for n in (1024, 2048):
        x, y = (rng.normal(size=(n, n)).astype(np.float32) for _ in range(2))
        ours, amount = partial(ops.matmul, x, y), 2 * n**3 / 1e9
        yield Row(f"matmul {n}", amount, "GOP/s", ours, partial(np.matmul, x, y), "NumPy", 0.95)
        if chosen is not None:
            least = near(x, y, chosen)
            yield Row(
                f"matmul {n}", amount, "GOP/s", ours, at_peak(n**3), "peak", 0.95, limit=least
            )


def at_peak(amount: int) -> Work | None:
    """Return what multiplies and adds so many numbers as fast as can be; None for very few."""
    chosen, threads = target(), thread_count()
    if chosen is None or amount < MANY:
        return None
    items = amount // (SUMS * chosen.lanes)
    x, room = np.zeros(2 * chosen.lanes, np.float32), np.zeros(16 * threads, np.float32)
    return partial(multiply_add.run, items, x, room, chunk=-(-items // (8 * threads)))


def near(x: Any, y: Any, chosen: Target) -> Work:
    """Return the same product of rows that all lie in one place, as the results do.

    It does all that ``matmul`` does, but for fetching and writing numbers that are not at hand: no
    order in which matrices are multiplied by these tiles takes less time.
    """
    rows = as_strided(x, strides=(0, 4))
    out = as_strided(np.empty(y.shape[1], np.float32), (len(x), y.shape[1]), (0, 4))
    return partial(multiply, rows, y, out, chosen)
