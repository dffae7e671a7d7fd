"""Products of float32 matrices by kernels, for operations that run once."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import matmul
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.kernels.target import target
from llmbol_core.native.team import team

Array = NDArray[Any]

_SHARED = 1 << 21
"""Multiply-adds from which on threads share a product."""
_local = threading.local()
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_functions: dict[int, Any] = {}


def multiply(x: Array, y: Array, output: Array) -> Array:
    """Put [M, K] times [K, N] into an output in rows; y may be the transpose of a matrix in rows.

    A row of the result depends on its row of x alone.
    """
    (rows, depth), columns = x.shape, y.shape[1]
    if not (rows and depth and columns):
        output[...] = 0
        return output
    x = x if _in_rows(x) else np.ascontiguousarray(x)
    chosen = target()
    assert chosen is not None
    if _in_rows(y.T) and not (_in_rows(y) and rows > 1):
        groups = -(-columns // matmul.COLUMNS)
        w = y.T
        given = (_at(x), _at(w), _at(output), rows, depth, columns)
        _run(matmul.dots, groups, (*given, *_pitches(x, w, output)), rows * depth * columns)
        return output
    y = y if _in_rows(y) else np.ascontiguousarray(y)
    panels = -(-columns // (2 * chosen.lanes))
    size = matmul.scratch_size(chosen.lanes)
    room = _room(size * team().threads) if rows > matmul.FEW else 0
    words = (_at(x), _at(y), _at(output), room, rows, depth, columns)
    _run(matmul.multiply, panels, (*words, *_pitches(x, y, output)), rows * depth * columns)
    return output


def _in_rows(x: Array) -> bool:
    """Return whether the numbers of a row are neighbours."""
    return x.strides[1] == 4 and x.strides[0] >= 0 and x.strides[0] % 4 == 0


def _at(x: Array) -> int:
    address: int = x.__array_interface__["data"][0]
    return address


def _pitches(*arrays: Array) -> tuple[int, ...]:
    return tuple(x.strides[0] // 4 for x in arrays)


def _room(count: int) -> int:
    """Return the address of room for so many numbers, which this thread keeps."""
    room = getattr(_local, "room", None)
    if room is None or len(room) < count + 16:
        room = _local.room = np.empty(count + 16, np.float32)
    return _at(room) + -_at(room) % 64


def _run(kernel: Kernel, items: int, words: tuple[int, ...], work: int) -> None:
    """Run a kernel for all items, by the team if that is worth it."""
    function = address_of(kernel)
    arguments = (ctypes.c_int64 * len(words))(*words)
    place = ctypes.addressof(arguments)
    workers = team() if work >= _SHARED and items > 1 else None
    if workers is None or workers.threads == 1:
        if function not in _functions:
            _functions[function] = _CALL(function)
        _functions[function](place, 0, items, 0)
        return
    share = -(-items // (2 * workers.threads))
    operation = (ctypes.c_int64 * 4)(function, place, items, share)
    workers.run(ctypes.addressof(operation), 1)
