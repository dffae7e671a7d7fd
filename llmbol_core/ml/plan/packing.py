"""Weights in the order in which register tiles read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.derived import derived, in_slabs
from llmbol_core.ml.kernels.tiles import AHEAD
from llmbol_core.native.shared import Write

Array = NDArray[Any]
Arrange = Callable[[Array], Array]
"""Makes rows of a matrix [outputs, depth] of some outputs of a weight."""


def aligned(count: int) -> Array:
    """Return zeros that begin with a cache line."""
    room = np.zeros(count + 16, np.float32)
    start = -(room.ctypes.data // 4) % 16
    return room[start : start + count]


def packed(
    weight: Array, lanes: int, how: tuple[object, ...] = (), arrange: Arrange = np.asarray
) -> Array:
    """Return [columns, depth] as panels of two vectors, then of one for the columns left.

    Behind them is room that may be asked for ahead of time. What is no matrix, or one in another
    order, is arranged first: ``how`` says in which way.
    """
    columns = len(weight)
    depth = weight.size // max(columns, 1)
    width = 2 * lanes
    kind = weight.dtype
    wide, item = columns // width, kind.itemsize * width * depth

    def write(write: Write) -> None:
        def make(first: int, room: Array) -> Array:
            panels = room.view(kind).reshape(-1, depth, width)
            part = weight[first * width : (first + len(panels)) * width]
            panels[...] = arrange(part).reshape(-1, width, depth).transpose(0, 2, 1)
            return part

        if wide and depth:
            in_slabs(wide, item, make, write)
        for start in range(wide * width, columns, lanes):
            part = arrange(weight[start : start + lanes])
            panel = np.zeros((depth, lanes), kind)
            panel[:, : len(part)] = part.T
            write(kind.itemsize * start * depth, panel.reshape(-1).view(np.uint8).data)

    size = -(-columns // lanes) * lanes * depth + AHEAD
    return derived(("panels", lanes, *how), [weight], kind.itemsize * size, write).view(kind)


def padded(bias: Array | None, columns: int, lanes: int) -> Array:
    """Return a bias, or zeros, filled up to whole vectors."""
    result = aligned(-(-columns // (2 * lanes)) * 2 * lanes)
    if bias is not None:
        result[:columns] = bias
    return result
