"""What each operation means, in float64 and as plainly as it can be written."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-x)))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.log1p(np.exp(x)))


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.asarray(np.exp(x) / np.exp(x).sum(axis, keepdims=True))


def conv(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    rank = weight.ndim - 2
    stride, padding, dilation = (
        (v,) * rank if isinstance(v, int) else v for v in (stride, padding, dilation)
    )
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    count = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], weight.shape[2:], stride, dilation, strict=True)
    ]
    y = np.zeros((len(x), len(weight), *count))
    per_out, per_in = len(weight) // groups, x.shape[1] // groups
    for n, o, *at in np.ndindex(*y.shape):
        for c, *k in np.ndindex(*weight.shape[1:]):
            place = [a * s + j * d for a, s, j, d in zip(at, stride, k, dilation, strict=True)]
            channel = o // per_out * per_in + c
            y[n, o, *at] += x[n, channel, *place] * weight[o, c, *k]
        y[n, o, *at] += 0 if bias is None else bias[o]
    return y


def pool(x: np.ndarray, combine: Callable[..., Any], border: float, **numbers: Any) -> np.ndarray:
    """Combine the values of each window, borders filled with one value."""
    kernel, stride, padding = (
        (v,) * (x.ndim - 2) if isinstance(v, int) else v for v in numbers.values()
    )
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)], constant_values=border)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    y = np.empty((*x.shape[:2], *counts))
    for n, c, *at in np.ndindex(*y.shape):
        window = [slice(a * s, a * s + k) for a, s, k in zip(at, stride, kernel, strict=True)]
        y[n, c, *at] = combine(x[n, c, *window])
    return y


def rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of each row."""
    return x.mean(-1, keepdims=True), x.var(-1, keepdims=True)


def layer_norm(x, weight=1.0, bias=0.0, eps=1e-5):
    mean, variance = rows(x)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def batch_norm(x, weight, bias, mean, variance, eps=1e-5):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        y[:, c] = (x[:, c] - mean[c]) / np.sqrt(variance[c] + eps) * weight[c] + bias[c]
    return y


def part(axis: int, start: int, stop: int, step: int = 1) -> tuple[slice, ...]:
    return (*(slice(None),) * axis, slice(start, stop, step))


# fmt: off
ORACLES: dict[str, Callable[..., Any]] = {
    "neg": lambda x: 0 - x,
    "abs": lambda x: np.where(x < 0, -x, x),
    "sign": lambda x: (x > 0) * 1.0 - (x < 0),
    "floor": lambda x: x // 1,
    "ceil": lambda x: -(-x // 1),
    "round": np.round,
    "square": lambda x: x * x,
    "sqrt": lambda x: x**0.5,
    "reciprocal": lambda x: x**-1.0,
    "exp": lambda x: np.e**x,
    "log": lambda x: np.log2(x) / np.log2(np.e),
    "sin": lambda x: np.imag(np.exp(1j * x)),
    "cos": lambda x: np.real(np.exp(1j * x)),
    "tanh": lambda x: np.sinh(x) / np.cosh(x),
    "sigmoid": sigmoid,
    "relu": lambda x: np.where(x > 0, x, 0),
    "relu6": lambda x: np.where(x > 6, 6, np.where(x > 0, x, 0)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "log_sigmoid": lambda x: np.log(sigmoid(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "hard_swish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "leaky_relu": lambda x, slope: np.maximum(x, 0) + slope * np.minimum(x, 0),
    "elu": lambda x, alpha: np.where(x > 0, x, alpha * (np.exp(x) - 1)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * (np.exp(x) - 1)),
    "softplus": lambda x, beta: softplus(beta * x) / beta,
    "clamp": lambda x: np.minimum(np.maximum(x, -1), 1),
    "scale": lambda x, factor, offset: factor * x + offset,
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "power": lambda x, y: np.exp(y * np.log(x)),
    "maximum": lambda x, y: np.where(x > y, x, y),
    "minimum": lambda x, y: np.where(x < y, x, y),
    "equal": lambda x, y: (x == y) * 1.0,
    "less": lambda x, y: (x < y) * 1.0,
    "less_equal": lambda x, y: (x <= y) * 1.0,
    "greater": lambda x, y: (x > y) * 1.0,
    "greater_equal": lambda x, y: (x >= y) * 1.0,
    "where": lambda c, x, y: c * x + (1 - c) * y,
    "linear": lambda x, w, b: np.einsum("...i,oi->...o", x, w) + b,
    "mul_mat": lambda w, x: np.einsum("...i,oi->...o", x, w),
    "matmul": lambda x, y: np.einsum("...ij,...jk->...ik", x, y),
    "conv1d": conv,
    "conv2d": conv,
    "max_pool1d": lambda x, **a: pool(x, np.max, -np.inf, **a),
    "max_pool2d": lambda x, **a: pool(x, np.max, -np.inf, **a),
    "avg_pool1d": lambda x, **a: pool(x, np.mean, 0, **a),
    "avg_pool2d": lambda x, **a: pool(x, np.mean, 0, **a),
    "get_rows": lambda table, i: np.array([[table[r] for r in row] for row in i]),
    "softmax": softmax,
    "log_softmax": lambda x, axis: np.log(softmax(x, axis)),
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "rms_norm": lambda x, w: x * w / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5),
    "l2_norm": lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True),
    "sum": lambda x, axis: x.sum(axis),
    "mean": lambda x, axis: x.sum(axis) / x.shape[axis],
    "max": lambda x, axis: np.sort(x, axis).take(-1, axis),
    "min": lambda x, axis: np.sort(x, axis).take(0, axis),
    "sum_squares": lambda x, axis: (x * x).sum(axis),
    "cumsum": lambda x, axis: np.tril(np.ones((x.shape[axis],) * 2)) @ x,
    "argmax": lambda x, axis: np.argsort(x, axis).take(-1, axis),
    "argmin": lambda x, axis: np.argsort(x, axis).take(0, axis),
    "argsort": lambda x: np.argsort(x),
    "top_k": lambda x, k: np.argsort(x)[..., ::-1][..., :k],
    "reshape": lambda x, shape: np.array(list(x.flat)).reshape(2, -1, 2),
    "flatten": lambda x: np.array([list(row.flat) for row in x]),
    "squeeze": lambda x, axis: x[:, 0],
    "unsqueeze": lambda x, axis: x[:, None],
    "permute": lambda x, axes: np.einsum("abc->bca", x),
    "transpose": lambda x: np.einsum("abc->acb", x),
    "concat": lambda x, y, axis: np.stack([*x.swapaxes(0, 1), *y.swapaxes(0, 1)], axis),
    "slice": lambda x, **a: x[part(**a)],
    "pad": lambda x, axis, before, after, value: np.pad(
        x, [(0, 0), (before, after), (0, 0)], constant_values=value),
    "repeat": lambda x, axis, times: np.tile(x, (1, times, 1)),
}
# fmt: on
