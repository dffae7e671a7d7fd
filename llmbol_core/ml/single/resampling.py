"""Other resolutions of planes by themselves: one or two axes of positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.ml.kernels import resampling as kernels
from llmbol_core.ml.ops.resampling import between, nearest_places
from llmbol_core.ml.single.draft import Draft, Shape, Shapes, Single


def _begin(shapes: Shapes, lanes: int) -> tuple[Draft, Shape] | None:
    """Return a draft whose samples are planes, and their sides; None for what is no plane."""
    x = shapes[0]
    assert x is not None
    if len(x) not in (3, 4) or not math.prod(x):
        return None
    return Draft(shapes, x[0] * x[1], 1, lanes), (1, *x[2:])[-2:]


def nearest(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare the nearest positions."""
    begun, size = _begin(shapes, lanes), attributes["size"]
    if begun is None:
        return None
    draft, sides = begun
    height, width = (1, *size)[-2:]
    out = draft.room(height * width)
    tables = [
        draft.emitter.keep(nearest_places(n, count).astype(np.int64))
        for n, count in zip(sides, (height, width), strict=True)
    ]
    draft.call(
        kernels.nearest, draft.inputs[0], out, math.prod(sides), sides[1], height, width, *tables,
        flops=height * width,
    )  # fmt: skip
    return draft.finish(out, (*(shapes[0] or ())[:2], *size))


def linear(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare values interpolated between positions."""
    begun, size = _begin(shapes, lanes), attributes["size"]
    if begun is None:
        return None
    draft, sides = begun
    height, width = (1, *size)[-2:]
    out, scratch = draft.room(height * width), draft.scratch(2 * width)
    tables: list[Any] = []
    for n, count in zip(sides, (height, width), strict=True):
        first, second, share = between(n, count, attributes["corners"])
        places = np.stack([first, second], 1).reshape(-1)
        tables += [draft.emitter.keep(np.ascontiguousarray(places, np.int64))]
        tables += [draft.emitter.keep(share.astype(np.float32))]
    flat = int(len(size) == 1)
    draft.call(
        kernels.linear, draft.inputs[0], out, scratch, math.prod(sides), sides[1], height, width,
        *tables, flat, flops=6 * height * width,
    )  # fmt: skip
    return draft.finish(out, (*(shapes[0] or ())[:2], *size))
