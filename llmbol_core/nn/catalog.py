"""What specs can say: each layer with its fields, from the registry."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from typing import Any

from llmbol_core.errors import UsageError
from llmbol_core.nn import tables as _tables  # noqa: F401 -- fills the registry
from llmbol_core.nn.declared import FieldError, describe, field_types, required_fields
from llmbol_core.nn.module import Module


@dataclass(frozen=True)
class LayerLine:
    """One layer in the list of all."""

    layer: str
    fields: str
    purpose: str


@dataclass(frozen=True)
class Field:
    """One field of a layer; a field without a default is required."""

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
        width = max(len(field.field) for field in self.fields)
        lines = [self.layer, "", self.documentation, "", "fields"]
        for field in self.fields:
            default = "required" if field.required else f"default {_shown(field.default)}"
            lines.append(f"  {field.field:{width}}  {field.type}, {default}")
        shapes = f"{list(self.input_shape)} -> {list(self.output_shape)}"
        return "\n".join([*lines, "", "example", f"  {_shown(self.example)}   {shapes}"])


def list_layers() -> list[LayerLine]:
    """Return all layers in alphabetical order."""
    lines = []
    for name, cls in sorted(Module.table.items()):
        fields = " ".join(field for field in field_types(cls) if field != "name")
        lines.append(LayerLine(name, fields, _documentation(cls).split("\n")[0]))
    return lines


def describe_layer(name: str) -> LayerEntry:
    """Return what there is to know about one layer."""
    try:
        cls = Module.lookup(name)
    except FieldError as error:
        raise UsageError(str(error)) from error
    required = required_fields(cls)
    defaults = {f.name: f.default for f in dataclasses.fields(cls)}
    fields = [
        Field(field, describe(hint), _default(defaults[field]), field in required)
        for field, hint in field_types(cls).items()
    ]
    layer, shape = cls.example()
    output = layer.output_shape(shape)
    return LayerEntry(name, _documentation(cls), fields, layer.config(), shape, output)


def _documentation(cls: type[Module]) -> str:
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
