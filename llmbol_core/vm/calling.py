"""Calling a function of a module from Python: its type, its arguments, its result.

An object file names a function's type only by its signature. So the types that the Python arguments
could stand for are tried, with each likely result, until one has that signature::

    int             int, big, byte, real      list of str     list of string, array of string
    float           real                      list of int     list or array of int, big, real
    str, None       string                    list of float   list of real, array of real
    bytes           array of byte             tuple           a tuple of such, or as a list

A result comes back as int, float, str, bytes, list or tuple; a function without one gives None.
References to ADTs pass as the numbers they are, where the function's type is given: borrowed as
arguments, owned by the caller as results.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from llmbol_core.errors import LinkError
from llmbol_core.vm import heaptypes
from llmbol_core.vm.arena import NIL
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    NONE,
    REAL,
    RESULT,
    STRING,
    Basic,
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
from llmbol_core.vm.signature import type_signature

INIT_SIGNATURE = 0x4244B354
"""Of ``init: fn(nil: ref Draw->Context, argv: list of string)``, where Inferno programs begin."""
STACK_CODE_RESULTS = {type_signature(Function((), kind)): kind for kind in (INT, BIG, REAL)}
"""What stack code's ``main: fn(): T`` returns, by its signature."""

_BYTES = Reference("array", BYTE)
_ROWS = {
    kind: (Reference("list", kind), Reference("array", kind)) for kind in (INT, BIG, REAL, STRING)
}
_STRINGS = _ROWS[STRING][0]
INIT = Function((Field("nil", STRING), Field("argv", _STRINGS)))
"""As good as init's type: its first argument, nil here, is a reference of another kind."""
_PARTS = (INT, STRING, REAL, BIG, _BYTES)
_RESULTS: tuple[tuple[Type, ...], ...] = (
    (NONE, INT, STRING, REAL, BIG, BYTE, _BYTES, *itertools.chain(*_ROWS.values())),
    tuple(Tuple.of(parts) for n in (2, 3) for parts in itertools.product(_PARTS, repeat=n)),
)
"""What functions are likely to return, the likelier ones first."""


def function_type(
    module: str, export: Export, arguments: Sequence[Any], kind: Function | None = None
) -> Function:
    """Return the type of an exported function: the one given, or one that takes such arguments."""
    if kind is not None:
        if type_signature(kind) != export.signature:
            raise LinkError(
                module, f"{export.name} (signature {export.signature:08x}) is no {kind}"
            )
        return kind
    if export.signature == INIT_SIGNATURE:
        return INIT
    choices = [list(_types(value)) for value in arguments]
    for results in _RESULTS:
        for kinds in itertools.product(*choices):
            fields = tuple(Field("", kind) for kind in kinds)
            for result in results:
                found = Function(fields, result)
                if type_signature(found) == export.signature:
                    return found
    given = ", ".join(type(value).__name__ for value in arguments) or "nothing"
    why = f"{export.name} (signature {export.signature:08x}) does not take {given}"
    raise LinkError(module, why)


def _types(value: Any) -> Iterator[Type]:
    """Yield the Limbo types that a Python value can be passed as."""
    if isinstance(value, bool | int):
        yield from (INT, BIG, BYTE, REAL)
    elif isinstance(value, float):
        yield REAL
    elif isinstance(value, str) or value is None:
        yield STRING
    elif isinstance(value, bytes | bytearray | memoryview):
        yield _BYTES
    elif isinstance(value, list | tuple):
        kinds = set(map(type, value))
        for kind, row in _ROWS.items():
            if kinds <= ({str} if kind is STRING else {int, float} if kind is REAL else {int}):
                yield from row
        if isinstance(value, tuple) and len(value) > 1:
            for parts in itertools.product(*map(_types, value)):
                yield Tuple.of(parts)
    else:
        raise TypeError(f"no Limbo type for a {type(value).__name__}")


class _Number(NamedTuple):
    """How numbers of a type pass."""

    get: Callable[[Heap, int], Any]
    put: Callable[[Heap, int, Any], None]


_NUMBERS = {
    BYTE: _Number(Heap.byte, Heap.set_byte),
    INT: _Number(Heap.word, Heap.set_word),
    BIG: _Number(Heap.big, Heap.set_big),
    REAL: _Number(Heap.real, Heap.set_real),
}
_ELEMENTS = {
    BYTE: heaptypes.BYTE,
    INT: heaptypes.WORD,
    BIG: heaptypes.BIG,
    REAL: heaptypes.REAL,
    STRING: heaptypes.POINTER,
}


def descriptor(kind: Type) -> TypeDescriptor:
    """Return the descriptor of storage for one value."""
    size = max(kind.size, 8)
    return TypeDescriptor(-1, size, pointer_map(size, kind.pointers() if kind.size else ()))


def prepare(heap: Heap, kind: Function, values: Sequence[Any]) -> tuple[int, Callable[[int], None]]:
    """Return a place for the result of a call, which the caller owns, and what fills its frame."""
    places = frame(kind).arguments
    result = heap.new_record(descriptor(kind.result))

    def fill(address: int) -> None:
        heap.set_pointer(address + RESULT, result)
        for place, value in zip(places, values, strict=True):
            store(heap, address + place.offset, place.type, value)

    return result, fill


def store(heap: Heap, address: int, kind: Type, value: Any) -> None:
    """Store a Python value as one of a type; what was there is released."""
    if kind in _NUMBERS:
        _NUMBERS[kind].put(heap, address, value)
    elif kind is STRING:
        heap.give(address, heap.new_string(value or ""))
    elif isinstance(kind, Reference) and kind.kind == "ref":
        heap.assign(address, value)
    elif isinstance(kind, Tuple):
        for part, item in zip(kind.fields, value, strict=True):
            store(heap, address + part.offset, part.type, item)
    else:
        assert isinstance(kind, Reference)
        heap.give(address, _new(heap, kind, value))


def _new(heap: Heap, kind: Reference, values: Sequence[Any]) -> int:
    """Return a new array or list."""
    if kind is _BYTES:
        return heap.new_bytes(bytes(values))
    element = kind.element
    assert isinstance(element, Basic)
    number = _ELEMENTS[element]
    if kind.kind == "array":
        ref = heap.new_array(number, len(values))
        for i, value in enumerate(values):
            store(heap, heap.array_data(ref) + i * element.size, element, value)
        return ref
    ref = NIL
    for value in reversed(values):
        ref = heap.new_list(number, ref)
        store(heap, heap.head(ref), element, value)
    return ref


def fetch(heap: Heap, address: int, kind: Type) -> Any:
    """Return the value of a type at an address as a Python value."""
    if kind is NONE:
        return None
    if kind in _NUMBERS:
        return _NUMBERS[kind].get(heap, address)
    if isinstance(kind, Tuple):
        return tuple(fetch(heap, address + part.offset, part.type) for part in kind.fields)
    ref = heap.pointer(address)
    if kind is STRING:
        return heap.string(ref)
    assert isinstance(kind, Reference)
    if kind.kind == "ref":
        return heap.retain(ref)
    if kind is _BYTES:
        return bytes(heap.array_bytes(ref))
    if kind.kind == "list":
        return [fetch(heap, heap.head(node), kind.element) for node in heap.list_nodes(ref)]
    size = kind.element.size
    start = heap.array_data(ref) if ref != NIL else 0
    places = range(start, start + size * heap.array_length(ref), size)
    return [fetch(heap, place, kind.element) for place in places]
