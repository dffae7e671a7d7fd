"""Weights in the order in which register tiles read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.tiles import AHEAD

Array = NDArray[Any]


def aligned(count: int) -> Array:
    """Return zeros that begin with a cache line."""
    room = np.zeros(count + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + count]


def packed(weight: Array, lanes: int) -> Array:
    """Return [columns, depth] as panels of two vectors, then of one for the columns left.

    Behind them is room that may be asked for ahead of time.
    """
    columns, depth = weight.shape
    wide = columns // (2 * lanes)
    narrow = -(-(columns - wide * 2 * lanes) // lanes)
    result = aligned((2 * wide + narrow) * lanes * depth + AHEAD)
    split = wide * 2 * lanes
    if wide:
        panels = result[: split * depth].reshape(wide, depth, 2 * lanes)
        panels[...] = weight[:split].reshape(wide, 2 * lanes, depth).transpose(0, 2, 1)
    for number in range(narrow):
        start = split + number * lanes
        part = weight[start : start + lanes]
        panel = result[start * depth : (start + lanes) * depth].reshape(depth, lanes)
        panel[:, : len(part)] = part.T
    return result


def padded(bias: Array | None, columns: int, lanes: int) -> Array:
    """Return a bias, or zeros, filled up to whole vectors."""
    result = aligned(-(-columns // (2 * lanes)) * 2 * lanes)
    if bias is not None:
        result[:columns] = bias
    return result
