"""Blocks encoded, decoded and compared by kernels, where there are kernels for a storage type.

Each function returns whether it did the work; ``codecs`` does it otherwise, with the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.kquants import K_TYPES

Array = NDArray[Any]

_CHUNK = 1024
"""Blocks that a thread converts at a time."""
_LEAST = 64
"""Weights below which NumPy is as fast as finding a kernel for the first time."""


def encode_blocks(name: str, x: Array, blocks: Array) -> int | None:
    """Fill blocks from float32 numbers; return how many hold numbers that are not finite.

    None if there is no kernel.
    """
    if x.size < _LEAST or target() is None:
        return None
    from llmbol_core.ml.kernels.blocks import ENCODERS

    if name not in ENCODERS:
        return None
    bad = np.zeros(1, np.int64)
    ENCODERS[name].run(blocks.size, x, blocks, bad, chunk=_CHUNK)
    return int(bad[0])


def decode_blocks(name: str, blocks: Array, x: Array) -> bool:
    """Fill float32 numbers from contiguous blocks, or from float16 or bfloat16 numbers."""
    if x.size < _LEAST or target() is None:
        return False
    from llmbol_core.ml.kernels.blocks import DECODERS, WIDENERS

    if name in WIDENERS:
        WIDENERS[name].run(-(-x.size // 16), blocks, x, x.size, chunk=2 * _CHUNK)
        return True
    if name in DECODERS:
        DECODERS[name].run(blocks.size, blocks, x, chunk=_CHUNK)
        return True
    if name not in K_TYPES:
        return False
    from llmbol_core.ml.kernels.superblocks import SUPER_DECODERS

    SUPER_DECODERS[name].run(blocks.size, blocks, x, chunk=_CHUNK // 8)
    return True


def compare_blocks(name: str, x: Array, blocks: Array) -> tuple[float, float, float] | None:
    """Return the sums of squared errors and of squares, and the largest error."""
    if x.size < _LEAST or target() is None:
        return None
    from llmbol_core.ml.kernels.blocks import ERROR_BLOCKS, ERRORS

    if name not in ERRORS:
        return None
    items = -(-blocks.size // ERROR_BLOCKS)
    sums = np.zeros((items, 3))
    ERRORS[name].run(items, x, blocks, sums, blocks.size, chunk=1)
    noise, signal = sums[:, 0].sum(), sums[:, 1].sum()
    return float(noise), float(signal), float(sums[:, 2].max(initial=0))
