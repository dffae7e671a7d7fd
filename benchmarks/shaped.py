"""Rows of ``benchmarks.ml``: operations that are prepared for their shapes, beside PyTorch.

Without PyTorch their definitions in NumPy are the peers.
"""

# ruff: noqa: E501 -- the table has one row for each case

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.operations import torch
from benchmarks.rows import Row
from llmbol_core.ml import ops
from llmbol_core.ml.ops import OPS

Shape = tuple[int, ...]


def _conv(x: Shape, outputs: int, side: int, groups: int = 1) -> tuple[Shape, ...]:
    return x, (outputs, x[1] // groups, *(side,) * (len(x) - 2)), (outputs,)


def _recur(gates: int, x: Shape, size: int) -> tuple[Shape, ...]:
    rows = gates * size
    return x, (rows, x[2]), (rows, size), (rows,), (rows,)


def _attend(batch: int, heads: int, queries: int, keys: int, width: int) -> tuple[Shape, ...]:
    cached = (batch, heads, keys, width)
    return (batch, heads, queries, width), cached, cached


def _norm(*x: int) -> tuple[Shape, ...]:
    return x, *[x[1:2]] * 4


# fmt: off
_TABLE: tuple[tuple[str, tuple[Shape, ...], dict[str, Any], str], ...] = (
    # operation           shapes                                 attributes                          PyTorch
    ("conv2d",            _conv((8, 3, 32, 32), 16, 3),          {"padding": (1, 1)},                "F.conv2d(x, y, z, padding=1)"),
    ("conv2d",            _conv((1, 64, 56, 56), 64, 3),         {"padding": (1, 1)},                "F.conv2d(x, y, z, padding=1)"),
    ("conv2d",            _conv((1, 64, 56, 56), 128, 3),        {"padding": (1, 1), "stride": (2, 2)}, "F.conv2d(x, y, z, padding=1, stride=2)"),
    ("conv2d",            _conv((1, 64, 28, 28), 64, 3),         {"padding": (2, 2), "dilation": (2, 2)}, "F.conv2d(x, y, z, padding=2, dilation=2)"),
    ("conv2d",            _conv((1, 512, 7, 7), 512, 3),         {"padding": (1, 1)},                "F.conv2d(x, y, z, padding=1)"),
    ("conv2d",            _conv((64, 64, 4, 4), 64, 3),          {"padding": (1, 1)},                "F.conv2d(x, y, z, padding=1)"),
    ("conv2d",            _conv((1, 64, 56, 56), 256, 1),        {},                                 "F.conv2d(x, y, z)"),
    ("conv2d",            _conv((2, 32, 32, 32), 64, 3, 4),      {"padding": (1, 1), "groups": 4},   "F.conv2d(x, y, z, padding=1, groups=4)"),
    ("conv2d",            _conv((1, 32, 56, 56), 32, 3, 32),     {"padding": (1, 1), "groups": 32},  "F.conv2d(x, y, z, padding=1, groups=32)"),
    ("conv1d",            _conv((64, 32, 128), 64, 3),           {"padding": 1},                     "F.conv1d(x, y, z, padding=1)"),
    ("conv1d",            _conv((64, 32, 128), 32, 3, 32),       {"padding": 1, "groups": 32},       "F.conv1d(x, y, z, padding=1, groups=32)"),
    ("conv_transpose2d",  ((8, 16, 16, 16), (16, 8, 4, 4), (8,)), {"padding": (1, 1), "stride": (2, 2)}, "F.conv_transpose2d(x, y, z, padding=1, stride=2)"),
    ("lstm",              _recur(4, (64, 32, 128), 128),         {},                                 "LSTM"),
    ("lstm",              _recur(4, (1, 32, 128), 128),          {},                                 "LSTM"),
    ("gru",               _recur(3, (64, 32, 128), 128),         {},                                 "GRU"),
    ("gru",               _recur(3, (1, 32, 128), 128),          {},                                 "GRU"),
    ("rnn_tanh",          _recur(1, (64, 32, 128), 128),         {},                                 "RNN"),
    ("attention",         _attend(1, 8, 128, 128, 64),           {},                                 "F.scaled_dot_product_attention(x, y, z)"),
    ("attention",         _attend(1, 12, 512, 512, 64),          {"causal": True},                   "F.scaled_dot_product_attention(x, y, z, is_causal=True)"),
    ("attention",         _attend(1, 8, 1, 512, 64),             {},                                 "F.scaled_dot_product_attention(x, y, z)"),
    ("attention",         (*_attend(4, 8, 64, 64, 32), (64, 64)), {},                                "F.scaled_dot_product_attention(x, y, z, attn_mask=u)"),
    ("top_k",             ((128, 1000),),                        {"k": 5},                           "torch.topk(x, 5)[1]"),
    ("top_k",             ((1, 32000),),                         {"k": 40},                          "torch.topk(x, 40)[1]"),
    ("top_k",             ((64, 1000),),                         {"k": 500},                         "torch.topk(x, 500)[1]"),
    ("upsample_nearest",  ((1, 16, 56, 56),),                    {"size": (100, 100)},               "F.interpolate(x, size=(100, 100))"),
    ("upsample_linear",   ((1, 64, 28, 28),),                    {"size": (56, 56)},                 "F.interpolate(x, size=(56, 56), mode='bilinear')"),
    ("batch_norm",        _norm(32, 32),                         {},                                 "F.batch_norm(x, u, v, y, z)"),
    ("batch_norm",        _norm(1, 64, 40, 40),                  {},                                 "F.batch_norm(x, u, v, y, z)"),
    ("batch_norm",        _norm(32, 64, 56, 56),                 {},                                 "F.batch_norm(x, u, v, y, z)"),
    ("group_norm",        _norm(8, 32, 32, 32)[:3],              {"groups": 8},                      "F.group_norm(x, 8, y, z)"),
    ("log_softmax",       ((8, 16, 32, 32),),                    {},                                 "F.log_softmax(x, -1)"),
    ("max_pool2d",        ((1, 64, 56, 56),),                    {"kernel": (2, 2)},                 "F.max_pool2d(x, 2)"),
    ("avg_pool2d",        ((1, 64, 56, 56),),                    {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1)}, "F.avg_pool2d(x, 3, 2, 1)"),
    ("avg_pool2d",        ((8, 16, 32, 32),),                    {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)}, "F.avg_pool2d(x, 3, 1, 1)"),
    ("argsort",           ((64, 1000),),                         {},                                 "torch.argsort(x, stable=True)"),
    ("argsort",           ((4096, 32),),                         {"descending": True},               "torch.argsort(x, descending=True, stable=True)"),
)
# fmt: on


def _peer(text: str, arrays: list[Any]) -> Any:
    """Return a call of PyTorch: an expression, or the name of a recurrent network's class."""
    tensors = list(map(torch.from_numpy, arrays))
    if text.isidentifier():
        x, *weights = tensors
        network = getattr(torch.nn, text)(x.shape[2], weights[1].shape[1], batch_first=True)
        for parameter, weight in zip(network.parameters(), weights, strict=True):
            parameter.data.copy_(weight)
        return partial(network, x)
    names = dict(zip("xyzuv", tensors, strict=False))
    code = compile(text, "peer", "eval")
    return partial(eval, code, {"torch": torch, "F": torch.nn.functional, **names})


def shaped() -> Iterator[Row]:
    """Operations on arrays of some shapes, in billions of operations a second."""
    rng = np.random.default_rng(6)
    for name, shapes, attributes, text in _TABLE:
        arrays = [rng.uniform(0.1, 0.5, shape).astype(np.float32) for shape in shapes]
        ours = partial(getattr(ops, name), *arrays, **attributes)
        result = ours()
        peer: Any = partial(OPS[name].definition, *arrays, **attributes)
        peer = peer if torch is None else _peer(text, arrays)
        amount = OPS[name].flops(result.shape, *shapes, **OPS[name].conform(attributes))
        sizes = " ".join("x".join(map(str, shape)) for shape in shapes[:2])
        more = " ".join(f"{key} {value}" for key, value in attributes.items()).replace(", ", ",")
        label = "NumPy" if torch is None else "PyTorch"
        yield Row(
            f"{name} {sizes} {more}".strip(), max(amount, math.prod(shapes[0])) / 1e9, "GOP/s",
            ours, peer, label, 1.0,
        )  # fmt: skip
