"""Arrays on their way to a node and back: the bytes of a ``.npy`` file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.nn.data import Array, parse_npy


def array_bytes(value: Any) -> bytes:
    """Return an array, or nested lists of numbers, as ``.npy`` bytes of float32.

    >>> array_of(array_bytes([[1, 2]])).tolist()
    [[1.0, 2.0]]
    """
    try:
        array = np.asarray(value, np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise UsageError(f"an input that is no array of numbers: {error}") from error
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def array_of(data: bytes) -> Array:
    """Return the array that ``.npy`` bytes hold."""
    return parse_npy(data, "<task>")
