"""Products of float32 matrices by kernels, for operations that run once."""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbol_core.ml.kernels import few, matmul, rowdots
from llmbol_core.ml.kernels.library import address_of
from llmbol_core.ml.kernels.target import Target
from llmbol_core.ml.mapped import large_room
from llmbol_core.native.entry import is_possible
from llmbol_core.native.pairs import Limits, Pair, pair, tell
from llmbol_core.native.team import team

Array = NDArray[Any]

_SHARED = 1 << 21
"""Multiply-adds from which on threads share a product."""
_LARGE = 1 << 18
"""How many numbers y must have for them to do so whatever there is to multiply."""
_LONG = 1 << 24
"""Multiply-adds from which on other Python threads may run meanwhile: some hundred microseconds."""
_MANY = 1024
"""Rows at a time: the processor caches the addresses of the pages of so many."""
_local = threading.local()
_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_functions: dict[int, Any] = {}


class _Kernels:
    """What products with one instruction set need."""

    def __init__(self, chosen: Target) -> None:
        self.widths = (2 * chosen.lanes, rowdots.COLUMNS)
        self.scratch = matmul.scratch_size(chosen.lanes)
        self.shorts: tuple[Pair, Pair] = (never, never)
        self._addresses = [0, 0]
        if is_possible():
            room = large_room(4 * self.scratch * team().threads)
            limits = Limits(_LONG, _SHARED, _LARGE)
            without, turned = (pair(self.widths, room, limits, is_turned) for is_turned in _FORMS)
            self.shorts = without, turned

    def address(self, is_turned: bool) -> int:
        """Return where one of the kernels is: whoever needs one does not wait for the other."""
        if not self._addresses[is_turned]:
            found = address_of(rowdots.dots if is_turned else matmul.multiply)
            self._addresses[is_turned] = found
            for function in self.shorts if is_possible() else ():
                tell(function, found, is_turned)
        return self._addresses[is_turned]


_FORMS = (False, True)
"""Whether y is [N, K]."""
_kernels_of = functools.cache(_Kernels)


def never(*arrays: Any) -> None:
    """Multiply nothing, where there is no machine code for it."""


def short_products(chosen: Target) -> tuple[Pair, Pair]:
    """Return what multiplies small matrices at once: [M, K] with [K, N], and with [N, K].

    Both give None for all that is not theirs (see ``native.pairs``), and for what ``multiply`` has
    not done before them.
    """
    return _kernels_of(chosen).shorts


def multiply(x: Array, y: Array, output: Array, chosen: Target) -> Array:
    """Put [M, K] times [K, N] into an output in rows; y may be the transpose of a matrix in rows.

    A row of the result depends on its row of x alone.
    """
    (rows, depth), columns = x.shape, y.shape[1]
    if not (rows and depth and columns):
        output[...] = 0
        return output
    made = _kernels_of(chosen)
    # A call that reads the arrays itself costs less than one that is told about them.
    if made.shorts[0](x, y, None, output) is not None:
        return output
    x = x if _in_rows(x) else np.ascontiguousarray(x)
    y = y if _in_rows(y.T) or _in_rows(y) else np.ascontiguousarray(y)
    turned = _in_rows(y.T)
    items = -(-columns // made.widths[turned])
    needs_room = not turned and rows > matmul.FEWER
    y = y.T if turned else y
    pitches = _pitches(x, y, output)
    rooms = () if turned else (_room(made.scratch * team().threads) if needs_room else 0,)
    shares = 1
    if items > 1 and team().threads > 1 and _is_shared(rows, depth, columns):
        # Of few rows y is read as it lies, which goes best in long runs; and where there are few
        # registers each share copies x.
        is_long = not turned and (rows <= few.FEW or chosen.lanes < 16)
        shares = team().threads * (1 if is_long else 2)
    step = rows if turned else -(-rows // -(-rows // _MANY))
    for first in range(0, rows, step):
        part, place = x[first : first + step], output[first : first + step]
        words = (_at(part), _at(y), _at(place), *rooms, len(part), depth, columns, *pitches)
        _run(made.address(turned), items, words, shares)
    return output


def multiply_each(x: Array, y: Array, output: Array | None, chosen: Target) -> Array:
    """Return [..., M, K] times [..., K, N], in an output if there is one; axes in front broadcast.

    All three are in rows.
    """
    each = _each(x.shape, y.shape)
    (rows, depth), columns = x.shape[-2:], y.shape[-1]
    place = np.empty(each.shape, np.float32) if output is None else output
    work, count = rows * depth * columns, len(each.starts[0])
    if not (work and count):
        place[...] = 0
        return place
    if work >= _LONG:
        left, right = x.reshape(-1, rows, depth), y.reshape(-1, depth, columns)
        numbers = (each.starts[0] // (rows * depth), each.starts[1] // (depth * columns))
        for i, j, part in zip(*numbers, place.reshape(-1, rows, columns), strict=True):
            multiply(left[i], right[j], part, chosen)
        return place
    if count == 1:  # the least on the way
        multiply(
            x.reshape(rows, depth), y.reshape(depth, columns), place.reshape(-1, columns), chosen
        )
        return place
    threads = team().threads
    shares = 2 * threads if threads > 1 and work * count >= _SHARED else 1
    room = _room(_kernels_of(chosen).scratch * threads) if rows > matmul.FEWER else 0
    arrays = (_at(x), _at(y), _at(place), room)
    function = _address_of_each(chosen)
    _run(function, count, (*arrays, rows, depth, columns, 0, 0, count, *each.addresses), shares)
    return place


class _Each(NamedTuple):
    """Pairs of matrices: the shape of their products, and where they begin, as numbers of each."""

    shape: tuple[int, ...]
    starts: tuple[Array, Array]
    addresses: tuple[int, int]


@functools.lru_cache(maxsize=256)
def _each(x: tuple[int, ...], y: tuple[int, ...]) -> _Each:
    """Return what is known of products of matrices of these shapes."""
    front = np.broadcast_shapes(x[:-2], y[:-2])

    def starts(shape: tuple[int, ...]) -> Array:
        numbers = np.arange(math.prod(shape[:-2]), dtype=np.int64).reshape(shape[:-2])
        return np.broadcast_to(numbers * (shape[-2] * shape[-1]), front).flatten()

    found = starts(x), starts(y)
    return _Each((*front, x[-2], y[-1]), found, (_at(found[0]), _at(found[1])))


@functools.cache
def _address_of_each(chosen: Target) -> int:
    return address_of(matmul.multiply_each)


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
    if room is None or len(room) < count:
        room = _local.room = large_room(4 * count).view(np.float32)
    return _at(room)


def _is_shared(rows: int, depth: int, columns: int) -> bool:
    """Return whether it takes long enough to multiply or to read matrices for threads to share."""
    return rows * depth * columns >= _SHARED or depth * columns >= _LARGE


def _run(function: int, items: int, words: tuple[int, ...], shares: int) -> None:
    """Run a kernel for all items: by the team in so many shares, or here if that is one."""
    arguments = (ctypes.c_int64 * len(words))(*words)
    place = ctypes.addressof(arguments)
    if shares == 1:
        if function not in _functions:
            _functions[function] = _CALL(function)
        _functions[function](place, 0, items, 0)
        return
    operation = (ctypes.c_int64 * 4)(function, place, items, -(-items // shares))
    team().run(ctypes.addressof(operation), 1)
