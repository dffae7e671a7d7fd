"""How much memory operations need while they compute, beside their inputs and their result.

The machine's limit counts it before a call, so that no program makes the host take more than it was
given. Most operations need no more than a few arrays of their result's size, some much less; the
table below names these and those that need more: the scores of an attention, the patches of a
convolution, the gates of a recurrence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbol_core.ml.ops import Op
from llmbol_core.ml.tensor import Shape

Shapes = Sequence[Shape | None]
Rule = Callable[[Shape, Shapes, Mapping[str, Any]], int]


def scratch_bytes(row: Op, output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Return an upper bound of the bytes that an operation needs meanwhile."""
    if row.is_view:
        return 0
    rule = _RULES.get(row.name, _several)
    return rule(output, shapes, attributes)


def _size(shape: Shape | None) -> int:
    return 0 if shape is None else math.prod(shape)


def _several(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Return the room for three more arrays as large as the result or the first input."""
    return 12 * max(_size(output), _size(shapes[0] if shapes else None))


def _little(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Return the room for a part of a row here, a flag for each number there."""
    return 2 * max(_size(output), _size(shapes[0] if shapes else None))


def _polynomial(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Return the room for terms in float64."""
    return 56 * _size(output)


def _scores(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Scores [..., heads, queries, keys] and what masks them; copies of key and value."""
    query, key, value = shapes[:3]
    assert query is not None
    assert key is not None
    scores = _size(query[:-1]) * key[-2]
    return 16 * scores + 8 * (_size(query) + _size(key) + _size(value) + _size(output))


def _patches(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Patches of the input, some at a time; another order of input and output."""
    x, weight = shapes[:2]
    assert weight is not None
    patch = _size(weight[1:])
    windows = output[0] * math.prod(output[2:])
    rows = min(windows * patch, max(_PATCHES, patch)) + 64 * patch
    return 8 * rows + 8 * (_size(x) + _size(output) + _size(weight))


def _spread(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Kernels for a sample at least, one for each position of the input."""
    x, weight = shapes[:2]
    assert x is not None
    assert weight is not None
    kernels = math.prod(x[2:]) * _size(weight[1:])
    rows = min(x[0] * kernels, max(_PATCHES, kernels))
    return 8 * rows + 8 * (_size(x) + _size(output) + _size(weight))


def _gates(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Gates of each step, and what a step keeps."""
    x, weight = shapes[:2]
    assert x is not None
    assert weight is not None
    return 24 * _size(x[:2]) * weight[0] + 16 * (_size(x) + _size(output))


def _product(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Rows in tiles; of a weight in blocks some rows at a time."""
    sizes = list(map(_size, shapes))
    largest = max(sizes)
    return 16 * (min(_PART, largest) + _size(output)) + 8 * (sum(sizes) - largest)


def _resized(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """One axis after the other gets its size, so that results on the way may be larger."""
    x = shapes[0]
    assert x is not None
    return 24 * math.prod(max(pair) for pair in zip(x, output, strict=True))


def _chosen(output: Shape, shapes: Shapes, attributes: Mapping[str, Any]) -> int:
    """Two copies of the input, counts and flags; places of the result in int64, and their order."""
    return 20 * _size(shapes[0]) + 64 * _size(output)


_PART, _PATCHES = 1 << 20, 1 << 22
"""Numbers that the definitions of products and of convolutions work on at a time."""

# fmt: off
_LITTLE = (
    "neg", "abs", "sign", "floor", "ceil", "round", "square", "sqrt", "reciprocal", "exp",
    "log", "sin", "cos", "tanh", "sigmoid", "relu", "relu6", "silu", "hard_sigmoid",
    "hard_swish", "leaky_relu", "clamp", "scale", "add", "sub", "mul", "div", "power",
    "maximum", "minimum", "equal", "less", "less_equal", "greater", "greater_equal",
    "softmax", "batch_norm", "rms_norm", "l2_norm", "pad_reflect", "pad_replicate",
    "pad_circular", "avg_pool1d", "avg_pool2d", "get_rows", "sum", "max", "min", "cumsum",
    "concat", "pad", "repeat", "to_numbers",
)
_RULES: dict[str, Rule] = dict.fromkeys(_LITTLE, _little) | {
    "gelu":              _polynomial,
    "erf":               _polynomial,
    "attention":         _scores,
    "conv1d":            _patches,
    "conv2d":            _patches,
    "conv_transpose1d":  _spread,
    "conv_transpose2d":  _spread,
    "lstm":              _gates,
    "gru":               _gates,
    "rnn_tanh":          _gates,
    "rnn_relu":          _gates,
    "top_k":             _chosen,
    "linear":            _product,
    "mul_mat":           _product,
    "matmul":            _product,
    "upsample_nearest":  _resized,
    "upsample_linear":   _resized,
    "adaptive_avg_pool": _resized,
    "adaptive_max_pool": _resized,
}
# fmt: on
