"""Calling a function of a module from Python: how its arguments go in and its result comes out.

    Limbo                        in                                out
    byte, int, big               an integer in range               int
    real                         a real number                     float
    string                       str, or None for nil              str, "" for nil
    array of byte                bytes, a list, or None for nil    bytes, empty for nil
    other arrays, lists          a sequence, or None for nil       list, empty for nil
    tuple                        a sequence of its length          tuple
    ref to an ADT, channel       a number that came out, or None   a number, None for nil
    no result                                                      None

Numbers of NumPy count as numbers. An ADT or a channel passes only where the function's type is
given. One that comes out is lent to the caller: it lives until ``take_back`` or until the machine
is closed. One that goes in stays the caller's.
"""

from __future__ import annotations

import functools
import numbers
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbol_core.errors import LinkError, UsageError
from llmbol_core.vm import given, heaptypes
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    NONE,
    REAL,
    RESULT,
    STRING,
    Field,
    Function,
    Reference,
    Tuple,
    Type,
    frame,
    pointer_map,
)
from llmbol_core.vm.module import Export, TypeDescriptor
from llmbol_core.vm.objects import Heap
from llmbol_core.vm.offers import check_call
from llmbol_core.vm.signature import type_signature
from llmbol_core.vm.verification.needs import Need, Shape, value_parts

if TYPE_CHECKING:
    from llmbol_core.vm.loader import LoadedModule

INIT_SIGNATURE = 0x4244B354
"""That of ``init: fn(nil: ref Draw->Context, argv: list of string)``, where programs begin."""
STACK_CODE_RESULTS = {type_signature(Function((), kind)): kind for kind in (INT, BIG, REAL)}
"""The result of stack code's ``main: fn(): T``, by its signature."""

_BYTES = Reference("array", BYTE)
INIT = Function((Field("nil", STRING), Field("argv", Reference("list", STRING))))
"""Laid out like init's type, whose first argument is a reference of another kind, nil here."""


class _Number(NamedTuple):
    """How numbers of a type pass: one at a time, or many as the items of a Python array."""

    get: Callable[[Heap, int], Any]
    put: Callable[[Heap, int, Any], None]
    bits: int
    item: str


_NUMBERS: dict[Type, _Number] = {
    BYTE: _Number(Heap.byte, Heap.set_byte, 8, "B"),
    INT: _Number(Heap.word, Heap.set_word, 32, "i"),
    BIG: _Number(Heap.big, Heap.set_big, 64, "q"),
    REAL: _Number(Heap.real, Heap.set_real, 0, "d"),
}
_ELEMENTS: dict[Type, int] = {
    BYTE: heaptypes.BYTE,
    INT: heaptypes.WORD,
    BIG: heaptypes.BIG,
    REAL: heaptypes.REAL,
}


@functools.cache
def _storage(kind: Type, least: int = 0) -> TypeDescriptor:
    """Return the descriptor of storage for one value; the same object each time."""
    size = max(kind.size, least)
    return TypeDescriptor(-1, size, pointer_map(size, kind.pointers() if kind.size else ()))


def needed(kind: Function) -> Need:
    """Return what a call needs of a function of a type: the arguments stored, and the result."""
    stores = {
        part._replace(offset=place.offset + part.offset)
        for place in frame(kind).arguments
        for part in value_parts(_storage(place.type).size, _storage(place.type).pointers)
    }
    result = _storage(kind.result, 8)
    return Need(stores, results={Shape(result.size, result.pointers)})


def main_type(name: str, export: Export) -> Function:
    """Return the type of stack code's main; raises LinkError if it does not return a number."""
    if export.signature not in STACK_CODE_RESULTS:
        raise LinkError(name, "exports neither init nor a main that returns a number")
    return Function((), STACK_CODE_RESULTS[export.signature])


def prepare(
    heap: Heap, loaded: LoadedModule, export: Export, kind: Function, values: Sequence[Any]
) -> tuple[int, Callable[[int], None]]:
    """Return a record for the result of a call, owned by the caller, and what fills its frame.

    Raises LinkError if the function is not what its type says, UsageError for a wrong number of
    values. The function that fills the frame raises UsageError for values of other types.
    """
    name = export.name
    check_call(heap, loaded, export, needed(kind))
    places = frame(kind).arguments
    if len(values) != len(places):
        raise UsageError(f"{name} takes {len(places)} arguments, not {len(values)}")
    result = heap.new_record(_storage(kind.result, 8))

    def fill(address: int) -> None:
        heap.set_pointer(address + RESULT, result)
        for number, (place, value) in enumerate(zip(places, values, strict=True), 1):
            try:
                store(heap, address + place.offset, place.type, value)
            except UsageError as error:
                raise UsageError(f"argument {number} of {name}: {error}") from None

    return result, fill


# Into the heap


def store(heap: Heap, address: int, kind: Type, value: Any) -> None:
    """Store a Python value of a Limbo type, releasing what was there. Raises UsageError."""
    if kind in _NUMBERS:
        _NUMBERS[kind].put(heap, address, _number(kind, value))
    elif kind is STRING:
        if not isinstance(value, str | None):
            raise _misfit(value, kind)
        heap.give(address, heap.new_string(value or ""))
    elif isinstance(kind, Tuple):
        if not isinstance(value, Sequence) or len(value) != len(kind.fields):
            raise _misfit(value, kind)
        for part, item in zip(kind.fields, value, strict=True):
            store(heap, address + part.offset, part.type, item)
    elif not isinstance(kind, Reference):
        raise _misfit(value, kind)
    elif kind.kind in ("ref", "chan"):
        if value is not None and (type(value) is not int or not heap.lent[value, kind]):
            raise _misfit(value, kind)
        heap.assign(address, NIL if value is None else value)
    else:
        heap.give(address, _new(heap, kind, value))


def _misfit(value: Any, kind: Type) -> UsageError:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # too long a number, lists in lists
        text = f"this {type(value).__name__}"
    return UsageError(f"{text if len(text) < 50 else f'{text[:46]}...'} is no {kind}")


def _number(kind: Type, value: Any) -> float:
    if kind is REAL and isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            raise _misfit(value, kind) from None
    if kind is REAL or not isinstance(value, numbers.Integral):
        raise _misfit(value, kind)
    whole, bits = int(value), _NUMBERS[kind].bits
    least = 0 if kind is BYTE else -1 << bits - 1
    if not least <= whole < least + (1 << bits):
        why = f"it goes from {least} to {least + (1 << bits) - 1}"
        raise UsageError(f"{_misfit(whole, kind)}: {why}")
    return whole


def _new(heap: Heap, kind: Reference, values: Any) -> int:
    """Return a new array or list."""
    if values is None:
        return NIL
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise _misfit(values, kind)
    check_length(values, heap.limit)
    return (_new_array if kind.kind == "array" else _new_list)(heap, kind.element, values)


def check_length(values: Sequence[Any], most: int) -> None:
    """Raise UsageError for more values than a memory of so many bytes can have."""
    with suppress(OverflowError):
        if len(values) <= most:
            return
    raise UsageError(f"there are more values than {most} bytes of memory can hold")


def _new_array(heap: Heap, element: Type, values: Sequence[Any]) -> int:
    if element in _NUMBERS:
        data = _packed(element, values)
        ref = heap.new_array(_ELEMENTS[element], len(values))
        heap.array_bytes(ref)[:] = data
        return ref
    ref = heap.new_array(_element(heap, element), len(values))
    try:
        for i, value in enumerate(values):
            store(heap, heap.array_data(ref) + i * element.size, element, value)
    except BaseException:
        heap.release(ref)
        raise
    return ref


def _packed(kind: Type, values: Sequence[Any]) -> bytes | memoryview:
    """Return numbers as the bytes of an array."""
    if isinstance(values, bytes | bytearray | memoryview):
        if kind is BYTE:
            return memoryview(values).cast("B")
        values = list(values)
    try:
        return array(_NUMBERS[kind].item, values).tobytes()
    except (TypeError, OverflowError):
        # Some number is wrong, or not one of Python's own: look at them one by one.
        return array(_NUMBERS[kind].item, [_number(kind, value) for value in values]).tobytes()


def _new_list(heap: Heap, element: Type, values: Sequence[Any]) -> int:
    number, ref = _element(heap, element), NIL
    try:
        for value in reversed(values):
            ref = heap.new_list(number, ref)
            store(heap, heap.head(ref), element, value)
    except BaseException:
        heap.release(ref)
        raise
    return ref


def _element(heap: Heap, kind: Type) -> int:
    """Return the number of the heap's type for elements of a type."""
    if kind in _NUMBERS:
        return _ELEMENTS[kind]
    is_pointer = kind is STRING or isinstance(kind, Reference)
    return heaptypes.POINTER if is_pointer else heap.type_number(_storage(kind))


# Out of the heap


def fetch(heap: Heap, address: int, kind: Type) -> Any:
    """Return the value of a Limbo type at an address as a Python value."""
    if kind is NONE:
        return None
    if kind in _NUMBERS:
        return _NUMBERS[kind].get(heap, address)
    if isinstance(kind, Tuple):
        return tuple(fetch(heap, address + part.offset, part.type) for part in kind.fields)
    ref = heap.pointer(address)
    if kind is STRING:
        return given.text(heap, ref)
    if not isinstance(kind, Reference):
        raise UsageError(f"no Python value for a {kind}")
    if kind.kind in ("ref", "chan"):
        return lend(heap, heap.retain(ref), kind)
    if kind == _BYTES:
        return b"" if ref == NIL else bytes(given.numbers(heap, ref, 1))
    if kind.kind == "list":
        nodes = given.nodes(heap, ref, kind.element)
        return [fetch(heap, heap.head(node), kind.element) for node in nodes]
    return _items(heap, ref, kind.element)


def lend(heap: Heap, ref: int, kind: Type) -> int | None:
    """Return the number that stands for an object in Python, or None for nil.

    It takes over a reference to the object, which lives until ``take_back`` or until the machine
    is closed. An object that is lent several times is to be taken back as often.
    """
    if ref == NIL:
        return None
    heap.lent[ref, kind] += 1
    return ref


def take_back(heap: Heap, lent: int | None, kind: Type) -> None:
    """Release what ``lend`` lent as an object of a type. Raises UsageError if nothing was."""
    if lent is None:
        return
    times = heap.lent.pop((lent, kind), 0)
    if not times:
        raise _misfit(lent, kind)
    if times > 1:
        heap.lent[lent, kind] = times - 1
    heap.release(lent)


def _items(heap: Heap, ref: int, element: Type) -> list[Any]:
    if element in _NUMBERS:
        items = array(_NUMBERS[element].item)
        if ref != NIL:
            items.frombytes(given.numbers(heap, ref, items.itemsize))
        return items.tolist()
    return [fetch(heap, place, element) for place in given.elements(heap, ref, element)]
