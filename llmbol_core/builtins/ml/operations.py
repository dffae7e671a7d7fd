"""Every operation of the table as a function of $Ml: its names, inputs and attributes.

An input that may be left out is nil. A call whose kinds of inputs (shapes, storage types) and
attributes have been seen before goes straight to the operation; others are looked at first. With a
symbol among its inputs nothing is computed: the operation becomes part of the network being traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbol_core.builtins.binding import Direct, settle
from llmbol_core.builtins.ml import plans
from llmbol_core.builtins.ml.scratch import scratch_bytes
from llmbol_core.builtins.ml.tensors import (
    FAILURES,
    Slot,
    binding,
    compute,
    described,
    fault,
    keep,
    keep_view,
    slot_of,
)
from llmbol_core.errors import Trap
from llmbol_core.ml.dtypes import F32
from llmbol_core.ml.ops import OPS, Op
from llmbol_core.ml.tensor import Tensor
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.handles import new_handle, replace
from llmbol_core.vm.host import RESULT, HostCall, HostResult
from llmbol_core.vm.layout import Field, Frame, Reference
from llmbol_core.vm.objects import Heap

Array = NDArray[Any]
_KINDS = {int: "int", bool: "int", float: "real", tuple: "list of int"}
_MOST_KNOWN = 256
"""Kinds of calls of one operation that are remembered."""
_INLINE = 2_000_000
"""Floating-point operations of a call that is computed without further thought."""


@dataclass(frozen=True)
class _Kind:
    """What is known of calls with inputs of certain shapes and types and certain attributes."""

    run: Callable[..., Array]
    converts: tuple[bool, ...]
    """Which inputs must be brought into the form that the operation takes."""
    rank: int
    size: int
    bytes: int
    room: int
    """Bytes of the result and of what is needed meanwhile."""
    operations: int
    is_quick: bool


def declaration(row: Op) -> str:
    """Return the Limbo declaration of an operation.

    >>> declaration(OPS["leaky_relu"])
    'leaky_relu: fn(x: ref Tensor, slope: real): ref Tensor'
    """
    parts = [f"{name.rstrip('?')}: ref Tensor" for name in row.inputs]
    parts += [f"{attribute.name}: {_KINDS[attribute.kind]}" for attribute in row.attributes]
    return f"{row.name}: fn({', '.join(parts)}): ref Tensor"


def _bind(row: Op) -> Callable[[Frame], Direct]:
    """Return what makes the function of an operation."""
    count = len(row.inputs)

    def make(layout: Frame) -> Direct:
        places = [part.offset >> 2 for part in layout.arguments[:count]]
        attributes = _reader(row, layout.arguments[count:])
        kinds: dict[Any, _Kind] = {}
        result = RESULT >> 2

        def run(call: HostCall) -> HostResult:
            heap, frame = call.heap, call.frame
            pointers, at = heap.pointers, frame >> 2
            hosted = heap.hosted
            key: list[Any] = []
            values: list[Any] = []
            try:
                for place in places:
                    ref = pointers[at + place]
                    if ref == NIL:
                        key.append(None)
                        values.append(None)
                        continue
                    tensor = hosted[ref][0].tensor
                    key.append(tensor.shape)
                    key.append(tensor.dtype)
                    values.append(tensor)
                given = attributes(heap, frame) if attributes else ()
                kind = kinds[(*key, given)]
            except (KeyError, AttributeError):
                return _first(call, row, places, attributes, kinds)
            if (
                not kind.is_quick
                or kind.room > heap.limit - heap.used
                or "Ml" not in call.machine.session.holders
            ):
                return _computed(call, row, kind, values, pointers[at + places[0]])
            try:
                array = kind.run(*_arrays(row, kind, values))
            except (*FAILURES, MemoryError) as error:
                raise _refusal(row, error, values) from error
            slot = Slot(Tensor(array, row.dtype))
            made = new_handle(heap, slot, kind.bytes, kind.rank, kind.size)
            replace(heap, pointers[at + result], made)
            return None

        return run

    return make


def _arrays(row: Op, kind: _Kind, values: Sequence[Any]) -> list[Any]:
    """Return the inputs in the form that the operation takes."""
    return [
        value if value is None else row.value(name, value) if converts else value.data
        for name, value, converts in zip(row.inputs, values, kind.converts, strict=True)
    ]


def _first(
    call: HostCall,
    row: Op,
    places: Sequence[int],
    attributes: Callable[[Heap, int], tuple[Any, ...]] | None,
    kinds: dict[Any, _Kind],
) -> HostResult:
    """Do a call of a kind that has not been seen, or one with symbols."""
    heap = call.heap
    refs = [heap.pointers[(call.frame >> 2) + place] for place in places]
    slots = [slot_of(heap, ref) for ref in refs]
    if any(slot is None for slot in slots[: row.required]):
        raise Trap(traps.NIL_DEREFERENCE)
    given = attributes(heap, call.frame) if attributes else ()
    named = {a.name: a.kind(value) for a, value in zip(row.attributes, given, strict=True)}
    tensors = [None if slot is None else slot.tensor for slot in slots]
    try:
        if any(slot is not None and slot.symbol is not None for slot in slots):
            made = plans.traced(heap, row, slots, refs, named)
            replace(heap, heap.pointers[(call.frame + RESULT) >> 2], made)
            return None
        kind = _kind(row, tensors, named)
    except (*FAILURES, MemoryError) as error:
        raise _refusal(row, error, tensors) from error
    key = [part for t in tensors for part in ((None,) if t is None else (t.shape, t.dtype))]
    if len(kinds) >= _MOST_KNOWN:
        kinds.clear()
    kinds[(*key, given)] = kind
    return _computed(call, row, kind, tensors, refs[0])


def _kind(row: Op, tensors: Sequence[Tensor | None], attributes: dict[str, Any]) -> _Kind:
    """Look at a call: what it gives, what it takes. Raises ShapeError and DtypeError."""
    shapes = [None if tensor is None else tensor.shape for tensor in tensors]
    output = row.shape(*shapes, **attributes)
    size = math.prod(output)
    if size < 0 or any(n < 0 for n in output):
        raise ValueError(f"{list(output)} is no shape")
    width = row.dtype.layout.itemsize
    operations = row.cost(shapes, **attributes)[0] + size
    plain = [name.rstrip("?") for name in row.inputs]
    converts = tuple(
        tensor is not None and (tensor.dtype is not F32 or name in row.indices)
        for name, tensor in zip(plain, tensors, strict=True)
    )
    expanded = sum(
        4 * tensor.size
        for tensor, needed in zip(tensors, converts, strict=True)
        if tensor is not None and needed
    )
    room = size * width + scratch_bytes(row, output, shapes, attributes) + 2 * expanded
    is_quick = operations < _INLINE and not row.is_view
    run = partial(row.definition, **attributes)
    return _Kind(run, converts, len(output), size, size * width, room, operations, is_quick)


def _computed(
    call: HostCall, row: Op, kind: _Kind, tensors: Sequence[Tensor | None], source: int
) -> HostResult:
    """Compute a call by the careful way and store its result."""
    heap, address = call.heap, call.heap.pointers[(call.frame + RESULT) >> 2]

    def work() -> Tensor:
        try:
            array = kind.run(*_arrays(row, kind, tensors))
            return Tensor(np.asarray(array, order="C"), row.dtype)
        except (*FAILURES, MemoryError) as error:
            raise _refusal(row, error, tensors) from error

    def finish(tensor: Tensor) -> int:
        first = tensors[0] if row.is_view else None
        if first is not None and np.may_share_memory(tensor.data, first.data):
            return keep_view(heap, tensor, source)
        return keep(heap, tensor)

    made = compute(call, work, kind.room, kind.operations, finish)
    return settle(made, lambda ref: replace(heap, address, ref))


def _refusal(row: Op, error: Exception, tensors: Sequence[Tensor | None]) -> Trap:
    """Return the exception for a call that an operation refuses: what it was, what it was given."""
    if isinstance(error, Trap | MemoryError):
        return fault(error)
    given = ", ".join(
        f"{name.rstrip('?')} {described(tensor)}"
        for name, tensor in zip(row.inputs, tensors, strict=True)
        if tensor is not None
    )
    return Trap(f"{fault(error, row.name).name}; given {given}")


def _reader(row: Op, fields: Sequence[Field]) -> Callable[[Heap, int], tuple[Any, ...]] | None:
    """Return what reads the attributes of a call from its frame; None if there are none."""
    if not fields:
        return None
    reads: list[tuple[Callable[[Heap, int], Any], int]] = []
    for part in fields:
        if isinstance(part.type, Reference):
            reads.append((_numbers, part.offset))
        else:
            reads.append((Heap.real if part.type.size == 8 else Heap.word, part.offset))

    def read(heap: Heap, frame: int) -> tuple[Any, ...]:
        return tuple([get(heap, frame + offset) for get, offset in reads])

    return read


def _numbers(heap: Heap, address: int) -> tuple[int, ...]:
    """Return a list of int as a tuple."""
    nodes = heap.list_nodes(heap.pointer(address))
    return tuple([heap.word(heap.head(node)) for node in nodes])


for _row in OPS.values():
    binding.direct(declaration(_row))(_bind(_row))
