"""A cache of keys and values: what attention has computed for the positions so far."""

from __future__ import annotations

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import Array


class KeyValueCache:
    """Keys and values of up to ``capacity`` positions, [..., positions, width], kept in place.

    >>> cache = KeyValueCache(8)
    >>> keys, values = cache.append(np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3, 5)))
    >>> cache.append(keys[..., :1, :], values[..., :1, :])[1].shape
    (1, 2, 4, 5)
    """

    def __init__(self, capacity: int) -> None:
        """Make an empty cache; its arrays are made when the first keys tell their shape."""
        self.capacity, self.length = capacity, 0
        self._arrays: tuple[Array, Array] | None = None

    def append(self, key: Array, value: Array) -> tuple[Array, Array]:
        """Add positions and return views of all keys and all values, new ones last."""
        if self._arrays is None:
            shapes = [(*x.shape[:-2], self.capacity, x.shape[-1]) for x in (key, value)]
            self._arrays = np.empty(shapes[0], key.dtype), np.empty(shapes[1], value.dtype)
        end = self.length + key.shape[-2]
        if end > self.capacity:
            raise ShapeError("cache", f"{end} positions do not fit into {self.capacity}")
        for kept, new in zip(self._arrays, (key, value), strict=True):
            kept[..., self.length : end, :] = new
        self.length = end
        keys, values = (kept[..., :end, :] for kept in self._arrays)
        return keys, values

    def clear(self) -> None:
        """Forget all positions; the arrays stay."""
        self.length = 0
