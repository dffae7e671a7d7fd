"""Operations that kernels do for arrays of float32, prepared for their shapes when these come.

What has been prepared is kept, as far as it does not take much memory. What kernels do not take
(other numbers, shapes that they would not be faster for) is left to the definition; results differ
from the definition's by rounding alone, and do not depend on how many samples there are.
"""

from __future__ import annotations

import functools
import importlib
import math
import sys
import threading
from collections.abc import Callable, Sequence
from marshal import dumps
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy import ndarray
from numpy.typing import NDArray

from llmbol_core.errors import LlmbolError
from llmbol_core.ml.kernels.target import target
from llmbol_core.ml.ops.direct import in_rows
from llmbol_core.native.entry import is_possible

if TYPE_CHECKING:
    from llmbol_core.ml.single.draft import Single

Array = NDArray[Any]
Shape = tuple[int, ...]

# fmt: off
QUICK = {
    # operation          what prepares it, within llmbol_core.ml.single
    "conv1d":            "convolution.convolve",
    "conv2d":            "convolution.convolve",
    "conv_transpose1d":  "transposed.convolve",
    "conv_transpose2d":  "transposed.convolve",
    "attention":         "attention.attend",
    "lstm":              "recurrent.recur",
    "gru":               "recurrent.recur",
    "rnn_tanh":          "recurrent.recur",
    "rnn_relu":          "recurrent.recur",
    "top_k":             "order.top_k",
    "argsort":           "order.argsort",
    "batch_norm":        "normalization.batch_norm",
    "group_norm":        "normalization.group_norm",
    "max_pool1d":        "pooling.pool",
    "max_pool2d":        "pooling.pool",
    "avg_pool1d":        "pooling.pool",
    "avg_pool2d":        "pooling.pool",
    "upsample_nearest":  "resampling.nearest",
    "upsample_linear":   "resampling.linear",
}
# fmt: on
"""The operations that there are kernels for here."""


class Row(Protocol):
    """What has to be known of an operation: see the table."""

    @property
    def name(self) -> str:
        """The operation's name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all inputs."""

    @property
    def required(self) -> int:
        """How many of them must be given."""

    @property
    def shape(self) -> Callable[..., Shape]:
        """The shape rule."""

    def conform(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return all attributes."""

    def check_count(self, count: int) -> None:
        """Raise TypeError unless that many inputs may be given."""


_FLOAT = np.dtype(np.float32)
_LIMIT = 64 << 20
"""Bytes that buffers of all that is prepared may take."""
_MOST = 512
"""How many shapes are prepared at a time."""
_FORMAT = 2
"""Of keys: the last one that writes equal values alike."""


class _Kept:
    """What has been prepared for a key and is not in use; several threads may need it at a time."""

    __slots__ = ("bytes", "free")

    def __init__(self) -> None:
        self.free: list[Single] = []
        self.bytes = 0


class _Prepared:
    """What has been prepared, by operation, shapes and attributes; what is oldest goes first."""

    def __init__(self) -> None:
        self._found: dict[bytes, _Kept | None] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self.get = self._found.get

    def keep(self, key: bytes, single: Single | None) -> None:
        """Keep what was made under a key; None is for what kernels do not do."""
        size = 0 if single is None else single.bytes
        with self._lock:
            if size > _LIMIT:
                return
            while self._found and (self._bytes + size > _LIMIT or len(self._found) >= _MOST):
                old = self._found.pop(next(iter(self._found)))
                self._bytes -= 0 if old is None else old.bytes
            if single is None:
                self._found[key] = None
                return
            kept = self._found.get(key) or _Kept()
            self._found[key] = kept
            kept.bytes += size
            self._bytes += size
            kept.free.append(single)


_prepared = _Prepared()
_UNKNOWN = _Kept()


class Quick:
    """An operation that kernels do where they can, and else its definition."""

    row: Row

    def __init__(self, name: str, slow: Callable[..., Array]) -> None:
        """Take an operation by its name, and its definition; its ``row`` is told later."""
        functools.update_wrapper(self, slow)
        self.name, self.slow = name, slow

    def __call__(self, *inputs: Any, out: Array | None = None, **attributes: Any) -> Array:
        """Run the operation; see the table."""
        if out is None:
            made = self._made(inputs, attributes, None)
            return self.slow(*inputs, **attributes) if made is None else made
        made = self._made(inputs, attributes, out) if _fits(out, inputs) else None
        return self.slow(*inputs, **attributes, out=out) if made is None else made

    def short(self, *inputs: Any, **attributes: Any) -> Array | None:
        """Run it as operations are called; None for all that needs care."""
        try:
            return self._made(inputs, attributes, None)
        except MemoryError:
            return None

    def buffers(self, shapes: Sequence[Shape | None], attributes: dict[str, Any]) -> int:
        """Return how many bytes buffers for inputs of these shapes take; they are kept for them."""
        key = dumps((self.name, list(shapes), attributes), _FORMAT)
        kept = _prepared.get(key, _UNKNOWN)
        if kept is not _UNKNOWN:
            return 0 if kept is None else kept.bytes
        single = prepare(self.row, shapes, attributes)
        _prepared.keep(key, single)
        return 0 if single is None else single.bytes

    def _made(
        self, inputs: tuple[Any, ...], attributes: dict[str, Any], out: Array | None
    ) -> Array | None:
        arrays: Sequence[Any] = inputs
        shapes: list[Shape | None] = []
        for x in inputs:
            if type(x) is ndarray and x.dtype is _FLOAT and x.flags.c_contiguous:
                shapes.append(x.shape)
            elif x is None:
                shapes.append(None)
            else:
                arrays = _in_rows(inputs)
                if not arrays:
                    return None
                shapes = [None if array is None else array.shape for array in arrays]
                break
        try:
            key = dumps((self.name, shapes, attributes), _FORMAT)
        except ValueError:  # something that is no number
            return None
        kept = _prepared.get(key, _UNKNOWN)
        if kept is None:
            return None
        try:
            single = kept.free.pop()
        except IndexError:  # the first time, or all are in use
            single = None
        if single is None:
            return self._made_first(key, shapes, arrays, attributes, out)
        made = single.run(arrays, out)
        kept.free.append(single)
        return made

    def _made_first(
        self, key: bytes, shapes: list[Shape | None], arrays: Sequence[Any],
        attributes: dict[str, Any], out: Array | None,
    ) -> Array | None:  # fmt: skip
        single = prepare(self.row, shapes, attributes)
        made = None if single is None else single.run(arrays, out)
        _prepared.keep(key, single)
        return made


def prepare(row: Row, shapes: Sequence[Shape | None], attributes: dict[str, Any]) -> Single | None:
    """Return what does an operation for inputs of these shapes, None if there is nothing."""
    chosen = target()
    if chosen is None or not is_possible() or None in shapes[: row.required]:
        return None
    full = [*shapes, *[None] * (len(row.inputs) - len(shapes))]
    try:
        row.check_count(len(shapes))
        numbers = row.conform(attributes)
        result = row.shape(*full, **numbers)
    except (LlmbolError, TypeError):
        return None
    if 8 * math.prod(result) > sys.maxsize:  # no table could name all places
        return None
    module, _, maker = QUICK[row.name].partition(".")
    family = importlib.import_module(f"llmbol_core.ml.single.{module}")
    made: Single | None = getattr(family, maker)(row.name, full, numbers, chosen.lanes)
    return made


def _in_rows(inputs: Sequence[Any]) -> list[Any]:
    """Return arrays as kernels read them; nothing if one is of something else than float32."""
    found = []
    for x in inputs:
        array = np.asarray(x) if isinstance(x, np.memmap) else x
        if array is not None:
            if type(array) is not ndarray or array.dtype is not _FLOAT:
                return []
            array = in_rows(array)
        found.append(array)
    return found


def _fits(out: Any, inputs: tuple[Any, ...]) -> bool:
    """Return whether kernels can write to an array while they read others."""
    plain: bool = type(out) is np.ndarray and out.dtype is _FLOAT and out.flags.c_contiguous
    return plain and not any(
        isinstance(x, np.ndarray) and np.may_share_memory(x, out) for x in inputs
    )
