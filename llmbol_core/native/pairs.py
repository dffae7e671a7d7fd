"""A Python function in machine code that multiplies two matrices: arrays in, an array out.

    f(x, y)                 a new array, x [M, K] times y [K, N]; or y [N, K], as rows of weights
    f(x, y, bias)           the same, plus a bias [N] unless it is None
    f(x, y, None, output)   into an array [M, N] whose rows have no gaps

A call costs a tenth of a microsecond besides what it computes, which a team of threads does where
that pays. It returns None for all that it does not do: anything but float32 arrays whose rows
or columns have no gaps, shapes that do not fit, products that take long, and all whose kernel it
has not been told yet.

    record   NumPy's array type and descriptor, Python's None; what makes an array and what counts
             a reference; whether y is [N, K]; the most multiply-adds; the kernel for rows of
             numbers along the columns, how many columns an item is, in how many shares threads
             take them, and its room; the kernel for rows along the depth, how many columns an item
             is, how many shares; the team or 0 and its function, from how many multiply-adds and
             numbers of y on it works

This relies on how CPython and NumPy lay out an array in memory (``entry``).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbol_core.native.cfunction import (
    SEVERAL,
    Definition,
    Record,
    address_of,
    cfunction,
    new_record,
)
from llmbol_core.native.code import library
from llmbol_core.native.entry import NEW, interface
from llmbol_core.native.paircode import Word, text
from llmbol_core.native.team import team

Array = NDArray[Any]
Pair = Callable[..., Array | None]


class Limits(NamedTuple):
    """How many multiply-adds a function does, and from how many on several threads do them."""

    most: int
    much: int
    large: int
    """How many numbers y has when reading them takes long."""


def pair(widths: tuple[int, int], room: NDArray[Any], limits: Limits, is_turned: bool) -> Pair:
    """Return a function that multiplies matrices, whose items are so many columns wide.

    It has no kernels yet (see ``tell``). Their arguments are x, y, output, room (the first alone),
    rows, depth, columns, and how many numbers rows of the three are apart. The room is for all
    threads of the team.
    """
    table = ctypes.cast(interface() or 0, ctypes.POINTER(ctypes.c_void_p))
    record = new_record(Word.SIZE)
    workers = team()
    words = {
        Word.TYPE: id(np.ndarray),
        Word.DESCRIPTOR: id(np.dtype(np.float32)),
        Word.NONE: id(None),
        Word.NEW: table[NEW] or 0,
        Word.COUNT: address_of("Py_IncRef"),
        Word.IS_TURNED: int(is_turned),
        Word.MOST: limits.most,
        Word.WIDTH: widths[0],
        Word.ROOM: room.ctypes.data,
        Word.TURNED_WIDTH: widths[1],
        # The fewer shares of columns, the longer are the runs of numbers in which y is read.
        Word.SHARES: workers.threads,
        Word.TURNED_SHARES: 2 * workers.threads,
        Word.TEAM: workers.address if workers.threads > 1 else 0,
        Word.RUN: workers.entry,
        Word.MUCH: limits.much,
        Word.LARGE: limits.large,
    }
    for word, number in words.items():
        record[word] = number
    _records.append(record)
    definition = Definition(b"pair", _library().addresses["pair"], SEVERAL, __doc__)
    return cfunction(definition, record, room)


def tell(function: Pair, kernel: int, is_turned: bool) -> None:
    """Give a function a kernel: for rows of numbers along the columns, or along the depth."""
    record: Record = function.__self__  # type: ignore[attr-defined]
    record[Word.TURNED_KERNEL if is_turned else Word.KERNEL] = kernel


_records: list[Record] = []


def _forget_teams() -> None:
    for record in _records:
        record[Word.TEAM] = 0


if hasattr(os, "register_at_fork"):
    # A forked process has none of its parent's threads: its short products are made by one.
    os.register_at_fork(after_in_child=_forget_teams)


@functools.cache
def _library() -> Any:
    return library("pairs", text(), ["pair"])
