"""Blocks encoded, decoded and compared by kernels, for storage types that have them.

Each function returns whether it did the work; ``codecs`` does it otherwise, with the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.kquants import BLOCK, ENCODERS, K_TYPES

Array = NDArray[Any]

_CHUNK = 1024
"""Blocks that a thread converts at a time."""
_SMALL = 32
"""Weights of a block that is not a super-block."""
_LEAST = 64
"""Weights below which NumPy is as fast as finding a kernel for the first time."""


def encode_blocks(name: str, x: Array, blocks: Array) -> int | None:
    """Fill blocks from float32 numbers; return how many hold numbers that are not finite.

    None if there is no kernel.
    """
    if x.size < _LEAST or target() is None:
        return None
    from llmbol_core.ml.kernels.blocks import ENCODERS as BLOCK_ENCODERS

    if name in K_TYPES:
        return _encode_super_blocks(name, x, blocks)
    if name not in BLOCK_ENCODERS:
        return None
    bad = np.zeros(1, np.int64)
    BLOCK_ENCODERS[name].run(blocks.size, x, blocks, bad, chunk=_CHUNK)
    return int(bad[0])


def _encode_super_blocks(name: str, x: Array, blocks: Array) -> int | None:
    """Fill super-blocks; those of strange numbers by definition."""
    from llmbol_core.ml.kernels.encoders_k import BLOCKS, SUPER_ENCODERS

    if name not in SUPER_ENCODERS:
        return None
    items = -(-blocks.size // BLOCKS[name])
    strange = np.zeros(items, np.uint8)
    SUPER_ENCODERS[name].run(items, x, blocks, strange, blocks.size, chunk=_CHUNK // 64)
    rows, flat = x.reshape(-1, BLOCK), blocks.reshape(-1)
    again = np.repeat(strange, BLOCKS[name])[: blocks.size].nonzero()[0]
    if not np.isfinite(rows[again]).all():
        return 1
    for start in range(0, len(again), _CHUNK):
        some = again[start : start + _CHUNK]
        flat[some] = ENCODERS[name](name, rows[some])
    return 0


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
    from llmbol_core.ml.kernels.blocks import ERROR_BLOCKS, ERRORS, WIDENERS

    if name in ERRORS:
        items = -(-blocks.size // ERROR_BLOCKS)
        sums = np.zeros((items, 3))
        ERRORS[name].run(items, x, blocks, sums, blocks.size, chunk=1)
    elif name in K_TYPES or (name in WIDENERS and not x.size % _SMALL):
        sums = _compare_decoded(name, x.reshape(-1), blocks.reshape(-1))
    else:
        return None
    noise, signal = sums[:, 0].sum(), sums[:, 1].sum()
    return float(noise), float(signal), float(sums[:, 2].max(initial=0))


def _compare_decoded(name: str, x: Array, blocks: Array) -> Array:
    """Return sums for parts that are decoded one after the other."""
    from llmbol_core.ml.kernels.blocks import ERROR_BLOCKS, FLOAT_ERRORS

    step = ERROR_BLOCKS * _SMALL
    weights = x.size // blocks.size
    room, sums = np.empty(step, np.float32), np.zeros((-(-x.size // step), 3))
    for item, start in enumerate(range(0, x.size, step)):
        part, stop = x[start : start + step], min(start + step, x.size)
        decode_blocks(name, blocks[start // weights : stop // weights], room[: len(part)])
        FLOAT_ERRORS.run(1, part, room, sums[item], len(part) // _SMALL)
    return sums
