"""Pooling of planes by itself: one or two axes of positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import pooling as kernels
from llmbol_core.ml.ops.pooling import divisors, pooled_axes, widened
from llmbol_core.ml.ops.sliding import Axis
from llmbol_core.ml.single.draft import Draft, Shapes, Single

_LINE = Axis(1, 1, 1, 0, 1)
"""What stands for the lines of what has no more than one."""


def pool(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare the greatest numbers or the means of windows; None for what is no plane."""
    x = shapes[0]
    assert x is not None
    if len(x) not in (3, 4) or not math.prod(x):
        return None
    numbers = widened(attributes) if name.endswith("1d") else dict(attributes)
    counts = numbers.pop("count_padding", True)
    axes = pooled_axes(x, **numbers)
    down, across = (_LINE, *axes)[-2:]
    draft = Draft(shapes, x[0] * x[1], 1, lanes)
    out = draft.room(down.outputs * across.outputs)
    size = kernels.scratch_size(
        lanes, across.length, across.padding, across.outputs, across.stride, across.kernel
    )
    keep = draft.emitter.keep
    tables = [
        keep(_lines(down)),
        *(keep(divisors([a], counts, np.float32)) for a in (down, across)),
    ]
    draft.call(
        kernels.KERNELS[name[:3]], draft.inputs[0], out, draft.scratch(size), size,
        down.length * across.length, across.length, down.outputs, across.outputs, across.kernel,
        across.stride, across.padding, *tables,
        flops=down.outputs * (down.kernel * across.length + across.kernel * across.outputs),
    )  # fmt: skip
    return draft.finish(out, (*x[:2], *(axis.outputs for axis in axes)))


def _lines(axis: Axis) -> NDArray[np.int64]:
    """Return where each window's lines begin and end within the input."""
    first = np.arange(axis.outputs) * axis.stride - axis.padding
    ends = np.stack([first, first + axis.kernel], 1)
    return np.clip(ends, 0, axis.length).astype(np.int64).reshape(-1)
