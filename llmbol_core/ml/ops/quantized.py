"""Products with quantized weights as ggml's CPU code computes them.

The activations are quantized to 8 bits, 32 at a time or 256 for the K types, the integers of two
blocks are multiplied and summed exactly, and the sums are scaled and added up in float32, block
after block. A layer's matrix of few rows is no such case: its weights are expanded.
"""

from __future__ import annotations

import numpy as np

from llmbol_core.ml import kquants
from llmbol_core.ml.codecs import UNPACKABLE, decode, encode_activations, unpack
from llmbol_core.ml.ops.table import Array, Out
from llmbol_core.ml.ops.tiles import product
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor

FEW_ROWS = 16
"""Up to so many rows of weights, to quantize a row of activations takes longer than the product."""
_PART = 1 << 20
"""How many weights are unpacked at a time."""


def multiplied(weight: Tensor) -> Tensor | Array:
    """Return a matrix as ``linear`` multiplies with it: in blocks, or if it is small as float32."""
    if weight.shape[0] > FEW_ROWS or not weight.dtype.is_blocked:
        return weight
    if weight.expanded is None:
        weight.expanded = np.asarray(dequantize(weight), order="C")
    expanded: Array = weight.expanded
    return expanded


def quantized_product(
    x: Array, weight: Tensor, out: Out = None, bias: Array | None = None
) -> Array:
    """Return [M, K] times the transpose of quantized [N, K], plus a bias [N].

    Rows do not depend on each other. Types without a product of integers (F16, BF16) are expanded
    and multiplied in float32. Where there are kernels for a type, they do the work.
    """
    from llmbol_core.ml.packed import packed_weights

    output = np.empty((len(x), weight.shape[0]), np.float32) if out is None else out
    x = np.ascontiguousarray(x, np.float32)
    packed = packed_weights(weight)
    if packed is not None:
        bias = None if bias is None else np.ascontiguousarray(bias, np.float32)
        return packed.product(x, output, bias)
    return product_by_definition(x, weight, output, bias)


def product_by_definition(x: Array, weight: Tensor, output: Array, bias: Array | None) -> Array:
    """Compute a product with NumPy: what kernels are held to."""
    step = max(1, _PART // max(1, weight.shape[1]))
    multiply = _by_floats
    if weight.dtype.name in UNPACKABLE:
        multiply = _by_blocks
    elif weight.dtype.name in kquants.K_TYPES:
        multiply = _by_super_blocks
    output[...] = 0
    for start in range(0, weight.shape[0], step) if x.size else ():
        output[:, start : start + step] = multiply(x, weight[start : start + step])
    if bias is not None:
        output += bias
    return output


def _by_blocks(x: Array, weight: Tensor) -> Array:
    """Sum exact dot products of integer blocks, scaled, in the order of the blocks.

    The integers are multiplied as float32, which holds them exactly: 32 * 128 * 127 < 2^24.
    """
    rows, blocks = weight.data.shape
    q, d, m = unpack(weight.dtype.name, weight.data.reshape(-1))
    q, d = q.reshape(rows, blocks, 32), d.reshape(rows, blocks)
    activations = encode_activations(x.reshape(-1, 32), with_sums=m is not None)
    levels = activations["qs"].reshape(len(x), blocks, 32).astype(np.float32)
    scales = activations["d"].astype(np.float32).reshape(len(x), blocks)
    total = np.zeros((len(x), rows), np.float32)
    for block in range(blocks):
        dots = levels[:, block] @ q[:, block].astype(np.float32).T
        dots *= scales[:, block, None] * d[:, block]
        if m is not None:
            sums = activations["s"].astype(np.float32).reshape(len(x), blocks)
            dots += sums[:, block, None] * m.reshape(rows, blocks)[:, block]
        total += dots
    return total


def _by_super_blocks(x: Array, weight: Tensor) -> Array:
    """Sum exact dot products of super-blocks: the scales of their parts are integers as well.

    Those sums pass 2^24, so they are made in float64.
    """
    rows, blocks = weight.data.shape
    scale, q, low = kquants.unpack(weight.dtype.name, weight.data.reshape(-1))
    levels = (q * scale[:, :, None].astype(np.int16)).reshape(rows, blocks, kquants.BLOCK)
    activations = kquants.encode_activations(x.reshape(-1, kquants.BLOCK)).reshape(len(x), blocks)
    total = np.zeros((len(x), rows), np.float32)
    for block in range(blocks):
        column, given = weight.data[:, block], activations[:, block]
        dots = given["qs"].astype(np.float64) @ levels[:, block].astype(np.float64).T
        total += dots.astype(np.float32) * (given["d"][:, None] * column["d"].astype(np.float32))
        if low is not None:
            sums = given["bsums"].reshape(len(x), low.shape[1], -1).sum(axis=2, dtype=np.float64)
            minima = sums @ low.reshape(rows, blocks, -1)[:, block].astype(np.float64).T
            factor = given["d"][:, None] * column["dmin"].astype(np.float32)
            total -= minima.astype(np.float32) * factor
    return total


def _by_floats(x: Array, weight: Tensor) -> Array:
    """Expand the weights and multiply in float32."""
    expanded = decode(weight.dtype.name, weight.data.reshape(-1))
    return product(x, expanded.reshape(weight.shape).T)
