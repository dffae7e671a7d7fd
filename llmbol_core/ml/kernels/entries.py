"""What records of operations on whole arrays hold: addresses of kernels, for calls from Python."""

from __future__ import annotations

import ctypes

from llmbol_core.ml.kernels import (
    columnwise,
    elementwise,
    folds,
    maps,
    moves,
    norms,
    objects,
    rows,
    rowwise,
)
from llmbol_core.ml.kernels.declaration import Kernel
from llmbol_core.ml.kernels.library import address_of

Words = tuple[int, ...]


def map_words(name: str, many: int) -> tuple[int, Words]:
    """Return what is called for an operation on single values, and the words of its record.

    ``many`` is how many numbers are worth several threads.
    """
    single: tuple[Kernel | None, ...] = (None, None)
    is_copy = name == "copy"
    if is_copy:
        inputs, kernel = 1, moves.copy
    elif name in elementwise.UNARY:
        inputs, kernel = 1, elementwise.UNARY_KERNELS[name]
    elif name in elementwise.BINARY:
        inputs, kernel = 2, elementwise.PAIR_KERNELS[name]
        single = (elementwise.SECOND_KERNELS[name], elementwise.FIRST_KERNELS[name])
    else:
        inputs, kernel = 3, moves.where
    found = (kernel, *single, maps.walk)
    words = (inputs, *map(_address, found), many)
    movers = (moves.move, moves.turn) if is_copy else (None, None)
    return address_of(maps.apply), (*words, int(is_copy), *map(_address, movers))


def fold_words(name: str, many: int) -> tuple[int, Words]:
    """Return the same for an operation along an axis."""
    convert = ctypes.cast(ctypes.pythonapi.PyLong_AsLongAndOverflow, ctypes.c_void_p)
    kernels: tuple[Kernel | None, ...]
    if name in rowwise.SCANS:
        kernels = (rowwise.SCANS[name], None, None, columnwise.SCANS[name])
    else:
        kernels = (*rowwise.FOLD_KERNELS[name], columnwise.COLUMN_KERNELS[name])
    forms = (int(name in rowwise.SCANS), int(name == "mean"))
    longest = rows.LONGEST if "softmax" in name else 1 << 62
    known = (id(int), convert.value or 0, id(True), longest)
    words = (*map(_address, kernels), *forms, many, *known)
    return address_of(folds.apply), words


def _address(kernel: Kernel | None) -> int:
    return 0 if kernel is None else address_of(kernel)


def norm_words(name: str, many: int) -> tuple[int, Words]:
    """Return the same for a normalization of rows."""
    forms = (int(name == "layer_norm"), int(name != "l2_norm"))
    return address_of(norms.apply), (address_of(rows.normalize), *forms, many, id(None))


def share() -> int:
    """Return what shares kernels among threads."""
    return address_of(objects.share)
