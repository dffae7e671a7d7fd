"""Operations that kernels do faster than their definitions: on many float32 numbers in rows.

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

_MANY = 1 << 12
"""Numbers from which on the call of a kernel is worth it."""
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
        if x.size >= _MANY and _fits(x, attributes.get("out")) and target() is not None:
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


def _normalize(
    x: Array, weight: Array | None, bias: Array | None, eps: float, out: Out, centred: bool,
    rooted: bool = True,
) -> Array | None:  # fmt: skip
    from llmbol_core.ml.kernels import rows

    size = x.shape[-1]
    if size > _LONGEST:
        return None
    y = np.empty_like(x) if out is None else out
    factors = (_filled(weight, size, 1.0), _filled(bias, size, 0.0))
    words = (1, size, eps, int(centred), int(rooted))
    rows.normalize.run(x.size // size, x, y, *factors, *words, chunk=max(1, _SHARE // size))
    return y


def _filled(given: Array | None, size: int, value: float) -> Array:
    """Return weights in a row, or as many of one value."""
    if given is None:
        return np.full(size, value, np.float32)
    return np.ascontiguousarray(given, np.float32)


def _layer_norm(
    x: Array, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5,
    out: Out = None,
) -> Array | None:  # fmt: skip
    return _normalize(x, weight, bias, eps, out, True)


def _rms_norm(
    x: Array, weight: Array | None = None, eps: float = 1e-5, out: Out = None
) -> Array | None:
    return _normalize(x, weight, None, eps, out, False)


def _l2_norm(x: Array, eps: float = 1e-12) -> Array | None:
    return _normalize(x, None, None, eps, None, False, False)


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


QUICK: dict[str, Callable[..., Array | None]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "l2_norm": _l2_norm,
    "group_norm": _group_norm,
}
"""The operations that there are kernels for here."""
