"""Classes declared once: their typed fields give constructor, checks, spec entries and help.

A family (layers, criterions, optimizers) is a base class; each subclass becomes a dataclass and a
row in the family's ``table`` under its own name. A field's type may carry a ``Range``; the same
check serves Python calls and specs.

    class Linear(Module):
        in_features: Size
        bias: bool = True
"""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, dataclass_transform

import numpy as np

from llmbol_core.errors import UsageError, nearest, visible


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field takes: from low to high, each bound counted in unless said."""

    low: float
    high: float | None = None
    without_low: bool = False
    without_high: bool = False

    def __contains__(self, value: float) -> bool:
        if not (value > self.low if self.without_low else value >= self.low):
            return False
        if self.high is None:
            return True
        return value < self.high if self.without_high else value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low}" if self.without_low else f"of at least {self.low}"
        if self.high is None:
            return low
        return f"{low} and {'below' if self.without_high else 'at most'} {self.high}"


class Printable:
    """The texts that fit into one line of a table."""

    def __contains__(self, text: str) -> bool:
        return visible(text) == text

    def __str__(self) -> str:
        return "without control characters"


Name = Annotated[str, Printable()]
Size = Annotated[int, Range(1)]
Count = Annotated[int, Range(0)]
Axis = Annotated[int, Range(1)]
"""An axis of a batch that is not the batch's own, which is axis 0."""
Seed = Annotated[int, Range(0, 2**32 - 1)]
Positive = Annotated[float, Range(0, without_low=True)]
NotNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1, without_high=True)]

_NAMED = 12
"""How many names of a family a complaint lists."""

_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


class FieldError(ValueError):
    """A value that a field does not take; the text says what it takes and what it got."""


@dataclass_transform(eq_default=False, field_specifiers=(dataclasses.field,))
class Declared:
    """Base of all families; see the module's text."""

    family: ClassVar[str] = ""
    table: ClassVar[dict[str, type[Self]]]
    shorthands: ClassVar[tuple[str, ...]] = ()
    """Keys of a spec, beside the fields, that stand for something else."""

    def __init_subclass__(cls, *, family: str = "", abstract: bool = False) -> None:
        """Make the class a dataclass and, unless it is abstract, a row of its family's table."""
        super().__init_subclass__()
        dataclasses.dataclass(eq=False, repr=False)(cls)
        if family:
            cls.family, cls.table = family, {}
        elif not abstract:
            cls.table[cls.__name__] = cls  # type: ignore[assignment]  # a row is its own Self

    def __post_init__(self) -> None:
        """Check the fields; subclasses make their state here."""
        self.check_fields()

    def check_fields(self) -> None:
        """Hold every field against its type, or raise ``UsageError``."""
        for name, hint in field_types(type(self)).items():
            try:
                setattr(self, name, convert(hint, getattr(self, name)))
            except FieldError as error:
                raise UsageError(f"{type(self).__name__}.{name}: {error}") from None

    @classmethod
    def lookup(cls, name: str) -> type[Self]:
        """Return the class of this name, or raise ``FieldError`` with the nearest name."""
        if name not in cls.table:
            first, rest = sorted(cls.table)[:_NAMED], len(cls.table) - _NAMED
            more = f" and {rest} more" if rest > 0 else ""
            known = nearest(name, cls.table) or f": expected one of {', '.join(first)}{more}"
            raise FieldError(f"unknown {cls.family} {name!r}{known}")
        return cls.table[name]

    def fields_config(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults, as YAML and JSON have them."""
        values = {field: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {f.name: _plain(value) for f, value in values.items() if value != f.default}

    def config(self) -> str | dict[str, Any]:
        """Return the spec entry that makes this object again: its name, or name and fields."""
        name, given = type(self).__name__, self.fields_config()
        return {name: given} if given else name


class Section(Declared, family="section", abstract=True):
    """Base of the parts of a spec that stand under a key of their own, not under their name."""

    def config(self) -> dict[str, Any]:
        """Return the fields that differ from their defaults."""
        return self.fields_config()


_FIELD_TYPES: dict[type, dict[str, Any]] = {}
"""What ``field_types`` found out; resolving annotations takes time."""


def field_types(cls: type) -> dict[str, Any]:
    """Return the type of each field, ranges included, in the order of the constructor."""
    if cls not in _FIELD_TYPES:
        hints = typing.get_type_hints(cls, include_extras=True)
        fields = sorted(dataclasses.fields(cls), key=lambda field: field.kw_only is True)
        _FIELD_TYPES[cls] = {field.name: hints[field.name] for field in fields}
    return _FIELD_TYPES[cls]


def required_fields(cls: type) -> list[str]:
    """Return the names of the fields without a default."""
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(cls)
        if field.default is missing and field.default_factory is missing
    ]


def member_type(hint: Any) -> type[Declared] | None:
    """Return the family of a field that holds a list of declared objects, or None."""
    if typing.get_origin(hint) is list:
        (member,) = typing.get_args(hint)
        if isinstance(member, type) and issubclass(member, Declared):
            return member
    return None


def describe(hint: Any) -> str:
    """Say in words what a field of this type takes.

    >>> describe(Size), describe(tuple[int, ...]), describe(float | None)
    ('an integer of at least 1', 'a list of integers', 'a number or nothing')
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{describe(arguments[0])} {arguments[1]}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else describe(a) for a in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (tuple, list):
        family = member_type(hint)
        if not family and typing.get_origin(arguments[0]) is Literal:
            return f"a list of words out of {', '.join(typing.get_args(arguments[0]))}"
        members = family.family if family else describe(arguments[0]).split(" ", 1)[1]
        return f"a list of {_plural(members)}"
    if issubclass(hint, Declared):
        return f"a {hint.family}"
    return _KINDS[hint]


def convert(hint: Any, value: Any) -> Any:
    """Return the value as the field's type has it, or raise ``FieldError``.

    Integers pass as numbers and lists as tuples, and what NumPy has of either as Python's; nothing
    else changes its type.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        result = convert(arguments[0], value)
        if result not in arguments[1]:
            raise FieldError(f"expected {describe(hint)}, got {reprlib.repr(value)}")
        return result
    if origin in (typing.Union, types.UnionType):
        return None if value is None else convert(arguments[0], value)
    if origin in (tuple, list):
        return _convert_members(hint, value)
    if isinstance(hint, type) and issubclass(hint, Declared):
        return _convert_object(hint, value)
    if hint is float:
        return _convert_number(value)
    if value not in arguments if origin is Literal else type(value) is not hint:
        near = nearest(value, arguments) if origin is Literal and isinstance(value, str) else ""
        raise FieldError(f"expected {describe(hint)}, got {reprlib.repr(value)}{near}")
    return value


def _convert_number(value: Any) -> float:
    """Return a whole or other number as float, if it has a finite one."""
    if type(value) not in (int, float):
        raise FieldError(f"expected {describe(float)}, got {reprlib.repr(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise FieldError(f"expected a finite number, got {reprlib.repr(value)}")
    return number


def _convert_object(family: type[Declared], value: Any) -> Any:
    """Return the value if it is of the family."""
    if not isinstance(value, family):
        raise FieldError(f"expected {describe(family)}, got {reprlib.repr(value)}")
    return value


def _convert_members(hint: Any, value: Any) -> Any:
    """Convert the members of a list or tuple."""
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise FieldError(f"expected {describe(hint)}, got {reprlib.repr(value)}")
    family = member_type(hint)
    if family:
        for member in value:
            if not isinstance(member, family):
                raise FieldError(f"expected {describe(hint)}, got {reprlib.repr(member)} in it")
        return list(value)
    try:
        members = [convert(typing.get_args(hint)[0], member) for member in value]
    except FieldError:
        raise FieldError(f"expected {describe(hint)}, got {reprlib.repr(list(value))}") from None
    return tuple(members)


def _plain(value: Any) -> Any:
    """Return a field's value as YAML and JSON have it."""
    if isinstance(value, Declared):
        return value.config()
    return [_plain(member) for member in value] if isinstance(value, list | tuple) else value


def _plural(noun: str) -> str:
    """Return the plural of ``integer of at least 1``: ``integers of at least 1``."""
    first, space, rest = noun.partition(" ")
    return f"{first}s{space}{rest}"
