"""Attention by itself, masks included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from llmbol_core.ml.kernels import attention
from llmbol_core.ml.single.draft import Draft, Shape, Shapes, Single


def attend(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> Single | None:
    """Prepare attention: the heads of all samples follow each other as heads of one."""
    query, key, value, mask = shapes
    assert query is not None
    assert key is not None
    assert value is not None
    result = (*query[:-1], value[-1])
    if not math.prod(query) or not math.prod(key) or not math.prod(value):
        return None
    heads, groups = math.prod(query[:-2]), math.prod(key[:-2])
    (queries, width), (keys, values) = query[-2:], value[-2:]
    size = attention.scratch_size(lanes, queries, keys, width, values)
    draft = Draft(shapes, 1, 4, lanes)
    out = draft.room(math.prod(result))
    starts, row, column = _strides(mask, (*query[:-1], keys))
    draft.call(
        attention.attend,
        *(*draft.inputs, out, draft.scratch(size), size, heads, heads // groups),
        *(queries, keys, width, values, 0, queries * width, width, 0, keys * width, width),
        *(0, keys * values, values, draft.emitter.keep(starts), row, column),
        *(0, queries * values, values, int(attributes["causal"])),
        attributes["scale"] or 1 / math.sqrt(width),
        items=heads,
        flops=heads * queries * keys * (width + values),
    )
    return draft.finish(out, result)


def _strides(mask: Shape | None, scores: Shape) -> tuple[Any, int, int]:
    """Return where each head's part of a mask begins, and its strides of queries and keys."""
    if mask is None:
        return np.zeros(1, np.int64), 0, 0
    full = (1,) * (len(scores) - len(mask)) + mask
    places = np.arange(math.prod(full), dtype=np.int64).reshape(full)
    starts = np.broadcast_to(places[..., 0, 0], scores[:-2])
    row = full[-1] if full[-2] > 1 else 0
    return np.ascontiguousarray(starts.reshape(-1)), row, int(full[-1] > 1)
