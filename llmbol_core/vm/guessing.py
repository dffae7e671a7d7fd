"""The type of a function of a module, found from its signature and from the arguments of a call.

An object file names a function's type only by its signature. So the types that the Python arguments
could stand for are tried, with each likely result, until one has that signature::

    int            int, big, byte, real           list     list or array of what its items could be
    float          real                           tuple    a tuple of such, or as a list
    str            string                         None     string, or a list or array
    bytes          array of byte

Results are tried from numbers and texts up to arrays of arrays and tuples of four. For any other
result the type must be given.
"""

from __future__ import annotations

import functools
import itertools
import numbers
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from llmbol_core.errors import LinkError, UsageError, as_name
from llmbol_core.vm.calling import INIT, INIT_SIGNATURE, check_length
from llmbol_core.vm.layout import (
    BIG,
    BYTE,
    INT,
    NONE,
    REAL,
    STRING,
    Field,
    Function,
    Reference,
    Tuple,
    Type,
)
from llmbol_core.vm.module import Export
from llmbol_core.vm.signature import fold, spelling, type_signature

Kind = Function | str | None
"""A function's type: as such, as Limbo spells it, or to be found."""

_BASIC = (INT, STRING, REAL, BIG, BYTE)
_NUMBERS = (INT, BIG, BYTE, REAL)
_MOST_TRIED = 200_000
_MOST_CHOICES = 200
MOST = 1 << 32
"""More bytes than any memory has."""


def function_type(
    module: str, export: Export, arguments: Sequence[Any], kind: Kind = None, most: int = MOST
) -> Function:
    """Return the type of an exported function: the one given, or one that takes such arguments.

    ``most`` is how many bytes there are for them. Raises LinkError if there is none, SourceError
    for a text that is no type, UsageError for more arguments than that.
    """
    if isinstance(kind, str):
        from llmbol_core.vm.limbo import parse_type

        parsed = parse_type(kind)
        if not isinstance(parsed, Function):
            raise LinkError(module, f"{export.name} is a function, not of type {parsed}")
        kind = parsed
    if kind is not None:
        if type_signature(kind) != export.signature:
            raise LinkError(
                module, f"{export.name} (signature {export.signature:08x}) is no {kind}"
            )
        return kind
    if export.signature == INIT_SIGNATURE:
        return INIT
    try:
        found = _found(export.signature, tuple(types_of(value, most) for value in arguments))
    except RecursionError:
        raise UsageError(f"the arguments of {export.name} nest too deeply") from None
    if found is None:
        given = ", ".join(type(value).__name__ for value in arguments) or "nothing"
        why = f"{export.name} (signature {export.signature:08x}) does not take {given}"
        raise LinkError(module, f"{why}; types that cannot be told have to be given")
    return found


@functools.lru_cache(maxsize=1024)
def _found(signature: int, choices: tuple[tuple[Type, ...], ...]) -> Function | None:
    tried = 0
    for kinds in itertools.product(*choices):
        fields = tuple(Field("", kind) for kind in kinds)
        for result in _with_signature(signature, fields):
            return Function(fields, result)
        tried += len(_results())
        if tried > _MOST_TRIED:
            break
    return None


def _with_signature(signature: int, fields: tuple[Field, ...]) -> Iterator[Type]:
    """Yield the results with which a function of some arguments has a signature."""
    head = spelling(Function(fields, NONE))[: -len(NONE.letter)]
    if "t(" not in head:
        yield from (kind for text, kind in _results() if fold(head + text) == signature)
        return
    # How a tuple is spelled depends on those before it.
    for _, kind in _results():
        if type_signature(Function(fields, kind)) == signature:
            yield kind


@functools.cache
def _results() -> tuple[tuple[str, Type], ...]:
    """Return what functions are likely to return, the likelier first, with their spellings."""
    rows = _rows(_BASIC)
    parts = (*_BASIC, *rows)
    tuples = [*_tuples(parts, 2), *_tuples((*_BASIC, rows[-1]), 3)]
    inner = _tuples(_BASIC, 2)
    found: list[Type] = [NONE, *_BASIC, *rows, *tuples, *_rows(rows), *_rows(tuples)]
    found += [*_tuples(_BASIC, 4), *_tuples(parts, 3), *_rows(_rows(rows))]
    found += [Tuple.of(pair) for pair in itertools.product(_BASIC, inner)]
    found += [Tuple.of(pair) for pair in itertools.product(inner, _BASIC)]
    return tuple((spelling(kind), kind) for kind in dict.fromkeys(found))


def _rows(kinds: Sequence[Type]) -> list[Type]:
    return [Reference(kind, element) for element in kinds for kind in ("list", "array")]


def _tuples(parts: Sequence[Type], size: int) -> list[Type]:
    return [Tuple.of(chosen) for chosen in itertools.product(parts, repeat=size)]


def given(arguments: Any, most: int, *names: Any) -> list[Any]:
    """Return the arguments of a call in numbers and lists of Python's own.

    Raises UsageError if they are no sequence, or too many for a memory of so many bytes, or if a
    name is no text.
    """
    for name in names:
        as_name(name)
    if isinstance(arguments, str | bytes) or not isinstance(arguments, Iterable):
        raise UsageError(f"the arguments should be a sequence, not {arguments!r}")
    if isinstance(arguments, Sequence):
        check_length(arguments, most)
    return [plain(value) for value in arguments]


def plain(value: Any) -> Any:
    """Return what NumPy has as numbers and lists of Python's own."""
    return value.tolist() if hasattr(value, "tolist") and not is_bytes(value) else value


def is_bytes(value: Any) -> bool:
    """Whether a value is bytes, one behind the other."""
    if isinstance(value, memoryview):
        return value.format == "B" and value.c_contiguous
    return isinstance(value, bytes | bytearray)


def types_of(value: Any, most: int = MOST) -> tuple[Type, ...]:
    """Return the Limbo types that a Python value can be passed as, none if there is none.

    Raises UsageError for more values than a memory of so many bytes can hold.
    """
    if isinstance(value, numbers.Integral):
        return _NUMBERS
    if isinstance(value, numbers.Real):
        return (REAL,)
    if isinstance(value, str):
        return (STRING,)
    if value is None:
        return (STRING, Reference("array", BYTE), *_rows(_BASIC))
    if is_bytes(value):
        return (Reference("array", BYTE),)
    if not isinstance(value, Sequence):
        return ()
    check_length(value, most)
    found = _rows(_types_of_all(value, most))
    if isinstance(value, tuple) and len(value) > 1:
        parts = itertools.product(*(types_of(part, most) for part in value))
        found += [Tuple.of(kinds) for kinds in itertools.islice(parts, _MOST_CHOICES)]
    return tuple(found)


def _types_of_all(values: Sequence[Any], most: int) -> Sequence[Type]:
    """Return the types that each of some values can be passed as."""
    if not values:
        return (*_BASIC, *_rows(_BASIC), *_tuples(_BASIC, 2))
    kinds = set(map(type, values))
    if kinds <= {int, float}:
        return _NUMBERS if kinds == {int} else (REAL,)
    found: Sequence[Type] = ()
    for number, value in enumerate(values):
        here = types_of(value, most)
        found = [kind for kind in found if kind in here] if number else here
        if not found:
            break
    return found
