"""The safetensors format: a header of names, types and shapes, then the bytes of the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save

from llmbol_core.errors import DataFormatError
from llmbol_core.native.files import atomic_write, read_bytes
from llmbol_core.nn.pytorch import widened

Array = NDArray[Any]

# fmt: off
_LAYOUTS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}
# fmt: on


def read_safetensors(path: str) -> dict[str, Array]:
    """Return the tensors of a file by name; bfloat16 comes as float32."""
    try:
        entries = safetensors.deserialize(read_bytes(path))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise DataFormatError(path, 0, f"not a safetensors file: {error}") from error
    return {name: _array(path, name, entry) for name, entry in entries}


def _array(path: str, name: str, entry: Mapping[str, Any]) -> Array:
    kind, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if kind == "BF16":
        return widened(np.frombuffer(data, "<u2")).reshape(shape)
    if kind not in _LAYOUTS:
        known = ", ".join([*_LAYOUTS, "BF16"])
        raise DataFormatError(path, 0, f"{name} is {kind}: expected one of {known}")
    return np.frombuffer(data, _LAYOUTS[kind]).reshape(shape)


def write_safetensors(path: str, state: Mapping[str, Array]) -> None:
    """Write tensors as float32; the file appears complete or not at all."""
    arrays = {name: np.ascontiguousarray(array, "<f4") for name, array in state.items()}
    data = save(arrays, {"format": "pt"})
    with atomic_write(path) as file:
        file.write(data)
