"""Orders along rows by themselves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.ml.kernels import order, sorting
from llmbol_core.ml.single.draft import Draft, Shapes, Single

_LONGEST = 1 << 31
"""Places are int32."""
_LONGEST_SORTED = 1 << 24
"""A longer row would take much room besides."""


def top_k(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare the choice of the greatest numbers of rows."""
    x, count = shapes[0], attributes["k"]
    assert x is not None
    if not math.prod(x) or x[-1] >= _LONGEST:
        return None
    batch = math.prod(x[:-1])
    draft = Draft(shapes, batch, 1, lanes)
    out, size = draft.room(count), order.scratch_size(count)
    given = (draft.inputs[0], out, draft.scratch(size), size // 2, x[-1], count)
    draft.call(order.top, *given, flops=4 * x[-1])
    return draft.finish(out, (*x[:-1], count), np.int32)


def argsort(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare orders of rows."""
    x = shapes[0]
    assert x is not None
    if not math.prod(x) or x[-1] > _LONGEST_SORTED:
        return None
    draft, length = Draft(shapes, math.prod(x[:-1]), 1, lanes), x[-1]
    out, size = draft.room(length), sorting.scratch_size(length)
    given = (draft.inputs[0], out, draft.scratch(2 * size), size, length)
    draft.call(sorting.argsort, *given, int(attributes["descending"]), flops=16 * length)
    return draft.finish(out, x, np.int32)
