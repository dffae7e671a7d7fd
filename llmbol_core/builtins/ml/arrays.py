"""Weights of the payload; tensors from Dis arrays and back; numbers as text."""

from __future__ import annotations

import json
import math
import weakref
from typing import Any

import numpy as np

from llmbol_core.builtins import sysfile
from llmbol_core.builtins.ml.samples import file_of
from llmbol_core.builtins.ml.tensors import (
    FAILURES,
    admit,
    binding,
    fault,
    keep,
    keep_view,
    slot_of,
    tensor_of,
)
from llmbol_core.errors import Trap
from llmbol_core.ml import gguf
from llmbol_core.ml.constants import shared_expansion
from llmbol_core.ml.dtypes import StorageType, storage_type
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.ml.text import format_rows
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.files.openfile import FileFault
from llmbol_core.vm.heaptypes import BYTE, REAL
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.objects import ARRAY, Heap

_ROWS = 1024
"""How many rows are turned into text at once."""

_payloads: weakref.WeakKeyDictionary[Any, gguf.GgufFile] = weakref.WeakKeyDictionary()


@binding.function("payload: fn(name: string): ref Tensor")
def payload(call: HostCall, name: str) -> int:
    """Return a weight of the file that the calling module came from."""
    caller = call.caller
    if caller is None or caller.payload is None:
        raise Trap("ml: payload: the module's file carries none, or has lost its end")
    try:
        if caller not in _payloads:
            _payloads[caller] = gguf.read_buffer(caller.payload, caller.path)
        tensors = _payloads[caller].tensors
    except FAILURES as error:
        raise fault(error, "payload") from error
    if name not in tensors:
        raise Trap(f"ml: payload: no tensor {name!r}")
    return keep_view(call.heap, tensors[name], name=name)


@binding.function("dequantize: fn(t: ref Tensor): ref Tensor")
def expanded(call: HostCall, t: int) -> int:
    """Return the float32 numbers that a tensor's blocks stand for."""
    tensor = tensor_of(call.heap, t)
    try:
        shared = shared_expansion(tensor)
        if shared is not None:
            return keep_view(call.heap, Tensor(shared))
        admit(call.heap, 12 * tensor.size)
        found = np.array(dequantize(tensor), order="C")
    except (*FAILURES, MemoryError) as error:
        raise fault(error, "dequantize") from error
    return keep(call.heap, Tensor(found))


@binding.function("shape: fn(t: ref Tensor): list of int")
def shape_of(call: HostCall, t: int) -> list[int]:
    """Return how many elements there are along each axis; of a symbol, with a batch of 1."""
    slot = slot_of(call.heap, t)
    if slot is not None and slot.symbol is not None:
        return list(slot.symbol.value.shape)
    return list(tensor_of(call.heap, t).shape)


@binding.function("dtype: fn(t: ref Tensor): string")
def dtype_of(call: HostCall, t: int) -> str:
    """Return the name of the storage type."""
    return tensor_of(call.heap, t).dtype.name


# ---- from arrays ----


@binding.function("tensor: fn(values: array of real, shape: list of int): ref Tensor")
def made(call: HostCall, values: memoryview | None, shape: list[int]) -> int:
    """Return a float32 tensor of these numbers."""
    count = 0 if values is None else len(values)
    _check_shape("tensor", shape, count)
    admit(call.heap, 4 * count)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        numbers = np.asarray([] if values is None else values).astype(np.float32)
    return keep(call.heap, Tensor(numbers.reshape(shape)))


@binding.function("reals_view: fn(values: array of real, shape: list of int): ref Tensor")
def reals_view(call: HostCall, values: memoryview | None, shape: list[int]) -> int:
    """Return an F64 tensor that is the array: what is stored in one is in the other."""
    _check_shape("reals_view", shape, 0 if values is None else len(values))
    return _view(call, values, storage_type("F64"), shape)


@binding.function("view: fn(data: array of byte, dtype: string, shape: list of int): ref Tensor")
def view(call: HostCall, data: memoryview | None, dtype: str, shape: list[int]) -> int:
    """Return a tensor of a storage type whose bytes are the array's."""
    if any(n < 0 for n in shape):
        raise Trap(f"ml: view: {shape} is no shape")
    try:
        kind = storage_type(dtype)
        wanted = math.prod(kind.block_shape(tuple(shape))) * kind.layout.itemsize
    except FAILURES as error:
        raise fault(error, "view") from error
    count = 0 if data is None else len(data)
    if wanted != count:
        raise Trap(f"ml: view: {count} bytes, {kind.name} of shape {shape} takes {wanted}")
    return _view(call, data, kind, shape)


def _view(call: HostCall, data: memoryview | None, kind: StorageType, shape: list[int]) -> int:
    """Return a tensor in an array's memory, or in a copy where that does not lie as it must."""
    heap, owner = call.heap, call.heap.pointer(call.frame + 32)
    raw = memoryview(b"") if data is None else data.cast("B")
    address = heap.array_data(owner) if owner != NIL else 0
    if address % min(kind.layout.alignment, 8) or not raw:
        return keep(heap, Tensor.from_buffer(bytes(raw), kind, tuple(shape)))
    return keep_view(heap, Tensor.from_buffer(raw, kind, tuple(shape)), owner)


def _check_shape(what: str, shape: list[int], count: int) -> None:
    if any(n < 0 for n in shape) or math.prod(shape) != count:
        raise Trap(f"ml: {what}: {count} numbers do not fill the shape {shape}")


# ---- to arrays ----


def _same_array(heap: Heap, t: int, data: Any, number: int) -> int | None:
    """Return a new reference to the array, of a type of elements, that a tensor is a view of.

    None if it is a view of only a part of it, or of another one.
    """
    slot = slot_of(heap, t)
    # What a view of a tensor keeps is that tensor.
    if slot is None or slot.keeps == NIL or heap.type_of(slot.keeps) != ARRAY:
        return None
    if heap.word(slot.keeps + 4) != number:
        return None
    whole = heap.array_bytes(slot.keeps)
    start = np.frombuffer(whole, np.uint8).__array_interface__["data"][0] if whole else 0
    here = data.__array_interface__["data"][0]
    return heap.retain(slot.keeps) if (start, len(whole)) == (here, data.nbytes) else None


@binding.function("reals: fn(t: ref Tensor): array of real")
def reals(call: HostCall, t: int) -> int:
    """Return the numbers of a tensor, row after row; of a ``reals_view`` the array itself."""
    heap, tensor = call.heap, tensor_of(call.heap, t)
    is_real = tensor.dtype.name == "F64"
    if is_real and (same := _same_array(heap, t, tensor.data, REAL)) is not None:
        return same
    ref = heap.new_array(REAL, tensor.size)
    out = np.frombuffer(heap.array_bytes(ref), np.float64)
    plain = tensor.data if tensor.dtype.layout.kind == "f" else None
    out[:] = (dequantize(tensor) if plain is None else plain).ravel()
    return ref


@binding.function("bytes: fn(t: ref Tensor): array of byte")
def bytes_of(call: HostCall, t: int) -> int:
    """Return the bytes of a tensor as a file holds them; of a ``view`` the array itself."""
    heap, tensor = call.heap, tensor_of(call.heap, t)
    same = _same_array(heap, t, tensor.data, BYTE)
    if same is not None:
        return same
    return heap.new_bytes(np.ascontiguousarray(tensor.data).data.cast("B"))


# ---- to text ----


def _as_rows(tensor: Tensor) -> Any:
    """Return the numbers as float32, a row for each sample."""
    rows = dequantize(tensor)
    count = rows.shape[0] if rows.ndim else 1
    return rows.reshape(count, rows.size // max(count, 1))


@binding.function("print: fn(fd: ref FD, t: ref Tensor): int")
def print_rows(call: HostCall, fd: int, t: int) -> Any:
    """Write a line of tab-separated numbers for each row; return how many bytes that were."""
    return _write(call, fd, tensor_of(call.heap, t), format_rows)


@binding.function("print_json: fn(fd: ref FD, t: ref Tensor, is_first: int): int")
def print_json(call: HostCall, fd: int, t: int, is_first: int) -> Any:
    """Write each row as a JSON list on a line, a comma before all but the very first."""
    tensor = tensor_of(call.heap, t)
    begun = [not is_first]

    def text(rows: Any) -> str:
        parts = []
        for row in rows.reshape(len(rows), *tensor.shape[1:]):
            parts.append((",\n" if begun[0] else "") + _json(row.tolist()))
            begun[0] = True
        return "".join(parts)

    return _write(call, fd, tensor, text)


def _json(value: Any) -> str:
    """Return JSON, where null stands for what is no finite number."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(member) for member in value]
    return value if math.isfinite(value) else None


def _write(call: HostCall, fd: int, tensor: Tensor, text: Any) -> Any:
    """Write the text of a tensor, some rows at a time."""
    file, rows = file_of(call, fd), _as_rows(tensor)

    def steps() -> sysfile.Transfers:
        total = 0
        for start in range(0, len(rows), _ROWS):
            data = text(rows[start : start + _ROWS]).encode()
            total += yield sysfile.write_bytes(call, file, data)
        return total

    try:
        return sysfile.drive(steps())
    except FileFault as error:
        raise fault(error) from error


@binding.function("text: fn(t: ref Tensor): string")
def text(call: HostCall, t: int) -> str:
    """Return what ``print`` would write."""
    tensor = tensor_of(call.heap, t)
    admit(call.heap, 16 * tensor.size)
    return format_rows(_as_rows(tensor))


@binding.function("numeral: fn(x: real, is_json: int): string")
def numeral(call: HostCall, x: float, is_json: int) -> str:
    """Return a number as ``print`` writes it, or as ``print_json`` does."""
    return _json(x) if is_json else format_rows(np.array([[x]]))[:-1]
