"""Arrays on their way to a node and back: the bytes of a ``.npy`` file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmbol_core.errors import UsageError
from llmbol_core.nn.data import NPY_MAGIC, Array, npy_header, parse_npy

if TYPE_CHECKING:
    from llmbol_core.nn.checkpoint import InferenceModel


def npy_head(like: Array, length: int) -> bytes:
    """Return the header of a ``.npy`` file for so many rows like those of an array."""
    stream = io.BytesIO()
    words = {"descr": like.dtype.str, "fortran_order": False, "shape": (length, *like.shape[1:])}
    np.lib.format.write_array_header_1_0(stream, words)
    return stream.getvalue()


def npy_bytes(parts: Sequence[Array]) -> bytes:
    """Return parts of one array, rows of the same kind, as ``.npy`` bytes."""
    head = npy_head(parts[0], sum(map(len, parts)))
    return b"".join((head, *(np.ascontiguousarray(part).reshape(-1).data for part in parts)))


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


def outputs(model: InferenceModel, name: str, head: bytes, body: memoryview) -> bytes:
    """Return a model's outputs as ``.npy`` bytes, for samples given as head and body of a file."""
    from llmbol_core.nn.infer import infer_parts, read_inputs

    if head.startswith(NPY_MAGIC):
        dtype, shape, order, _ = npy_header(head, name)
        samples = np.frombuffer(body, dtype).reshape(shape, order=order)
    else:
        samples = read_inputs(model, name, head + body if head else bytes(body))
    return npy_bytes(list(infer_parts(model, samples)))
