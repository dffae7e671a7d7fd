"""What a compiled model carries after its code: the tensors of a GGUF payload, as rows to show."""

from __future__ import annotations

from dataclasses import dataclass

from llmbol_core.vm import contents, payload


@dataclass(frozen=True)
class TensorRow:
    """A tensor of the payload: its storage type, shape and bytes."""

    tensor: str
    dtype: str
    shape: str
    bytes: int


@dataclass(frozen=True)
class FileContents(contents.Contents):
    """All of a file but its code: that of the module, and the tensors of its payload."""

    tensors: tuple[TensorRow, ...] = ()


def list_contents(data: bytes, path: str) -> FileContents:
    """Return all that a .dis file says besides its code. Raises FormatError."""
    from llmbol_core.builtins.types import type_of

    found = contents.list_contents(data, path, type_of)
    return FileContents(**vars(found), tensors=_tensors(data, path))


def _tensors(data: bytes, path: str) -> tuple[TensorRow, ...]:
    carried = payload.find(memoryview(data), path)
    if carried is None or bytes(carried[:4]) != b"GGUF":
        return ()
    from llmbol_core.ml import gguf

    tensors = gguf.read_buffer(carried, path).tensors
    return tuple(
        TensorRow(name, tensor.dtype.name, "x".join(map(str, tensor.shape)), tensor.data.nbytes)
        for name, tensor in tensors.items()
    )
