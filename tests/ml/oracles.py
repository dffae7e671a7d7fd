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


def windows(size: int, count: int, step: int, border: int) -> list[tuple[int, int]]:
    """Return from where to before where each window lies, the last one perhaps cut off."""
    starts = [s for s in range(-border, size + border, step) if s < size]
    return [(s, min(s + count, size + border)) for s in starts]


def ceil_mean(x, kernel, stride, padding, ceil=True, count_padding=True):
    """Average windows that may hang over the border."""
    rank = x.ndim - 2
    numbers = [(v,) * rank if isinstance(v, int) else v for v in (kernel, stride, padding)]
    spans = [windows(*row) for row in zip(x.shape[2:], *numbers, strict=True)]
    y = np.empty((*x.shape[:2], *map(len, spans)))
    for at in np.ndindex(*map(len, spans)):
        box = [span[i] for span, i in zip(spans, at, strict=True)]
        inside = x[:, :, *(slice(max(a, 0), b) for a, b in box)]
        divisor = np.prod([b - a for a, b in box]) if count_padding else inside[0, 0].size
        y[:, :, *at] = inside.sum(axis=tuple(range(2, x.ndim))) / divisor
    return y


def recurrent(values, kind, reverse):
    """Go through one sequence after the other, gates by name."""
    x, w, u, b, c = values
    y = np.zeros((*x.shape[:2], u.shape[1]))
    for n in range(len(x)):
        h = s = np.zeros(u.shape[1])
        for t in range(x.shape[1])[:: -1 if reverse else 1]:
            p, q = w @ x[n, t] + b, u @ h + c
            if kind == "lstm":
                i, f, g, o = np.split(p + q, 4)
                s = sigmoid(f) * s + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(s)
            elif kind == "gru":
                (pr, pz, pn), (qr, qz, qn) = np.split(p, 3), np.split(q, 3)
                new = np.tanh(pn + sigmoid(pr + qr) * qn)
                h = new + sigmoid(pz + qz) * (h - new)
            else:
                h = np.tanh(p + q) if kind == "tanh" else np.maximum(p + q, 0)
            y[n, t] = h
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


def rope(x, positions, dims, base):
    """Turn neighbours as complex numbers."""
    pairs = x[..., 0:dims:2] + 1j * x[..., 1:dims:2]
    rates = [base ** (-2 * i / dims) for i in range(dims // 2)]
    turned = pairs * np.exp(1j * np.multiply.outer(positions, rates))
    y = x.copy()
    y[..., 0:dims:2], y[..., 1:dims:2] = turned.real, turned.imag
    return y


def attention(query, key, value, mask, causal):
    """One query at a time; the last query sees all keys."""
    y = np.zeros((*query.shape[:-1], value.shape[-1]))
    shared, hidden = query.shape[1] // key.shape[1], key.shape[2] - query.shape[2]
    for n, h, t in np.ndindex(*query.shape[:-1]):
        scores = key[n, h // shared] @ query[n, h, t] / np.sqrt(query.shape[-1]) + mask[t]
        seen = slice(0, t + hidden + 1 if causal else None)
        y[n, h, t] = softmax(scores[seen]) @ value[n, h // shared, seen]
    return y


def conv_transpose(
    x, weight, bias=None, stride=1, padding=0, output_padding=0, dilation=1, groups=1
):
    rank = weight.ndim - 2
    numbers = [
        (v,) * rank if isinstance(v, int) else v
        for v in (stride, padding, output_padding, dilation)
    ]
    full = [
        (n - 1) * s + d * (k - 1) + 1 + o
        for n, k, s, o, d in zip(
            x.shape[2:], weight.shape[2:], numbers[0], numbers[2], numbers[3], strict=True
        )
    ]
    y = np.zeros((len(x), weight.shape[1] * groups, *full))
    per_in, per_out = len(weight) // groups, weight.shape[1]
    for n, i, *at in np.ndindex(*x.shape):
        for o, *k in np.ndindex(*weight.shape[1:]):
            place = [
                a * s + j * d for a, s, j, d in zip(at, numbers[0], k, numbers[3], strict=True)
            ]
            y[n, i // per_in * per_out + o, *place] += x[n, i, *at] * weight[i, o, *k]
    y = y[:, :, *(slice(p, n - p) for p, n in zip(numbers[1], full, strict=True))]
    return y if bias is None else y + bias.reshape(-1, *(1,) * rank)


def interpolate(x, size):
    """Linear between the centres of cells, along each axis."""
    for axis, count in enumerate(size, 2):
        length = x.shape[axis]
        places = (np.arange(count) + 0.5) * length / count - 0.5
        x = np.apply_along_axis(lambda row: np.interp(places, np.arange(len(row)), row), axis, x)  # noqa: B023
    return x


def adaptive(x, size, combine):
    y = np.empty((*x.shape[:2], *size))
    for at in np.ndindex(*size):
        ends = [
            (i * n // s, math.ceil((i + 1) * n / s))
            for i, n, s in zip(at, x.shape[2:], size, strict=True)
        ]
        window = x[:, :, *(slice(*pair) for pair in ends)]
        y[:, :, *at] = combine(window, axis=tuple(range(2, x.ndim)))
    return y


def group_norm(x, weight, bias, groups):
    size = x.shape[1] // groups
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        members = x[:, c // size * size : (c // size + 1) * size].reshape(len(x), -1)
        mean, spread = members.mean(1, keepdims=True), members.std(1, keepdims=True)
        y[:, c] = (x[:, c] - mean) / np.sqrt(spread**2 + 1e-5) * weight[c] + bias[c]
    return y


def bordered(x, mode, axis, before, after):
    return np.pad(x, [(0, 0), (before, after), (0, 0)], mode)


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
    "erf": np.vectorize(math.erf),
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
    "avg_pool1d": ceil_mean,
    "avg_pool2d": ceil_mean,
    "lstm": lambda *values, reverse: recurrent(values, "lstm", reverse),
    "gru": lambda *values, reverse: recurrent(values, "gru", reverse),
    "rnn_tanh": lambda *values, reverse: recurrent(values, "tanh", reverse),
    "rnn_relu": lambda *values, reverse: recurrent(values, "relu", reverse),
    "to_indices": lambda x: np.floor(x + 0.5),
    "to_numbers": lambda x: 1.0 * x,
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
    "rope": rope,
    "attention": attention,
    "conv_transpose1d": conv_transpose,
    "conv_transpose2d": conv_transpose,
    "upsample_nearest": lambda x, size: np.array([[[[x[n, c, i * 4 // 6, j * 3 // 7]
        for j in range(7)] for i in range(6)] for c in range(3)] for n in range(2)]),
    "upsample_linear": interpolate,
    "adaptive_avg_pool": lambda x, size: adaptive(x, size, np.mean),
    "adaptive_max_pool": lambda x, size: adaptive(x, size, np.max),
    "group_norm": group_norm,
    "pad_reflect": lambda x, **a: bordered(x, "reflect", **a),
    "pad_replicate": lambda x, **a: bordered(x, "edge", **a),
    "pad_circular": lambda x, **a: bordered(x, "wrap", **a),
    "repeat": lambda x, axis, times: np.tile(x, (1, times, 1)),
}
# fmt: on
