"""Arrays on their way to a node and back: the bytes of a ``.npy`` file."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.nn.data import Array, parse_npy, read_arrays


def array_bytes(value: Any) -> bytes:
    """Return an array, nested lists of numbers, or the array in a file, as ``.npy`` bytes."""
    array = _read(os.fspath(value)) if isinstance(value, str | os.PathLike) else _convert(value)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def array_of(data: bytes) -> Array:
    """Return the array that ``.npy`` bytes hold."""
    return parse_npy(data, "<task>")


def _read(path: str) -> Array:
    arrays = read_arrays(path)
    if len(arrays) != 1:
        raise UsageError(f"{path}: holds {len(arrays)} arrays ({', '.join(arrays)}); expected one")
    return next(iter(arrays.values()))


def _convert(value: Any) -> Array:
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise UsageError(f"an input that is no array of numbers: {error}") from error
    return array
