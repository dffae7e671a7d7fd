"""Rows of ``benchmarks.ml``: operations of the table beside the better of NumPy and PyTorch.

Each as arrays may lie, small, of medium size and large. PyTorch is not needed; it has as many
threads as there are to use (``LLMBOL_THREADS``).
"""

# ruff: noqa: E501 -- the table has one row for each operation

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from benchmarks.rows import Row
from llmbol_core.ml import ops
from llmbol_core.native.threads import thread_count

Array = np.ndarray[Any, Any]
GOAL = 0.9
"""The least ratio wanted: rates limited by memory vary by so much from run to run."""
SIZES = ((32, 32), (128, 784), (4096, 1024))


def _torch() -> Any:
    with suppress(ImportError):
        found = importlib.import_module("torch")
        found.set_num_threads(thread_count())
        found.set_grad_enabled(False)
        return found
    return None


torch = _torch()


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _softmax(x: Array) -> Array:
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


Draw = Callable[..., Array]


def _one(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m, n)]


def _half(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m, 2 * n)[:, ::2]]


def _two(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m, n), draw(m, n)]


def _row(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m, n), draw(n)]


def _column(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m, n), draw(m, 1)]


def _short(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m * n // 8, 8)]


def _flat(m: int, n: int, draw: Draw) -> list[Array]:
    return [draw(m * n)]


Inputs = Callable[[int, int, Draw], list[Array]]

# fmt: off
_TABLE: tuple[tuple[str, str, Inputs, dict[str, Any], Any, str], ...] = (
    # operation    arrays         inputs   attributes      NumPy                             PyTorch
    ("neg",         "",            _one,    {},             np.negative,                      "torch.neg(x)"),
    ("neg",         "every other", _half,   {},             np.negative,                      "torch.neg(x)"),
    ("relu",        "",            _one,    {},             lambda x: np.maximum(x, 0),       "torch.relu(x)"),
    ("exp",         "",            _one,    {},             np.exp,                           "torch.exp(x)"),
    ("tanh",        "",            _one,    {},             np.tanh,                          "torch.tanh(x)"),
    ("sigmoid",     "",            _one,    {},             _sigmoid,                         "torch.sigmoid(x)"),
    ("gelu",        "",            _one,    {},             None,                             "torch.nn.functional.gelu(x)"),
    ("add",         "",            _two,    {},             np.add,                           "x + y"),
    ("add",         "row",         _row,    {},             np.add,                           "x + y"),
    ("mul",         "column",      _column, {},             np.multiply,                      "x * y"),
    ("sum",         "rows",        _one,    {},             lambda x: x.sum(-1),              "x.sum(-1)"),
    ("sum",         "columns",     _one,    {"axis": 0},    lambda x: x.sum(0),               "x.sum(0)"),
    ("sum",         "short rows",  _short,  {},             lambda x: x.sum(-1),              "x.sum(-1)"),
    ("sum",         "one row",     _flat,   {},             lambda x: x.sum(-1),              "x.sum(-1)"),
    ("max",         "rows",        _one,    {},             lambda x: x.max(-1),              "x.amax(-1)"),
    ("sum_squares", "rows",        _one,    {},             lambda x: np.square(x).sum(-1),   "(x * x).sum(-1)"),
    ("cumsum",      "rows",        _one,    {},             lambda x: x.cumsum(-1),           "x.cumsum(-1)"),
    ("softmax",     "rows",        _one,    {},             _softmax,                         "torch.softmax(x, -1)"),
    ("layer_norm",  "",            _one,    {},             None,                             "torch.nn.functional.layer_norm(x, x.shape[-1:])"),
    ("transpose",   "",            _one,    {},             lambda x: np.ascontiguousarray(x.T), "x.T.contiguous()"),
)
# fmt: on


def operations() -> Iterator[Row]:
    """Operations on whole arrays, in billions of numbers a second."""
    rng = np.random.default_rng(5)

    def draw(*shape: int) -> Array:
        return rng.uniform(0.5, 2, shape).astype(np.float32)

    for name, what, inputs, attributes, plain, text in _TABLE:
        for m, n in SIZES:
            arrays = inputs(m, n, draw)
            ours = partial(getattr(ops, name), *arrays, **attributes)
            peers = [("NumPy", partial(plain, *arrays))] if plain else []
            if torch is not None:
                given = dict(zip("xy", map(torch.from_numpy, arrays), strict=False))
                code = compile(text, name, "eval")
                peers.append(("PyTorch", partial(eval, code, {"torch": torch, **given})))
            if peers:
                ours()
                best, peer = min(peers, key=lambda pair: _seconds(pair[1]))
                size = f"{name} {what} {m}x{n}".replace("  ", " ")
                yield Row(size, m * n / 1e9, "Gn/s", ours, peer, best, GOAL)


def _seconds(work: Callable[[], Any]) -> float:
    """Return how long work takes at best, roughly."""
    taken = []
    for _ in range(20):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
