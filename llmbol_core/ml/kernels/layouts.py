"""Moving numbers: copies, other orders of axes, and channels between rows and last place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbol_core.ml.kernels.declaration import Group
from llmbol_core.ml.kernels.elementwise import copy_all

if TYPE_CHECKING:
    from llmbol_core.ml.kernels.builder import Builder
    from llmbol_core.ml.kernels.vectors import Pointer, Value

group = Group("layouts")


@group.kernel("x:f32* out:f32* size:i64")
def copy(k: Builder, x: Pointer, out: Pointer, size: Value) -> None:
    """Copy samples of ``size`` numbers, which are the items."""
    first = k.begin * size
    x, out = x.at(first), out.at(first)
    copy_all(k, x, out, (k.end - k.begin) * size)


@group.kernel(
    "x:f32* out:f32* x_sample:i64 out_sample:i64 runs:i64 length:i64 starts:i64* places:i64*"
)
def move(
    k: Builder, x: Pointer, out: Pointer, x_sample: Value, out_sample: Value, runs: Value,
    length: Value, starts: Pointer, places: Pointer,
) -> None:  # fmt: skip
    """Copy runs of ``length`` numbers from ``starts`` to ``places`` within each sample."""
    for sample in k.items():
        source, target = x.at(sample * x_sample), out.at(sample * out_sample)
        for i in k.range(runs):
            given, made = source.at(starts.load(i)), target.at(places.load(i))
            copy_all(k, given, made, length)


@group.kernel("x:f32* out:f32* x_sample:i64 out_sample:i64 count:i64 starts:i64* places:i64*")
def scatter(
    k: Builder, x: Pointer, out: Pointer, x_sample: Value, out_sample: Value, count: Value,
    starts: Pointer, places: Pointer,
) -> None:  # fmt: skip
    """Copy single numbers from ``starts`` to ``places`` within each sample."""
    for sample in k.items():
        source, target = x.at(sample * x_sample), out.at(sample * out_sample)
        for i in k.range(count):
            target.store(source.load(starts.load(i)), places.load(i))
