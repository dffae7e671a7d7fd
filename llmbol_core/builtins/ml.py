"""$Ml: tensors for Dis programs, and every operation of the table that works on them.

A ``ref Tensor`` stands for an array that the host keeps: its bytes count against the machine's
memory limit, and it goes away with its last reference. The numbers in the record tell a program
about the tensor; the host never reads them back. Weights are views of the payload that the calling
module's file carries: they are shared by all who map the file and cost the machine nothing.

The functions from the operation table have its names, inputs and attributes; an input that may be
left out is nil. What an operation refuses is an exception, ``ml: `` and the reason.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.builtins.binding import Binding, Pending
from llmbol_core.errors import LlmbolError, Trap
from llmbol_core.ml import gguf
from llmbol_core.ml.ops import OPS, Op
from llmbol_core.ml.quantization import dequantize
from llmbol_core.ml.tensor import Tensor
from llmbol_core.ml.text import format_rows
from llmbol_core.native.threads import single_threaded_blas
from llmbol_core.nn.data import read_arrays, read_samples
from llmbol_core.nn.model import conform
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.host import HostCall
from llmbol_core.vm.module import TypeDescriptor
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.openfile import FileFault, OpenFile

Array = NDArray[Any]

binding = Binding(
    "Ml",
    """
    FD: adt { fd: int; };
    Tensor: adt { rank: int; size: int; };
    """,
)

_RECORD = TypeDescriptor(-1, 8, b"")
_CHUNK = 1 << 20
_ROWS = 1024
"""How many rows are turned into text at once."""


def _fault(error: Exception) -> Trap:
    return Trap(f"ml: {error}")


class _Slot:
    """What the host keeps for a tensor's record; filled once its bytes have been accounted for."""

    __slots__ = ("tensor",)

    def __init__(self) -> None:
        self.tensor: Tensor | None = None


def _tensor(heap: Heap, ref: int) -> Tensor | None:
    """Return the tensor of a reference, None for nil. Raises Trap for any other record."""
    if ref == NIL:
        return None
    slot = heap.handle(ref)
    if not isinstance(slot, _Slot) or slot.tensor is None:
        raise Trap("ml: no tensor: a ref Tensor comes from a function of $Ml")
    return slot.tensor


def _keep(heap: Heap, make: Callable[[], Tensor], size: int) -> int:
    """Return a reference to what ``make`` returns, its bytes accounted for before it is made."""
    slot = _Slot()
    ref = heap.new_handle(slot, size, _RECORD)
    try:
        slot.tensor = make()
    except BaseException:
        heap.release(ref)
        raise
    heap.set_word(ref, slot.tensor.ndim)
    heap.set_word(ref + 4, min(slot.tensor.size, 0x7FFFFFFF))
    return ref


def _encode(heap: Heap, tensor: Tensor) -> int:
    """Return a reference to a tensor that exists; one that owns its bytes pays for them."""
    return _keep(heap, lambda: tensor, tensor.nbytes if tensor.data.base is None else 0)


binding.reference("Tensor", _tensor, lambda heap, made: made)


def _needed(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise Trap("dereference of nil")
    return tensor


# ---- the operation table ----


def _declaration(row: Op) -> str:
    """Return the Limbo declaration of an operation.

    >>> _declaration(OPS["leaky_relu"])
    'leaky_relu: fn(x: ref Tensor, slope: real): ref Tensor'
    """
    kinds = {int: "int", bool: "int", float: "real", tuple: "list of int"}
    parts = [f"{name.rstrip('?')}: ref Tensor" for name in row.inputs]
    parts += [f"{attribute.name}: {kinds[attribute.kind]}" for attribute in row.attributes]
    return f"{row.name}: fn({', '.join(parts)}): ref Tensor"


def _bind(row: Op) -> None:
    """Make a function of $Ml from a row of the operation table."""
    count = len(row.inputs)
    names = [attribute.name for attribute in row.attributes]
    kinds = [attribute.kind for attribute in row.attributes]

    def run(call: HostCall, *arguments: Any) -> int:
        inputs = arguments[:count]
        pairs = zip(names, kinds, arguments[count:], strict=True)
        attributes = {name: kind(value) for name, kind, value in pairs}
        try:
            values = [
                None if tensor is None else row.value(name, tensor)
                for name, tensor in zip(row.inputs, inputs, strict=True)
            ]
            if any(v is None for v in values[: row.required]):
                raise Trap("dereference of nil")
            shapes = [None if v is None else tuple(v.shape) for v in values]
            size = 4 * int(np.prod(row.shape(*shapes, **attributes), dtype=object))
            return _keep(call.heap, lambda: _computed(row, values, attributes), size)
        except (LlmbolError, TypeError, ValueError, IndexError) as error:
            raise error if isinstance(error, Trap) else _fault(error) from error

    binding.function(_declaration(row))(run)


def _computed(row: Op, values: list[Any], attributes: dict[str, Any]) -> Tensor:
    """Run an operation as the inference engine runs it, so that both give the same bits."""
    with single_threaded_blas():
        return Tensor(np.asarray(row.run(*values, **attributes), order="C"))


for _row in OPS.values():
    _bind(_row)


# ---- weights, files, numbers ----

_payloads: weakref.WeakKeyDictionary[Any, gguf.GgufFile] = weakref.WeakKeyDictionary()


@binding.function("payload: fn(name: string): ref Tensor")
def payload(call: HostCall, name: str) -> int:
    """Return a weight of the file that the calling module came from."""
    caller = call.caller
    if caller is None or caller.payload is None:
        raise Trap("ml: payload: the module's file carries none")
    try:
        if caller not in _payloads:
            _payloads[caller] = gguf.read_buffer(caller.payload, caller.path)
        tensors = _payloads[caller].tensors
        if name not in tensors:
            raise Trap(f"ml: payload: no tensor {name!r}")
        return _encode(call.heap, tensors[name])
    except LlmbolError as error:
        raise error if isinstance(error, Trap) else _fault(error) from error


@binding.function("dequantize: fn(t: ref Tensor): ref Tensor")
def expanded(call: HostCall, t: Tensor | None) -> int:
    """Return the float32 numbers that quantized blocks stand for."""
    blocks = _needed(t)
    return _keep(call.heap, lambda: Tensor(dequantize(blocks)), 4 * blocks.size)


def _file(call: HostCall, fd: int) -> OpenFile:
    """Return the open file of a ``ref FD`` of $Sys."""
    if fd == NIL:
        raise Trap("dereference of nil")
    try:
        return call.process.environment.descriptors[call.heap.word(fd)]
    except FileFault as error:
        raise _fault(error) from error


@binding.function(
    "samples: fn(fd: ref FD, array: string, targets: string, shape: list of int): ref Tensor"
)
def samples(call: HostCall, fd: int, array: str, targets: str, shape: list[int]) -> Pending:
    """Read a batch of samples of a shape from a .npy, .npz or .csv file.

    Of several arrays the one with the given name is taken; a table's column of targets is not.
    """
    file = _file(call, fd)

    def read() -> bytes:
        pieces = iter(lambda: file.read(_CHUNK), b"")
        return b"".join(pieces)

    def made(data: bytes) -> int:
        try:
            arrays = read_arrays(file.path, data)
            wanted = tuple(shape)
            found = conform(
                read_samples(arrays, array, targets, wanted, file.path), wanted, file.path
            )
            return _keep(call.heap, lambda: Tensor(found), found.nbytes)
        except LlmbolError as error:
            raise error if isinstance(error, Trap) else _fault(error) from error

    return Pending(read, made)


@binding.function("print: fn(fd: ref FD, t: ref Tensor): int")
def print_rows(call: HostCall, fd: int, t: Tensor | None) -> int:
    """Write a line of tab-separated numbers for each row; return how many bytes that were."""
    file, rows = _file(call, fd), dequantize(_needed(t))
    rows = rows.reshape(rows.shape[0] if rows.ndim else 1, -1)
    try:
        return sum(
            file.write(format_rows(rows[start : start + _ROWS]).encode())
            for start in range(0, len(rows), _ROWS)
        )
    except FileFault as error:
        raise _fault(error) from error


@binding.function("text: fn(t: ref Tensor): string")
def text(call: HostCall, t: Tensor | None) -> str:
    """Return what ``print`` would write."""
    return format_rows(dequantize(_needed(t)))


@binding.function("shape: fn(t: ref Tensor): list of int")
def shape_of(call: HostCall, t: Tensor | None) -> list[int]:
    """Return how many elements there are along each axis."""
    return list(_needed(t).shape)


@binding.function("dtype: fn(t: ref Tensor): string")
def dtype_of(call: HostCall, t: Tensor | None) -> str:
    """Return the name of the storage type."""
    return _needed(t).dtype.name


@binding.function("tensor: fn(values: array of real, shape: list of int): ref Tensor")
def tensor_of(call: HostCall, values: memoryview | None, shape: list[int]) -> int:
    """Return a float32 tensor of these numbers."""
    numbers = np.empty(0) if values is None else np.asarray(values)
    if any(n < 0 for n in shape) or int(np.prod(shape, dtype=object)) != len(numbers):
        raise Trap(f"ml: tensor: {len(numbers)} numbers do not fill the shape {shape}")
    return _keep(
        call.heap,
        lambda: Tensor(numbers.astype(np.float32).reshape(shape)),
        4 * len(numbers),
    )


@binding.function("reals: fn(t: ref Tensor): array of real")
def reals(call: HostCall, t: Tensor | None) -> list[float]:
    """Return the numbers of a tensor, row after row."""
    numbers: list[float] = dequantize(_needed(t)).ravel().tolist()
    return numbers
