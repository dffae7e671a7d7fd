"""Products of float32 matrices by kernels, for operations that run once."""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import matmul
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.kernels.target import Target
from llmbol_core.native import llvm
from llmbol_core.native.cache import ObjectCache, key_of
from llmbol_core.native.entry import DATA, SHAPE, STRIDES, is_possible
from llmbol_core.native.team import team

Array = NDArray[Any]

_SHARED = 1 << 21
"""Multiply-adds from which on threads share a product."""
_local = threading.local()
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_functions: dict[int, Any] = {}


class _Kernels:
    """What products with one instruction set need."""

    def __init__(self, chosen: Target) -> None:
        self.kernels = (matmul.multiply, matmul.dots)
        self.addresses = [address_of(kernel) for kernel in self.kernels]
        self.widths = (2 * chosen.lanes, matmul.COLUMNS)
        self.scratch = matmul.scratch_size(chosen.lanes)
        self.short = _short() if is_possible() else None


_kernels_of = functools.cache(_Kernels)


def multiply(x: Array, y: Array, output: Array, chosen: Target) -> Array:
    """Put [M, K] times [K, N] into an output in rows; y may be the transpose of a matrix in rows.

    A row of the result depends on its row of x alone.
    """
    (rows, depth), columns = x.shape, y.shape[1]
    if not (rows and depth and columns):
        output[...] = 0
        return output
    x = x if _in_rows(x) else np.ascontiguousarray(x)
    turned = _in_rows(y.T) and not (_in_rows(y) and rows > 1)
    y = y if turned or _in_rows(y) else np.ascontiguousarray(y)
    made, work = _kernels_of(chosen), rows * depth * columns
    items = -(-columns // made.widths[turned])
    needs_room = not turned and rows > matmul.FEW
    if work < _SHARED and made.short is not None:
        # A call that reads the arrays itself costs less than one that is told about them.
        room = _room(made.scratch) if needs_room else 0
        made.short(made.addresses[turned], x, y, output, turned, room, items)
        return output
    y = y.T if turned else y
    sizes = (rows, depth, columns, *_pitches(x, y, output))
    rooms = () if turned else (_room(made.scratch * team().threads) if needs_room else 0,)
    _run(made.addresses[turned], items, (_at(x), _at(y), _at(output), *rooms, *sizes), work)
    return output


_SHORT = """
define void @short(ptr %kernel, ptr %x, ptr %y, ptr %out, i64 %turned, i64 %room,
                   i64 %items) {
 %list = alloca [16 x i64], align 8
 %isturned = icmp ne i64 %turned, 0
 br label %x.array
PARTS
 %yrow = select i1 %isturned, i64 %y.s1, i64 %y.s0
 %yp = sdiv i64 %yrow, 4
 %xp = sdiv i64 %x.s0, 4
 %op = sdiv i64 %out.s0, 4
 store i64 %x.data, ptr %list
 %l1 = getelementptr i64, ptr %list, i64 1
 store i64 %y.data, ptr %l1
 %l2 = getelementptr i64, ptr %list, i64 2
 store i64 %out.data, ptr %l2
 %l3 = getelementptr i64, ptr %list, i64 3
 store i64 %room, ptr %l3
 %from = select i1 %isturned, i64 3, i64 4
 %sizes = getelementptr i64, ptr %list, i64 %from
 store i64 %x.d0, ptr %sizes
 %z1 = getelementptr i64, ptr %sizes, i64 1
 store i64 %x.d1, ptr %z1
 %z2 = getelementptr i64, ptr %sizes, i64 2
 store i64 %y.d1, ptr %z2
 %z3 = getelementptr i64, ptr %sizes, i64 3
 store i64 %xp, ptr %z3
 %z4 = getelementptr i64, ptr %sizes, i64 4
 store i64 %yp, ptr %z4
 %z5 = getelementptr i64, ptr %sizes, i64 5
 store i64 %op, ptr %z5
 call void %kernel(ptr %list, i64 0, i64 %items, i64 0)
 ret void
}
"""
_PART = f"""
 br label %NAME.array
NAME.array:
 %NAME.dp = getelementptr i8, ptr %NAME, i64 {DATA}
 %NAME.data = load i64, ptr %NAME.dp
 %NAME.shp = getelementptr i8, ptr %NAME, i64 {SHAPE}
 %NAME.shape = load ptr, ptr %NAME.shp
 %NAME.d0 = load i64, ptr %NAME.shape
 %NAME.d1p = getelementptr i64, ptr %NAME.shape, i64 1
 %NAME.d1 = load i64, ptr %NAME.d1p
 %NAME.stp = getelementptr i8, ptr %NAME, i64 {STRIDES}
 %NAME.strides = load ptr, ptr %NAME.stp
 %NAME.s0 = load i64, ptr %NAME.strides
 %NAME.s1p = getelementptr i64, ptr %NAME.strides, i64 1
 %NAME.s1 = load i64, ptr %NAME.s1p
"""


@functools.cache
def _short() -> Any:
    """Return a function that multiplies two arrays into a third, which keeps the interpreter."""
    parts = "".join(_PART.replace("NAME", name) for name in ("x", "y", "out"))
    text = _SHORT.replace(" br label %x.array\nPARTS", parts)
    cache, key = ObjectCache(), key_of("short products", text)
    data = cache.get(key)
    if data is None:
        data = llvm.compile_text(text)
        cache.put(key, data)
    library = llvm.load_object(data, ["short"])
    array, number = ctypes.py_object, ctypes.c_int64
    kinds = (number, array, array, array, number, number, number)
    function = llvm.function(library.addresses["short"], None, *kinds)
    _kept.append(library)
    return function


_kept: list[Any] = []


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


def _run(function: int, items: int, words: tuple[int, ...], work: int) -> None:
    """Run a kernel for all items, by the team if that is worth it."""
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
