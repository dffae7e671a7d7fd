"""Normalizations of channels by themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.ml.kernels import rows
from llmbol_core.ml.single.draft import Draft, Shapes, Single


def batch_norm(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a normalization with known means and variances."""
    x = shapes[0]
    assert x is not None
    if not math.prod(x):
        return None
    channels, size = x[1], math.prod(x[2:])
    draft = Draft(shapes, x[0], 1, lanes)
    out = draft.room(channels * size)
    numbers = (channels, size, attributes["eps"])
    draft.call(
        rows.normalize_channels,
        *(*draft.inputs, out, draft.scratch(channels), *numbers),
        flops=2 * channels * size,
    )
    return draft.finish(out, x)


def group_norm(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare a normalization of groups; NumPy's sums of very long ones are more exact."""
    x, groups = shapes[0], attributes["groups"]
    assert x is not None
    channels, size = x[1], math.prod(x[2:])
    share = channels // groups
    if not math.prod(x) or size * share > rows.LONGEST:
        return None
    draft = Draft(shapes, x[0], 1, lanes)
    out = draft.room(channels * size)
    factors = [
        draft.emitter.keep(np.full(channels, value, np.float32)) if place is None else place
        for place, value in zip(draft.inputs[1:], (1.0, 0.0), strict=True)
    ]
    draft.call(
        rows.normalize_groups,
        *(draft.inputs[0], out, *factors, groups, share, size, attributes["eps"]),
        flops=8 * channels * size,
    )
    return draft.finish(out, x)
