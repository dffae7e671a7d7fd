"""PyTorch's state files: a zip with a pickle that names tensors, and the bytes of their storages.

    archive/data.pkl     {"0.weight": _rebuild_tensor_v2(storage 0, offset, size, stride), ...}
    archive/data/0       the bytes of storage 0        archive/byteorder    "little"

The pickle is read by an unpickler that knows tensors and nothing else: no code of a file ever runs.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.errors import DataFormatError
from llmbol_core.native.files import atomic_write, read_bytes

Array = NDArray[Any]

# fmt: off
_STORAGES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bf16",
    "LongStorage":   "<i8", "IntStorage":   "<i4", "ShortStorage": "<i2", "CharStorage": "<i1",
    "ByteStorage":   "<u1", "BoolStorage":  "|b1",
}
# fmt: on
_MOST_VALUES = 1 << 34
_INSIDE = ("state_dict", "model_state_dict", "model", "weights", "network", "net")
"""Under which keys a training checkpoint keeps its weights."""


@dataclass(frozen=True)
class _Storage:
    """The kind of a storage, as the pickle names it."""

    layout: str


def read_state(path: str) -> dict[str, Array]:
    """Return the tensors of a state file by name, in their order, as NumPy arrays.

    Raises DataFormatError for anything but tensors: a pickled module would have to run code.
    """
    data = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive, path)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataFormatError(path, 0, f"not a PyTorch state file: {error}") from error


def _read(archive: zipfile.ZipFile, path: str) -> dict[str, Array]:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise DataFormatError(path, 0, "not a PyTorch state file: no data.pkl in it")
    root = names[0].removesuffix("data.pkl")
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise DataFormatError(path, 0, "its parts are compressed, which PyTorch never does")
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise DataFormatError(path, 0, "its numbers are not little-endian")
    reader = _Unpickler(archive, root)
    try:
        plain = reader.load()
    except _Refused as error:
        raise DataFormatError(path, 0, str(error)) from error
    except Exception as error:  # a damaged pickle raises anything
        raise DataFormatError(path, 0, f"a damaged pickle: {error}") from error
    return _tensors(plain, path)


def _tensors(plain: Any, path: str) -> dict[str, Array]:
    """Return the tensors of a dictionary, or of the one in it that holds weights."""
    if not isinstance(plain, dict):
        raise DataFormatError(
            path, 0, f"expected a dictionary of tensors, got {type(plain).__name__}"
        )
    found = {str(k): v for k, v in plain.items() if isinstance(v, np.ndarray)}
    if not found:
        for key in _INSIDE:
            if isinstance(plain.get(key), dict):
                return _tensors(plain[key], path)
        raise DataFormatError(path, 0, "there is no tensor in it")
    return found


class _Refused(Exception):
    """Something in a pickle that is no tensor."""


class _Unpickler(pickle.Unpickler):
    """Knows dictionaries, numbers, texts and tensors."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name, or refuse it."""
        if module == "torch" and name in _STORAGES:
            return _Storage(_STORAGES[name])
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, *rest: data,
            ("torch", "Size"): tuple,
        }
        if (module, name) not in known:
            why = f"it holds {module}.{name}: expected tensors only, as state_dict() gives them"
            raise _Refused(why)
        return known[module, name]

    def persistent_load(self, key: Any) -> Array:
        """Return the values of a storage."""
        kind, storage, name, *_ = key
        if kind != "storage" or not isinstance(storage, _Storage):
            raise _Refused(f"it refers to {kind!r}: expected a storage")
        data = self._archive.read(f"{self._root}data/{name}")
        return _values(data, storage.layout)


def _values(data: bytes, layout: str) -> Array:
    """Return the numbers that bytes are."""
    if layout != "bf16":
        return np.frombuffer(data, layout)
    return widened(np.frombuffer(data, "<u2"))


def widened(halves: Array) -> Array:
    """Return float32 from the upper halves of its bits, which is what bfloat16 is."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def _rebuild_tensor(
    storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *rest: Any
) -> Array:
    """Return the part of a storage that a tensor is; it must lie inside."""
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if any(n < 0 or s < 0 for n, s in zip(size, stride, strict=True)) or offset < 0:
        raise _Refused("a tensor with negative sizes")
    if math.prod(size) > _MOST_VALUES:
        raise _Refused("a tensor of more values than fit into memory")
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    if last >= len(storage):
        raise _Refused(f"a tensor of {math.prod(size)} values reaches beyond its storage")
    bytes_per = storage.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * bytes_per for s in stride], writeable=False
    )
    return np.array(view)


# ---- writing ----


def write_state(path: str, state: Mapping[str, Array]) -> None:
    """Write tensors as a state file that ``torch.load(path, weights_only=True)`` reads."""
    arrays = {name: np.ascontiguousarray(a, np.float32) for name, a in state.items()}
    with atomic_write(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry("data.pkl"), _pickled(arrays))
        archive.writestr(_entry("byteorder"), b"little")
        for number, array in enumerate(arrays.values()):
            archive.writestr(_entry(f"data/{number}"), array.astype("<f4").tobytes())
        archive.writestr(_entry("version"), b"3\n")


def _entry(name: str) -> zipfile.ZipInfo:
    """Return the entry of a part, with a fixed time: same weights, same file."""
    return zipfile.ZipInfo(f"archive/{name}", (1980, 1, 1, 0, 0, 0))


def _pickled(arrays: Mapping[str, Array]) -> bytes:
    """Return the pickle, protocol 2, of an ordered dictionary of tensors."""
    ordered = _named("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE
    parts = [pickle.PROTO + b"\x02", ordered, pickle.MARK]
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(s // array.itemsize for s in array.strides)
        storage = [_text("storage"), _named("torch", "FloatStorage"), _text(str(number))]
        storage += [_text("cpu"), _integer(array.size)]
        tensor = [_tuple(storage), pickle.BINPERSID, _integer(0)]
        tensor += [_tuple(map(_integer, array.shape)), _tuple(map(_integer, strides))]
        tensor += [pickle.NEWFALSE, ordered]
        parts += [_text(name), _named("torch._utils", "_rebuild_tensor_v2"), _tuple(tensor)]
        parts.append(pickle.REDUCE)
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _named(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _integer(number: int) -> bytes:
    if number < 1 << 31:
        return pickle.BININT + struct.pack("<i", number)
    data = number.to_bytes(8, "little", signed=True)
    return pickle.LONG1 + bytes([len(data)]) + data


def _tuple(parts: Any) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE
