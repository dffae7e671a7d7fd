"""Recurrent networks: one layer in one direction over a whole sequence.

Weights and gates are in PyTorch's order: ``weight_ih`` [gates * H, I] and ``weight_hh``
[gates * H, H], each with a bias of its own; an LSTM's gates are input, forget, cell, output, a
GRU's reset, update, new. The state starts at zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbol_core.errors import ShapeError
from llmbol_core.ml.ops.table import Array, Shape, flat_rows, op, sample
from llmbol_core.ml.ops.tiles import product

Kept = tuple[Array, ...]


@dataclass(frozen=True)
class _Cell:
    """What a kind of network does at one time step; arrays are [N, gates * H] and [N, H]."""

    gates: int
    step: Callable[[Array, Array, Array, Array], tuple[Array, Array, Kept]]
    """From both projections, state and carry to state, carry and what ``back`` needs."""
    back: Callable[[Kept, Array, Array], tuple[Array, Array, Array, Array]]
    """From that and the gradients of state and carry to those of all four."""


def _sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


def _lstm_step(px: Array, ph: Array, h: Array, c: Array) -> tuple[Array, Array, Kept]:
    i, f, g, o = np.split(px + ph, 4, axis=1)
    i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
    now = f * c + i * g
    squashed = np.tanh(now)
    return o * squashed, now, (i, f, g, o, c, squashed)


def _lstm_back(kept: Kept, dh: Array, dc: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o, c, squashed = kept
    dc = dc + dh * o * (1 - squashed * squashed)
    da = np.concatenate(
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g * g),
            dh * squashed * o * (1 - o),
        ],
        axis=1,
    )
    return da, da, np.zeros_like(dh), dc * f


def _gru_step(px: Array, ph: Array, h: Array, c: Array) -> tuple[Array, Array, Kept]:
    xr, xz, xn = np.split(px, 3, axis=1)
    hr, hz, hn = np.split(ph, 3, axis=1)
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h, c, (r, z, n, hn, h)


def _gru_back(kept: Kept, dh: Array, dc: Array) -> tuple[Array, Array, Array, Array]:
    r, z, n, hn, h = kept
    dn = dh * (1 - z) * (1 - n * n)
    dr = dn * hn * r * (1 - r)
    dz = dh * (h - n) * z * (1 - z)
    return np.concatenate([dr, dz, dn], 1), np.concatenate([dr, dz, dn * r], 1), dh * z, dc


def _tanh_step(px: Array, ph: Array, h: Array, c: Array) -> tuple[Array, Array, Kept]:
    y = np.tanh(px + ph)
    return y, c, (y,)


def _tanh_back(kept: Kept, dh: Array, dc: Array) -> tuple[Array, Array, Array, Array]:
    da = dh * (1 - kept[0] * kept[0])
    return da, da, np.zeros_like(dh), dc


def _relu_step(px: Array, ph: Array, h: Array, c: Array) -> tuple[Array, Array, Kept]:
    y: Array = np.maximum(px + ph, 0)
    return y, c, (y,)


def _relu_back(kept: Kept, dh: Array, dc: Array) -> tuple[Array, Array, Array, Array]:
    da = dh * (kept[0] > 0)
    return da, da, np.zeros_like(dh), dc


_LSTM = _Cell(4, _lstm_step, _lstm_back)
_GRU = _Cell(3, _gru_step, _gru_back)
_TANH = _Cell(1, _tanh_step, _tanh_back)
_RELU = _Cell(1, _relu_step, _relu_back)


def _projected(x: Array, weight: Array, bias: Array | None) -> Array:
    """Return rows times a weight, each row by itself, plus the bias."""
    y = product(x, weight.T)
    return y if bias is None else y + bias


def _scan(
    cell: _Cell, x: Array, weights: tuple[Array | None, ...], reverse: bool
) -> tuple[Array, list[Kept]]:
    """Return the states [N, T, H] and, for each step in the order taken, what ``back`` needs."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    assert weight_ih is not None
    assert weight_hh is not None
    count, steps, size = len(x), x.shape[1], weight_hh.shape[1]
    px = _projected(x.reshape(count * steps, x.shape[2]), weight_ih, bias_ih)
    px = px.reshape(count, steps, len(weight_ih))
    states = np.empty((count, steps, size), x.dtype)
    h = c = np.zeros((count, size), x.dtype)
    kept = []
    for t in _order(steps, reverse):
        h, c, needed = cell.step(px[:, t], _projected(h, weight_hh, bias_hh), h, c)
        states[:, t] = h
        kept.append(needed)
    return states, kept


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _gradient(
    cell: _Cell, g: Array, x: Array, weights: tuple[Array | None, ...], reverse: bool
) -> tuple[Array | None, ...]:
    """Go through the steps again, then back (back-propagation through time)."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    assert weight_ih is not None
    assert weight_hh is not None
    states, kept = _scan(cell, x, weights, reverse)
    order = _order(x.shape[1], reverse)
    along_px = np.empty((*x.shape[:2], len(weight_ih)), x.dtype)
    along_ph = np.empty_like(along_px)
    dh = dc = np.zeros_like(states[:, :1].sum(axis=1))
    for t, needed in zip(order[::-1], kept[::-1], strict=True):
        along_px[:, t], along_ph[:, t], rest, dc = cell.back(needed, dh + g[:, t], dc)
        dh = rest + along_ph[:, t] @ weight_hh
    before = np.zeros_like(states)
    if reverse:
        before[:, :-1] = states[:, 1:]
    else:
        before[:, 1:] = states[:, :-1]
    rows_px, rows_ph = flat_rows(along_px), flat_rows(along_ph)
    return (
        along_px @ weight_ih,
        rows_px.T @ flat_rows(x),
        rows_ph.T @ flat_rows(before),
        None if bias_ih is None else rows_px.sum(axis=0),
        None if bias_hh is None else rows_ph.sum(axis=0),
    )


def _shape_rule(name: str, gates: int) -> Callable[..., Shape]:
    def rule(
        x: Shape,
        weight_ih: Shape,
        weight_hh: Shape,
        bias_ih: Shape | None = None,
        bias_hh: Shape | None = None,
        **attributes: Any,
    ) -> Shape:
        if len(x) != 3 or len(weight_ih) != 2 or len(weight_hh) != 2:
            raise ShapeError(name, f"expected [N, T, I] and two matrices, got {x}")
        rows = gates * weight_hh[1]
        if weight_ih != (rows, x[2]) or weight_hh[0] != rows:
            why = f"the weights {weight_ih} and {weight_hh} do not fit {x} and {gates} gates"
            raise ShapeError(name, why)
        if any(bias is not None and bias != (rows,) for bias in (bias_ih, bias_hh)):
            raise ShapeError(name, f"the biases are {bias_ih} and {bias_hh}, not {(rows,)}")
        return (*x[:2], weight_hh[1])

    return rule


def _flops(
    output: Shape, x: Shape, weight_ih: Shape, weight_hh: Shape, *rest: Any, **a: Any
) -> int:
    steps = math.prod(x[:2])
    return steps * (2 * math.prod(weight_ih) + 2 * math.prod(weight_hh) + 12 * weight_ih[0])


def _example(gates: int, **attributes: bool) -> Any:
    rows = (3 * gates,)
    return sample((2, 4, 5), (*rows, 5), (*rows, 3), rows, rows, low=-1, high=1, **attributes)


def _back(cell: _Cell) -> Callable[..., tuple[Array | None, ...]]:
    """Return the gradient rule of a cell."""

    def gradient(
        g: Array, y: Array, x: Array, *weights: Array | None, reverse: bool
    ) -> tuple[Array | None, ...]:
        full = (*weights, *(None,) * (4 - len(weights)))
        return _gradient(cell, g, x, full, reverse)

    return gradient


@op(_shape_rule("lstm", 4), _flops, _example(4, reverse=True), _back(_LSTM))
def lstm(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Return the states [N, T, H] of a long short-term memory over [N, T, I], or from its end."""
    return _scan(_LSTM, x, (weight_ih, weight_hh, bias_ih, bias_hh), reverse)[0]


@op(_shape_rule("gru", 3), _flops, _example(3, reverse=False), _back(_GRU))
def gru(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Return the states [N, T, H] of a gated recurrent unit over [N, T, I], or from its end."""
    return _scan(_GRU, x, (weight_ih, weight_hh, bias_ih, bias_hh), reverse)[0]


@op(_shape_rule("rnn_tanh", 1), _flops, _example(1, reverse=True), _back(_TANH))
def rnn_tanh(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Return the states [N, T, H] of a plain recurrent network with tanh over [N, T, I]."""
    return _scan(_TANH, x, (weight_ih, weight_hh, bias_ih, bias_hh), reverse)[0]


@op(_shape_rule("rnn_relu", 1), _flops, _example(1, reverse=False), _back(_RELU))
def rnn_relu(
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Return the states [N, T, H] of a plain recurrent network with relu over [N, T, I]."""
    return _scan(_RELU, x, (weight_ih, weight_hh, bias_ih, bias_hh), reverse)[0]
