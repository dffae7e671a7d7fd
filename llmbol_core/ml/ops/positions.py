"""Attention and rotary positions, for prompts and, with a cache of keys and values, for tokens."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops.direct import in_rows
from llmbol_core.ml.ops.table import Array, Indices, Out, Shape, broadcast, op, sample, unbroadcast
from llmbol_core.native.threads import thread_count

# ---- rotary positions ----


def _rope_shape(
    x: Shape, positions: Shape | None = None, *, dims: int, offset: int, **attributes: Any
) -> Shape:
    if len(x) < 2 or not 0 <= dims <= x[-1] or (dims or x[-1]) % 2 or offset < 0:
        why = f"{dims or 'all'} numbers of each row of {x} make no pairs: [..., positions, width]"
        raise ShapeError("rope", f"{why}, offset {offset}" if offset < 0 else why)
    if positions is not None and positions != x[-2:-1]:
        raise ShapeError("rope", f"positions {positions} do not fit the rows of {x}")
    if attributes["base"] <= 0 or attributes["scale"] <= 0:
        raise ShapeError("rope", "base and scale are above 0")
    return x


def _rotated(x: Array, places: Array, sign: int, numbers: dict[str, Any]) -> Array:
    """Rotate pair i of each row by place * scale / base^(2i / dims), backwards for a sign of -1."""
    dims, neighbours = numbers["dims"] or x.shape[-1], numbers["neighbours"]
    known = places.astype(np.float64).tobytes(), dims, sign, numbers["base"], numbers["scale"]
    factors = _factors(*known, neighbours, x.dtype.char)
    if x.dtype == np.float32 and x.size and target() is not None:
        return _rotated_by_kernel(in_rows(x), factors, neighbours)
    own, other = factors.swapaxes(0, 1)
    partners = np.arange(dims) ^ 1 if neighbours else np.roll(np.arange(dims), dims // 2)
    y, part = x.copy(), x[..., :dims]
    y[..., :dims] = part * own + part[..., partners] * other
    return y


def _rotated_by_kernel(x: Array, factors: Array, neighbours: bool) -> Array:
    from llmbol_core.ml.kernels import rotary

    y, items = np.empty_like(x), x.size // x.shape[-1]
    kernel = rotary.rotate_neighbours if neighbours else rotary.rotate_halves
    chunk = -(-items // (2 * thread_count())) if x.size >= _MUCH else 0
    sizes = x.shape[-1], factors.shape[2], factors.shape[0]
    kernel.run(items, x, y, factors, *sizes, chunk=chunk)
    return y


_MUCH = 1 << 16
"""How many numbers there must be for threads to share them."""


@functools.lru_cache(maxsize=8)
def _factors(
    places: bytes, dims: int, sign: int, base: float, scale: float, neighbours: bool, kind: str
) -> Array:
    """Return the factors of each number and of its partner: [positions, 2, dims]."""
    rates = scale * base ** (np.arange(0, dims, 2) / -max(dims, 1))
    angles = np.frombuffer(places)[:, None] * rates
    cos, sin = np.cos(angles), sign * np.sin(angles)
    axis = 2 if neighbours else 1  # the numbers of a pair follow each other, or all first ones do
    pairs = [np.stack(both, axis) for both in ((cos, cos), (-sin, sin))]
    return np.stack(pairs, 1).reshape(len(angles), 2, dims).astype(kind)


def _places(x: Array, positions: Indices | None, offset: int) -> Array:
    return np.arange(x.shape[-2]) + offset if positions is None else positions + offset


def _rope_gradient(
    g: Array, y: Array, x: Array, positions: Indices | None = None, **numbers: Any
) -> tuple[Array, None]:
    return _rotated(g, _places(x, positions, numbers["offset"]), -1, numbers), None


def _rope_example(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (*sample((2, 3, 4, 8))(rng)[0], np.array([0, 7, 2, 900])), {"dims": 6, "base": 500.0}


@op(_rope_shape, lambda output, *shapes, **a: 3 * math.prod(output), _rope_example, _rope_gradient)
def rope(
    x: Array,
    positions: Indices | None = None,
    dims: int = 0,
    base: float = 10000.0,
    scale: float = 1.0,
    neighbours: bool = True,
    offset: int = 0,
) -> Array:
    """Rotate pairs of numbers of each row by its position: [..., positions, width].

    Pairs are neighbours (2i, 2i + 1) as in llama, or lie half of the width apart as in GPT-NeoX.
    Only the first ``dims`` numbers are rotated, all with 0. Without positions the rows count from
    0; ``offset`` is added in any case.
    """
    numbers = {"dims": dims, "base": base, "scale": scale, "neighbours": neighbours}
    return _rotated(x, _places(x, positions, offset), 1, numbers)


# ---- attention ----


def _attention_shape(
    query: Shape,
    key: Shape,
    value: Shape,
    mask: Shape | None = None,
    *,
    scale: float,
    causal: bool,
) -> Shape:
    if min(map(len, (query, key, value))) < 2 or query[-1] != key[-1] or key[:-1] != value[:-1]:
        raise ShapeError("attention", f"{query}, {key} and {value} do not fit: [..., rows, width]")
    if len(query) != len(key) or query[:-3] != key[:-3] or not key[-2]:
        raise ShapeError("attention", f"query {query} and key {key} are not of the same batch")
    heads, groups = (*query[-3:-2], 1)[0], (*key[-3:-2], 1)[0]
    if heads != groups and (not groups or heads % groups):
        raise ShapeError("attention", f"{heads} heads cannot share {groups} of key and value")
    if causal and query[-2] > key[-2]:
        raise ShapeError("attention", f"{query[-2]} queries cannot be the last of {key[-2]} keys")
    scores = (*query[:-1], key[-2])
    if mask is not None and broadcast(scores, mask) != scores:
        raise ShapeError("attention", f"the mask {mask} does not fit the scores {scores}")
    return (*query[:-1], value[-1])


def _attention_flops(
    output: Shape, query: Shape, key: Shape, value: Shape, mask: Shape | None = None, **a: Any
) -> int:
    return math.prod(query[:-1]) * key[-2] * (2 * query[-1] + 2 * value[-1] + 12)


def _groups(key: Array) -> int:
    return key.shape[-3] if key.ndim > 2 else 1


def _weights(query: Array, key: Array, mask: Array | None, scale: float, causal: bool) -> Array:
    """Return how much each query takes of each value: [..., heads, queries, keys]."""
    rows, columns = query.shape[-2], key.shape[-2]
    merged = _merged(query, _groups(key))
    scores: Array = np.matmul(merged, np.ascontiguousarray(key.swapaxes(-1, -2)))
    scores = scores.reshape(*query.shape[:-1], columns)
    scores *= scores.dtype.type(_factor(query, scale))
    if mask is not None:
        scores += mask
    if causal:
        scores[..., ~np.tri(rows, columns, columns - rows, dtype=bool)] = -np.inf
    greatest = scores.max(axis=-1, keepdims=True)
    # A row that may look at nothing gives zeros, not NaN.
    scores -= np.where(greatest == -np.inf, 0, greatest)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, 1, total)
    return scores


def _merged(x: Array, groups: int) -> Array:
    """Return [..., heads, rows, width] with the heads that share a key following as more rows."""
    heads = x.shape[-3] if x.ndim > 2 else 1
    rows = heads // max(groups, 1) * x.shape[-2]
    shape = (*x.shape[:-3], groups, rows, x.shape[-1]) if x.ndim > 2 else x.shape
    return np.ascontiguousarray(x).reshape(shape)


def _factor(query: Array, scale: float) -> float:
    return scale or 1 / math.sqrt(max(query.shape[-1], 1))


def _attention_gradient(
    g: Array,
    y: Array,
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    *,
    scale: float,
    causal: bool,
) -> tuple[Array | None, ...]:
    groups = _groups(key)
    weights = _weights(query, key, mask, scale, causal)
    rows, shares = _merged(g, groups), _merged(weights, groups)
    along_value = shares.swapaxes(-1, -2) @ rows
    spread = (rows @ value.swapaxes(-1, -2)).reshape(weights.shape)
    scores = weights * (spread - (spread * weights).sum(axis=-1, keepdims=True))
    merged = _merged(scores, groups) * _factor(query, scale)
    along_query = (merged @ key).reshape(query.shape)
    along_key = merged.swapaxes(-1, -2) @ _merged(query, groups)
    along_mask = None if mask is None else unbroadcast(scores, mask.shape)
    return along_query, along_key, along_value, along_mask


_EXAMPLE = sample((2, 4, 3, 6), (2, 2, 5, 6), (2, 2, 5, 7), (3, 5), causal=True)


@op(_attention_shape, _attention_flops, _EXAMPLE, _attention_gradient)
def attention(
    query: Array,
    key: Array,
    value: Array,
    mask: Array | None = None,
    scale: float = 0.0,
    causal: bool = False,
    out: Out = None,
) -> Array:
    """Mix values by softmax(scale query key^T + mask): [..., heads, positions, width].

    A scale of 0 stands for 1 / sqrt(width). Several heads of the query may share one of key and
    value, whose number divides theirs. The queries are the last of the positions that the keys
    have, so that causal attention works with a cache of earlier keys and values.
    """
    weights = _merged(_weights(query, key, mask, scale, causal), _groups(key))
    place = None if out is None else _merged(out, _groups(key))
    mixed: Array = np.matmul(weights, np.ascontiguousarray(value), out=place)
    return mixed.reshape(*query.shape[:-1], value.shape[-1])
