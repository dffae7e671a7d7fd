"""Attention by itself, masks included.

The number of keys grows from call to call where keys are cached: what is prepared serves up to a
power of two of them.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import attention
from llmbol_core.ml.single.draft import Draft, Shape, Shapes, Single

Array = NDArray[Any]


def attend(name: str, shapes: Shapes, attributes: dict[str, Any], lanes: int) -> _Sized | None:
    """Prepare attention: the heads of all samples follow each other as heads of one."""
    query, key, value, mask = shapes
    assert query is not None
    assert key is not None
    assert value is not None
    if not math.prod(query) or not math.prod(key) or not math.prod(value):
        return None
    keys = key[-2]
    most = 1 << (keys - 1).bit_length()
    scale = attributes["scale"] or 1 / math.sqrt(query[-1])
    # Of masks the places of heads depend on the number of keys.
    masked = () if mask is None else (keys, mask)
    form = (query, key[:-2], value[-1], attributes["causal"], scale, lanes, most, *masked)
    pool = _pools.get(form)
    if pool is None:
        pool = _pools[form] = _Pool(form)
    return _Sized(pool, keys, mask)


class _Pool:
    """What is prepared for up to so many keys and is not in use."""

    def __init__(self, form: tuple[Any, ...]) -> None:
        self.form = form
        self.free: list[tuple[Single, Array]] = []

    def make(self, keys: int, mask: Shape | None) -> tuple[Single, Array]:
        """Prepare another one; its array takes the number of keys, and strides of heads."""
        query, front, values, causal, scale, lanes, most = self.form[:7]
        heads, groups = math.prod(query[:-2]), math.prod(front)
        queries, width = query[-2:]
        size = attention.scratch_size(lanes, queries, most, width, values)
        shapes = (query, (*front, most, width), (*front, most, values), mask)
        draft = Draft(shapes, 1, 4, lanes)
        out, extent = draft.room(queries * heads * values), np.zeros(3, np.int64)
        starts, row, column = _strides(mask, (*query[:-1], keys))
        draft.call(
            attention.attend,
            *(*draft.inputs, out, draft.scratch(size), size, heads, heads // groups),
            *(queries, draft.emitter.keep(extent), width, values, 0, queries * width, width),
            *(0, width, 0, values, draft.emitter.keep(starts), row, column, 0, queries * values),
            *(values, int(causal), scale),
            items=heads,
            flops=heads * queries * most * (width + values),
        )
        return draft.finish(out, (*query[:-1], values)), extent


_pools: weakref.WeakValueDictionary[tuple[Any, ...], _Pool] = weakref.WeakValueDictionary()


class _Sized:
    """Attention with so many keys."""

    def __init__(self, pool: _Pool, keys: int, mask: Shape | None) -> None:
        query, _, values = pool.form[:3]
        self._pool, self._keys, self._mask = pool, keys, mask
        self._extent = keys, keys * query[-1], keys * values
        if not pool.free:
            pool.free.append(pool.make(keys, mask))
        self.bytes: int = pool.free[0][0].bytes
        """What buffers and tables take, those of other numbers of keys included."""

    def run(self, inputs: Sequence[Array | None], out: Array | None = None) -> Array:
        """Return the result for arrays of float32 in rows, with None for those left out."""
        free = self._pool.free
        try:
            single, extent = free.pop()
        except IndexError:
            single, extent = self._pool.make(self._keys, self._mask)
        extent[:] = self._extent
        made = single.run(inputs, out)
        free.append((single, extent))
        return made


def _strides(mask: Shape | None, scores: Shape) -> tuple[Any, int, int]:
    """Return where each head's part of a mask begins, and its strides of queries and keys."""
    if mask is None:
        return np.zeros(1, np.int64), 0, 0
    full = (1,) * (len(scores) - len(mask)) + mask
    places = np.arange(math.prod(full), dtype=np.int64).reshape(full)
    starts = np.broadcast_to(places[..., 0, 0], scores[:-2])
    row = full[-1] if full[-2] > 1 else 0
    return np.ascontiguousarray(starts.reshape(-1)), row, int(full[-1] > 1)
