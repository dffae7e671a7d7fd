"""Operations that kernels do faster than their definitions: on float32 numbers in rows.

Each function has the parameters of an operation and gives None for what it leaves to the
definition; results differ from the definition's by rounding alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels.target import target

Array = NDArray[Any]
Out = NDArray[Any] | None

_SHARE = 1 << 14
"""How many numbers a thread takes at a time."""
_LONGEST = 1 << 16
"""Rows up to this length are summed by kernels: NumPy's sums of longer ones are more exact."""


def by_kernel(name: str, slow: Callable[..., Array]) -> Callable[..., Array]:
    """Return what runs an operation by a kernel where that is possible, and else as defined."""
    if name not in QUICK:
        return slow
    chosen = QUICK[name]

    def run(x: Array, *inputs: Any, **attributes: Any) -> Array:
        if x.size and _fits(x, attributes.get("out")) and target() is not None:
            made = chosen(x, *inputs, **attributes)
            if made is not None:
                return made
        return slow(x, *inputs, **attributes)

    return functools.update_wrapper(run, slow)


def _fits(x: Array, out: Out) -> bool:
    """Return whether a kernel can read the one and write to the other."""
    if x.dtype != np.float32 or not x.flags.c_contiguous:
        return False
    return out is None or (
        out.dtype == np.float32 and out.flags.c_contiguous and not np.may_share_memory(x, out)
    )


def _filled(given: Array | None, size: int, value: float) -> Array:
    """Return weights in a row, or as many of one value."""
    if given is None:
        return np.full(size, value, np.float32)
    return np.ascontiguousarray(given, np.float32)


def _group_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, groups: int = 1,
    eps: float = 1e-5, out: Out = None,
) -> Array | None:  # fmt: skip
    from llmbol_core.ml.kernels import rows

    samples, channels = x.shape[:2]
    size = x.size // (samples * channels)
    if size * (channels // groups) > _LONGEST:
        return None
    y = np.empty_like(x) if out is None else out
    factors = (_filled(weight, channels, 1.0), _filled(bias, channels, 0.0))
    words = (groups, channels // groups, size, eps)
    rows.normalize_groups.run(samples, x, y, *factors, *words, chunk=1)
    return y


def _batch_norm(
    x: Array, weight: Array, bias: Array, mean: Array, variance: Array, eps: float = 1e-5,
    out: Out = None,
) -> Array | None:  # fmt: skip
    from llmbol_core.ml.kernels import rows

    samples, channels = x.shape[:2]
    size = x.size // (samples * channels)
    with np.errstate(all="ignore"):
        factor = weight / np.sqrt(variance + np.float32(eps))
    values = [np.ascontiguousarray(value, np.float32) for value in (mean, factor, bias)]
    y = np.empty_like(x) if out is None else out
    share = max(1, _SHARE // (size * channels))
    rows.normalize_channels.run(samples, x, y, *values, channels, size, chunk=share)
    return y


QUICK: dict[str, Callable[..., Array | None]] = {
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
}
"""The operations that there are kernels for here."""
