"""What specs can say: layers, losses, optimizers and schedules with their fields."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from llmbol_core.errors import UsageError, nearest
from llmbol_core.nn.builder import FACTORIES
from llmbol_core.nn.criterions import Criterion
from llmbol_core.nn.declared import Declared, FieldError, describe, field_types, required_fields
from llmbol_core.nn.module import Module
from llmbol_core.nn.optim import Optimizer
from llmbol_core.nn.schedules import Schedule


@dataclass(frozen=True)
class LayerLine:
    """One layer in the list of all."""

    layer: str
    fields: str
    purpose: str


@dataclass(frozen=True)
class MemberLine:
    """One loss, optimizer or schedule in the list of all."""

    name: str
    fields: str
    purpose: str


@dataclass(frozen=True)
class Field:
    """One field; a field without a default is required."""

    field: str
    type: str
    default: Any
    required: bool


@dataclass(frozen=True)
class LayerEntry:
    """One layer: documentation, fields, and a spec entry with its input and output shapes."""

    layer: str
    documentation: str
    fields: list[Field]
    example: str | dict[str, Any]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]

    def __str__(self) -> str:
        lines = [self.layer, "", self.documentation, *_field_lines(self.fields)]
        shapes = f"{list(self.input_shape)} -> {list(self.output_shape)}"
        return "\n".join([*lines, "", "example", f"  {_shown(self.example)}   {shapes}"])


@dataclass(frozen=True)
class MemberEntry:
    """One loss, optimizer or schedule: documentation and fields."""

    name: str
    family: str
    documentation: str
    fields: list[Field]

    def __str__(self) -> str:
        title = f"{self.name} ({self.family})"
        return "\n".join([title, "", self.documentation, *_field_lines(self.fields)])


def _field_lines(fields: list[Field]) -> list[str]:
    """Return the lines about fields, if there are any."""
    width = max((len(field.field) for field in fields), default=0)
    lines = ["", "fields"] if fields else []
    for field in fields:
        default = "required" if field.required else f"default {_shown(field.default)}"
        lines.append(f"  {field.field:{width}}  {field.type}, {default}")
    return lines


OTHERS: dict[str, type[Declared]] = {
    family.family: family for family in (Criterion, Optimizer, Schedule)
}
"""The families beside the layers, by what specs call them."""


def list_members(family: str) -> list[MemberLine]:
    """Return all members of a family in alphabetical order."""
    return [
        MemberLine(name, " ".join(field_types(cls)), _documentation(cls).split("\n")[0])
        for name, cls in sorted(OTHERS[family].table.items())
    ]


def describe_member(name: str) -> LayerEntry | MemberEntry:
    """Return the description of a layer, a loss, an optimizer or a schedule."""
    for family, base in OTHERS.items():
        if name in base.table:
            cls = base.table[name]
            return MemberEntry(name, family, _documentation(cls), _fields(cls))
    others = [member for base in OTHERS.values() for member in base.table]
    known = nearest(name, [*Module.table, *others])
    if known and name not in Module.table and name not in FACTORIES:
        raise UsageError(f"unknown layer {name!r}{known}")
    return describe_layer(name)


def list_layers() -> list[LayerLine]:
    """Return all layers in alphabetical order."""
    lines = []
    for name, cls in sorted(Module.table.items()):
        fields = " ".join(field for field in field_types(cls) if field != "name")
        lines.append(LayerLine(name, fields, _documentation(cls).split("\n")[0]))
    return lines


def describe_layer(name: str) -> LayerEntry:
    """Return the description of one layer; builders' names, in lower case, serve too."""
    try:
        cls = FACTORIES.get(name) or Module.lookup(name)
    except FieldError as error:
        raise UsageError(str(error)) from error
    layer, shape = cls.example()
    output = layer.output_shape(shape)
    documentation = _documentation(cls)
    return LayerEntry(cls.__name__, documentation, _fields(cls), layer.config(), shape, output)


def _fields(cls: type[Declared]) -> list[Field]:
    """Return the fields of a class."""
    required = required_fields(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}  # type: ignore[arg-type]  # each is a dataclass
    return [
        Field(field, describe(hint), _default(defaults[field]), field in required)
        for field, hint in field_types(cls).items()
    ]


def _documentation(cls: type[Declared]) -> str:
    return inspect.getdoc(cls) or ""


def _default(value: Any) -> Any:
    """Return a default as JSON has it; lists of layers are empty."""
    if value is dataclasses.MISSING:
        return None
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    """Return a plain value in YAML's flow form."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(member)}" for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_shown, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else repr(value).replace("'", "") or '""'
