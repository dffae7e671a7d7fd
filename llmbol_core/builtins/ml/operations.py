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
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmbol_core.builtins.binding import Direct, settle
from llmbol_core.builtins.ml import plans
from llmbol_core.builtins.ml.scratch import scratch_bytes
from llmbol_core.builtins.ml.tensors import (
    FAILURES,
    NAME,
    NOTHING,
    Slot,
    binding,
    compute,
    described,
    fault,
    keep,
    keep_view,
    kind_of,
    slot_of,
    store,
)
from llmbol_core.errors import Trap
from llmbol_core.ml.dtypes import F32, StorageType
from llmbol_core.ml.ops import OPS, Op
from llmbol_core.ml.tensor import Tensor
from llmbol_core.vm import traps
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.given import nodes
from llmbol_core.vm.handles import replace
from llmbol_core.vm.host import RESULT, HostCall, HostResult
from llmbol_core.vm.layout import INT, Field, Frame, Reference
from llmbol_core.vm.objects import Heap

Array = NDArray[Any]
_KINDS = {int: "int", bool: "int", float: "real", tuple: "list of int"}
_MOST_KNOWN = 256
"""Kinds of calls of one operation that are remembered."""
_FEW = 8
"""Calls after which it is worth it to write an operation's function; a network is put together with
fewer."""
_INLINE, _SMALL = 2_000_000, 1 << 20
"""Floating-point operations and bytes of calls that are computed without further thought."""


@dataclass
class _Kind:
    """What is known of calls with inputs of certain shapes and types and certain attributes."""

    run: Callable[..., Array]
    converts: tuple[bool, ...]
    """Which inputs must be brought into the form that the operation takes."""
    dtype: StorageType
    result: int
    """The kind of the result."""
    rank: int
    size: int
    bytes: int
    room: int
    """Bytes of the result and of what is needed meanwhile."""
    operations: int
    is_quick: bool = False
    """Whether nothing needs care: small, no conversion, a new array in rows each time."""


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

    def make(layout: Frame) -> Direct:
        count = len(row.inputs)
        places = [part.offset >> 2 for part in layout.arguments[:count]]
        bound = _Bound(row, places, _reader(layout.arguments[count:]), {})
        written: list[Direct] = []
        calls = 0

        def run(call: HostCall) -> HostResult:
            nonlocal calls
            if written:
                return written[0](call)
            calls += 1
            if calls > _FEW:
                written.append(_written(bound))
            return bound.first(call)

        return run

    return make


def _written(bound: _Bound) -> Direct:
    """Return an operation's function for its layout, which goes straight to what is known."""
    scope: dict[str, Any] = {
        "kinds": bound.kinds,
        "attributes": bound.attributes,
        "first": bound.first,
        "computed": bound.computed,
        "refusal": partial(_refusal, bound.row),
        "store": store,
        "NOTHING": NOTHING,
        "FAILURES": (*FAILURES, MemoryError),
    }
    exec(_text(bound.row, bound.places), scope)
    run: Direct = scope["run"]
    return run


def _text(row: Op, places: Sequence[int]) -> str:
    """Return the source of an operation's function, whose loops over inputs are rolled out."""
    slots = ", ".join(f"s{i}" for i in range(len(places)))
    lines = [
        "def run(call):",
        " heap = call.heap",
        " P, hosted, at = heap.pointers, heap.hosted, call.frame >> 2",
        " try:",
    ]
    for i, (name, place) in enumerate(zip(row.inputs, places, strict=True)):
        if name.endswith("?"):
            lines.append(f"  r = P[at + {place}]")
            lines.append(f"  s{i} = NOTHING if r == {NIL} else hosted[r][0]")
        else:
            lines.append(f"  s{i} = hosted[P[at + {place}]][0]")
    key = [f"s{i}.kind" for i in range(len(places))]
    key += ["*attributes(heap, call.frame)"] if row.attributes else []
    arrays = ", ".join(f"s{i}.array" for i in range(len(places)))
    return "\n".join(
        [
            *lines,
            f"  kind = kinds[{', '.join(key)}]",
            " except (KeyError, AttributeError):",
            "  return first(call)",
            f" if not kind.is_quick or {NAME!r} not in call.machine.session.holders:",
            f"  return computed(call, kind, [{slots}])",
            " try:",
            f"  array = kind.run({arrays})",
            " except FAILURES as error:",
            f"  raise refusal(error, [{slots}]) from error",
            f" store(heap, P[at + {RESULT >> 2}], array, kind)",
        ]
    )


class _Bound(NamedTuple):
    """An operation as a function: where its arguments lie, which kinds of calls are known."""

    row: Op
    places: Sequence[int]
    attributes: Callable[[Heap, int], tuple[Any, ...]]
    kinds: dict[Any, _Kind]

    def first(self, call: HostCall) -> HostResult:
        """Do a call of a kind that is not known, or one with symbols."""
        heap, row = call.heap, self.row
        refs = [heap.pointers[(call.frame >> 2) + place] for place in self.places]
        slots = [slot_of(heap, ref) or NOTHING for ref in refs]
        if any(slot is NOTHING for slot in slots[: row.required]):
            raise Trap(traps.NIL_DEREFERENCE)
        given = self.attributes(heap, call.frame)
        named = {a.name: a.kind(value) for a, value in zip(row.attributes, given, strict=True)}
        try:
            if any(slot.symbol is not None for slot in slots):
                made = plans.traced(heap, row, slots, refs, named)
                replace(heap, heap.pointers[(call.frame + RESULT) >> 2], made)
                return None
            kind = _kind(row, [slot.tensor for slot in slots], named)
        except (*FAILURES, MemoryError) as error:
            raise _refusal(row, error, slots) from error
        if len(self.kinds) >= _MOST_KNOWN:
            self.kinds.clear()
        key = (*(slot.kind for slot in slots), *given)
        self.kinds[key if len(key) > 1 else key[0]] = kind
        return self.computed(call, kind, slots)

    def computed(self, call: HostCall, kind: _Kind, slots: Sequence[Slot]) -> HostResult:
        """Compute a call by the careful way and store its result."""
        row, heap = self.row, call.heap
        source = heap.pointers[(call.frame >> 2) + self.places[0]]
        address = heap.pointers[(call.frame + RESULT) >> 2]

        def work() -> Tensor:
            try:
                found = kind.run(*_inputs(row, kind, slots))
                array = np.asarray(found, order="C")
                kind.is_quick = _is_quick(row, kind, found, slots)
                return Tensor(array, row.dtype)
            except (*FAILURES, MemoryError) as error:
                raise _refusal(row, error, slots) from error

        def finish(tensor: Tensor) -> int:
            if row.is_view and np.may_share_memory(tensor.data, slots[0].array):
                return keep_view(heap, tensor, source)
            return keep(heap, tensor)

        made = compute(call, work, kind.room, kind.operations, finish)
        return settle(made, lambda ref: replace(heap, address, ref))


def _inputs(row: Op, kind: _Kind, slots: Sequence[Slot]) -> list[Any]:
    """Return the inputs in the form that the operation takes."""
    return [
        row.value(name, slot.tensor) if converts else slot.array
        for name, slot, converts in zip(row.inputs, slots, kind.converts, strict=True)
    ]


def _is_quick(row: Op, kind: _Kind, found: Any, slots: Sequence[Slot]) -> bool:
    """Return whether calls of a kind, of which this is a result, need no care."""
    if row.is_view or any(kind.converts) or kind.room > _SMALL or kind.operations > _INLINE:
        return False
    is_new = isinstance(found, np.ndarray) and found.flags.c_contiguous
    is_new = is_new and found.dtype == row.dtype.layout
    arrays = [slot.array for slot in slots if slot.array is not None]
    return is_new and not any(np.may_share_memory(found, array) for array in arrays)


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
    scratch = scratch_bytes(row, output, shapes, attributes) + row.buffers(shapes, attributes)
    room = size * width + scratch + 2 * expanded
    run = partial(row.bare, **attributes) if attributes else row.bare
    result = kind_of(output, row.dtype)
    numbers = (len(output), size, size * width, room, operations)
    return _Kind(run, converts, row.dtype, result, *numbers)


def _refusal(row: Op, error: Exception, slots: Sequence[Slot]) -> Trap:
    """Return the exception for a call that an operation refuses: what it was, what it was given."""
    if isinstance(error, Trap | MemoryError):
        return fault(error)
    given = ", ".join(
        f"{name.rstrip('?')} {described(slot)}"
        for name, slot in zip(row.inputs, slots, strict=True)
        if slot is not NOTHING
    )
    return Trap(f"{fault(error, row.name).name}; given {given}")


def _reader(fields: Sequence[Field]) -> Callable[[Heap, int], tuple[Any, ...]]:
    """Return what reads the attributes of a call from its frame."""
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
    found = nodes(heap, heap.pointer(address), INT)
    return tuple([heap.word(heap.head(node)) for node in found])


for _row in OPS.values():
    binding.direct(declaration(_row))(_bind(_row))
